//! A service of ours under systemd: that it runs now, and not only from the next boot on. Only then does what restarts
//! another service restart ours with it.

use std::time::Duration;

use super::{Capabilities, Knob, KnobError, Reading};
use crate::apply::id::TxId;
use crate::apply::tool;
use crate::facts::Layer;
use crate::firewall::boot;
use crate::host::command::Runner;
use crate::host::safe_file::Tree;

/// systemd may be busy with other jobs; ours is done within milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The only value.
pub const STARTED: &str = "started";

/// One service, by the name of its unit without the suffix. It has the value `started` while systemd holds it active, and
/// none otherwise.
#[derive(Debug)]
pub struct Service<'a> {
    tree: &'a Tree,
    target: String,
    unit: &'static str,
}

impl<'a> Service<'a> {
    /// `None` for a service that is not ours.
    pub fn new(tree: &'a Tree, name: &str) -> Option<Self> {
        (name == boot::NAME).then(|| Self { tree, target: boot::SERVICE.to_owned(), unit: boot::NAME })
    }

    fn unavailable(&self, reason: String) -> KnobError {
        KnobError::Unavailable { target: self.target.clone(), reason }
    }

    fn runner(&self, args: &[&str]) -> Result<Runner, KnobError> {
        let program = tool::find(self.tree, "systemctl").map_err(|error| self.unavailable(error.to_string()))?;
        Ok(Runner::new(program, PATIENCE).args(args))
    }

    fn systemctl(&self, args: &[&str]) -> Result<(), KnobError> {
        self.runner(args)?.run_checked().map(drop).map_err(|error| self.unavailable(error.to_string()))
    }
}

impl Knob for Service<'_> {
    fn target(&self) -> &str {
        &self.target
    }

    /// After the files that it is made of.
    fn layer(&self) -> Layer {
        Layer::Boot
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::live()
    }

    fn read(&self) -> Result<Reading, KnobError> {
        // systemctl(1), EXIT STATUS: 0 active, 3 not active, 4 no such unit.
        let asked = self.runner(&["is-active", "--quiet", self.unit])?;
        let output = asked.run().map_err(|error| self.unavailable(error.to_string()))?;
        match output.status.code() {
            Some(0) => Ok(Reading::of(STARTED)),
            Some(3 | 4) => Ok(Reading::default()),
            _ => Err(self.unavailable(format!("`systemctl is-active {}`: {}", self.unit, output.stderr.trim()))),
        }
    }

    fn validate(&self, after: &str) -> Result<(), KnobError> {
        if after == STARTED {
            return Ok(());
        }
        let (target, value) = (self.target.clone(), after.escape_default().to_string());
        Err(KnobError::BadValue { target, value, reason: format!("it can only be `{STARTED}`") })
    }

    /// There is nothing to put down; but without an answer from systemd it will not start either.
    fn stage(&self, _: &TxId, _: &str) -> Result<(), KnobError> {
        self.read().map(drop)
    }

    fn unstage(&self, _: &TxId) -> Result<(), KnobError> {
        Ok(())
    }

    fn write(&self, _: &TxId, _: &str) -> Result<(), KnobError> {
        self.systemctl(&["daemon-reload"])?;
        self.systemctl(&["start", self.unit])
    }

    fn restore(&self, tx: &TxId, to: &Reading) -> Result<(), KnobError> {
        match &to.value {
            Some(before) => self.validate(before).and_then(|()| self.write(tx, before)),
            None => self.systemctl(&["stop", self.unit]),
        }
    }

    fn is_shared(&self) -> bool {
        false
    }
}
