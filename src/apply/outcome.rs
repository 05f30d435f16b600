//! What came of it, for people, for programs (`preflight.apply/1`) and as an exit code.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::progress::{Progress, StepProgress};
use super::store::StoreError;
use crate::change::id::TxId;
use crate::change::state::State;
use crate::exit::ExitCode;
use crate::facts::Layer;

/// The name and version of the format.
pub const SCHEMA: &str = "preflight.apply/1";

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    Apply,
    Confirm,
    Rollback,
    Recover,
}

/// What came of one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepResult {
    Applied,
    /// It waits for the confirm.
    Waiting,
    /// It is as it was before.
    Undone,
    /// Nobody touched it.
    Untouched,
    /// Somebody else's value was found and left alone.
    Conflict,
    /// It could neither be finished nor taken back.
    Failed,
}

/// One change of the transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeOutcome {
    pub id: String,
    pub layer: Layer,
    pub target: String,
    pub before: Option<String>,
    pub after: String,
    pub result: StepResult,
}

/// A value that is neither the old nor ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConflictOutcome {
    pub target: String,
    pub expected: String,
    pub found: Option<String>,
}

/// The end of a command that may have changed the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    pub schema: String,
    pub verb: Verb,
    /// Null when there was nothing to do.
    #[schemars(with = "Option<String>")]
    pub tx: Option<TxId>,
    pub state: Option<State>,
    /// `CLOCK_BOOTTIME` in microseconds, while the confirm is awaited.
    pub deadline_us: Option<u64>,
    /// How long the confirm is awaited yet, in seconds.
    pub deadline_in_s: Option<u64>,
    /// Whether the host is now otherwise than before the command.
    pub changed: bool,
    pub changes: Vec<ChangeOutcome>,
    pub conflicts: Vec<ConflictOutcome>,
    /// What must be restarted before everything takes effect.
    pub restarts: Vec<String>,
    /// Why it failed or was taken back.
    pub reason: Option<String>,
    /// What went wrong without changing the result.
    pub warnings: Vec<String>,
}

impl Outcome {
    /// Nothing to do.
    pub fn unchanged(verb: Verb) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            verb,
            tx: None,
            state: None,
            deadline_us: None,
            deadline_in_s: None,
            changed: false,
            changes: Vec::new(),
            conflicts: Vec::new(),
            restarts: Vec::new(),
            reason: None,
            warnings: Vec::new(),
        }
    }

    pub(super) fn of(verb: Verb, progress: &Progress, now_us: u64) -> Self {
        let deadline_us =
            progress.deadline.as_ref().map(|(at, _)| *at).filter(|_| progress.state == State::PendingConfirm);
        let steps = &progress.steps;
        let conflict = |step: &StepProgress| {
            let (expected, found) = step.conflict.clone()?;
            Some(ConflictOutcome { target: step.step.target.clone(), expected, found })
        };
        let applies = matches!(progress.state, State::Committed | State::PendingConfirm);
        let mut restarts: Vec<String> = Vec::new();
        for restart in steps.iter().filter(|_| applies).flat_map(|step| &step.step.restarts) {
            if !restarts.contains(restart) {
                restarts.push(restart.clone());
            }
        }
        Self {
            tx: Some(progress.tx.clone()),
            state: Some(progress.state),
            deadline_us,
            deadline_in_s: deadline_us.map(|at| at.saturating_sub(now_us).div_ceil(1_000_000)),
            changed: is_changed(verb, progress),
            changes: steps.iter().map(|step| change(step, progress.state)).collect(),
            conflicts: steps.iter().filter_map(conflict).collect(),
            restarts,
            reason: progress.rollback_reason.clone(),
            ..Self::unchanged(verb)
        }
    }

    /// The exit code. An *apply* or a *confirm* that ends rolled back is never a success; a rollback that was asked for
    /// is one when it restored everything.
    pub fn exit(&self) -> ExitCode {
        let asked_back = matches!(self.verb, Verb::Rollback | Verb::Recover);
        match self.state {
            None => ExitCode::Success,
            Some(State::Committed) if self.conflicts.is_empty() => ExitCode::Success,
            Some(State::Committed | State::RolledBackWithConflicts | State::RollbackFailed) => ExitCode::Conflicts,
            Some(State::RolledBack) if asked_back => ExitCode::Success,
            Some(State::RolledBack) => ExitCode::RolledBack,
            Some(State::PendingConfirm) => ExitCode::Pending,
            Some(_) => ExitCode::Internal,
        }
    }
}

fn is_changed(verb: Verb, progress: &Progress) -> bool {
    match (verb, progress.state) {
        (_, State::Committed | State::PendingConfirm) => true,
        (Verb::Apply, State::RolledBack) => false,
        _ => progress.steps.iter().any(|step| step.intent.is_some()),
    }
}

fn change(step: &StepProgress, state: State) -> ChangeOutcome {
    let result = match state {
        _ if step.conflict.is_some() => StepResult::Conflict,
        State::Committed => StepResult::Applied,
        State::PendingConfirm if step.done => StepResult::Applied,
        State::PendingConfirm => StepResult::Waiting,
        _ if step.intent.is_none() => StepResult::Untouched,
        _ if step.undone.is_some() => StepResult::Undone,
        _ => StepResult::Failed,
    };
    ChangeOutcome {
        id: step.step.id.clone(),
        layer: step.step.layer,
        target: step.step.target.clone(),
        before: step.intent.as_ref().and_then(|intent| intent.before.value.clone()),
        after: step.wrote().to_owned(),
        result,
    }
}

/// Why a command ended before it changed anything.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Each conflict with its reason: without a terminal nobody has seen the plan.
    #[error(
        "the plan has conflicts that are not allowed\n{}\nhint: `--allow` with the id of a conflict goes on in spite of it",
        .0.join("\n")
    )]
    NotAllowed(Vec<String>),
    #[error("{0}")]
    Refused(String),
    #[error(
        "transaction {tx} waits for its confirm for another {deadline_in_s} s\nhint: `preflight confirm` keeps it, `preflight rollback` takes it back"
    )]
    Pending { tx: TxId, deadline_in_s: u64 },
    #[error("another preflight is at work{}", .0.as_ref().map(|tx| format!(" on transaction {tx}")).unwrap_or_default())]
    Locked(Option<TxId>),
    #[error(
        "this is the connection over which the change was applied, so it proves nothing about a new one\nhint: confirm over a new connection, or give `--same-connection-ok`"
    )]
    SameConnection,
    #[error(
        "cannot tell over which connection this comes\nhint: confirm over a new SSH connection, or give `--same-connection-ok`"
    )]
    UnknownConnection,
    /// Nothing was changed: the transaction could not even begin.
    #[error("nothing was changed: {0}")]
    NotBegun(StoreError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A transaction that has to be taken back, and nobody knows any more what it changed.
    #[error(
        "transaction {tx} cannot be rolled back: its records are not in {dir}; what it changed stays\nhint: if the folder was moved, move it back and run `preflight recover`",
        dir = .dir.display()
    )]
    Lost { tx: TxId, dir: PathBuf },
}

impl ApplyError {
    pub fn exit(&self) -> ExitCode {
        match self {
            Self::NotAllowed(_)
            | Self::Refused(_)
            | Self::SameConnection
            | Self::UnknownConnection
            | Self::Store(StoreError::NoTransaction(_)) => ExitCode::Refused,
            Self::Pending { .. } | Self::Locked(_) => ExitCode::Busy,
            Self::Store(error) | Self::NotBegun(error) if error.is_denied() => ExitCode::CannotTell,
            Self::NotBegun(_) => ExitCode::RolledBack,
            // Begun before, and it does not go on.
            Self::Store(StoreError::Journal { .. }) | Self::Lost { .. } => ExitCode::Conflicts,
            Self::Store(_) => ExitCode::CannotTell,
        }
    }
}
