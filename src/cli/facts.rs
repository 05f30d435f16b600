//! `preflight facts`: what was read, as a snapshot that can be judged elsewhere.

use super::args::FactsArgs;
use super::select::Selection;
use super::{ExitCode, Stop, show, source};
use crate::host;
use crate::report::escape;

pub(super) fn run(args: &FactsArgs) -> Result<ExitCode, Stop> {
    let host = source::host(args.root.as_deref())?;
    let catalogue = source::catalogue(&host, args.profile.of_host(), &args.profile.set)?;
    let selection = Selection::new(&args.profile, args.deep);
    selection.validate(&catalogue)?;
    let snapshot = source::gather(&host, &catalogue, &selection).snapshot;
    let mut text = serde_json::to_string_pretty(&snapshot).map_err(|error| Stop::Internal(error.into()))?;
    text.push('\n');
    let text = escape::json(&text);
    if let Some(path) = source::output_file(args.output.as_deref()) {
        host::output::write(path, text.as_bytes()).map_err(|error| Stop::unwritten(path.display(), &error))?;
    } else {
        show::deliver(text.as_bytes())?;
    }
    Ok(ExitCode::Success)
}
