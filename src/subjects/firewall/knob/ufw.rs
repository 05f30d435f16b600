//! One allow entry of ufw, added and taken away by ufw itself. It is in force and on the disk at once, so that a power
//! cut takes nothing back; `preflight-recover` does, and a plan sees to it that it is there first.

use std::path::Path;
use std::time::Duration;

use crate::apply::tool;
use crate::change::id::TxId;
use crate::change::knob::{Capabilities, Knob, KnobError, Reading, Undo, Undoing};
use crate::change::target::Target;
use crate::facts::{Layer, Version};
use crate::host::command::{CommandError, Output, Runner};
use crate::host::safe_file::{FileError, Tree};
use crate::subjects::firewall::model::entry::Entry;
use crate::subjects::firewall::model::ufw;

/// ufw takes a third of a second, and waits for the lock of another ufw.
const PATIENCE: Duration = Duration::from_secs(30);

/// Entries have comments since this release.
const COMMENTS_SINCE: &str = "0.35";

/// An entry, by what it lets in. Its value is the command that makes it.
#[derive(Debug)]
pub struct Ufw<'a> {
    tree: &'a Tree,
    target: String,
    entry: Entry,
}

impl<'a> Ufw<'a> {
    /// `None` for a text that is no entry.
    pub fn new(tree: &'a Tree, name: &str) -> Option<Self> {
        Some(Self { tree, target: Target::Ufw(name).to_string(), entry: name.parse().ok()? })
    }

    fn failed(&self, source: FileError) -> KnobError {
        KnobError::File { target: self.target.clone(), source }
    }

    fn unavailable(&self, reason: impl Into<String>) -> KnobError {
        KnobError::Unavailable { target: self.target.clone(), reason: reason.into() }
    }

    fn command(&self, error: CommandError) -> KnobError {
        self.unavailable(error.to_string())
    }

    fn text(&self, path: &str) -> Result<String, KnobError> {
        let found = self.tree.read(Path::new(path)).map_err(|error| self.failed(error))?;
        Ok(found.map(|content| String::from_utf8_lossy(&content.bytes).into_owned()).unwrap_or_default())
    }

    fn run(&self, words: &[String]) -> Result<Output, KnobError> {
        let program = tool::find(self.tree, "ufw").map_err(|error| self.failed(error))?;
        let arguments = words.iter().skip(1);
        Runner::new(program, PATIENCE).args(arguments).run_checked().map_err(|error| self.command(error))
    }

    fn has_comments(&self) -> Result<bool, KnobError> {
        let output = self.run(&["ufw".to_owned(), "version".to_owned()])?;
        // `ufw 0.36.2`, and below it the copyright.
        let number = output.stdout.split_whitespace().nth(1).and_then(|text| Version::parse(text).ok());
        Ok(number.zip(Version::parse(COMMENTS_SINCE).ok()).is_some_and(|(number, since)| number >= since))
    }

    /// Whether ufw's chains are in the kernel.
    fn is_loaded(&self) -> Result<bool, KnobError> {
        Ok(self.listed()?.is_some())
    }

    /// Whether the entry is in the kernel. A ufw that was killed has written its files and no more.
    fn is_in_kernel(&self) -> Result<bool, KnobError> {
        Ok(self.listed()?.is_some_and(|listing| ufw::is_listed(&listing, &self.entry)))
    }

    /// The rules of the chain that the entry belongs to; `None` where there is no such chain.
    fn listed(&self) -> Result<Option<String>, KnobError> {
        let name = if self.entry.is_ipv4() { "iptables" } else { "ip6tables" };
        let program = match tool::find(self.tree, name) {
            Ok(program) => program,
            // Without the program, which ufw needs, nothing of ufw is in the kernel.
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        let output = Runner::new(program, PATIENCE).args(["-w", "-S", ufw::chain(&self.entry)]).run();
        let output = output.map_err(|error| self.command(error))?;
        Ok(output.status.success().then_some(output.stdout))
    }

    fn only_in_kernel(&self) -> String {
        format!("{} (in the kernel, and not in ufw's files)", ufw::add(&self.entry, false).join(" "))
    }
}

impl Knob for Ufw<'_> {
    fn target(&self) -> &str {
        &self.target
    }

    fn layer(&self) -> Layer {
        Layer::Live
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::on_disk()
    }

    fn read(&self) -> Result<Reading, KnobError> {
        for words in [ufw::add(&self.entry, true), ufw::add(&self.entry, false), ufw::delete(&self.entry)] {
            tool::wait_for(&words[1..]);
        }
        let path = ufw::RULES[usize::from(!self.entry.is_ipv4())];
        let mut value = ufw::found(&ufw::parse(&self.text(path)?), &self.entry);
        if value.is_none() && self.is_in_kernel()? {
            value = Some(self.only_in_kernel());
        }
        Ok(Reading { value, ..Reading::default() })
    }

    /// Only the two commands that make this entry: nothing of a journal's text is ever run.
    fn validate(&self, after: &str) -> Result<(), KnobError> {
        if [true, false].iter().any(|with_comment| ufw::add(&self.entry, *with_comment).join(" ") == after) {
            return Ok(());
        }
        let value = after.chars().take(120).collect::<String>().escape_default().to_string();
        let reason = "it is not the command for this entry".to_owned();
        Err(KnobError::BadValue { target: self.target.clone(), value, reason })
    }

    /// A ufw that is not active stays so: an entry would be written down, and open a port on the day it is enabled.
    fn stage(&self, _: &TxId, _: &str) -> Result<(), KnobError> {
        tool::find(self.tree, "ufw").map_err(|error| self.failed(error))?;
        if !ufw::is_enabled(&self.text(ufw::CONF)?) {
            return Err(self.unavailable("ufw is not enabled, and preflight does not enable it"));
        }
        if !self.is_loaded()? {
            return Err(self.unavailable("ufw is enabled, and its rules are not in the kernel: see `ufw status`"));
        }
        Ok(())
    }

    fn unstage(&self, _: &TxId) -> Result<(), KnobError> {
        Ok(())
    }

    fn write(&self, _: &TxId, value: &str) -> Result<(), KnobError> {
        self.validate(value)?;
        self.run(&ufw::add(&self.entry, self.has_comments()?)).map(drop)
    }

    fn restore(&self, tx: &TxId, to: &Reading) -> Result<(), KnobError> {
        if let Some(value) = &to.value {
            return self.write(tx, value);
        }
        let deleted = self.run(&ufw::delete(&self.entry));
        // Early in a boot ufw has written its files and then finds no chains. These will be loaded from the files, and to
        // load them here would make its service believe that it runs already.
        if self.is_loaded()? && (deleted.is_err() || self.is_in_kernel()?) {
            self.run(&["ufw", "reload"].map(str::to_owned))?;
        }
        match self.read()?.value {
            None => Ok(()),
            Some(_) => deleted.and(Err(self.unavailable("ufw says that it deleted it, and it is still there"))),
        }
    }

    /// Any such entry will do: who wrote it is only asked by a rollback.
    fn holds(&self, current: &Reading, _: &str) -> bool {
        current.value.is_some() && current.value != Some(self.only_in_kernel())
    }

    fn is_in_force(&self) -> Result<bool, KnobError> {
        self.is_in_kernel()
    }

    /// Compare-and-swap, and what only the kernel still has goes too.
    fn undo(&self, case: Undoing<'_>) -> Undo {
        let ours = case.observed.unwrap_or(case.wrote);
        let found = case.current.value.as_deref();
        if case.current.value == case.before.value {
            Undo::Already
        } else if found == Some(ours) || found == Some(&self.only_in_kernel()) {
            Undo::Restore { to: case.before.clone(), drifted: None }
        } else {
            Undo::Conflict { expected: ours.to_owned() }
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the files they read")]
mod tests {
    use super::*;

    fn knob(tree: &Tree) -> Ufw<'_> {
        Ufw::new(tree, "tcp 6379-6381 from 172.20.0.0/16").unwrap()
    }

    fn root(rules: &str) -> (tempfile::TempDir, Tree) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/ufw")).unwrap();
        std::fs::write(root.path().join("etc/ufw/user.rules"), rules).unwrap();
        let tree = Tree::open(root.path()).unwrap();
        (root, tree)
    }

    const OURS: &str = "### tuple ### allow tcp 6379:6381 0.0.0.0/0 any 172.20.0.0/16 in comment=707265666c69676874\n";
    const THEIRS: &str = "### tuple ### allow tcp 6379:6381 0.0.0.0/0 any 172.20.0.0/16 in comment=6d696e65\n";

    /// Seen failing with `validate` accepting everything.
    #[test]
    fn no_other_command_is_taken_from_a_journal() {
        let (_root, tree) = root("");
        for name in ["tcp 22 from any", "tcp 6379 from 10.0.0.0/8 --force reset", "reset", "", "enable"] {
            assert!(Ufw::new(&tree, name).is_none(), "{name}");
        }
        let knob = knob(&tree);
        for value in [
            "ufw disable",
            "ufw allow proto tcp from 0.0.0.0/0 to any port 22",
            "ufw allow proto tcp from 172.20.0.0/16 to any port 6379:6381 comment preflight; reboot",
            "",
        ] {
            assert!(knob.validate(value).is_err(), "{value}");
        }
        knob.validate("ufw allow proto tcp from 172.20.0.0/16 to any port 6379:6381 comment preflight").unwrap();
        knob.validate("ufw allow proto tcp from 172.20.0.0/16 to any port 6379:6381").unwrap();
    }

    /// Seen failing with the comment left out of what `found` says: the entry of a colleague would have been deleted.
    #[test]
    fn an_entry_that_somebody_else_took_over_is_not_deleted() {
        let (_root, tree) = root(THEIRS);
        let knob = knob(&tree);
        let current = knob.read().unwrap();
        let wrote = ufw::add(&knob.entry, true).join(" ");
        assert!(knob.holds(&current, &wrote), "it is open, whoever did it");
        let before = Reading::default();
        let case = Undoing { before: &before, wrote: &wrote, observed: Some(&wrote), current: &current };
        assert!(matches!(knob.undo(case), Undo::Conflict { .. }));
        let ours = Reading::of(wrote.clone());
        let case = Undoing { before: &before, wrote: &wrote, observed: Some(&wrote), current: &ours };
        assert_eq!(knob.undo(case), Undo::Restore { to: Reading::default(), drifted: None });
    }

    #[test]
    fn the_entry_is_read_as_the_command_that_makes_it() {
        let (_root, tree) = root(OURS);
        let knob = knob(&tree);
        assert_eq!(knob.read().unwrap().value, Some(ufw::add(&knob.entry, true).join(" ")));
        let error = knob.stage(&"20261122T101500Z-7f3a9c01".parse().unwrap(), "").unwrap_err();
        assert!(error.to_string().contains("ufw"), "{error}");
    }
}
