//! The published JSON Schemas are those of the code, and what is printed keeps to them.

use crate::support::{Lab, json, repository};

#[test]
fn the_published_schemas_are_those_of_the_code() {
    for name in ["report", "snapshot"] {
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
    let runs: [(&str, Vec<&str>); 4] = [
        ("report", vec!["check", "--root", root.to_str().unwrap(), "--format", "json"]),
        ("report", vec!["check", "--format", "json"]),
        ("snapshot", vec!["facts", "--root", root.to_str().unwrap()]),
        ("snapshot", vec!["facts"]),
    ];
    for (name, args) in runs {
        let schema = json(&lab.run(["generate", "schema", name]).stdout);
        let validator = jsonschema::validator_for(&schema).unwrap();
        let output = json(&lab.run(&args).stdout);
        let errors: Vec<String> =
            validator.iter_errors(&output).map(|error| format!("{} at {}", error, error.instance_path())).collect();
        assert!(errors.is_empty(), "{args:?}: {errors:#?}");
        // The schema must be able to say no.
        let mut broken = output;
        broken["surprise"] = true.into();
        assert!(!validator.is_valid(&broken), "the schema of {name} admits unknown keys");
    }
}
