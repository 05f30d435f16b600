//! How far a transaction has come, as a word.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The states of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing was written yet.
    Planned,
    /// The new files lie beside their targets; the journal has its space.
    Staged,
    /// The timer runs.
    Armed,
    /// Live knobs are being written.
    Applying,
    /// Everything live is written and is being watched.
    Verifying,
    /// Live and waiting for the confirm; nothing is on the disk yet.
    PendingConfirm,
    /// Confirmed; the disk is being written. A recovery goes forward.
    Persisting,
    Committed,
    RollingBack,
    RolledBack,
    /// Everything that was still ours is back; what somebody else changed meanwhile was left alone and is named.
    RolledBackWithConflicts,
    /// Something stood in the way; the transaction stays open.
    RollbackFailed,
}

impl State {
    /// Whether nothing is left to do.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Committed | Self::RolledBack | Self::RolledBackWithConflicts)
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::PendingConfirm => "applied, waiting for the confirm",
            Self::RolledBack => "rolled back",
            Self::RolledBackWithConflicts => "rolled back, but for values of others",
            Self::RollbackFailed => "could not be taken back",
            _ => "unfinished",
        }
    }
}
