//! Knobs: what can be set, and how. Each adapter says honestly what it can do, reads and writes one thing, and decides
//! by itself what a rollback may do to what it finds. A plan or a journal only names a target; [`Knobs::resolve`] turns the
//! name into an adapter or refuses it.

use std::fmt::Debug;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::TxId;
use crate::facts::Layer;
use crate::host::safe_file::{Attributes, FileError};

/// What an adapter can do. Declared, so that a plan can refuse beforehand what could not be taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[expect(clippy::struct_excessive_bools, reason = "independent properties, not a state")]
pub struct Capabilities {
    /// A reader sees the old or the new state, never one between.
    pub atomic: bool,
    /// What a write did can be taken back.
    pub revertable: bool,
    /// A write outlives a reboot by itself, so that a power cut takes nothing back.
    pub persists_as_it_applies: bool,
    /// A write can cut the connection of the person who applies it.
    pub connectivity_risk: bool,
    /// Targets that the kernel may move along with this one.
    pub footprint: Vec<String>,
}

impl Capabilities {
    /// What the running kernel or a program holds: set at once, and gone with the next boot.
    pub const fn live() -> Self {
        Self {
            atomic: true,
            revertable: true,
            persists_as_it_applies: false,
            connectivity_risk: false,
            footprint: Vec::new(),
        }
    }

    /// What lies on the disk under a name: replaced by a rename, and there until somebody takes it away.
    pub fn on_disk() -> Self {
        Self { persists_as_it_applies: true, ..Self::live() }
    }
}

/// A knob as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// The value, in the form in which values are compared; null when there is none, such as a file that is not there.
    pub value: Option<String>,
    /// Mode and owner of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Attributes>,
    /// How many folders on the way to a file do not exist, and go again with it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing_folders: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

impl Reading {
    pub fn of(value: impl Into<String>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }
}

/// What a rollback does with what it finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    /// The old state is there.
    Already,
    /// Write this. `drifted` holds what somebody made of an object that is ours alone.
    Restore { to: Reading, drifted: Option<String> },
    /// Somebody else's value: leave it.
    Conflict { expected: String },
}

/// What a rollback knows about one change.
#[derive(Debug, Clone, Copy)]
pub struct Undoing<'a> {
    pub before: &'a Reading,
    /// What was written.
    pub wrote: &'a str,
    /// What the knob said after the write, where that was seen.
    pub observed: Option<&'a str>,
    pub current: &'a Reading,
}

/// Why a knob could not be read, written or accepted.
#[derive(Debug, thiserror::Error)]
pub enum KnobError {
    #[error("`{0}` is not something that preflight sets")]
    UnknownTarget(String),
    #[error("{target} does not take `{value}`: {reason}")]
    BadValue { target: String, value: String, reason: String },
    #[error("{target}: {source}")]
    File { target: String, source: FileError },
    #[error("{target} cannot be set here: {reason}")]
    Unavailable { target: String, reason: String },
}

impl KnobError {
    /// The process may not do that, however often it tries.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::File { source, .. } => matches!(
                source.source.kind(),
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem
            ),
            _ => false,
        }
    }
}

/// One thing that can be set, on one layer.
pub trait Knob: Debug {
    /// The name under which it is resolved again.
    fn target(&self) -> &str;

    fn layer(&self) -> Layer;

    fn capabilities(&self) -> Capabilities;

    fn read(&self) -> Result<Reading, KnobError>;

    /// Refuses a value that the knob could not take, before anything has changed.
    fn validate(&self, after: &str) -> Result<(), KnobError>;

    /// Everything that can fail for want of space or permission, before anything has changed.
    fn stage(&self, tx: &TxId, after: &str) -> Result<(), KnobError>;

    /// Takes away what [`Knob::stage`] put down; what is not there is fine.
    fn unstage(&self, tx: &TxId) -> Result<(), KnobError>;

    fn write(&self, tx: &TxId, value: &str) -> Result<(), KnobError>;

    /// Brings back an earlier state.
    fn restore(&self, tx: &TxId, to: &Reading) -> Result<(), KnobError>;

    /// What to write so that `after` holds: for a set, the union with what is there.
    fn merge(&self, _current: &Reading, after: &str) -> String {
        after.to_owned()
    }

    /// Whether what was asked for is the case.
    fn holds(&self, current: &Reading, after: &str) -> bool {
        current.value.as_deref() == Some(after)
    }

    /// Whether what is there also has effect. A rule in a manager's files may be gone from the kernel; for a transaction it is
    /// there, since it comes back with the manager, and for `verify` it is not.
    fn is_in_force(&self) -> Result<bool, KnobError> {
        Ok(true)
    }

    /// Whether a change of `before` since it was read is somebody's edit that must stop a transaction. For an object of
    /// ours alone it is not.
    fn is_shared(&self) -> bool {
        true
    }

    /// Whether this is what takes the others back after a power cut: it stays as long as any of them could not be.
    fn is_for_recovery(&self) -> bool {
        false
    }

    /// Decides a rollback. The default is compare-and-swap: of what is shared, only the value that we left is replaced.
    /// What is ours alone goes whatever became of it, and what somebody made of it is kept in the journal.
    fn undo(&self, case: Undoing<'_>) -> Undo {
        let ours = case.observed.unwrap_or(case.wrote);
        if case.current.value == case.before.value {
            // A folder that a killed run made on the way goes too.
            if case.current.value.is_none() && case.current.missing_folders < case.before.missing_folders {
                return Undo::Restore { to: case.before.clone(), drifted: None };
            }
            Undo::Already
        } else if case.current.value.as_deref() == Some(ours) {
            Undo::Restore { to: case.before.clone(), drifted: None }
        } else if !self.is_shared() {
            Undo::Restore { to: case.before.clone(), drifted: case.current.value.clone() }
        } else {
            Undo::Conflict { expected: ours.to_owned() }
        }
    }
}

/// Turns targets into adapters.
pub trait Knobs: Debug {
    fn resolve(&self, target: &str) -> Result<Box<dyn Knob + '_>, KnobError>;
}
