//! One allow entry of firewalld: a rich rule in one zone, in the running firewall or in the files of the next start, added
//! and taken away by firewalld's own programs.

use std::path::Path;
use std::time::Duration;

use crate::apply::tool;
use crate::change::id::TxId;
use crate::change::knob::{Capabilities, Knob, KnobError, Reading};
use crate::facts::Layer;
use crate::host::command::{CommandError, Output, Runner};
use crate::host::safe_file::{FileError, Tree};
use crate::subjects::firewall::model::entry::Entry;
use crate::subjects::firewall::model::firewalld;

/// `firewall-cmd` takes a quarter of a second; firewalld under load gets time.
const PATIENCE: Duration = Duration::from_secs(30);

/// firewall-cmd(1): `NOT_RUNNING`.
const NOT_RUNNING: i32 = 252;

/// An entry of a zone. Its value is the command that makes it.
#[derive(Debug)]
pub struct Firewalld<'a> {
    tree: &'a Tree,
    target: String,
    zone: String,
    entry: Entry,
    layer: Layer,
}

impl<'a> Firewalld<'a> {
    /// From `public/tcp 6379-6381 from 172.20.0.0/16`; `None` for anything else.
    pub fn new(tree: &'a Tree, name: &str, layer: Layer) -> Option<Self> {
        let (zone, entry) = name.split_once('/').filter(|(zone, _)| firewalld::is_zone_name(zone))?;
        let target = firewalld::target(zone, &entry.parse().ok()?, layer == Layer::Boot);
        Some(Self { tree, target, zone: zone.to_owned(), entry: entry.parse().ok()?, layer })
    }

    fn is_permanent(&self) -> bool {
        self.layer == Layer::Boot
    }

    fn failed(&self, source: FileError) -> KnobError {
        KnobError::File { target: self.target.clone(), source }
    }

    fn unavailable(&self, reason: impl Into<String>) -> KnobError {
        KnobError::Unavailable { target: self.target.clone(), reason: reason.into() }
    }

    /// The arguments of `firewall-cmd` that do something with the rule.
    fn arguments(&self, verb: &str) -> Vec<String> {
        let permanent = self.is_permanent().then(|| "--permanent".to_owned());
        let rule = format!("--{verb}-rich-rule={}", firewalld::rich_rule(&self.entry));
        permanent.into_iter().chain([format!("--zone={}", self.zone), rule]).collect()
    }

    fn run(&self, program: &str, arguments: &[String]) -> Result<Output, KnobError> {
        let program = tool::find(self.tree, program).map_err(|error| self.failed(error))?;
        let output = Runner::new(program, PATIENCE).args(arguments).run();
        output.map_err(|error: CommandError| self.unavailable(error.to_string()))
    }

    fn change(&self, verb: &str) -> Result<(), KnobError> {
        let mut arguments = self.arguments(verb);
        let mut output = self.run("firewall-cmd", &arguments)?;
        if output.status.code() == Some(NOT_RUNNING) && self.is_permanent() {
            // Its files can be changed all the same, as long as nobody else has them in memory.
            arguments.retain(|argument| argument != "--permanent");
            output = self.run("firewall-offline-cmd", &arguments)?;
        }
        if output.status.success() {
            return Ok(());
        }
        Err(self.unavailable(format!("firewalld answers: {}", output.stderr.trim())))
    }

    fn read_running(&self) -> Result<Reading, KnobError> {
        let output = match self.run("firewall-cmd", &self.arguments("query")) {
            Ok(output) => output,
            // Without the program there is no such firewall, and nothing of it in the kernel.
            Err(KnobError::File { source, .. }) if source.is_absent() => return Ok(Reading::default()),
            Err(error) => return Err(error),
        };
        match output.status.code() {
            Some(0) => Ok(Reading::of(firewalld::add(&self.zone, &self.entry, false))),
            Some(1) if output.stdout.trim() == "no" => Ok(Reading::default()),
            Some(NOT_RUNNING) => Ok(Reading::default()),
            _ => Err(self.unavailable(format!("firewalld answers: {}", output.stderr.trim()))),
        }
    }

    fn read_files(&self) -> Result<Reading, KnobError> {
        for folder in firewalld::ZONES {
            let path = format!("{folder}/{}.xml", self.zone);
            let Some(content) = self.tree.read(Path::new(&path)).map_err(|error| self.failed(error))? else { continue };
            let Some(zone) = firewalld::parse(&String::from_utf8_lossy(&content.bytes)) else {
                return Err(self.unavailable(format!("{path} is not understood")));
            };
            let value = zone.has(&self.entry).then(|| firewalld::add(&self.zone, &self.entry, true));
            return Ok(Reading { value, ..Reading::default() });
        }
        Err(self.unavailable(format!("there is no zone `{}`", self.zone)))
    }
}

impl Knob for Firewalld<'_> {
    fn target(&self) -> &str {
        &self.target
    }

    fn layer(&self) -> Layer {
        self.layer
    }

    fn capabilities(&self) -> Capabilities {
        if self.is_permanent() {
            return Capabilities::on_disk();
        }
        Capabilities::live()
    }

    fn read(&self) -> Result<Reading, KnobError> {
        for verb in ["add", "remove"] {
            tool::wait_for(&self.arguments(verb));
        }
        if self.is_permanent() { self.read_files() } else { self.read_running() }
    }

    /// Only the one command that makes this entry: nothing of a journal's text is ever run.
    fn validate(&self, after: &str) -> Result<(), KnobError> {
        if firewalld::add(&self.zone, &self.entry, self.is_permanent()) == after {
            return Ok(());
        }
        let value = after.chars().take(120).collect::<String>().escape_default().to_string();
        let reason = "it is not the command for this entry".to_owned();
        Err(KnobError::BadValue { target: self.target.clone(), value, reason })
    }

    /// A firewalld that does not run stays so.
    fn stage(&self, _: &TxId, _: &str) -> Result<(), KnobError> {
        let output = self.run("firewall-cmd", &["--state".to_owned()])?;
        if output.status.success() {
            return Ok(());
        }
        Err(self.unavailable("firewalld does not run, and preflight does not start it"))
    }

    fn unstage(&self, _: &TxId) -> Result<(), KnobError> {
        Ok(())
    }

    fn write(&self, _: &TxId, value: &str) -> Result<(), KnobError> {
        self.validate(value)?;
        self.change("add")
    }

    fn restore(&self, tx: &TxId, to: &Reading) -> Result<(), KnobError> {
        match &to.value {
            Some(value) => self.write(tx, value),
            None => self.change("remove"),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the files they read")]
mod tests {
    use super::*;

    /// Seen failing with `is_zone_name` answering yes, and with `validate` accepting everything.
    #[test]
    fn no_other_command_is_taken_from_a_journal() {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree::open(root.path()).unwrap();
        for name in [
            "tcp 6379 from 10.0.0.0/8",
            "--panic-on/tcp 6379 from 10.0.0.0/8",
            "../x/tcp 6379 from 10.0.0.0/8",
            "public/tcp 6379 from any",
            "public/--panic-on",
            "a b/tcp 6379 from 10.0.0.0/8",
            "/tcp 6379 from 10.0.0.0/8",
        ] {
            assert!(Firewalld::new(&tree, name, Layer::Live).is_none(), "{name}");
        }
        for layer in [Layer::Live, Layer::Boot] {
            let knob = Firewalld::new(&tree, "public/tcp 6379 from 10.0.0.0/8", layer).unwrap();
            assert!(knob.validate("firewall-cmd --panic-on").is_err());
            knob.validate(&firewalld::add("public", &knob.entry, layer == Layer::Boot)).unwrap();
            assert!(knob.validate(&firewalld::add("public", &knob.entry, layer == Layer::Live)).is_err());
        }
    }

    #[test]
    fn the_files_say_whether_the_entry_is_there_permanently() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let tree = Tree::open(root.path()).unwrap();
        let knob = Firewalld::new(&tree, "public/tcp 6379 from 10.0.0.0/8", Layer::Boot).unwrap();
        assert!(knob.read().is_err(), "no such zone");
        put("usr/lib/firewalld/zones/public.xml", "<zone/>");
        assert_eq!(knob.read().unwrap(), Reading::default());
        let rule = "<zone><rule family='ipv4'><source address='10.0.0.0/8'/><port port='6379' protocol='tcp'/><accept/></rule></zone>";
        put("etc/firewalld/zones/public.xml", rule);
        let value = knob.read().unwrap().value.unwrap();
        assert!(
            value.starts_with("firewall-cmd --permanent --zone=public --add-rich-rule='rule family=\"ipv4\""),
            "{value}"
        );
        put("etc/firewalld/zones/public.xml", &rule.replace("<accept/>", "<log/><accept/>"));
        assert_eq!(knob.read().unwrap(), Reading::default(), "another rule");
    }
}
