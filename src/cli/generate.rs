//! `preflight generate`: completions, man pages, JSON Schemas, reference pages.

use std::path::Path;

use clap::CommandFactory as _;

use super::args::{Cli, Generate, GenerateArgs, Schema};
use super::{ExitCode, Stop, reference, show, source};
use crate::host::{self, Host};
use crate::report::escape;

pub(super) fn run(args: &GenerateArgs) -> Result<ExitCode, Stop> {
    match &args.what {
        Generate::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "preflight", &mut text);
            show::deliver(&text)?;
        }
        Generate::Man { dir } => man(dir)?,
        Generate::Schema { which } => show::deliver(format!("{}\n", schema(*which)?).as_bytes())?,
        Generate::Checks { profile } => {
            let catalogue = source::catalogue(&Host::live(), profile, &[])?;
            show::deliver(escape::lines(&reference::checks(&catalogue)).as_bytes())?;
        }
        Generate::Facts => show::deliver(reference::facts().as_bytes())?,
    }
    Ok(ExitCode::Success)
}

/// A release carries the published texts, which a test compares with those that a build for development makes from the
/// types: the generator is a tenth of a megabyte that a host never needs.
#[cfg(not(debug_assertions))]
#[expect(clippy::unnecessary_wraps, reason = "the other one can fail")]
fn schema(which: Schema) -> Result<&'static str, Stop> {
    let text = match which {
        Schema::Report => include_str!("../../docs/schema/report.json"),
        Schema::Snapshot => include_str!("../../docs/schema/snapshot.json"),
        Schema::Plan => include_str!("../../docs/schema/plan.json"),
        Schema::Apply => include_str!("../../docs/schema/apply.json"),
        Schema::Verify => include_str!("../../docs/schema/verify.json"),
    };
    Ok(text.trim_end())
}

#[cfg(debug_assertions)]
fn schema(which: Schema) -> Result<String, Stop> {
    use crate::apply::{Outcome, Verified};
    use crate::change::Plan;
    use crate::facts::snapshot::Snapshot;
    use crate::report::model::Report;

    let schema = match which {
        Schema::Report => schemars::schema_for!(Report),
        Schema::Snapshot => schemars::schema_for!(Snapshot),
        Schema::Plan => schemars::schema_for!(Plan),
        Schema::Apply => schemars::schema_for!(Outcome),
        Schema::Verify => schemars::schema_for!(Verified),
    };
    serde_json::to_string_pretty(&schema).map_err(|error| Stop::Internal(error.into()))
}

/// `preflight.1` and one page per subcommand.
fn man(dir: &Path) -> Result<(), Stop> {
    clap_mangen::generate_to(Cli::command(), dir).map_err(|error| {
        let reason = host::describe(&error);
        Stop::usage(format!("cannot write man pages into {}: {reason}\nhint: the folder must exist", dir.display()))
    })
}
