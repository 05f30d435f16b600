//! The planner: pure, from wishes to changes, conflicts and manual steps. It never lowers a value that is as good as the
//! target or better, and it never plans what is already so.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::os::{OsProfile, ServiceManager};
use crate::catalog::parameters::Parameters;
use crate::change::files;
use crate::change::files::{Existing, Line};
use crate::change::owner::{self, owner_id};
use crate::change::{Change, Conflict, Kind, Manual, Plan};
use crate::facts::registry::{self, Scope};
use crate::facts::{Facts, Layer, State, Value};
use crate::judge::wish::{Standing, Wish};
use crate::report::model::Outcome;
use crate::subjects::firewall::model::intent::Intent;
use crate::subjects::firewall::read::peers::Connected;
use crate::subjects::ports::knob::Numbers;

pub use crate::subjects::firewall::plan_firewall::{ALLOW_PEERS, ALLOW_SSHD};

/// Tells whether our file would not decide a setting at the next boot: the value then, and the file and line that win.
pub type WouldLose<'a> = &'a dyn Fn(&str, &str) -> Option<(String, String)>;

/// What the planner looks at besides the wishes.
pub struct Ground<'a> {
    pub facts: &'a Facts,
    pub parameters: &'a Parameters,
    pub os: &'a OsProfile,
    /// Whether the kernel that runs is this host's; under a root only the boot layer can be set.
    pub is_live: bool,
    /// The ids that `--allow` names: some changes are only planned with consent.
    pub allow: &'a [String],
    pub existing: &'a Existing,
    /// Asked when a change outlives a power cut by itself: whether it would be taken back at the next boot.
    pub recovery: &'a dyn Fn() -> crate::apply::recovery::Standing,
    /// Asked when the guard is to close ports: whom it would shut out.
    pub connected: &'a dyn Fn(&Intent) -> Connected,
    /// Asked when the guard is to be loaded at boot: whether its service is started; `None` without a systemd that runs.
    pub guard_service: &'a dyn Fn() -> Option<bool>,
    /// Asked with the text of our drop-in and a setting's name.
    pub would_lose: WouldLose<'a>,
}

impl std::fmt::Debug for Ground<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ground").field("is_live", &self.is_live).field("allow", &self.allow).finish_non_exhaustive()
    }
}

/// The port set that keeps client sockets off the workload's ports.
const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";

/// The override of consent for the daemon's own file.
pub const ALLOW_DAEMON_JSON: &str = "docker.daemon-json";

/// Whether an id can stand behind `--allow` at all. A file that decides now may be gone when the plan is made again, so
/// any path does.
pub fn is_allowable(id: &str) -> bool {
    matches!(id, ALLOW_DAEMON_JSON | owner::TUNED | ALLOW_PEERS | ALLOW_SSHD) || owner::is_file_owner(id)
}

/// Plans what the wishes need.
pub fn plan(wishes: &[Wish], ground: &Ground<'_>) -> Plan {
    let mut planner = Planner {
        ground,
        live: Vec::new(),
        sysctl: ground.existing.text(files::SYSCTL).map(files::parse_sysctl).unwrap_or_default(),
        thp: BTreeMap::new(),
        boot: BTreeMap::new(),
        units: BTreeMap::new(),
        conflicts: Vec::new(),
        manual: Vec::new(),
    };
    planner.thp = if planner.is_openrc() {
        ground.existing.text(files::OPENRC).map(files::parse_openrc).unwrap_or_default()
    } else {
        ground.existing.text(files::TMPFILES).map(files::parse_tmpfiles).unwrap_or_default()
    };
    for wish in wishes {
        planner.wish(wish);
    }
    planner.finish()
}

pub(crate) struct Planner<'a> {
    pub(crate) ground: &'a Ground<'a>,
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

impl Planner<'_> {
    pub(crate) fn wish(&mut self, wish: &Wish) {
        if wish.fact == "derived.port.ephemeral-overlap" {
            return self.reserved_ports(wish);
        }
        if wish.fact == "derived.firewall.guard" {
            return self.firewall_guard(wish);
        }
        if wish.fact == "derived.firewall.entries" {
            return self.firewall_entries(wish);
        }
        if let Some(name) = wish.fact.strip_prefix("sysctl.") {
            return self.sysctl(wish, name);
        }
        if let Some(service) = wish.fact.strip_prefix("limits.service-nofile.") {
            return self.service_nofile(wish, service);
        }
        match wish.fact.as_str() {
            "thp.enabled" => self.thp(wish),
            "thp.always-sizes" => self.thp_sizes(wish),
            "limits.container-nofile" => self.nofile(wish),
            _ => {}
        }
    }

    pub(crate) fn sysctl(&mut self, wish: &Wish, name: &str) {
        let target = text(&wish.to);
        self.live_change(wish, &format!("sysctl:{name}"), &target);
        // What is better now must not be worse after a boot.
        let lasting = match &wish.live {
            Standing::Accepted(value) => text(value),
            _ => target.clone(),
        };
        self.boot_line(wish, name, lasting);
        if registry::scope(&wish.fact) == Scope::Network && !self.on_host_network() {
            self.container_sysctl(wish, name, &target);
        }
    }

    /// A change of the running kernel, unless it is as wished, or cannot be known or done here.
    pub(crate) fn live_change(&mut self, wish: &Wish, target: &str, after: &str) {
        if !self.ground.is_live {
            return;
        }
        let before = match &wish.live {
            Standing::Off(value) => text(value),
            Standing::Accepted(_) | Standing::Absent(_) | Standing::NotGathered => return,
            Standing::Unknown(why) => {
                let reason = format!("its value is not known, so it is not changed: {why}");
                return self.manual(wish, &reason, format!("# {target}: look at it, then set it to {after}"));
            }
        };
        if let Some(container) = self.inside_container() {
            let reason = format!("this runs inside a container ({container}); the setting is the host's");
            return self.manual(
                wish,
                &reason,
                format!("preflight tune --apply --only {}   # on the host", wish.finding.id),
            );
        }
        self.live.push(Change {
            id: wish.finding.id.clone(),
            layer: Layer::Live,
            target: target.to_owned(),
            undo: format!("write `{before}` back"),
            before: Some(before),
            after: after.to_owned(),
            kind: kind(wish),
            restarts: restarts(wish),
            connectivity_risk: false,
        });
    }

    /// A line of our sysctl.d drop-in, unless the next boot brings an accepted value anyway.
    pub(crate) fn boot_line(&mut self, wish: &Wish, name: &str, value: String) {
        if matches!(wish.boot, Standing::Accepted(_)) {
            return;
        }
        let check = wish.finding.id.clone();
        let line = Line { value, check: check.clone() };
        if self.sysctl.get(name) != Some(&line) {
            self.sysctl.insert(name.to_owned(), line);
            self.boot.entry(files::SYSCTL.to_owned()).or_default().push((check, kind(wish)));
        } else if let Standing::Off(found) = &wish.boot {
            // Our line is there, and something else decides.
            self.owner_conflict(&format!("sysctl.{name}"), name, files::SYSCTL, found);
        }
    }

    pub(crate) fn container_sysctl(&mut self, wish: &Wish, name: &str, target: &str) {
        if matches!(wish.container, Standing::Accepted(_)) {
            return;
        }
        let reason = "containers with a network of their own do not get the host's value";
        self.manual(wish, reason, format!("sysctls:\n  {name}: {target}"));
    }

    /// The workload's ports are added to the set that the kernel gives to nobody by itself.
    pub(crate) fn reserved_ports(&mut self, wish: &Wish) {
        let ports: Vec<String> = match &wish.live {
            Standing::Off(Value::Set(_)) => self.ground.parameters.ports().map(|port| port.port.to_string()).collect(),
            _ => return,
        };
        let Some(ours) = Numbers::parse(&ports.join(",")) else { return };
        let id = format!("sysctl.{RESERVED}");
        let now = self.ground.facts.value(&id).map(text).unwrap_or_default();
        let Some(known) = Numbers::parse(&now) else {
            let reason = format!("`{now}` is not understood as a set of ports");
            return self.manual(wish, &reason, format!("sysctl -w {RESERVED}={ours}"));
        };
        let after = known.union(&ours).to_string();
        if self.ground.is_live && after != now {
            self.live.push(Change {
                id: wish.finding.id.clone(),
                layer: Layer::Live,
                target: format!("sysctl:{RESERVED}"),
                undo: format!("take {ours} out of the set again"),
                before: Some(now),
                after: after.clone(),
                kind: kind(wish),
                restarts: Vec::new(),
                connectivity_risk: false,
            });
        }
        self.boot_line(wish, RESERVED, after);
    }

    pub(crate) fn thp(&mut self, wish: &Wish) {
        let target = text(&wish.to);
        self.live_change(wish, "thp:enabled", &target);
        let lasting = match &wish.live {
            Standing::Accepted(value) => text(value),
            _ => target,
        };
        self.thp_boot(wish, "enabled", lasting);
    }

    /// Only sizes at `always` are touched: they follow the main setting again.
    pub(crate) fn thp_sizes(&mut self, wish: &Wish) {
        for (standing, is_live) in [(&wish.live, true), (&wish.boot, false)] {
            let Standing::Off(Value::Set(sizes)) = standing else { continue };
            for size in sizes {
                let folder = format!("hugepages-{size}");
                if is_live && self.ground.is_live {
                    self.live.push(Change {
                        id: wish.finding.id.clone(),
                        layer: Layer::Live,
                        target: format!("thp:{folder}"),
                        before: Some("always".into()),
                        after: "inherit".into(),
                        kind: kind(wish),
                        undo: "write `always` back".into(),
                        restarts: restarts(wish),
                        connectivity_risk: false,
                    });
                } else if !is_live {
                    self.thp_boot(wish, &format!("{folder}/enabled"), "inherit".into());
                }
            }
        }
    }

    pub(crate) fn thp_boot(&mut self, wish: &Wish, file: &str, word: String) {
        if matches!(wish.boot, Standing::Accepted(_)) {
            return;
        }
        let source = self.ground.facts.get(&wish.fact, Layer::Boot).map(|fact| fact.source.clone()).unwrap_or_default();
        if source.contains("/cmdline") {
            let reason = "the kernel command line decides before any file";
            return self.manual(wish, reason, format!("transparent_hugepage={word}   # on the kernel command line"));
        }
        if source.contains("/tuned/") {
            return self.tuned(wish, &word, &source);
        }
        let path = if self.is_openrc() { files::OPENRC } else { files::TMPFILES };
        let check = wish.finding.id.clone();
        let line = Line { value: word, check: check.clone() };
        if self.thp.get(file) != Some(&line) {
            self.thp.insert(file.to_owned(), line);
            self.boot.entry(path.to_owned()).or_default().push((check, kind(wish)));
        }
    }

    pub(crate) fn finish(mut self) -> Plan {
        let sysctl = files::sysctl_text(&self.sysctl);
        for (name, line) in self.sysctl.clone() {
            if self.boot.contains_key(files::SYSCTL)
                && let Some((value, by)) = (self.ground.would_lose)(&sysctl, &name)
            {
                let reason = format!("{by} sets {name} to `{value}` at the next boot, after our `{}`", line.value);
                self.conflict(&owner_id(&by), &format!("sysctl:{name}"), &reason);
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
            if self.ground.existing.text(&path) != Some(after.as_str()) {
                self.live.push(self.file(&path, after, checks));
            }
        }
        self.runlevel(weight);
        Plan::new(self.live, self.conflicts, self.manual)
    }

    /// OpenRC runs a script only when it is linked into a runlevel.
    pub(crate) fn runlevel(&mut self, kind: Kind) {
        let is_linked = files::OPENRC_LINKS.iter().any(|path| self.ground.existing.text(path).is_some());
        if self.is_openrc() && !self.thp.is_empty() && !is_linked {
            let checks = self.thp.values().map(|line| line.check.clone()).collect::<BTreeSet<_>>();
            self.live.push(Change {
                id: checks.into_iter().collect::<Vec<_>>().join(","),
                layer: Layer::Boot,
                target: format!("link:{}", files::OPENRC_LINK),
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
        let before = self.ground.existing.text(path).map(str::to_owned);
        let kind = heaviest(&checks);
        let ids: Vec<String> = checks.into_iter().map(|(id, _)| id).collect();
        Change {
            id: ids.join(","),
            layer: Layer::Boot,
            target: format!("file:{path}"),
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
        let source = self.ground.facts.get(fact, Layer::Boot).map(|fact| fact.source.clone());
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
        self.ground.parameters.text("topology") == Some("host")
    }

    pub(crate) fn is_openrc(&self) -> bool {
        self.ground.os.service_manager == ServiceManager::OpenRc
    }

    /// The kind of container this process runs in; its kernel settings are not its own.
    pub(crate) fn inside_container(&self) -> Option<String> {
        match self.ground.facts.get("host.container", Layer::Live).map(|fact| &fact.state) {
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

/// What must be restarted before Redis profits.
fn restarts(wish: &Wish) -> Vec<String> {
    let late = matches!(wish.fact.as_str(), "thp.enabled" | "thp.always-sizes" | "sysctl.net.core.somaxconn");
    if late { vec!["the Redis containers".to_owned()] } else { Vec::new() }
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

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
