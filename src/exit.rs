//! The exit codes of the program: one list for everything that ends.

use std::process;

/// Every exit code of the program, as documented in the README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Ready enough; or the command did what it was asked, be it that there was nothing to do.
    Success = 0,
    /// Not ready, or `verify` found drift.
    NotReady = 1,
    /// Refused, and nothing was changed: wrong usage, a bad profile or snapshot, a conflict that was not allowed.
    Refused = 2,
    /// It cannot be determined, it is not permitted, or the state cannot be believed.
    CannotTell = 3,
    /// An apply failed and was rolled back.
    RolledBack = 4,
    /// Another transaction is pending, or the lock is held.
    Busy = 5,
    /// A rollback could not restore everything.
    Conflicts = 6,
    /// Applied, waiting for the confirm.
    Pending = 7,
    /// An internal error, or the report could not be written.
    Internal = 70,
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
