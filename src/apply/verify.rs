//! Whether everything that was committed still is the case.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::boots;
use super::journal::Step;
use super::managed::Held;
use super::outcome::ApplyError;
use super::progress::Progress;
use super::transaction::is_in_time;
use super::{Env, StaleProcess};
use crate::change::id::TxId;
use crate::change::state::State;
use crate::change::target::Target;
use crate::exit::ExitCode;
use crate::facts::Layer;
use crate::host::safe_file::Attributes;

/// How something differs from what was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// The kernel has another value.
    Live,
    /// Our file is gone.
    Boot,
    /// Our file has other content, or others may write it.
    ForeignEdit,
    /// Our file is as it was, and another one wins at the next boot.
    Overridden,
    /// It is as it was applied, and what it was made of is not: Docker has other networks now.
    Outdated,
    /// It could not be read, which is neither.
    Unknown,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drift {
    pub kind: DriftKind,
    /// The check that asked for it.
    pub id: String,
    pub target: String,
    #[schemars(with = "String")]
    pub tx: TxId,
    pub expected: String,
    pub found: Option<String>,
    /// The file that wins, or the error.
    pub by: Option<String>,
}

/// Something that has to be started again before it has what was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// `redis-server.service`, `redis-server (process 4711)`.
    pub what: String,
    /// Whether it surely has an older value; else that cannot be seen from outside.
    pub needed: bool,
    pub reason: String,
    /// The check that asked for the change, and the change.
    pub id: String,
    pub target: String,
    #[schemars(with = "String")]
    pub tx: TxId,
}

/// A transaction that was begun, and neither kept nor taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unfinished {
    #[schemars(with = "String")]
    pub tx: TxId,
    /// How far it came; null when its journal does not tell.
    pub state: Option<State>,
    /// Whether it waits for its confirm, in time: then it is nobody's fault.
    pub waits: bool,
}

/// The name and version of the format.
pub const SCHEMA: &str = "preflight.verify/1";

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verified {
    /// `preflight.verify/1`.
    pub schema: String,
    /// How many knobs were looked at.
    pub checked: usize,
    pub drifts: Vec<Drift>,
    /// What runs with an older value, or may.
    pub restarts: Vec<Restart>,
    /// What `recover` or `confirm` has still to end; what it set is not compared.
    pub unfinished: Vec<Unfinished>,
    /// When this boot began, in UTC; null for an image.
    pub boot_started_at: Option<String>,
    /// The transactions that were committed before it: with nothing drifted, they held over a boot.
    #[schemars(with = "Vec<String>")]
    pub before_boot: Vec<TxId>,
}

impl Verified {
    /// Whether everything is as applied, and older than this boot.
    pub fn held_over_boot(&self) -> bool {
        self.drifts.is_empty() && self.unfinished.is_empty() && !self.before_boot.is_empty()
    }

    /// Drift, a service that has not got it yet, or 3 when something could not be read and nothing is known to have drifted.
    pub fn exit(&self) -> ExitCode {
        let is_unknown = |drift: &Drift| drift.kind == DriftKind::Unknown;
        match self.drifts.as_slice() {
            _ if self.restarts.iter().any(|restart| restart.needed) => ExitCode::NotReady,
            _ if self.unfinished.iter().any(|unfinished| !unfinished.waits) => ExitCode::NotReady,
            [] => ExitCode::Success,
            drifts if drifts.iter().all(is_unknown) => ExitCode::CannotTell,
            _ => ExitCode::NotReady,
        }
    }
}

/// Compares the host with what preflight holds. Takes no lock and changes nothing.
pub fn verify(env: &Env<'_>) -> Result<Verified, ApplyError> {
    let managed = env.store.managed()?;
    let mut drifts = Vec::new();
    let mut checked = 0;
    let mut boot: Vec<(Step, &Held)> = Vec::new();
    let mut restarts = Vec::new();
    let journals = Journals::read(env, managed.desired().map(|(_, held)| &held.tx));
    for (target, held) in managed.desired() {
        checked += 1;
        let drift = |kind, found, by| Drift {
            kind,
            id: held.id.clone(),
            target: target.to_owned(),
            tx: held.tx.clone(),
            expected: held.desired.clone(),
            found,
            by,
        };
        let knob = env.knobs.resolve(target);
        match knob.as_ref().map(|knob| (knob, knob.read())) {
            Ok((knob, Ok(current))) if knob.holds(&current, &held.desired) => {
                match journals.behind(env, target, held) {
                    Ok(behind) => restarts.extend(behind),
                    Err(why) => {
                        let why = format!("whether something runs with an older value: {why}");
                        drifts.push(drift(DriftKind::Unknown, None, Some(why)));
                    }
                }
                match knob.is_in_force() {
                    Ok(true) => {}
                    Ok(false) => {
                        let by = env.boot.suspect(&step(target, held));
                        drifts.push(drift(DriftKind::Live, Some("kept, and not in force".to_owned()), by));
                    }
                    Err(error) => drifts.push(drift(DriftKind::Unknown, None, Some(error.to_string()))),
                }
                if let Some(why) = current.attributes.and_then(Attributes::exposed) {
                    drifts.push(drift(DriftKind::ForeignEdit, None, Some(why)));
                }
                match env.boot.outdated(&step(target, held)) {
                    Ok(None) => {}
                    Ok(Some(now)) => drifts.push(Drift {
                        expected: now.expected,
                        ..drift(DriftKind::Outdated, Some(now.found), Some(now.by))
                    }),
                    Err(why) => drifts.push(drift(DriftKind::Unknown, None, Some(why))),
                }
                if held.layer == Layer::Boot {
                    boot.push((step(target, held), held));
                }
            }
            Ok((_, Ok(current))) => {
                let known = Target::of(target);
                let is_service = matches!(known, Some(Target::Service(_)));
                let is_boot = held.layer == Layer::Boot && !is_service;
                let is_file = is_boot || known.is_some_and(Target::is_on_disk);
                let kind = match &current.value {
                    None if is_file => DriftKind::Boot,
                    Some(_) if is_file => DriftKind::ForeignEdit,
                    _ => DriftKind::Live,
                };
                let by = env.boot.suspect(&step(target, held)).filter(|_| current.value.is_none());
                drifts.push(drift(kind, current.value, by));
            }
            Ok((_, Err(error))) => drifts.push(drift(DriftKind::Unknown, None, Some(error.to_string()))),
            Err(error) => drifts.push(drift(DriftKind::Unknown, None, Some(error.to_string()))),
        }
    }
    let steps: Vec<&Step> = boot.iter().map(|(step, _)| step).collect();
    let overridden = if steps.is_empty() { Vec::new() } else { env.boot.overridden(&steps) };
    for overridden in overridden {
        let Some((_, held)) = boot.first() else { break };
        let (kind, target, expected, found, by) = match overridden {
            Ok(it) => (DriftKind::Overridden, it.target, it.expected, Some(it.found), it.by),
            Err(it) => (DriftKind::Unknown, it.target, it.expected, None, it.why),
        };
        let (id, tx) = (held.id.clone(), held.tx.clone());
        drifts.push(Drift { kind, id, target, tx, expected, found, by: Some(by) });
    }
    let boot_started_at = Some(boots::started_at(env)).filter(|_| !env.clock.boot_id().is_empty());
    let before_boot = journals.before(&env.clock.boot_id());
    let unfinished = unfinished(env)?;
    Ok(Verified { schema: SCHEMA.to_owned(), checked, drifts, restarts, unfinished, boot_started_at, before_boot })
}

/// Of which transactions a recovery would find something to do.
fn unfinished(env: &Env<'_>) -> Result<Vec<Unfinished>, ApplyError> {
    let mut found = Vec::new();
    for tx in env.store.unfinished()? {
        let (state, waits) = match env.store.read(&tx) {
            // It never began.
            Ok(None) => continue,
            Ok(Some(journal)) => match Progress::of(&journal) {
                None => continue,
                // Only its marker was left over.
                Some(progress) if progress.state.is_terminal() => continue,
                Some(progress) => {
                    (Some(progress.state), progress.state == State::PendingConfirm && is_in_time(env, &progress))
                }
            },
            Err(_) => (None, false),
        };
        found.push(Unfinished { tx, state, waits });
    }
    Ok(found)
}

/// The journals of what is held, for when it was done; or why one does not tell.
struct Journals(BTreeMap<TxId, Result<Progress, String>>);

impl Journals {
    fn read<'a>(env: &Env<'_>, transactions: impl Iterator<Item = &'a TxId>) -> Self {
        let progress = |tx: &TxId| {
            let journal = env.store.read(tx).map_err(|error| error.to_string())?;
            journal.as_ref().and_then(Progress::of).ok_or_else(|| format!("transaction {tx} has no journal"))
        };
        let once: BTreeSet<&TxId> = transactions.collect();
        Self(once.into_iter().map(|tx| (tx.clone(), progress(tx))).collect())
    }

    fn behind(&self, env: &Env<'_>, target: &str, held: &Held) -> Result<Vec<Restart>, String> {
        let progress = match self.0.get(&held.tx) {
            Some(Ok(progress)) => Some(progress),
            Some(Err(why)) => return Err(why.clone()),
            None => None,
        };
        let done = progress.and_then(|it| it.steps.iter().find(|step| step.step.target == target)?.done_at.clone());
        let since_us = done.filter(|(boot, _)| *boot == env.clock.boot_id()).map(|(_, at_us)| at_us);
        let restart = |behind: StaleProcess| Restart {
            what: behind.what,
            needed: behind.is_certain,
            reason: behind.reason,
            id: held.id.clone(),
            target: target.to_owned(),
            tx: held.tx.clone(),
        };
        Ok(env.boot.behind(&step(target, held), since_us)?.into_iter().map(restart).collect())
    }

    /// The transactions that were committed in an earlier boot than this one.
    fn before(&self, boot_id: &str) -> Vec<TxId> {
        let is_older = |progress: &&Progress| progress.committed_boot.as_deref().is_some_and(|boot| boot != boot_id);
        let older = self
            .0
            .values()
            .filter_map(|progress| progress.as_ref().ok())
            .filter(is_older)
            .map(|progress| progress.tx.clone());
        if boot_id.is_empty() { Vec::new() } else { older.collect() }
    }
}

fn step(target: &str, held: &Held) -> Step {
    Step {
        id: held.id.clone(),
        layer: held.layer,
        target: target.to_owned(),
        after: held.desired.clone(),
        before_sha256: None,
        restarts: Vec::new(),
        connectivity_risk: false,
    }
}
