//! From a report to an exit code.

use crate::catalog::check::Severity;
use crate::exit::ExitCode;
use crate::report::model::{Outcome, Report};

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
