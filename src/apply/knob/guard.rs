//! The guard in the running kernel: one nftables table, ours alone.

use std::time::Duration;

use super::{Capabilities, Knob, KnobError, Reading};
use crate::apply::id::TxId;
use crate::apply::tool;
use crate::facts::Layer;
use crate::firewall::guard::{self, TABLE};
use crate::firewall::writer::Writer;
use crate::host::command::{CommandError, Output, Runner};
use crate::host::safe_file::Tree;

/// nft answers within milliseconds; a host under load gets time.
const PATIENCE: Duration = Duration::from_secs(20);

/// How nft is called to load a table. Nobody else writes it so, and a run that was killed may have left one behind.
const LOAD: [&str; 2] = ["--file", "-"];

/// The table `inet preflight`. Its value is the table as text, in the form of [`guard::tidy`].
#[derive(Debug)]
pub struct NftGuard<'a> {
    tree: &'a Tree,
    target: String,
}

impl<'a> NftGuard<'a> {
    /// `None` for any other name.
    pub fn new(tree: &'a Tree, name: &str) -> Option<Self> {
        (name == Writer::Nft.name()).then(|| Self { tree, target: format!("guard:{name}") })
    }

    fn run(&self, args: &[&str], input: Option<String>) -> Result<Output, KnobError> {
        let nft = tool::find(self.tree, "nft").map_err(|error| self.unavailable(error.to_string()))?;
        let mut runner = Runner::new(nft, PATIENCE).args(args);
        if let Some(input) = input {
            runner = runner.input(input);
        }
        runner.run_checked().map_err(|error: CommandError| self.unavailable(error.to_string()))
    }

    fn unavailable(&self, reason: String) -> KnobError {
        KnobError::Unavailable { target: self.target.clone(), reason }
    }

    /// Loads the table in one transaction of the kernel; with `trial` it is only looked at.
    fn load(&self, text: &str, trial: bool) -> Result<(), KnobError> {
        let args: &[&str] = if trial { &["--check", "--file", "-"] } else { &LOAD };
        self.run(args, Some(format!("{}{text}", guard::REMOVE))).map(drop)
    }
}

impl Knob for NftGuard<'_> {
    fn target(&self) -> &str {
        &self.target
    }

    fn layer(&self) -> Layer {
        Layer::Live
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { connectivity_risk: true, ..Capabilities::live() }
    }

    fn read(&self) -> Result<Reading, KnobError> {
        tool::wait_for(&LOAD.map(str::to_owned));
        let tables = self.run(&["list", "tables"], None)?.stdout;
        if !tables.lines().any(|line| line.trim().strip_prefix("table ") == Some(TABLE)) {
            return Ok(Reading::default());
        }
        let (family, name) = TABLE.split_once(' ').unwrap_or_default();
        let listing = self.run(&["-s", "-y", "list", "table", family, name], None)?.stdout;
        Ok(Reading::of(guard::tidy(&listing)))
    }

    fn validate(&self, after: &str) -> Result<(), KnobError> {
        if guard::is_one_table(after) {
            return Ok(());
        }
        let value = format!("{} bytes", after.len());
        let reason = format!("it is not the table {TABLE} alone");
        Err(KnobError::BadValue { target: self.target.clone(), value, reason })
    }

    /// The kernel itself says whether it would take it, and what is there now: somebody may have given a table of his own
    /// this name, and what could not be put back is not taken away.
    fn stage(&self, _: &TxId, after: &str) -> Result<(), KnobError> {
        if let Some(before) = self.read()?.value {
            if guard::is_owned(&before) {
                let next = "`nft list table inet preflight` names it: stop it, and try again";
                let reason = format!("the table {TABLE} belongs to a program that runs, and only that may change it");
                return Err(self.unavailable(format!("{reason}; {next}")));
            }
            let restorable = self.validate(&before).and_then(|()| self.load(&before, true));
            restorable.map_err(|error| {
                let reason = format!("the table {TABLE} that is there could not be put back by a rollback ({error})");
                let next = "save it with `nft list table inet preflight`, and delete or rename it";
                self.unavailable(format!("{reason}; {next}"))
            })?;
        }
        self.load(after, true)
    }

    fn unstage(&self, _: &TxId) -> Result<(), KnobError> {
        Ok(())
    }

    fn write(&self, _: &TxId, value: &str) -> Result<(), KnobError> {
        self.load(value, false)
    }

    fn restore(&self, _: &TxId, to: &Reading) -> Result<(), KnobError> {
        match &to.value {
            // A journal, however made, loads nothing but this table.
            Some(before) => self.validate(before).and_then(|()| self.load(before, false)),
            None => self.load("", false),
        }
    }

    fn is_shared(&self) -> bool {
        false
    }
}
