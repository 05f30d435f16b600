//! `preflight check`: a host or a snapshot in, a report out.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::args::CheckArgs;
use super::select::Selection;
use super::{ExitCode, Stop, show, source};
use crate::catalog::diagnostic::{Diagnostics, Source};
use crate::catalog::library::Library;
use crate::catalog::waiver::{self, Waiver};
use crate::catalog::{self, Catalogue};
use crate::facts::snapshot::{self, Snapshot};
use crate::host::{self, Host};
use crate::judge::Judge;
use crate::report::model::Report;
use crate::subjects::derive::derive;
use crate::subjects::gather;
use crate::subjects::planner;

/// How long `--wait` rests between two looks.
const WAIT_INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn run(args: &CheckArgs) -> Result<ExitCode, Stop> {
    let selection = Selection::new(&args.profile, args.deep);
    let report = match &args.snapshot {
        Some(path) => judge_snapshot(args, &selection, path)?,
        None => judge_host(args, &selection)?,
    };
    show::write(&args.show, std::slice::from_ref(&report))?;
    Ok(args.fail_on.exit_code(&report))
}

fn judge_host(args: &CheckArgs, selection: &Selection) -> Result<Report, Stop> {
    let host = source::host(args.root.as_deref())?;
    let catalogue = source::catalogue(&host, args.profile.of_host(), &args.profile.set)?;
    selection.validate(&catalogue)?;
    let waivers = waivers(args, &catalogue)?;
    let started = Instant::now();
    loop {
        let snapshot = source::gather(&host, &catalogue, selection).snapshot;
        let report = judge(&catalogue, &snapshot, &waivers, selection);
        let left = args.wait.map(|wait| wait.saturating_sub(started.elapsed())).filter(|left| !left.is_zero());
        match left {
            Some(left) if args.fail_on.exit_code(&report) != ExitCode::Success => {
                thread::sleep(WAIT_INTERVAL.min(left));
            }
            _ => return Ok(report),
        }
    }
}

fn judge_snapshot(args: &CheckArgs, selection: &Selection, path: &Path) -> Result<Report, Stop> {
    let snapshot = read_snapshot(path)?;
    let library = Library::of_snapshot(&snapshot.sources);
    // Without a profile of its own, the run is judged by what it was gathered for.
    let catalogue = match args.profile.profile.as_deref().filter(|given| *given != snapshot.profile) {
        None => {
            let mut set = snapshot.set.clone();
            set.extend(source::values(&args.profile.set)?);
            catalog::load(&library, &snapshot.profile, &set, planner::tuning)?
        }
        Some(given) => source::catalogue(&Host::live(), given, &args.profile.set)?,
    };
    selection.validate(&catalogue)?;
    let waivers = waivers(args, &catalogue)?;
    Ok(judge(&catalogue, &snapshot, &waivers, selection))
}

fn judge(catalogue: &Catalogue, snapshot: &Snapshot, waivers: &[Waiver], selection: &Selection) -> Report {
    let os = gather::os_of(&snapshot.facts);
    Judge::new(catalogue, snapshot, os, derive).report(waivers, &|id, check| selection.wants(id, check))
}

fn read_snapshot(path: &Path) -> Result<Snapshot, Stop> {
    let name = path.display();
    let mut snapshot: Snapshot =
        source::document(path, "a snapshot", snapshot::SCHEMA, "`preflight facts` writes one")?;
    if snapshot.schema != snapshot::SCHEMA {
        let message =
            format!("{name}: schema `{}` is not `{}`, which this version reads", snapshot.schema, snapshot::SCHEMA);
        return Err(Stop::usage(message));
    }
    // Days are compared as text: another way to write the same time would be another day.
    let Ok(taken_at) = snapshot.taken_at.parse::<jiff::Timestamp>() else {
        return Err(Stop::usage(format!(
            "{name}: taken_at `{}` is no time like 2026-11-22T10:15:00Z",
            snapshot.taken_at
        )));
    };
    snapshot.taken_at = taken_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Ok(snapshot)
}

fn waivers(args: &CheckArgs, catalogue: &Catalogue) -> Result<Vec<Waiver>, Stop> {
    let Some(path) = &args.waivers else { return Ok(Vec::new()) };
    if nix::unistd::geteuid().is_root() {
        host::trust::only_root_writes(path).map_err(Stop::usage)?;
    }
    let text = host::input::read(path).map_err(Stop::usage)?;
    let mut diagnostics = Diagnostics::default();
    let (source, tree) = diagnostics.open(Source::file(path.display().to_string(), text));
    let waivers = waiver::read_file(source, &tree, &mut diagnostics);
    waiver::check_ids(&waivers, &catalogue.checks.iter().map(|check| &*check.id), &mut diagnostics);
    if diagnostics.is_empty() { Ok(waivers) } else { Err(Stop::Files(diagnostics)) }
}
