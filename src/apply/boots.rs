//! What held over which boot, as the unit that verifies after each boot found it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Env;
use super::outcome::ApplyError;
use super::verify::{DriftKind, Verified};
use crate::change::id::TxId;

const SCHEMA: &str = "preflight.boots/1";

/// A host is restarted now and then; what was years ago nobody asks for.
const MAX_BOOTS: usize = 32;

/// What was found after one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    pub boot_id: String,
    /// When the machine was started, and when it was looked at, in UTC.
    pub started_at: String,
    pub verified_at: String,
    /// The transactions that were committed before this boot.
    #[schemars(with = "Vec<String>")]
    pub transactions: Vec<TxId>,
    pub checked: usize,
    /// How many settings and files were otherwise, and how many could not be read.
    pub drifted: usize,
    pub unknown: usize,
}

impl Boot {
    /// Whether everything was as applied.
    pub fn held(&self) -> bool {
        self.drifted == 0 && self.unknown == 0
    }
}

/// The record of all boots, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boots {
    schema: String,
    pub boots: Vec<Boot>,
}

impl Default for Boots {
    fn default() -> Self {
        Self { schema: SCHEMA.to_owned(), boots: Vec::new() }
    }
}

impl Boots {
    /// `None` for anything that is not such a record.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|boots: &Self| boots.schema == SCHEMA)
    }

    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// A later look at the same boot takes the place of an earlier one.
    fn add(&mut self, boot: Boot) {
        self.boots.retain(|known| known.boot_id != boot.boot_id);
        self.boots.push(boot);
        let surplus = self.boots.len().saturating_sub(MAX_BOOTS);
        self.boots.drain(..surplus);
    }
}

/// Writes down what `verify` found in this boot. Where nothing is older than the boot there is nothing to say.
pub fn record(env: &Env<'_>, verified: &Verified) -> Result<(), ApplyError> {
    if verified.before_boot.is_empty() {
        return Ok(());
    }
    let unknown = verified.drifts.iter().filter(|drift| drift.kind == DriftKind::Unknown).count();
    let mut boots = env.store.boots()?.unwrap_or_default();
    boots.add(Boot {
        boot_id: env.clock.boot_id(),
        started_at: started_at(env),
        verified_at: env.clock.wall().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        transactions: verified.before_boot.clone(),
        checked: verified.checked,
        drifted: verified.drifts.len() - unknown,
        unknown,
    });
    Ok(env.store.save_boots(&boots)?)
}

/// When this boot began, by the calendar of now.
pub(super) fn started_at(env: &Env<'_>) -> String {
    let now = env.clock.wall();
    let started = now.checked_sub(env.clock.boottime()).unwrap_or(now);
    started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::super::world::{DROP_IN, World};
    use super::super::{BootTruth, Env, Options, Overridden, StaleProcess, UnknownAtBoot, apply, history, verify};
    use super::*;
    use crate::apply::journal::Step;
    use crate::exit::ExitCode;

    fn committed(world: &World, targets: &[&str]) {
        let wishes: Vec<(&str, &str)> = targets.iter().map(|target| (*target, "p1")).collect();
        let plan = world.plan(&wishes);
        let options = Options { settle: std::time::Duration::ZERO, ..Options::default() };
        world.process(|env| apply(&plan, &options, env)).unwrap().unwrap();
    }

    fn look(world: &World) -> Verified {
        let look = |env: &Env<'_>| verify(env).and_then(|verified| record(env, &verified).map(|()| verified));
        world.process(look).unwrap().unwrap()
    }

    /// Seen failing with the boot of the commit not compared: it held over a boot that had not been.
    #[test]
    fn what_is_older_than_the_boot_and_as_applied_held_over_it() {
        let world = World::new();
        committed(&world, &[DROP_IN]);
        assert!(!look(&world).held_over_boot());
        assert_eq!(world.store().boots().unwrap(), None, "nothing is older than this boot");
        world.reboot();
        assert!(look(&world).held_over_boot());
        look(&world);
        let boots = |world: &World| world.process(|env| history(env, 9)).unwrap().unwrap()[0].boots.clone();
        let seen = boots(&world);
        assert_eq!((seen.len(), seen[0].held(), seen[0].boot_id.as_str()), (1, true, "boot-1"));
        assert_eq!(seen[0].started_at, "2026-01-12T13:46:40Z");
        // A second one, after which somebody has been at the file; and a transaction that is younger.
        world.reboot();
        world.edit(DROP_IN, "edited");
        committed(&world, &["fake:a"]);
        assert!(!look(&world).held_over_boot());
        let seen = world.process(|env| history(env, 9)).unwrap().unwrap();
        assert_eq!(seen[0].boots, [], "the younger one was not there at the boot");
        let found: Vec<bool> = seen[1].boots.iter().map(Boot::held).collect();
        assert_eq!(found, [false, true], "the newest first");
    }

    #[test]
    fn the_record_does_not_grow_and_damage_is_no_record() {
        let world = World::new();
        committed(&world, &[DROP_IN]);
        for _ in 0..40 {
            world.reboot();
            look(&world);
        }
        let boots = world.store().boots().unwrap().unwrap();
        assert_eq!((boots.boots.len(), boots.boots[MAX_BOOTS - 1].boot_id.as_str()), (MAX_BOOTS, "boot-40"));
        for text in ["", "{", "{\"schema\": \"preflight.boots/2\", \"boots\": []}"] {
            assert_eq!(Boots::parse(text.as_bytes()), None, "{text}");
        }
    }

    /// Says of every step since when it counts.
    #[derive(Debug)]
    struct Asked(bool);

    impl BootTruth for Asked {
        fn overridden(&self, _: &[&Step]) -> Vec<Result<Overridden, UnknownAtBoot>> {
            Vec::new()
        }

        fn behind(&self, step: &Step, since_us: Option<u64>) -> Result<Vec<StaleProcess>, String> {
            let reason = since_us.map_or("before this boot", |_| "in this boot").to_owned();
            Ok(vec![StaleProcess { what: step.target.clone(), is_certain: self.0, reason }])
        }
    }

    /// Seen failing with `Verified::exit` not looking at restarts.
    #[test]
    fn what_runs_with_an_older_value_is_told_and_counts_when_it_is_certain() {
        let world = World::new();
        committed(&world, &["fake:a", DROP_IN]);
        let ask = |is_certain: bool| {
            let boot = Asked(is_certain);
            world.process(|env| verify(&Env { boot: &boot, ..env.clone() })).unwrap().unwrap()
        };
        let certain = ask(true);
        let said: Vec<_> = certain.restarts.iter().map(|it| (it.what.as_str(), it.reason.as_str())).collect();
        assert_eq!(said, [("fake:a", "in this boot"), (DROP_IN, "in this boot")]);
        assert_eq!((certain.exit(), ask(false).exit()), (ExitCode::NotReady, ExitCode::Success));
        world.reboot();
        world.edit("fake:a", "p1");
        assert!(ask(false).restarts.iter().all(|it| it.reason == "before this boot"));
    }
}
