//! The command line, as clap reads it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::exit::FailOn;
use super::show::Format;
use crate::facts::value::parse_duration;

/// Checks whether a Linux host is ready for a workload, says how to fix what is not, and can make the changes.
#[derive(Debug, Parser)]
#[command(name = "preflight", version, arg_required_else_help = true, max_term_width = 80, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// When to colour the output; NO_COLOR and CLICOLOR_FORCE are honoured
    #[arg(long, global = true, value_enum, default_value_t = ColorWhen::Auto, value_name = "WHEN")]
    pub color: ColorWhen,
}

const EXIT_CODES: &str = "\
Exit codes:
  0   ready enough, or the command succeeded
  1   not ready, or verify found drift
  2   nothing changed: wrong usage, bad profile or snapshot, conflict not allowed
  3   cannot tell, or not permitted
  4   an apply failed and was rolled back
  5   another transaction is pending, or the lock is held
  6   a rollback could not restore everything
  7   applied, waiting for confirm
  70  internal error, or the report could not be written";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    Auto,
    Always,
    Never,
}

// Deferred: the arguments of the subcommands that are not asked for are never made.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Report whether this host is ready, and what to do where it is not
    Check(CheckArgs),
    /// Show what would be changed to make this host ready; with --apply, change it
    Tune(TuneArgs),
    /// Keep what an apply changed
    Confirm(ConfirmArgs),
    /// Undo what an apply changed
    Rollback(RollbackArgs),
    /// Finish or roll back what a crash or a power cut interrupted
    Recover(RecoverArgs),
    /// Show what was changed on this host, newest first
    History(HistoryArgs),
    /// Compare what was applied with what is there now
    Verify(VerifyArgs),
    /// Print what was read on this host, as a snapshot that can be judged elsewhere
    Facts(FactsArgs),
    /// Explain a check: what it requires, why, and how to fix it
    Explain(ExplainArgs),
    /// Show reports that `check --format json` wrote
    Report(ReportArgs),
    /// List checks, profiles, OS profiles, knobs, facts or parameters
    List(ListArgs),
    /// Find mistakes in profiles, files of checks, waivers and OS profiles
    Lint(LintArgs),
    /// Print shell completions, man pages, JSON Schemas, reference pages
    Generate(GenerateArgs),
}

// No documentation comments on flattened arguments: clap would take them for that of a deferred subcommand.
// Which profile, with which parameters.
#[derive(Debug, Args)]
#[command(next_help_heading = "Requirements")]
pub struct ProfileArgs {
    /// The profile: a name, or a file when it holds a `/` or ends in `.toml` [default: redis-sentinel]
    #[arg(long, short = 'p', value_name = "NAME|FILE")]
    pub profile: Option<String>,

    /// Set a parameter of the profile: `--set maxmemory=1GiB`; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_set)]
    pub set: Vec<(String, String)>,

    /// Only these findings or checks; `*` and `?` as in file names; repeatable
    #[arg(long, value_name = "GLOB")]
    pub only: Vec<String>,

    /// Not these findings or checks; repeatable
    #[arg(long, value_name = "GLOB")]
    pub skip: Vec<String>,
}

impl ProfileArgs {
    /// The profile that a host is judged by.
    pub fn of_host(&self) -> &str {
        self.profile.as_deref().unwrap_or(crate::catalog::embedded::DEFAULT_PROFILE)
    }
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub profile: ProfileArgs,

    /// Accept the findings that this file names, each with owner, reason and last day
    #[arg(long, value_name = "FILE", help_heading = "Requirements")]
    pub waivers: Option<PathBuf>,

    /// Judge the files under a directory (an image, a fixture) instead of the running host
    #[arg(long, value_name = "DIR", help_heading = "Host", conflicts_with_all = ["snapshot", "wait"])]
    pub root: Option<PathBuf>,

    /// Judge a snapshot that `preflight facts` wrote, by its own profile when none is given; `-` reads standard input
    #[arg(long, value_name = "FILE", help_heading = "Host", conflicts_with = "wait")]
    pub snapshot: Option<PathBuf>,

    /// Also measure what takes time: the cost of the clock source, CPU steal, the delay of writes to the disk
    #[arg(long, help_heading = "Host")]
    pub deep: bool,

    /// Check again until the host is ready or the time is over: `--wait 30s`
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Host")]
    pub wait: Option<Duration>,

    #[command(flatten)]
    pub show: ShowArgs,

    /// The lowest level at which the exit code is not 0
    #[arg(long, value_enum, default_value_t = FailOn::Required, value_name = "LEVEL", help_heading = "Output")]
    pub fail_on: FailOn,
}

// How a report is shown.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct ShowArgs {
    /// How to show the report
    #[arg(long, short = 'f', value_enum, default_value_t = Format::Terminal, value_name = "FORMAT")]
    pub format: Format,

    /// Write the report to a file instead of standard output
    #[arg(long, short = 'o', value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Leave out what passes and what does not apply
    #[arg(long, short = 'q', conflicts_with = "verbose")]
    pub quiet: bool,

    /// Show every finding in a line of its own, and all evidence: every layer, every source, every reason
    #[arg(long, short = 'v')]
    pub verbose: bool,
}

// Where transactions are kept. Hidden: the timer hands it on, tests use it. A `///` here would become the help text of
// every command that has it.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// Instead of /var/lib/preflight; it must exist
    #[arg(long, value_name = "DIR", hide = true)]
    pub state_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct TuneArgs {
    #[command(flatten)]
    pub profile: ProfileArgs,

    #[command(flatten)]
    pub state: StateArgs,

    /// Plan for, or change, the files of an image under a directory: only what is read at boot
    #[arg(long, value_name = "DIR", help_heading = "Host")]
    pub root: Option<PathBuf>,

    /// How to show the plan, or the result
    #[arg(long, short = 'f', value_enum, default_value_t = PlanFormat::Terminal, value_name = "FORMAT", help_heading = "Output")]
    pub format: PlanFormat,

    /// Write to a file the settings that belong in the Compose file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub emit_compose: Option<PathBuf>,

    /// Carry the plan out
    #[arg(long, help_heading = "Changing")]
    pub apply: bool,

    /// Roll everything back after this time unless `preflight confirm` keeps it; 0 needs no confirm
    #[arg(long, value_name = "DURATION", value_parser = window, requires = "apply", help_heading = "Changing")]
    pub confirm_within: Option<Duration>,

    /// Do not wait for the confirm: print the transaction's id and exit with 7
    #[arg(long, requires = "apply", help_heading = "Changing")]
    pub no_wait: bool,

    /// Allow a conflict that the plan names; repeatable
    #[arg(long, value_name = "ID", help_heading = "Changing")]
    pub allow: Vec<String>,

    /// Do not ask for consent on a terminal
    #[arg(long, short = 'y', requires = "apply", help_heading = "Changing")]
    pub yes: bool,

    /// How long the new values must stay in place before the apply counts as successful
    #[arg(long, value_name = "DURATION", value_parser = window, default_value = "3s", requires = "apply", help_heading = "Changing")]
    pub settle: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// For people: every change with its reason, files as a diff
    Terminal,
    /// As data, by the published schemas `preflight.plan/1` and `preflight.apply/1`
    Json,
    /// For a ticket
    Markdown,
    /// A POSIX script that makes the same changes, to read
    Script,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlainFormat {
    /// For people
    Terminal,
    /// As data
    Json,
}

// Where the files are, and how the answer is shown.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    pub state: StateArgs,

    /// The image that was changed, instead of the running host
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// How to show the result
    #[arg(long, short = 'f', value_enum, default_value_t = PlainFormat::Terminal, value_name = "FORMAT")]
    pub format: PlainFormat,
}

#[derive(Debug, Args)]
pub struct ConfirmArgs {
    /// The transaction [default: the one that waits for a confirm]
    pub tx: Option<String>,

    /// Allow a confirm over the connection that applied, or where the connection cannot be determined
    #[arg(long)]
    pub same_connection_ok: bool,

    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The transaction, which must be the newest [default: the newest]
    #[arg(conflicts_with_all = ["all", "to"])]
    pub tx: Option<String>,

    /// Roll back everything that preflight ever changed
    #[arg(long, conflicts_with = "to")]
    pub all: bool,

    /// Roll back this transaction and all newer ones
    #[arg(long, value_name = "TX")]
    pub to: Option<String>,

    /// Try what the timer would need, and change nothing
    #[arg(long, value_name = "TX", hide = true)]
    pub rehearse: Option<String>,

    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// What the timer runs at the deadline
    #[arg(long, value_name = "TX", hide = true)]
    pub if_unconfirmed: Option<String>,

    /// Be the timer where there is no systemd
    #[arg(long, value_name = "TX", hide = true, requires = "deadline_us")]
    pub watch: Option<String>,

    /// When, in microseconds of CLOCK_BOOTTIME
    #[arg(long, value_name = "N", hide = true)]
    pub deadline_us: Option<u64>,

    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// How many transactions to show
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N", value_parser = at_least_one)]
    pub limit: usize,

    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Also write the result for node_exporter's textfile collector
    #[arg(long, value_name = "FILE")]
    pub textfile: Option<PathBuf>,

    /// Record, for `history`, whether everything was still in place after the last boot
    #[arg(long)]
    pub record: bool,

    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct FactsArgs {
    #[command(flatten)]
    pub profile: ProfileArgs,

    /// Read the files under a directory instead of the running host
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// Also measure what takes time
    #[arg(long)]
    pub deep: bool,

    /// Write the snapshot to a file instead of standard output
    #[arg(long, short = 'o', value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The id of a check, or of a finding such as `port.free.6379`
    pub id: String,

    /// The profile whose settings are shown
    #[arg(long, short = 'p', default_value = crate::catalog::embedded::DEFAULT_PROFILE, value_name = "NAME|FILE")]
    pub profile: String,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// What to list
    #[arg(value_enum)]
    pub what: Listing,

    /// The profile whose checks are listed
    #[arg(long, short = 'p', default_value = crate::catalog::embedded::DEFAULT_PROFILE, value_name = "NAME|FILE")]
    pub profile: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// The checks of the profile, with their severity
    Checks,
    /// The profiles
    Profiles,
    /// The OS profiles and the releases they know
    Os,
    /// What can be tuned, and to what
    Knobs,
    /// All facts, with their type and source
    Facts,
    /// The profile's parameters, with their defaults and ranges
    Parameters,
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(subcommand)]
    pub what: ReportCommand,
}

#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// Show reports as `check` would: the findings, the verdict, the next steps
    Render {
        /// Reports in JSON; `-` reads standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,

        #[command(flatten)]
        show: ShowArgs,
    },
}

#[derive(Debug, Args)]
pub struct LintArgs {
    /// Profiles, files of checks, files of waivers, OS profiles
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(subcommand)]
    pub what: Generate,
}

#[derive(Debug, Subcommand)]
pub enum Generate {
    /// A completion script for a shell
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Man pages, one file per subcommand
    Man {
        /// The folder they are written to; it must exist
        dir: PathBuf,
    },
    /// A JSON Schema
    Schema {
        #[arg(value_enum)]
        which: Schema,
    },
    /// The reference of all checks, as Markdown
    Checks {
        /// The profile whose checks are described
        #[arg(long, short = 'p', default_value = crate::catalog::embedded::DEFAULT_PROFILE, value_name = "NAME|FILE")]
        profile: String,
    },
    /// The reference of all facts, as Markdown
    Facts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Schema {
    Report,
    Snapshot,
    Plan,
    Apply,
    Verify,
}

fn parse_set(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("expected KEY=VALUE, such as maxmemory=1GiB".to_owned()),
    }
}

/// Like [`duration`], and `0` without a unit.
const MAX_WINDOW: Duration = Duration::from_hours(24);

fn window(text: &str) -> Result<Duration, String> {
    match text {
        "0" => Ok(Duration::ZERO),
        text => duration(text).and_then(|window| match window {
            window if window > MAX_WINDOW => Err("expected at most a day".to_owned()),
            window => Ok(window),
        }),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a number with a unit, such as 30s or 2min".to_owned())
}

/// With 0, a history that is not shown would read as one that is empty.
fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "expected a number of 1 or more".to_owned())
}
