//! The guard in the running kernel: one nftables table, ours alone.

use std::time::Duration;

use crate::apply::tool;
use crate::change::id::TxId;
use crate::change::knob::{Capabilities, Knob, KnobError, Reading};
use crate::change::target::Target;
use crate::facts::Layer;
use crate::host::command::{CommandError, Output, Runner};
use crate::host::safe_file::Tree;
use crate::subjects::firewall::model::guard;
use crate::subjects::firewall::model::guard::TABLE;
use crate::subjects::firewall::model::writer::Writer;

/// nft answers within milliseconds; a host under load gets time.
const PATIENCE: Duration = Duration::from_secs(20);

/// How nft is called to load a table. Nobody else writes it so, and a run that was killed may have left one behind.
const LOAD: [&str; 2] = ["--file", "-"];

/// How nft is asked for [`TABLE`].
const LIST: [&str; 6] = ["-s", "-y", "list", "table", "inet", "preflight"];

/// The table `inet preflight`. Its value is the table as text, in the form of [`guard::tidy`].
#[derive(Debug)]
pub struct NftGuard<'a> {
    tree: &'a Tree,
    target: String,
}

impl<'a> NftGuard<'a> {
    /// `None` for any other name.
    pub fn new(tree: &'a Tree, name: &str) -> Option<Self> {
        (name == Writer::Nft.name()).then(|| Self { tree, target: Target::Guard(name).to_string() })
    }

    fn nft(&self, args: &[&str]) -> Result<Runner, KnobError> {
        let nft = tool::find(self.tree, "nft").map_err(|error| self.unavailable(error.to_string()))?;
        Ok(Runner::new(nft, PATIENCE).args(args))
    }

    fn unavailable(&self, reason: String) -> KnobError {
        KnobError::Unavailable { target: self.target.clone(), reason }
    }

    /// Loads the table in one transaction of the kernel; with `trial` it is only looked at.
    fn load(&self, text: &str, trial: bool) -> Result<(), KnobError> {
        let args: &[&str] = if trial { &["--check", "--file", "-"] } else { &LOAD };
        let loaded = self.nft(args)?.input(format!("{}{text}", guard::REMOVE)).run_checked();
        loaded.map(drop).map_err(|error| self.unavailable(error.to_string()))
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
        match self.nft(&LIST)?.run_checked() {
            Ok(Output { stdout, .. }) if is_whole(&stdout) => Ok(Reading::of(guard::tidy(&stdout))),
            Ok(Output { stdout, .. }) => {
                let reason = format!("`nft {}` ended well, but its list of {} bytes", LIST.join(" "), stdout.len());
                Err(self.unavailable(format!("{reason} is not the whole table; run it and see what it prints")))
            }
            Err(CommandError::Failed { stderr, .. }) if is_absent(&stderr) => Ok(Reading::default()),
            Err(error) => Err(self.unavailable(error.to_string())),
        }
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

/// Whether a list of nft goes from the head of our table to its end. nft ends well also where it could not print.
fn is_whole(listing: &str) -> bool {
    let is_head = |line: &str| line.strip_prefix("table ").and_then(|line| line.strip_prefix(TABLE)) == Some(" {");
    let mut lines = listing.lines().map(|line| line.split(" # ").next().unwrap_or_default().trim_end());
    lines.next().is_some_and(is_head) && lines.next_back() == Some("}") && listing.ends_with('\n')
}

/// Whether nft says by this that the kernel has no such table. It says so of what was asked, which it repeats; that
/// something else was not found, it says in other words.
fn is_absent(stderr: &str) -> bool {
    let is_missing = |line: &str| {
        let said = line.split_once("Error: ").map(|(_, said)| said.trim_start_matches("Could not process rule: "));
        said.is_some_and(|said| said.starts_with("No such file or directory"))
    };
    let asked = format!("list table {TABLE}");
    let mut lines = stderr.lines();
    lines.next().is_some_and(is_missing) && lines.next().is_some_and(|line| line.trim() == asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen failing with `is_whole` asking for nothing.
    #[test]
    fn half_a_list_is_not_a_table() {
        let whole = crate::subjects::firewall::model::guard::Guard::default().text();
        assert!(is_whole(&whole) && is_whole(&whole.replacen(" {", " { # progname x", 1)));
        for (end, _) in whole.char_indices() {
            assert!(!is_whole(&whole[..end]), "{:?}", &whole[..end]);
            assert!(end == 0 || !is_whole(&whole[end..]), "{:?}", &whole[end..]);
        }
        assert!(!is_whole(&whole.replace("inet preflight", "inet preflights")));
    }

    /// As releases of nft from 0.8 on word it. Seen failing with `is_absent` looking for "No such file" anywhere.
    #[test]
    fn only_what_nft_says_of_the_table_makes_it_absent() {
        let asked = "list table inet preflight\n           ^^^^^^^^^^^^^^\n";
        for said in [
            "Error: No such file or directory",
            "<cmdline>:1:12-25: Error: Could not process rule: No such file or directory",
            "Error: Could not process rule: No such file or directory",
            "Error: No such file or directory; did you mean table ‘preflight’ in family ip?",
        ] {
            assert!(is_absent(&format!("{said}\n{asked}")), "{said}");
        }
        for said in [
            "",
            "Error: No such file or directory\n",
            "nft: error while loading shared libraries: libnftables.so.1: No such file or directory\n",
            "Error: cache initialization failed: No such file or directory\nlist table inet preflight\n",
            "Error: No such file or directory\nlist table inet other\n",
            "Error: Operation not permitted\nlist table inet preflight\n",
            "netlink: Error: cache initialization failed: Operation not permitted\n",
        ] {
            assert!(!is_absent(said), "{said}");
        }
    }
}
