//! Kernel settings and huge pages: the wish for one becomes a change of the running kernel and a line for the next boot.

use super::knob_sysctl;
use crate::change::Change;
use crate::change::files;
use crate::change::files::Line;
use crate::change::planner::{Planner, kind, text};
use crate::change::target::Target;
use crate::facts::registry::{self, Scope};
use crate::facts::{Layer, Value};
use crate::judge::wish::{Standing, Wish};

/// The facts that are tuned here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunable<'a> {
    /// A kernel setting, by its name.
    Sysctl(&'a str),
    HugePages,
    HugePageSizes,
}

impl<'a> Tunable<'a> {
    /// `None` for a fact of another subject, and for a setting that is never set.
    pub fn of(fact: &'a str) -> Option<Self> {
        match fact {
            "thp.enabled" => Some(Self::HugePages),
            "thp.always-sizes" => Some(Self::HugePageSizes),
            _ => fact.strip_prefix("sysctl.").filter(|name| knob_sysctl::never(name).is_none()).map(Self::Sysctl),
        }
    }

    pub fn plan(self, planner: &mut Planner<'_>, wish: &Wish) {
        match self {
            Self::Sysctl(name) => planner.sysctl(wish, name),
            Self::HugePages => planner.thp(wish),
            Self::HugePageSizes => planner.thp_sizes(wish),
        }
    }
}

/// Why a kernel setting is never set.
pub fn never(fact: &str) -> Option<&'static str> {
    fact.strip_prefix("sysctl.").and_then(knob_sysctl::never)
}

impl Planner<'_> {
    fn sysctl(&mut self, wish: &Wish, name: &str) {
        let target = text(&wish.to);
        self.live_change(wish, &Target::Sysctl(name).to_string(), &target);
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
    fn live_change(&mut self, wish: &Wish, target: &str, after: &str) {
        if !self.context.is_live {
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

    fn container_sysctl(&mut self, wish: &Wish, name: &str, target: &str) {
        if matches!(wish.container, Standing::Accepted(_)) {
            return;
        }
        let reason = "containers with a network of their own do not get the host's value";
        self.manual(wish, reason, format!("sysctls:\n  {name}: {target}"));
    }

    fn thp(&mut self, wish: &Wish) {
        let target = text(&wish.to);
        self.live_change(wish, &Target::HUGE_PAGES.to_string(), &target);
        let lasting = match &wish.live {
            Standing::Accepted(value) => text(value),
            _ => target,
        };
        self.thp_boot(wish, "enabled", lasting);
    }

    /// Only sizes at `always` are touched: they follow the main setting again.
    fn thp_sizes(&mut self, wish: &Wish) {
        for (standing, is_live) in [(&wish.live, true), (&wish.boot, false)] {
            let Standing::Off(Value::Set(sizes)) = standing else { continue };
            for size in sizes {
                let folder = format!("hugepages-{size}");
                if is_live && self.context.is_live {
                    self.live.push(Change {
                        id: wish.finding.id.clone(),
                        layer: Layer::Live,
                        target: Target::HugePages(&folder).to_string(),
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

    fn thp_boot(&mut self, wish: &Wish, file: &str, word: String) {
        if matches!(wish.boot, Standing::Accepted(_)) {
            return;
        }
        let source =
            self.context.facts.get(&wish.fact, Layer::Boot).map(|fact| fact.source.clone()).unwrap_or_default();
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
}

/// What must be restarted before Redis profits.
fn restarts(wish: &Wish) -> Vec<String> {
    let late = matches!(wish.fact.as_str(), "thp.enabled" | "thp.always-sizes" | "sysctl.net.core.somaxconn");
    if late { vec!["the Redis containers".to_owned()] } else { Vec::new() }
}
