//! Which suites a plain `cargo nextest run` leaves out, told by a test so that the run itself says it.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "reads the project's own files and tells a person"
)]

use std::collections::BTreeSet;
use std::path::Path;

/// The lab test targets of Cargo.toml as (name, path).
fn declared() -> Vec<(String, String)> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let tests = manifest.get("test").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    tests
        .iter()
        .filter(|test| test["name"].as_str().unwrap().starts_with("lab_"))
        .inspect(|test| {
            let features = test.get("required-features").and_then(toml::Value::as_array);
            let is_lab =
                features.is_some_and(|features| features.iter().any(|feature| feature.as_str() == Some("lab")));
            assert!(is_lab, "{} needs required-features = [\"lab\"], or a plain run would run it", test["name"]);
        })
        .map(|test| (test["name"].as_str().unwrap().to_owned(), test["path"].as_str().unwrap().to_owned()))
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Seen to fail with a file `tests/lab/forgotten.rs`, and with a declared path that is not there: a suite that Cargo.toml
/// does not name is never built, and nobody would notice.
#[test]
fn a_plain_run_names_the_suites_it_leaves_out() {
    let declared = declared();
    let paths: BTreeSet<String> = declared.iter().map(|(_, path)| path.clone()).collect();
    let present: BTreeSet<String> = std::fs::read_dir(root().join("tests/lab"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "rs"))
        .map(|name| format!("tests/lab/{name}"))
        .collect();
    assert_eq!(present, paths, "left: files in tests/lab, right: the [[test]] entries of Cargo.toml");
    assert!(!declared.is_empty(), "no lab suite at all");

    let names: Vec<&str> = declared.iter().map(|(name, _)| name.strip_prefix("lab_").unwrap()).collect();
    println!("not run by a plain `cargo nextest run` (they need root): {}", names.join(", "));
    println!("hint: `tests/run` installs what they need and runs all; `tests/run {}` runs one", names[0]);
}
