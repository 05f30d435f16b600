//! Whether everything that was committed still is the case.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Env;
use super::id::TxId;
use super::journal::Step;
use super::managed::Held;
use super::outcome::ApplyError;
use crate::exit::ExitCode;
use crate::facts::Layer;

/// How something differs from what was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// The kernel has another value.
    Live,
    /// Our file is gone.
    Boot,
    /// Our file has other content.
    ForeignEdit,
    /// Our file is as it was, and another one wins at the next boot.
    Overridden,
    /// It could not be read, which is neither.
    Unknown,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verified {
    /// How many knobs were looked at.
    pub checked: usize,
    pub drifts: Vec<Drift>,
}

impl Verified {
    /// Drift, or 3 when something could not be read and nothing is known to have drifted.
    pub fn exit(&self) -> ExitCode {
        let is_unknown = |drift: &Drift| drift.kind == DriftKind::Unknown;
        match self.drifts.as_slice() {
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
                if held.layer == Layer::Boot {
                    boot.push((step(target, held), held));
                }
            }
            Ok((_, Ok(current))) => {
                let is_file = held.layer == Layer::Boot || target.starts_with("file:") || target.starts_with("link:");
                let kind = match &current.value {
                    None if is_file => DriftKind::Boot,
                    Some(_) if is_file => DriftKind::ForeignEdit,
                    _ => DriftKind::Live,
                };
                drifts.push(drift(kind, current.value, None));
            }
            Ok((_, Err(error))) => drifts.push(drift(DriftKind::Unknown, None, Some(error.to_string()))),
            Err(error) => drifts.push(drift(DriftKind::Unknown, None, Some(error.to_string()))),
        }
    }
    let steps: Vec<&Step> = boot.iter().map(|(step, _)| step).collect();
    let overridden = if steps.is_empty() { Vec::new() } else { env.boot.overridden(&steps) };
    for overridden in overridden {
        let Some((_, held)) = boot.first() else { break };
        drifts.push(Drift {
            kind: DriftKind::Overridden,
            id: held.id.clone(),
            target: overridden.target,
            tx: held.tx.clone(),
            expected: overridden.expected,
            found: Some(overridden.found),
            by: Some(overridden.by),
        });
    }
    Ok(Verified { checked, drifts })
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
