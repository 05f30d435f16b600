//! `preflight report`: reports that `check --format json` wrote, shown anew.

use std::path::Path;

use super::args::{ReportArgs, ReportCommand};
use super::{ExitCode, Stop, show, source};
use crate::report::model::{Report, SCHEMA, Summary};

pub(super) fn run(args: &ReportArgs) -> Result<ExitCode, Stop> {
    let ReportCommand::Render { files, show } = &args.what;
    let reports = files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    show::write(show, &reports)?;
    Ok(ExitCode::Success)
}

/// A report, as long as it says one thing: its verdict and its counts must be those of its findings.
fn read(path: &Path) -> Result<Report, Stop> {
    let report: Report = source::document(path, "a report", SCHEMA, "`preflight check --format json` writes one")?;
    let name = path.display();
    if report.schema != SCHEMA {
        return Err(Stop::usage(format!(
            "{name}: schema `{}` is not `{SCHEMA}`, which this version reads",
            report.schema
        )));
    }
    let verdict = Report::verdict_of(&report.findings);
    if report.verdict != verdict || report.summary != Summary::of(&report.findings) {
        let message = format!("{name}: its verdict or its counts are not those of its findings: {}", verdict.words());
        return Err(Stop::usage(message));
    }
    Ok(report)
}
