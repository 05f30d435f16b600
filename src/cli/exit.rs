//! The one place where exit codes are decided.

use std::process;

use crate::apply::Exit;
use crate::catalog::check::Severity;
use crate::report::model::{Outcome, Report};

/// Every exit code of the program, as documented in the README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Ready enough; or the command did what it was asked.
    Success = 0,
    /// Not ready, or `verify` found drift.
    NotReady = 1,
    /// Wrong usage, a bad profile, a bad snapshot: nothing was changed.
    Usage = 2,
    /// It could not be told, or it is not permitted.
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

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Success => Self::Success,
            Exit::Drift => Self::NotReady,
            Exit::Refused => Self::Usage,
            Exit::CannotTell => Self::CannotTell,
            Exit::RolledBack => Self::RolledBack,
            Exit::Busy => Self::Busy,
            Exit::Conflicts => Self::Conflicts,
            Exit::Pending => Self::Pending,
            Exit::Internal => Self::Internal,
        }
    }
}

/// From which level on a finding makes the exit code red. It changes the exit code, never the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FailOn {
    /// Only failed blockers.
    Blocker,
    /// Failed blockers and required checks.
    Required,
    /// Failed recommended checks too.
    Recommended,
    /// Warnings too.
    Warn,
    /// Nothing: the exit code is 0 whatever was found.
    Never,
}

impl FailOn {
    /// The exit code of a finished report.
    pub fn exit_code(self, report: &Report) -> ExitCode {
        let floor = match self {
            Self::Never => return ExitCode::Success,
            Self::Blocker => Severity::Blocker,
            Self::Required => Severity::Required,
            Self::Recommended | Self::Warn => Severity::Recommended,
        };
        let any = |outcome: Outcome| report.findings.iter().any(|f| f.severity >= floor && f.result == outcome);
        let looked_at =
            report.findings.iter().any(|f| f.severity != Severity::Info && f.result != Outcome::NotApplicable);
        if any(Outcome::Fail) || (self == Self::Warn && any(Outcome::Warn)) {
            ExitCode::NotReady
        } else if any(Outcome::Unknown) || !looked_at {
            ExitCode::CannotTell
        } else {
            ExitCode::Success
        }
    }
}
