//! `preflight list`: checks, profiles, OS profiles, knobs, facts, parameters. One line each, columns separated by tabs
//! when piped.

use std::io::{IsTerminal as _, Write as _};

use super::args::{ListArgs, Listing};
use super::{ExitCode, Stop, explain, source};
use crate::catalog::diagnostic::{Diagnostics, Source};
use crate::catalog::library::Library;
use crate::catalog::parameters::Setting;
use crate::catalog::{Catalogue, embedded, os};
use crate::facts::registry;
use crate::host::Host;
use crate::report::escape;

pub(super) fn run(args: &ListArgs) -> Result<ExitCode, Stop> {
    let catalogue = || source::catalogue(&Host::live(), &args.profile, &[]);
    let rows = match args.what {
        Listing::Checks => checks(&catalogue()?),
        Listing::Knobs => knobs(&catalogue()?),
        Listing::Parameters => parameters(&catalogue()?),
        Listing::Profiles => profiles()?,
        Listing::Os => os_profiles(),
        Listing::Facts => facts(),
    };
    let mut out = anstream::stdout().lock();
    let aligned = std::io::stdout().is_terminal();
    write!(out, "{}", layout(&rows, aligned))?;
    out.flush()?;
    Ok(ExitCode::Success)
}

type Row = Vec<String>;

/// Columns aligned for people, tab-separated for programs. The last column is never padded.
fn layout(rows: &[Row], aligned: bool) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let cell = escape::text(cell);
            if aligned && column + 1 < row.len() {
                format!("{cell:width$}  ", width = widths[column])
            } else {
                cell.into_owned()
            }
        });
        let cells: Vec<String> = cells.collect();
        text.push_str(&cells.join(if aligned { "" } else { "\t" }));
        text.push('\n');
    }
    text
}

fn checks(catalogue: &Catalogue) -> Vec<Row> {
    let row = |check: &crate::catalog::check::Check| {
        vec![check.id.clone(), check.severity.to_string(), check.title.to_string()]
    };
    catalogue.checks.iter().map(row).collect()
}

fn knobs(catalogue: &Catalogue) -> Vec<Row> {
    let tunable = catalogue.checks.iter().filter_map(|check| Some((check, check.tune.as_ref()?)));
    tunable
        .map(|(check, tune)| {
            let target = explain::words(&crate::catalog::predicate::Predicate::Equals(tune.to.clone()));
            let accept = tune.accept.as_ref().map(|accept| format!("accepts {}", explain::words(accept)));
            vec![check.id.clone(), check.fact.clone(), target, accept.unwrap_or_default()]
        })
        .collect()
}

fn parameters(catalogue: &Catalogue) -> Vec<Row> {
    let definitions = catalogue.definitions.iter();
    definitions
        .map(|definition| {
            let value = match catalogue.parameters.get(&definition.name) {
                Some(Setting::One(value)) => value.to_string(),
                Some(Setting::List(words)) => words.join(","),
                Some(Setting::Ports(ports)) => {
                    let ports = ports.iter().map(|port| format!("{}:{}", port.name, port.instance()));
                    ports.collect::<Vec<_>>().join(",")
                }
                None => String::new(),
            };
            vec![definition.name.clone(), definition.kind.name().to_owned(), value, definition.about.clone()]
        })
        .collect()
}

fn profiles() -> Result<Vec<Row>, Stop> {
    let library = Library::local(&Host::live())?;
    let mut rows = Vec::new();
    for name in library.profile_names() {
        let catalogue = crate::catalog::load(&library, name, &std::collections::BTreeMap::new())?;
        let source = library.profile(name).map(|source| source.path).unwrap_or_default();
        rows.push(vec![name.to_owned(), catalogue.title, source]);
    }
    Ok(rows)
}

fn os_profiles() -> Vec<Row> {
    let mut diagnostics = Diagnostics::default();
    let read = embedded::OS_PROFILES.iter().filter_map(|file| {
        let (source, tree) = diagnostics.open(Source::embedded(file));
        os::read(source, &tree, &mut diagnostics)
    });
    read.map(|profile| {
        let releases: Vec<String> = profile
            .releases
            .iter()
            .map(|release| format!("{} (until {})", release.version, release.end_of_life))
            .collect();
        let oldest = profile.oldest.map_or_else(|| "rolling".to_owned(), |oldest| format!("{oldest}+"));
        vec![profile.name, oldest, profile.ids.join(","), releases.join(", ")]
    })
    .collect()
}

fn facts() -> Vec<Row> {
    let row = |spec: &registry::Spec| {
        vec![spec.id.to_owned(), spec.kind.name().to_owned(), spec.about.to_owned(), spec.source.to_owned()]
    };
    registry::FACTS.iter().map(row).collect()
}
