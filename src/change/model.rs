//! The plan, as printed (`preflight.plan/1`) and as carried out. It holds no code: each change names its knob by a
//! target such as `sysctl:vm.overcommit_memory`, which only a known adapter can resolve.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::state::State;
use super::target::Target;
use crate::facts::Layer;

/// The name and version of the plan format.
pub const SCHEMA: &str = "preflight.plan/1";

/// The ordered changes; none when there is nothing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// `preflight.plan/1`.
    pub schema: String,
    /// In the order in which they are carried out, within the live layer and within the boot layer: everything live is
    /// done first, and the disk only after the confirm.
    pub changes: Vec<Change>,
    /// Others who own what would be changed. Each must be allowed by its id before the plan can be carried out.
    pub conflicts: Vec<Conflict>,
    /// What preflight cannot apply itself, with its exact text.
    pub manual: Vec<Manual>,
    /// Transactions that have not ended: what this plan found may be taken back at any moment.
    #[serde(default)]
    pub unfinished: Vec<Unfinished>,
}

/// Why a change is in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The finding is not a pass.
    Needed,
    /// The finding passes; the profile wants more.
    Target,
}

/// One step on one layer of one knob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The check that asks for it: `kernel.overcommit`. Where several share a file, all of them, joined by commas.
    pub id: String,
    pub layer: Layer,
    /// `sysctl:vm.overcommit_memory`, `thp:enabled`, `thp:hugepages-2048kB`, `file:/etc/sysctl.d/99-zz-preflight.conf`.
    pub target: String,
    /// The value found; null when there is none, such as a file that does not exist.
    pub before: Option<String>,
    /// The value to be: a setting, or the whole content of a file.
    pub after: String,
    pub kind: Kind,
    /// How it is taken back, in words: `write 0 back`, `remove the file`.
    pub undo: String,
    /// What must be restarted before it takes effect: units or containers.
    pub restarts: Vec<String>,
    /// Whether it can cut the connection of the person who applies it.
    pub connectivity_risk: bool,
}

impl Change {
    /// The checks that ask for it.
    pub fn checks(&self) -> impl Iterator<Item = &str> {
        self.id.split(',')
    }

    /// Whether it is a file or another text of many lines, which is shown as what changes in it.
    pub fn is_text(&self) -> bool {
        matches!(Target::of(&self.target), Some(Target::File(_))) || self.after.contains('\n')
    }
}

/// Another owner of a knob, or a change of such weight that it needs a consent of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Conflict {
    /// What `--allow` takes: `owner:tuned`, `docker.daemon-json`.
    pub id: String,
    /// The targets it concerns; empty when it concerns the whole plan.
    #[serde(default)]
    pub targets: Vec<String>,
    /// What is in the way and what happens when it is allowed, in words.
    pub reason: String,
}

/// A step that stays with the administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manual {
    /// The check that asks for it.
    pub id: String,
    /// Why preflight does not do it itself.
    pub reason: String,
    /// The exact text: a Compose fragment, a kernel command line, a command.
    pub text: String,
}

/// A transaction that was begun, and neither kept nor taken back; or, without a name, that it cannot be determined whether there
/// is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unfinished {
    /// Its id; null when preflight's records could not be looked at.
    pub tx: Option<String>,
    /// How far it came; null when its journal does not tell.
    pub state: Option<State>,
    /// How long its confirm is awaited yet, in seconds.
    pub deadline_in_s: Option<u64>,
    /// What that means for the plan, in words.
    pub reason: String,
    /// What to do before anything else.
    pub next: String,
}

impl Plan {
    pub fn new(changes: Vec<Change>, conflicts: Vec<Conflict>, manual: Vec<Manual>) -> Self {
        Self { schema: SCHEMA.to_owned(), changes, conflicts, manual, unfinished: Vec::new() }
    }

    /// Nothing to do. A step in `manual` is not a change: the plan of a tuned host is empty.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether any change can cut the connection of the person who applies it.
    pub fn is_connectivity_risk(&self) -> bool {
        self.changes.iter().any(|change| change.connectivity_risk)
    }

    /// The conflicts that `allowed` does not name.
    pub fn unallowed<'a>(&'a self, allowed: &'a [String]) -> impl Iterator<Item = &'a Conflict> {
        self.conflicts.iter().filter(move |conflict| !allowed.contains(&conflict.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_the_documented_one() {
        let plan = Plan::new(
            vec![Change {
                id: "kernel.overcommit".into(),
                layer: Layer::Live,
                target: "sysctl:vm.overcommit_memory".into(),
                before: Some("0".into()),
                after: "1".into(),
                kind: Kind::Needed,
                undo: "write 0 back".into(),
                restarts: Vec::new(),
                connectivity_risk: false,
            }],
            Vec::new(),
            Vec::new(),
        );
        let json = serde_json::to_value(&plan).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "schema": "preflight.plan/1",
                "changes": [{
                    "id": "kernel.overcommit", "layer": "live", "target": "sysctl:vm.overcommit_memory",
                    "before": "0", "after": "1", "kind": "needed", "undo": "write 0 back", "restarts": [],
                    "connectivity_risk": false,
                }],
                "conflicts": [],
                "manual": [],
                "unfinished": [],
            })
        );
        assert_eq!(serde_json::from_value::<Plan>(json).unwrap(), plan);
    }

    #[test]
    fn only_the_named_conflict_is_allowed() {
        let conflict = |id: &str| Conflict { id: id.into(), targets: Vec::new(), reason: String::new() };
        let plan = Plan::new(Vec::new(), vec![conflict("owner:tuned"), conflict("docker.daemon-json")], Vec::new());
        let left: Vec<_> = plan.unallowed(&["owner:tuned".into()][..]).map(|conflict| conflict.id.clone()).collect();
        assert_eq!(left, ["docker.daemon-json"]);
    }
}
