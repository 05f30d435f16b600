//! The guard where nft is missing: chains of our own in iptables' table mangle, in the variant that the target names.

use std::time::Duration;

use crate::apply::tool;
use crate::change::id::TxId;
use crate::change::knob::{Capabilities, Knob, KnobError, Reading};
use crate::change::target::Target;
use crate::facts::Layer;
use crate::host::Host;
use crate::host::command::{Output, Runner};
use crate::host::safe_file::Tree;
use crate::subjects::firewall::model::iptables;
use crate::subjects::firewall::model::iptables::{FamilyRules, TABLE, Variant};
use crate::subjects::firewall::model::writer::Writer;

/// iptables answers within milliseconds, unless somebody else holds its lock.
const PATIENCE: Duration = Duration::from_secs(20);

/// The tables of iptables-legacy that there are. To list one that is not there would make it.
const NAMES: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// The chains of both families. The value is both as text, in the form of [`iptables::text`].
#[derive(Debug)]
pub struct IptablesGuard<'a> {
    tree: &'a Tree,
    target: String,
    variant: Variant,
}

impl<'a> IptablesGuard<'a> {
    /// `None` for a name that is no variant's.
    pub fn new(tree: &'a Tree, name: &str) -> Option<Self> {
        match Writer::named(name)? {
            Writer::Iptables(variant) => Some(Self { tree, target: Target::Guard(name).to_string(), variant }),
            Writer::Nft => None,
        }
    }

    fn unavailable(&self, reason: impl Into<String>) -> KnobError {
        KnobError::Unavailable { target: self.target.clone(), reason: reason.into() }
    }

    fn run(&self, args: &[&str], input: Option<String>) -> Result<Output, KnobError> {
        let program = self.variant.program();
        let program = tool::find(self.tree, program).map_err(|error| self.unavailable(error.to_string()))?;
        let mut runner = Runner::new(program, PATIENCE).args(args);
        if let Some(input) = input {
            runner = runner.input(input);
        }
        runner.run_checked().map_err(|error| self.unavailable(error.to_string()))
    }

    fn found(&self, v6: bool) -> Result<FamilyRules, KnobError> {
        if self.variant == Variant::Legacy {
            let names = Host::live().read_of_kernel(NAMES[usize::from(v6)]);
            let names = names.map_err(|error| self.unavailable(error.to_string()))?.unwrap_or_default();
            if !names.split_whitespace().any(|name| name == TABLE) {
                return Ok(FamilyRules::default());
            }
        }
        let save = iptables::tool(v6, "-save");
        let listing = self.run(&[&save, "-t", TABLE], None)?.stdout;
        // So it says of a table that nft was used on.
        if listing.contains("is incompatible") {
            return Err(self.unavailable(format!("the table {TABLE} holds rules that iptables cannot show")));
        }
        // It ends well also where it could not print. A table without rules has its frame all the same.
        if !is_whole(&listing) {
            let program = self.variant.program();
            let reason = format!("`{program} {save} -t {TABLE}` ended well, but did not print the whole table");
            return Err(self.unavailable(format!("{reason}; run it and see what it prints")));
        }
        Ok(iptables::of_save(&listing, v6))
    }

    fn found_both(&self) -> Result<[FamilyRules; 2], KnobError> {
        Ok([self.found(false)?, self.found(true)?])
    }

    /// Makes it what a text says, nothing for none: one transaction of the kernel for each family. With `trial` it is only
    /// looked at. What is loaded is written anew from what was understood of the text.
    fn load(&self, text: Option<&str>, trial: bool) -> Result<(), KnobError> {
        let wanted = text.map(|text| self.parsed(text)).transpose()?;
        for (v6, found) in [false, true].into_iter().zip(self.found_both()?) {
            let wanted = wanted.as_ref().map(|parts| &parts[usize::from(v6)]);
            let input = iptables::load(wanted, &found).map_err(|reason| self.unavailable(reason))?;
            let Some(input) = input else { continue };
            let restore = restoring(v6);
            let mut args: Vec<&str> = restore.iter().map(String::as_str).collect();
            args.extend(trial.then_some("--test"));
            self.run(&args, Some(input))?;
        }
        Ok(())
    }

    fn parsed(&self, text: &str) -> Result<[FamilyRules; 2], KnobError> {
        iptables::parse(text, self.variant).ok_or_else(|| {
            let reason = format!("it is not a guard of {} alone", self.variant.name());
            KnobError::BadValue { target: self.target.clone(), value: format!("{} bytes", text.len()), reason }
        })
    }
}

/// How the program of one variant is called to load a family's rules.
fn restoring(v6: bool) -> [String; 3] {
    [iptables::tool(v6, "-restore"), "-w".to_owned(), "--noflush".to_owned()]
}

/// Whether a list of iptables-save goes from the head of our table to its end.
fn is_whole(listing: &str) -> bool {
    let mut lines = listing.lines().filter(|line| !line.starts_with('#'));
    let is_head = lines.next().and_then(|line| line.strip_prefix('*')) == Some(TABLE);
    is_head && lines.any(|line| line == "COMMIT")
}

impl Knob for IptablesGuard<'_> {
    fn target(&self) -> &str {
        &self.target
    }

    fn layer(&self) -> Layer {
        Layer::Live
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            // IPv6 follows IPv4.
            atomic: false,
            connectivity_risk: true,
            ..Capabilities::live()
        }
    }

    fn read(&self) -> Result<Reading, KnobError> {
        // A run that was killed may have left one behind.
        for v6 in [false, true] {
            tool::wait_for(&restoring(v6));
        }
        let value = iptables::join(self.variant, &self.found_both()?);
        Ok(Reading { value, ..Reading::default() })
    }

    fn validate(&self, after: &str) -> Result<(), KnobError> {
        self.parsed(after).map(drop)
    }

    /// What is there now must be something that can be brought back.
    fn stage(&self, _: &TxId, after: &str) -> Result<(), KnobError> {
        if let Some(before) = self.read()?.value
            && iptables::parse(&before, self.variant).is_none()
        {
            let chains = [iptables::CHAIN, iptables::RESTRICT].join(" and ");
            return Err(self.unavailable(format!(
                "in {chains} of {} stand rules of somebody else, which could not be brought back: take them out first",
                self.variant.name()
            )));
        }
        self.load(Some(after), true)
    }

    fn unstage(&self, _: &TxId) -> Result<(), KnobError> {
        Ok(())
    }

    fn write(&self, _: &TxId, value: &str) -> Result<(), KnobError> {
        self.load(Some(value), false)
    }

    fn restore(&self, _: &TxId, to: &Reading) -> Result<(), KnobError> {
        self.load(to.value.as_deref(), false)
    }

    fn is_shared(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subjects::firewall::model::guard::Guard;

    /// Seen failing with `is_whole` asking for nothing.
    #[test]
    fn half_a_list_is_not_a_table() {
        let whole = "# Generated by iptables-save\n*mangle\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n# Completed\n";
        assert!(is_whole(whole) && is_whole("*mangle\nCOMMIT\n"));
        for (end, _) in whole.char_indices().take_while(|(end, _)| !whole[..*end].ends_with("COMMIT")) {
            assert!(!is_whole(&whole[..end]), "{:?}", &whole[..end]);
        }
        for other in ["*filter\nCOMMIT\n", ":PREROUTING ACCEPT [0:0]\nCOMMIT\n", "# Table `mangle' does not exist\n"] {
            assert!(!is_whole(other), "{other}");
        }
    }

    /// Seen failing with `parsed` taking what `of_save` understood without writing it again.
    #[test]
    fn nothing_of_a_journal_but_a_guard_is_loaded() {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree::open(root.path()).unwrap();
        let tx = "20261126T120000Z-7f3a9c01".parse().unwrap();
        for name in ["nft", "", "iptables", "iptables-nft ", "--modprobe=/tmp/x", "../iptables-nft"] {
            assert!(IptablesGuard::new(&tree, name).is_none(), "{name}");
        }
        for variant in [Variant::Nft, Variant::Legacy] {
            let knob = IptablesGuard::new(&tree, variant.name()).unwrap();
            let text = iptables::text(&Guard::default(), variant);
            knob.validate(&text).unwrap();
            let rule = "-A PREFLIGHT-RESTRICT -j DROP\n";
            for (from, to) in [
                (rule, "-A PREFLIGHT-RESTRICT -j DROP -M /tmp/x\n"),
                (rule, "-A PREFLIGHT-RESTRICT --modprobe=/tmp/x -j DROP\n"),
                (rule, "-A PREFLIGHT-RESTRICT -t filter -j DROP\n"),
                (rule, "-A INPUT -j DROP\n"),
                (rule, "-F\n-A PREFLIGHT-RESTRICT -j DROP\n"),
                (rule, "-A PREFLIGHT-RESTRICT -j DROP\nCOMMIT\n*filter\n-A INPUT -j DROP\n"),
                (":PREFLIGHT - [0:0]\n", ":PREFLIGHT - [0:0]\n:INPUT DROP [0:0]\n"),
                ("*mangle\n", "*filter\n"),
                ("COMMIT\n", "COMMIT\n*nat\n-F\nCOMMIT\n"),
                ("-i lo", "-i \"lo -M /tmp/x\""),
                ("-j RETURN\n", "-j RETURN\r\n"),
                ("IPv4\n", "IPv4\n-F\n"),
            ] {
                let hostile = text.replacen(from, to, 1);
                assert_ne!(hostile, text, "{from:?}");
                assert!(knob.validate(&hostile).is_err(), "{hostile}");
                let restored = knob.restore(&tx, &Reading::of(hostile));
                assert!(matches!(restored, Err(KnobError::BadValue { .. })), "{restored:?}");
            }
            let other = if variant == Variant::Nft { Variant::Legacy } else { Variant::Nft };
            assert!(knob.validate(&iptables::text(&Guard::default(), other)).is_err(), "of the other variant");
        }
    }
}
