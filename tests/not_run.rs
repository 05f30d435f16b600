//! Which suites a plain `cargo nextest run` leaves out, reported by a test so that the run itself says it.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "reads the project's own files and tells a person"
)]

use std::collections::BTreeSet;
use std::path::Path;

/// The suites of the lab: the modules of its test binary, but for what they share.
fn declared() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("tests/lab/main.rs")).unwrap();
    let modules = text.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    modules.filter(|name| *name != "support").map(str::to_owned).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Seen failing with a file `tests/lab/forgotten.rs`, and with a module that has none: a suite that no line names is never
/// built, and nobody would notice.
#[test]
fn a_plain_run_names_the_suites_it_leaves_out() {
    let declared = declared();
    let present: BTreeSet<String> = std::fs::read_dir(root().join("tests/lab"))
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .filter(|name| name != "main")
        .collect();
    assert_eq!(present, declared, "left: files in tests/lab, right: the modules of tests/lab/main.rs");
    assert!(!declared.is_empty(), "no lab suite at all");

    let names: Vec<&str> = declared.iter().map(String::as_str).collect();
    println!("not run by a plain `cargo nextest run` (they need root): {}", names.join(", "));
    println!("hint: `tests/run` installs what they need and runs all; `tests/run {}` runs one", names[0]);
}

/// Seen failing without the line in Cargo.toml: a plain run would run the lab.
#[test]
fn the_lab_is_only_built_when_its_feature_is_on() {
    let manifest: toml::Table = std::fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let tests = manifest["test"].as_array().unwrap();
    let lab = tests.iter().find(|test| test["name"].as_str() == Some("lab")).expect("the lab is a test target");
    let features = lab.get("required-features").and_then(toml::Value::as_array).expect("required-features");
    assert!(features.iter().any(|feature| feature.as_str() == Some("lab")), "{features:?}");
}

/// `tests/run` counts nothing as skipped in the lab. Seen failing with a test that is ignored.
#[test]
fn no_test_of_the_lab_is_ignored() {
    let mut folders = vec![root().join("tests/lab")];
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                read += 1;
                assert!(!std::fs::read_to_string(&path).unwrap().contains("#[ignore"), "{}", path.display());
            }
        }
    }
    assert!(read > 20, "only {read} files");
}
