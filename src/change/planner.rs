//! What every subject plans with: changes, the lines of our files, conflicts and manual steps. Pure. How the wish for a fact
//! becomes changes is the subject's knowledge, which adds its own methods.

use std::collections::{BTreeMap, BTreeSet};

use super::files::{self, Existing, Line};
use super::owner::owner_id;
use super::target::Target;
use super::{Change, Conflict, Kind, Manual, Plan};
use crate::catalog::os::{OsProfile, ServiceManager};
use crate::catalog::parameters::Parameters;
use crate::facts::{Facts, Layer, State, Value};
use crate::judge::wish::Wish;
use crate::report::model::Outcome;

/// Tells whether our file would not decide a setting at the next boot: the value then, and the file and line that win.
pub type WouldLose<'a> = &'a dyn Fn(&str, &str) -> Option<(String, String)>;

/// What every plan looks at besides the wishes.
pub struct PlanContext<'a> {
    pub facts: &'a Facts,
    pub parameters: &'a Parameters,
    pub os: &'a OsProfile,
    /// Whether the kernel that runs is this host's; under a root only the boot layer can be set.
    pub is_live: bool,
    /// The ids that `--allow` names: some changes are only planned with consent.
    pub allow: &'a [String],
    pub existing: &'a Existing,
    /// Asked with the text of our drop-in and a setting's name.
    pub would_lose: WouldLose<'a>,
}

impl std::fmt::Debug for PlanContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlanContext")
            .field("is_live", &self.is_live)
            .field("allow", &self.allow)
            .finish_non_exhaustive()
    }
}

/// A plan that is being made.
#[derive(Debug)]
pub struct Planner<'a> {
    pub(crate) context: &'a PlanContext<'a>,
    pub(crate) live: Vec<Change>,
    /// The lines of our sysctl.d drop-in as they are to be.
    pub(crate) sysctl: BTreeMap<String, Line>,
    /// File below the huge page folder → word, as it is to be after a boot.
    pub(crate) thp: BTreeMap<String, Line>,
    /// The checks that change a file, with the weight of the change.
    pub(crate) boot: BTreeMap<String, Vec<(String, Kind)>>,
    /// The limits of services as they are to be, by their drop-in.
    pub(crate) units: BTreeMap<String, Line>,
    pub(crate) conflicts: Vec<Conflict>,
    pub(crate) manual: Vec<Manual>,
}

impl<'a> Planner<'a> {
    pub fn new(context: &'a PlanContext<'a>) -> Self {
        let mut planner = Self {
            context,
            live: Vec::new(),
            sysctl: context.existing.text(files::SYSCTL).map(files::parse_sysctl).unwrap_or_default(),
            thp: BTreeMap::new(),
            boot: BTreeMap::new(),
            units: BTreeMap::new(),
            conflicts: Vec::new(),
            manual: Vec::new(),
        };
        planner.thp = if planner.is_openrc() {
            context.existing.text(files::OPENRC).map(files::parse_openrc).unwrap_or_default()
        } else {
            context.existing.text(files::TMPFILES).map(files::parse_tmpfiles).unwrap_or_default()
        };
        planner
    }

    /// The plan, with the files that the collected lines make.
    pub fn finish(mut self) -> Plan {
        let sysctl = files::sysctl_text(&self.sysctl);
        for (name, line) in self.sysctl.clone() {
            if self.boot.contains_key(files::SYSCTL)
                && let Some((value, by)) = (self.context.would_lose)(&sysctl, &name)
            {
                let reason = format!("{by} sets {name} to `{value}` at the next boot, after our `{}`", line.value);
                self.conflict(&owner_id(&by), &Target::Sysctl(&name).to_string(), &reason);
            }
        }
        // As weighty as the script; where only the link is missing, nothing runs.
        let script = self.boot.get(files::OPENRC);
        let weight = script.map_or(Kind::Needed, |checks| heaviest(checks));
        for (path, checks) in std::mem::take(&mut self.boot) {
            let after = match path.as_str() {
                files::SYSCTL => sysctl.clone(),
                files::OPENRC => files::openrc_text(&self.thp),
                path => match self.units.get(path) {
                    Some(line) => files::unit_text(line),
                    None => files::tmpfiles_text(&self.thp),
                },
            };
            // What stands there already is no change, whatever the next boot makes of it.
            if self.context.existing.text(&path) != Some(after.as_str()) {
                self.live.push(self.file(&path, after, checks));
            }
        }
        self.runlevel(weight);
        Plan::new(self.live, self.conflicts, self.manual)
    }

    /// OpenRC runs a script only when it is linked into a runlevel.
    fn runlevel(&mut self, kind: Kind) {
        let is_linked = files::OPENRC_LINKS.iter().any(|path| self.context.existing.text(path).is_some());
        if self.is_openrc() && !self.thp.is_empty() && !is_linked {
            let checks = self.thp.values().map(|line| line.check.clone()).collect::<BTreeSet<_>>();
            self.live.push(Change {
                id: checks.into_iter().collect::<Vec<_>>().join(","),
                layer: Layer::Boot,
                target: Target::Link(files::OPENRC_LINK).to_string(),
                before: None,
                after: files::OPENRC.to_owned(),
                kind,
                undo: "remove the link".to_owned(),
                restarts: Vec::new(),
                connectivity_risk: false,
            });
        }
    }

    pub(crate) fn file(&self, path: &str, after: String, checks: Vec<(String, Kind)>) -> Change {
        let before = self.context.existing.text(path).map(str::to_owned);
        let kind = heaviest(&checks);
        let ids: Vec<String> = checks.into_iter().map(|(id, _)| id).collect();
        Change {
            id: ids.join(","),
            layer: Layer::Boot,
            target: Target::File(path).to_string(),
            undo: if before.is_some() { "write the old content back".into() } else { "remove the file".into() },
            before,
            after,
            kind,
            restarts: files::drop_in_service(path).map(reload_first).into_iter().collect(),
            connectivity_risk: false,
        }
    }

    /// Our line for a setting is in our file, and another file decides what the fact is at the next boot.
    pub(crate) fn owner_conflict(&mut self, fact: &str, name: &str, file: &str, found: &Value) {
        let source = self.context.facts.get(fact, Layer::Boot).map(|fact| fact.source.clone());
        let by = source.unwrap_or_default();
        let reason = format!("{by} sets {name} to `{found}` at the next boot, after our file");
        let text = format!("# {by} wins over {file}: remove its line for {name}");
        self.manual.push(Manual { id: owner_id(&by), reason, text });
    }

    pub(crate) fn conflict(&mut self, id: &str, target: &str, reason: &str) {
        if let Some(known) = self.conflicts.iter_mut().find(|known| known.id == id) {
            known.targets.push(target.to_owned());
            return;
        }
        self.conflicts.push(Conflict {
            id: id.to_owned(),
            targets: vec![target.to_owned()],
            reason: reason.to_owned(),
        });
    }

    pub(crate) fn manual(&mut self, wish: &Wish, reason: &str, text: String) {
        self.manual.push(Manual { id: wish.finding.id.clone(), reason: reason.to_owned(), text });
    }

    pub(crate) fn on_host_network(&self) -> bool {
        self.context.parameters.text("topology") == Some("host")
    }

    pub(crate) fn is_openrc(&self) -> bool {
        self.context.os.service_manager == ServiceManager::OpenRc
    }

    /// The kind of container this process runs in; its kernel settings are not its own.
    pub(crate) fn inside_container(&self) -> Option<String> {
        match self.context.facts.get("host.container", Layer::Live).map(|fact| &fact.state) {
            Some(State::Known(Value::Text(kind))) if kind != "none" => Some(kind.clone()),
            _ => None,
        }
    }
}

/// Of the checks that change one file, the one that matters most.
fn heaviest(checks: &[(String, Kind)]) -> Kind {
    if checks.iter().any(|(_, kind)| *kind == Kind::Needed) { Kind::Needed } else { Kind::Target }
}

pub(crate) fn kind(wish: &Wish) -> Kind {
    if wish.finding.result == Outcome::Pass { Kind::Target } else { Kind::Needed }
}

/// Without the reload, systemd starts a service by what it read before.
fn reload_first(service: &str) -> String {
    format!("{service} (after `systemctl daemon-reload`)")
}

/// A value as the kernel takes it.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Set(words) => words.iter().cloned().collect::<Vec<_>>().join(","),
        // As a person reads it an empty text is `(empty)`.
        Value::Text(text) => text.clone(),
        other => other.to_string(),
    }
}
