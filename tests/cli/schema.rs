//! The published JSON Schemas are those of the code, and what is printed keeps to them.

use std::path::Path;

use crate::support::{Lab, json, repository};

fn fs_copy(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn the_published_schemas_are_those_of_the_code() {
    for name in ["report", "snapshot", "plan", "apply", "verify"] {
        let ran = Lab::new().run(["generate", "schema", name]);
        let path = repository().join("docs/schema").join(format!("{name}.json"));
        let published = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            published == ran.stdout,
            "docs/schema/{name}.json is old: run `cargo run -- generate schema {name} > docs/schema/{name}.json`"
        );
    }
}

#[test]
fn reports_and_snapshots_keep_to_their_schemas() {
    let lab = Lab::new();
    let root = lab.root();
    lab.write("root/proc/sys/vm/overcommit_memory", "2\n");
    fs_copy(&root, &lab.path("changed"));
    let changed = lab.path("changed");
    let changed = changed.to_str().unwrap();
    let runs: [(&str, Vec<&str>); 10] = [
        ("report", vec!["check", "--root", root.to_str().unwrap(), "--format", "json"]),
        ("report", vec!["check", "--format", "json"]),
        ("snapshot", vec!["facts", "--root", root.to_str().unwrap()]),
        ("snapshot", vec!["facts"]),
        ("plan", vec!["tune", "--root", root.to_str().unwrap(), "--format", "json"]),
        ("plan", vec!["tune", "--format", "json"]),
        ("apply", vec!["tune", "--root", changed, "--apply", "--format", "json"]),
        ("apply", vec!["tune", "--root", changed, "--apply", "--format", "json"]),
        ("verify", vec!["verify", "--root", changed, "--format", "json"]),
        ("apply", vec!["rollback", "--root", changed, "--format", "json"]),
    ];
    for (name, args) in runs {
        let schema = json(&lab.run(["generate", "schema", name]).stdout);
        let validator = jsonschema::validator_for(&schema).unwrap();
        let output = json(&lab.run(&args).stdout);
        // A rollback can end several transactions: a list of outcomes.
        let output = if args[0] == "rollback" { output[0].clone() } else { output };
        let errors: Vec<String> =
            validator.iter_errors(&output).map(|error| format!("{} at {}", error, error.instance_path())).collect();
        assert!(errors.is_empty(), "{args:?}: {errors:#?}");
        // The schema must be able to say no.
        let mut broken = output;
        broken["surprise"] = true.into();
        assert!(!validator.is_valid(&broken), "the schema of {name} admits unknown keys");
    }
}
