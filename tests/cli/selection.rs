//! `--only`, `--skip`, `--set`, profiles by name: what is asked, and that asking for nothing is an error.

use crate::support::{Lab, json};

fn stderr(args: &[&str]) -> (i32, String) {
    let ran = Lab::new().run(args);
    (ran.code, ran.stderr)
}

#[test]
fn wrong_names_are_errors_with_a_suggestion() {
    insta::assert_snapshot!(stderr(&["check", "--only", "kernel.overcomit"]).1, @"
    error: --only kernel.overcomit matches no finding of the profile
    hint: did you mean `kernel.overcommit`?
    ");
    insta::assert_snapshot!(stderr(&["check", "--profile", "redis-sentinal"]).1, @"
    error: there is no profile `redis-sentinal`
    hint: did you mean `redis-sentinel`?
    ");
    insta::assert_snapshot!(stderr(&["check", "--set", "maxmemry=1GiB"]).1, @"
    error: --set maxmemry: the profile declares no such parameter
    hint: did you mean `maxmemory`?
    ");
    insta::assert_snapshot!(stderr(&["check", "--set", "maxmemory=1"]).1, @r#"error: --set maxmemory: `1` is not a size: expected something like `"4 GiB"`"#);
    insta::assert_snapshot!(stderr(&["check", "--set", "nodes_here=0"]).1, @"error: --set nodes_here = 0 is too little: at least 1");
    insta::assert_snapshot!(stderr(&["check", "--set", "ports=redis:70000"]).1, @"error: --set ports: `70000` is no port: expected 1 to 65535");
    insta::assert_snapshot!(stderr(&["explain", "kernel.tph"]).1, @"
    error: profile redis-sentinel has no check `kernel.tph`
    hint: did you mean `kernel.thp`?
    ");
}

#[test]
fn wrong_usage_exits_with_two_and_checks_nothing() {
    for args in [
        &["check", "--only", "nothing.*"] as &[&str],
        &["check", "--skip", "*"],
        &["check", "--set", "maxmemory"],
        &["check", "--wait", "5"],
        &["check", "--root", "/nonexistent"],
        &["check", "--snapshot", "/nonexistent"],
        &["check", "--profile", "./nonexistent.toml"],
        &["check", "--set", "maxmemory=1GiB", "--set", "maxmemory=2GiB"],
        &["frobnicate"],
        &[],
    ] {
        let ran = Lab::new().run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty(), "{args:?} says nothing");
    }
}

#[test]
fn one_port_of_many_can_be_asked_for() {
    let lab = Lab::new();
    let ran = lab.run([
        "check",
        "--only",
        "port.free.638?",
        "--set",
        "ports=redis:6379-6390",
        "--format",
        "json",
        "--fail-on",
        "never",
    ]);
    let report = json(&ran.stdout);
    let ids: Vec<&str> = report["findings"].as_array().unwrap().iter().map(|f| f["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 10, "{ids:?}");
    assert!(ids.iter().all(|id| id.starts_with("port.free.638")));
    assert_eq!(report["summary"]["total"], 10);
}
