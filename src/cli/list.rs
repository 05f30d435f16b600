//! `preflight list`: checks, profiles, OS profiles, knobs, facts, parameters. One line each, columns separated by tabs
//! when piped.

use std::io::IsTerminal as _;

use super::args::{ListArgs, Listing};
use super::{ExitCode, Stop, explain, show, source};
use crate::catalog::check::Check;
use crate::catalog::library::Library;
use crate::catalog::os::OsProfile;
use crate::catalog::parameters::Setting;
use crate::catalog::{Catalogue, embedded};
use crate::facts::registry;
use crate::host::Host;
use crate::report::{escape, wrap};
use crate::subjects::planner;

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
    let is_terminal = std::io::stdout().is_terminal();
    let text = layout(&rows, is_terminal.then(show::terminal_width), show::is_unicode(is_terminal));
    show::deliver(text.as_bytes())?;
    Ok(ExitCode::Success)
}

type Row = Vec<String>;

/// Tab-separated for programs; for people columns within the terminal's width. The last column, which is the long one,
/// is wrapped beside the others, or below them where they take more than half of the room.
fn layout(rows: &[Row], width: Option<usize>, unicode: bool) -> String {
    let safe = |cell: &String| escape::plain(escape::text(cell), unicode).into_owned();
    let safe = |row: &Row| row.iter().map(safe).collect::<Vec<String>>();
    let rows: Vec<Vec<String>> = rows.iter().map(safe).collect();
    let Some(width) = width else {
        return rows.iter().map(|row| row.join("\t") + "\n").collect();
    };
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| wrap::columns(cell)).max();
    let widths: Vec<usize> = (0..columns).map(|column| widest(column).unwrap_or(0)).collect();
    let lead: usize = widths.iter().rev().skip(1).map(|width| width + GAP).sum();
    let fits = lead + widths.last().copied().unwrap_or(0) <= width;
    let mut text = String::new();
    for row in &rows {
        let Some((last, first)) = row.split_last() else { continue };
        if fits || lead <= width / 2 {
            let padded: String = first.iter().zip(&widths).map(|(cell, width)| padded(cell, width + GAP)).collect();
            text.push_str(&wrap::filled(last, &padded, &" ".repeat(lead), width));
        } else {
            text.push_str(&below(first, last, &widths, width));
        }
    }
    text
}

/// The blanks between two columns.
const GAP: usize = 2;

/// A row whose cells stand in their columns as long as they fit, and below each other from the first that does not.
fn below(first: &[String], last: &str, widths: &[usize], width: usize) -> String {
    const INDENT: &str = "    ";
    let mut line = String::new();
    let mut at = 0;
    let mut cells = first.iter().zip(widths).peekable();
    while let Some((cell, widest)) = cells.next_if(|(cell, _)| at == 0 || at + wrap::columns(cell) <= width) {
        line = padded(&line, at) + cell;
        at += widest + GAP;
    }
    let rest = cells.map(|(cell, _)| cell.as_str()).chain([last]).filter(|cell| !cell.is_empty());
    let rest: String = rest.map(|cell| wrap::filled(cell, INDENT, INDENT, width)).collect();
    wrap::filled(line.trim_end(), "", INDENT, width) + &rest
}

fn padded(cell: &str, width: usize) -> String {
    format!("{cell}{}", " ".repeat(width.saturating_sub(wrap::columns(cell))))
}

fn checks(catalogue: &Catalogue) -> Vec<Row> {
    let row = |check: &Check| vec![check.id.clone(), check.severity.to_string(), check.title.clone()];
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
        let catalogue = crate::catalog::load(&library, name, &std::collections::BTreeMap::new(), planner::tuning)?;
        let source = library.profile(name).map(|source| source.path).unwrap_or_default();
        rows.push(vec![name.to_owned(), catalogue.title, source]);
    }
    Ok(rows)
}

fn os_profiles() -> Vec<Row> {
    let row = |profile: &OsProfile| {
        let releases: Vec<String> = profile
            .releases
            .iter()
            .map(|release| {
                let member = release.id.as_ref().map(|id| format!("{id} ")).unwrap_or_default();
                format!("{member}{} (until {})", release.version, release.end_of_life)
            })
            .collect();
        let oldest = profile.oldest.as_ref().map_or_else(|| "rolling".to_owned(), |oldest| format!("{oldest}+"));
        vec![profile.name.clone(), oldest, profile.ids.join(","), releases.join(", ")]
    };
    embedded::os_profiles().map(row).collect()
}

fn facts() -> Vec<Row> {
    let row = |spec: &registry::Spec| {
        vec![spec.id.to_owned(), spec.kind.name().to_owned(), spec.about.to_owned(), spec.source.to_owned()]
    };
    registry::FACTS.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(of: &[&[&str]]) -> Vec<Row> {
        of.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn the_last_column_is_wrapped_beside_or_below_the_others() {
        let short = rows(&[&["a", "bb", "one two three four five six"], &["ccc", "d", "seven"]]);
        assert_eq!(layout(&short, None, true), "a\tbb\tone two three four five six\nccc\td\tseven\n");
        assert_eq!(layout(&short, Some(40), true), "a    bb  one two three four five six\nccc  d   seven\n");
        assert_eq!(layout(&short, Some(24), true), "a    bb  one two three\n         four five six\nccc  d   seven\n");
        let long = rows(&[&["name", "a,long,default,value", "what it is about"]]);
        assert_eq!(layout(&long, Some(30), true), "name  a,long,default,value\n    what it is about\n");
        let mixed = rows(&[&["name", "text", "a", "what it is"], &["n", "list", "a,longer,value,still", "and this"]]);
        assert_eq!(
            layout(&mixed, Some(24), true),
            "name  text  a\n    what it is\nn     list\n    a,longer,value,still\n    and this\n"
        );
    }

    proptest! {
        /// Words alone may be longer than a line.
        #[test]
        fn no_line_is_wider_than_the_terminal(
            cells in proptest::collection::vec(proptest::collection::vec("([a-z]{1,8} ){0,9}", 3), 0..5),
            width in 20_usize..100,
        ) {
            for line in layout(&cells, Some(width), false).lines() {
                prop_assert!(line.chars().count() <= width, "{line}");
            }
        }
    }
}
