//! The command line: one file per subcommand. Data goes to stdout, words to stderr.

mod args;
mod check;
mod exit;
mod explain;
mod facts;
mod generate;
mod lint;
mod list;
mod panic;
mod reference;
mod report;
mod select;
mod show;
mod source;
mod transactions;
mod tune;
mod watch;

use std::io::{self, Write as _};

use clap::Parser as _;

pub use crate::exit::ExitCode;
pub use args::Cli;
use args::{ColorWhen, Command};
pub use exit::FailOn;

/// What ends a command early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The user's input is wrong. The text says where and what to write instead.
    Usage(anyhow::Error),
    /// Files of the catalogue are wrong; each mistake is shown with its lines.
    Files(crate::catalog::diagnostic::Diagnostics),
    /// A change of the host was refused, or ended badly. The code says how.
    Change(ExitCode, anyhow::Error),
    /// What was asked for could not be written where it was to go.
    Unwritten(anyhow::Error),
    /// Something that should work did not.
    Internal(anyhow::Error),
}

impl Stop {
    pub(crate) fn usage(message: impl std::fmt::Display) -> Self {
        Self::Usage(anyhow::anyhow!("{message}"))
    }

    pub(crate) fn unwritten(what: impl std::fmt::Display, error: &io::Error) -> Self {
        Self::Unwritten(anyhow::anyhow!("cannot write {what}: {}", crate::host::describe(error)))
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::unwritten("the output", &error)
    }
}

impl From<crate::catalog::load::LoadError> for Stop {
    fn from(error: crate::catalog::load::LoadError) -> Self {
        match error {
            crate::catalog::load::LoadError::Files(diagnostics) => Self::Files(diagnostics),
            other => Self::usage(other),
        }
    }
}

impl From<crate::apply::ApplyError> for Stop {
    fn from(error: crate::apply::ApplyError) -> Self {
        Self::Change(error.exit(), error.into())
    }
}

impl From<crate::apply::store::StoreError> for Stop {
    fn from(error: crate::apply::store::StoreError) -> Self {
        crate::apply::ApplyError::from(error).into()
    }
}

impl From<crate::catalog::library::LibraryError> for Stop {
    fn from(error: crate::catalog::library::LibraryError) -> Self {
        Self::usage(error)
    }
}

/// The whole program: a panic in it ends with the exit code of an internal error, not with Rust's 101.
pub fn main() -> ExitCode {
    panic::guard(run)
}

/// Runs the program with the arguments of the process.
fn run() -> ExitCode {
    panic::if_asked(std::env::args_os().skip(1));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come here too; they are no mistake.
            let code = if error.use_stderr() { ExitCode::Refused } else { ExitCode::Success };
            return match error.print() {
                // Asked for, and not delivered: a full disk is no success, a reader who left is.
                Err(lost) if code == ExitCode::Success && lost.kind() != io::ErrorKind::BrokenPipe => {
                    report_stop(&Stop::from(lost))
                }
                _ => code,
            };
        }
    };
    match cli.color {
        ColorWhen::Auto => {}
        ColorWhen::Always => anstream::ColorChoice::AlwaysAnsi.write_global(),
        ColorWhen::Never => anstream::ColorChoice::Never.write_global(),
    }
    let result = match &cli.command {
        Command::Check(args) => check::run(args),
        Command::Tune(args) => tune::run(args),
        Command::Confirm(args) => transactions::confirm(args),
        Command::Rollback(args) => transactions::rollback(args),
        Command::Recover(args) => transactions::recover(args),
        Command::History(args) => transactions::history(args),
        Command::Verify(args) => transactions::verify(args),
        Command::Facts(args) => facts::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Report(args) => report::run(args),
        Command::List(args) => list::run(args),
        Command::Lint(args) => lint::run(args),
        Command::Generate(args) => generate::run(args),
    };
    result.unwrap_or_else(|stop| report_stop(&stop))
}

fn report_stop(stop: &Stop) -> ExitCode {
    let mut stderr = anstream::stderr();
    // A lost stderr must not turn into another exit code.
    match stop {
        Stop::Usage(error) => {
            let _ = writeln!(stderr, "error: {}", crate::report::escape::lines(&format!("{error:#}")));
            ExitCode::Refused
        }
        Stop::Files(diagnostics) => {
            let _ = write!(stderr, "{}", diagnostics.render(true));
            let _ = writeln!(stderr, "error: {}", lint::count(diagnostics.list.len()));
            ExitCode::Refused
        }
        Stop::Change(code, error) => {
            // These name their causes themselves.
            let _ = writeln!(stderr, "error: {}", crate::report::escape::lines(&error.to_string()));
            *code
        }
        Stop::Unwritten(error) => {
            let _ = writeln!(stderr, "error: {}", crate::report::escape::lines(&format!("{error:#}")));
            ExitCode::Internal
        }
        Stop::Internal(error) => {
            let _ = writeln!(stderr, "internal error: {}", crate::report::escape::lines(&format!("{error:#}")));
            ExitCode::Internal
        }
    }
}
