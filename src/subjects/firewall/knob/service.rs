//! The service of the guard under systemd: that it runs now, and not only from the next boot on. Only then does what restarts
//! another service restart ours with it.

use std::time::Duration;

use crate::apply::tool;
use crate::change::id::TxId;
use crate::change::knob::{Capabilities, Knob, KnobError, Reading};
use crate::facts::Layer;
use crate::host::command::{Output, Runner};
use crate::host::safe_file::Tree;
use crate::subjects::firewall::model::boot;

/// systemd may be busy with other jobs; ours is done within milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The only value.
pub const STARTED: &str = "started";

/// One service, by the name of its unit without the suffix. It has the value `started` while systemd holds it active
/// or is about to start it, and none otherwise.
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

    fn systemctl(&self, args: &[&str]) -> Result<Output, KnobError> {
        self.runner(args)?.run_checked().map_err(|error| self.unavailable(error.to_string()))
    }

    /// Whether systemd is still carrying out the boot. A recovery may be a part of that, and what is started then waits for
    /// others that wait for the recovery.
    fn is_booting(&self) -> Result<bool, KnobError> {
        // Its exit code only says whether all is well.
        let asked = self.runner(&["is-system-running"])?;
        let output = asked.run().map_err(|error| self.unavailable(error.to_string()))?;
        Ok(matches!(output.stdout.trim(), "initializing" | "starting"))
    }
}

/// Whether the answer of `systemctl show` is that of a unit that is active, or that systemd has a job for: the boot is about
/// to start it.
fn is_started(answer: &str) -> bool {
    let value = |key: &str| answer.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value("ActiveState") == Some("active") || value("Job").is_some_and(|job| !matches!(job, "" | "0"))
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
        let answer = self.systemctl(&["show", "--property=ActiveState,Job", self.unit])?;
        Ok(if is_started(&answer.stdout) { Reading::of(STARTED) } else { Reading::default() })
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
        let args: &[&str] =
            if self.is_booting()? { &["start", "--no-block", self.unit] } else { &["start", self.unit] };
        self.systemctl(args).map(drop)
    }

    fn restore(&self, tx: &TxId, to: &Reading) -> Result<(), KnobError> {
        match &to.value {
            Some(before) => self.validate(before).and_then(|()| self.write(tx, before)),
            None => self.systemctl(&["stop", self.unit]).map(drop),
        }
    }

    fn is_shared(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers of systemd 252 for a unit that runs, that the boot has yet to start, that is stopped, and that is not there.
    #[test]
    fn a_service_is_started_when_it_runs_or_is_about_to() {
        assert!(is_started("ActiveState=active\n"));
        assert!(is_started("ActiveState=inactive\nJob=41\n"));
        assert!(!is_started("ActiveState=inactive\n"));
        assert!(!is_started("ActiveState=failed\nJob=0\n"));
        assert!(!is_started(""));
    }
}
