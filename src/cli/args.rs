//! The command line, as clap reads it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::exit::FailOn;
use crate::facts::value::parse_duration;

/// Is this Linux host ready for a workload? Checks it truthfully, in milliseconds, without changing anything.
#[derive(Debug, Parser)]
#[command(name = "preflight", version, arg_required_else_help = true, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// When to colour the output; NO_COLOR and CLICOLOR_FORCE are honoured
    #[arg(long, global = true, value_enum, default_value_t = ColorWhen::Auto, value_name = "WHEN")]
    pub color: ColorWhen,
}

const EXIT_CODES: &str = "\
Exit codes:
  0   ready enough, or the command did what it was asked
  1   not ready
  2   wrong usage, a bad profile or a bad snapshot
  3   cannot tell, or not permitted
  70  internal error, or the report could not be written";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say whether this host is ready, and what to do where it is not
    Check(CheckArgs),
    /// Print what was read on this host, as a snapshot that can be judged elsewhere
    Facts(FactsArgs),
    /// Explain a check: what it asks, why, and how to mend it
    Explain(ExplainArgs),
    /// List what there is
    List(ListArgs),
    /// Find mistakes in profiles, files of checks and waivers
    Lint(LintArgs),
    /// Print shell completions, man pages, JSON Schemas, reference pages
    Generate(GenerateArgs),
}

/// Which profile, with which parameters.
#[derive(Debug, Args)]
#[command(next_help_heading = "What is asked")]
pub struct ProfileArgs {
    /// The profile: a name, or a file when it holds a `/` or ends in `.toml`
    #[arg(long, short = 'p', default_value = crate::catalog::embedded::DEFAULT_PROFILE, value_name = "NAME|FILE")]
    pub profile: String,

    /// Give a parameter of the profile a value: `--set maxmemory=1GiB`; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_set)]
    pub set: Vec<(String, String)>,

    /// Only these findings or checks; `*` and `?` as in file names; repeatable
    #[arg(long, value_name = "GLOB")]
    pub only: Vec<String>,

    /// Not these findings or checks; repeatable
    #[arg(long, value_name = "GLOB")]
    pub skip: Vec<String>,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub profile: ProfileArgs,

    /// Accept findings by name, each with owner, reason and last day
    #[arg(long, value_name = "FILE", help_heading = "What is asked")]
    pub waivers: Option<PathBuf>,

    /// Judge the files under a directory (an image, a fixture) instead of the running host
    #[arg(long, value_name = "DIR", help_heading = "What is looked at", conflicts_with_all = ["snapshot", "wait"])]
    pub root: Option<PathBuf>,

    /// Judge a snapshot that `preflight facts` wrote; `-` reads standard input
    #[arg(long, value_name = "FILE", help_heading = "What is looked at", conflicts_with = "wait")]
    pub snapshot: Option<PathBuf>,

    /// Also what takes time to measure: clock source cost, CPU steal
    #[arg(long, help_heading = "What is looked at")]
    pub deep: bool,

    /// Look again until the host is ready or the time is over: `--wait 30s`
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "What is looked at")]
    pub wait: Option<Duration>,

    /// How to show the report
    #[arg(long, short = 'f', value_enum, default_value_t = Format::Terminal, value_name = "FORMAT", help_heading = "Output")]
    pub format: Format,

    /// Write the report to a file instead of standard output
    #[arg(long, short = 'o', value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,

    /// From which level on the exit code is not 0
    #[arg(long, value_enum, default_value_t = FailOn::Required, value_name = "LEVEL", help_heading = "Output")]
    pub fail_on: FailOn,

    /// Leave out what passes and what does not apply
    #[arg(long, short = 'q', help_heading = "Output", conflicts_with = "verbose")]
    pub quiet: bool,

    /// Show all evidence: every layer, every source, every reason
    #[arg(long, short = 'v', help_heading = "Output")]
    pub verbose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: sections, marks, the verdict and the next steps
    Terminal,
    /// The report as data, by the published schema `preflight.report/1`
    Json,
}

#[derive(Debug, Args)]
pub struct FactsArgs {
    #[command(flatten)]
    pub profile: ProfileArgs,

    /// Read the files under a directory instead of the running host
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// Also what takes time to measure
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
    /// Every fact there is, with its type and source
    Facts,
    /// The profile's parameters, with their defaults and ranges
    Parameters,
}

#[derive(Debug, Args)]
pub struct LintArgs {
    /// Profiles, files of checks, files of waivers
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
}

fn parse_set(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("expected KEY=VALUE, such as maxmemory=1GiB".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a number with a unit, such as 30s or 2min".to_owned())
}
