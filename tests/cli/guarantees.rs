//! The commands of `docs/guarantees.md` find the tests that they name: a filter that matches none would run nothing, and
//! that looks like a pass.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::repository;

/// The full names of the tests in a file or folder, such as `threats::absurd_values_are_refused`: modules are files.
fn tests_in(path: &Path, module: &str, found: &mut Vec<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            tests_in(&entry.path(), &format!("{module}{}::", name.trim_end_matches(".rs")), found);
        }
        return;
    }
    let Ok(text) = fs::read_to_string(path) else { return };
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        is_test |= line == "#[test]";
        if let Some(name) = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next()).filter(|_| is_test) {
            found.push(format!("{module}{name}"));
            is_test = false;
        }
    }
}

/// By what a command calls them: `lib`, `cli`, and each suite of the lab.
fn all_tests() -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (suite, folder) in [("lib", "src"), ("cli", "tests/cli")] {
        tests_in(&repository().join(folder), "", all.entry(suite.into()).or_default());
    }
    for entry in fs::read_dir(repository().join("tests/lab")).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let suite = name.trim_end_matches(".rs");
        let module = String::new();
        tests_in(&entry.path(), &module, all.entry(suite.into()).or_default());
    }
    all
}

/// What stands between backticks.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Seen failing with a letter of a test's name left out.
#[test]
fn every_command_of_the_guarantees_finds_its_tests() {
    let tests = all_tests();
    let text = fs::read_to_string(repository().join("docs/guarantees.md")).unwrap();
    let mut looked_up = 0;
    let mut wrong = Vec::new();
    let mut section = "";
    for line in text.lines() {
        section = line.strip_prefix("## ").unwrap_or(section);
        let Some(cell) = line.strip_prefix('|').and_then(|row| row.trim_end().rsplit('|').nth(1)) else { continue };
        // The names behind `tests/run SUITE` are of that suite, and cut short by an ellipsis.
        let mut suite_of_names = (section == "In a virtual machine").then_some("vm");
        for span in spans(cell) {
            let words: Vec<&str> = span.split_whitespace().filter(|word| !word.contains('=')).collect();
            let (suite, filters) = match words.as_slice() {
                ["lab", suite, filters @ ..] => (*suite, filters),
                ["cargo", "test", "--test", "cli", filters @ ..] => ("cli", filters),
                ["cargo", "nextest", "run", "--lib", filters @ ..] => ("lib", filters),
                ["tests/run", suite] => {
                    suite_of_names = Some(suite);
                    (*suite, &[][..])
                }
                names => match suite_of_names {
                    Some(suite) => (suite, names),
                    None => continue,
                },
            };
            let Some(known) = tests.get(suite) else {
                wrong.push(format!("there is no suite `{suite}`: {span}"));
                continue;
            };
            for filter in filters {
                looked_up += 1;
                let filter = filter.trim_end_matches('…');
                if !known.iter().any(|name| name.contains(filter)) {
                    wrong.push(format!("no test of `{suite}` is called `{filter}`: {span}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(looked_up > 40, "only {looked_up} names were looked up");
}
