//! Snapshots: the same findings anywhere, nothing guessed for what was not gathered, bad files refused with a place.

use crate::support::{Lab, check, json, profile};

/// Everything of a report but the times it took.
fn findings(text: &str) -> serde_json::Value {
    let mut report = json(text);
    report["findings"].take()
}

#[test]
fn judging_a_snapshot_gives_the_findings_of_the_run() {
    let lab = Lab::new();
    let root = lab.root();
    lab.write("root/proc/sys/vm/overcommit_memory", "2\n");
    let facts = lab.run(["facts", "--root", root.to_str().unwrap()]);
    let file = lab.write("snapshot.json", &facts.stdout);
    let once = lab.run(["check", "--snapshot", file.to_str().unwrap(), "--format", "json"]);
    let again = lab.run_with_input(["check", "--snapshot", "-", "--format", "json"], &facts.stdout);
    assert_eq!(findings(&once.stdout), findings(&again.stdout));
    let direct = lab.run(["check", "--root", root.to_str().unwrap(), "--format", "json"]);
    let strip = |mut list: serde_json::Value| {
        for finding in list.as_array_mut().unwrap() {
            finding.as_object_mut().unwrap().remove("duration_us");
        }
        list
    };
    assert_eq!(strip(findings(&direct.stdout)), strip(findings(&once.stdout)));
    assert_eq!(once.code, direct.code);
}

#[test]
fn a_snapshot_carries_the_profile_it_was_gathered_for() {
    let lab = Lab::new();
    let root = lab.root();
    lab.write("root/proc/sys/vm/x", "7");
    let file =
        lab.write("p.toml", &profile(&check("a.b", "required", "fact = \"sysctl.vm.x\"\npass = { equals = 7 }")));
    let facts = lab.run(["facts", "--root", root.to_str().unwrap(), "--profile", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    let ran = lab.run_with_input(["check", "--snapshot", "-", "--format", "json"], &facts.stdout);
    assert_eq!((json(&ran.stdout)["findings"][0]["id"].as_str(), ran.code), (Some("a.b"), 0), "{}", ran.stderr);
}

/// What is expected of the ports is asked when a snapshot is judged, not when it is taken. Fails where the probe decides.
#[test]
fn a_snapshot_is_judged_by_what_is_expected_of_the_ports_now() {
    let lab = Lab::new();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("ports=own:{}", socket.local_addr().unwrap().port());
    let own = format!("workload_processes={}", std::fs::read_to_string("/proc/self/comm").unwrap().trim_end());
    let address = "publish_address=127.0.0.1";
    let facts = lab.run(["facts", "--only", "port.free", "--set", &port, "--set", &own, "--set", address]);
    assert_eq!(facts.code, 0, "{}", facts.stderr);
    for (expected, result) in [("free_or_ours", "pass"), ("free", "fail")] {
        let set = format!("ports_expected={expected}");
        let args = ["check", "--snapshot", "-", "--only", "port.free", "--set", &set, "--format", "json"];
        let ran = lab.run_with_input(args, &facts.stdout);
        let report = json(&ran.stdout);
        assert_eq!(report["findings"][0]["result"].as_str(), Some(result), "{report}");
    }
}

/// The same setting is worth a warning with one backend of Docker and stops its networks with the other.
#[test]
fn forwarding_that_is_off_weighs_by_dockers_backend() {
    let lab = Lab::new();
    let text = std::fs::read_to_string(crate::support::repository().join("docs/example/host.json")).unwrap();
    let known = |value: serde_json::Value| serde_json::json!({"live": {"state": {"known": value}, "source": "test"}});
    for (backend, forward, expected) in [
        ("iptables", 1, "pass"),
        ("iptables", 0, "warn"),
        ("nftables", 1, "pass"),
        ("nftables", 0, "fail"),
        ("none", 0, "not_applicable"),
    ] {
        let mut snapshot = json(&text);
        let facts = &mut snapshot["facts"];
        facts["docker.state"] = known(serde_json::json!({"text": "running"}));
        facts["docker.firewall-backend"] = known(serde_json::json!({"text": backend}));
        facts["sysctl.net.ipv4.ip_forward"] = known(serde_json::json!({"int": forward}));
        let args = ["check", "--snapshot", "-", "--only", "docker.ip-forward", "--format", "json"];
        let report = json(&lab.run_with_input(args, &snapshot.to_string()).stdout);
        let finding = &report["findings"][0];
        assert_eq!(finding["result"].as_str(), Some(expected), "{backend} {forward}: {finding}");
        assert_eq!(finding["severity"].as_str(), Some("blocker"));
    }
}

/// Whoever reads the report must see that it is not the profile that everybody has under this name.
#[test]
fn an_own_profile_of_an_embedded_name_is_told_apart() {
    let lab = Lab::new();
    let root = lab.root();
    lab.write("root/proc/sys/vm/x", "7");
    let text = profile(&check("a.b", "required", "fact = \"sysctl.vm.x\"\npass = { equals = 7 }"));
    let text = text.replace("name = \"lab\"", "name = \"redis-sentinel\"");
    assert!(text.contains("redis-sentinel"), "{text}");
    let local = "/etc/preflight/profiles.d/redis-sentinel.toml";
    for (path, given) in [(local, "redis-sentinel"), ("own.toml", "own.toml")] {
        let file = lab.write(&if path == local { format!("root{path}") } else { path.to_owned() }, &text);
        let facts = lab.run(["facts", "--root", root.to_str().unwrap(), "--profile", given]);
        std::fs::remove_file(&file).unwrap();
        for args in [&["check", "--snapshot", "-"][..], &["check", "--snapshot", "-", "--profile", "redis-sentinel"]] {
            let ran = lab.run_with_input(args.iter().copied(), &facts.stdout);
            let shown = ran.stdout.replace('\n', " ");
            assert_eq!(ran.code, 0, "{shown}");
            assert!(shown.contains("which is not preflight's own of that name"), "{shown}");
            assert!(shown.contains(path), "{shown}");
        }
        let ran = lab.run_with_input(["check", "--snapshot", "-", "--format", "json"], &facts.stdout);
        let shown = json(&ran.stdout)["profile"]["file"].take();
        assert_eq!(shown.as_str(), Some(path));
    }
    let ran = lab.run(["check", "--root", root.to_str().unwrap(), "--format", "json"]);
    assert_eq!(json(&ran.stdout)["profile"].get("file"), None);
}

/// Seen failing with a missing layer judged as not applicable.
#[test]
fn a_fact_that_was_not_gathered_is_unknown() {
    let lab = Lab::new();
    let root = lab.root();
    lab.write("root/proc/sys/vm/overcommit_memory", "1\n");
    let facts = lab.run(["facts", "--root", root.to_str().unwrap()]);
    let mut snapshot = json(&facts.stdout);
    assert!(snapshot["facts"].as_object_mut().unwrap().remove("sysctl.vm.overcommit_memory").is_some());
    let ran = lab.run_with_input(
        ["check", "--snapshot", "-", "--format", "json", "--only", "kernel.overcommit"],
        &snapshot.to_string(),
    );
    assert_eq!((json(&ran.stdout)["findings"][0]["result"].as_str(), ran.code), (Some("unknown"), 3));
}

#[test]
fn a_bad_snapshot_is_refused_with_a_place() {
    let lab = Lab::new();
    let run = |text: &str| {
        let ran = lab.run_with_input(["check", "--snapshot", "-"], text);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{text}");
        ran.stderr
    };
    insta::assert_snapshot!(run("{\n  \"schema\": 3\n}"), @"
    error: -:2:13: not a snapshot: invalid type: integer `3`, expected a string
    hint: `preflight facts` writes one
    ");
    insta::assert_snapshot!(run(""), @"
    error: -:1:0: not a snapshot: EOF while parsing a value
    hint: `preflight facts` writes one
    ");
    insta::assert_snapshot!(run(&snapshot_with("schema", "preflight.snapshot/9")), @"error: -: schema `preflight.snapshot/9` is not `preflight.snapshot/1`, which this version reads");
    insta::assert_snapshot!(run(&snapshot_with("taken_at", "yesterday")), @"error: -: taken_at `yesterday` is no time like 2026-11-22T10:15:00Z");
    insta::assert_snapshot!(run(&snapshot_with("colour", "blue")), @"
    error: -:1:9: not a snapshot: unknown field `colour`, expected one of `schema`, `preflight`, `taken_at`, `host`, `profile`, `set`, `sources`, `facts`
    hint: `preflight facts` writes one
    ");
}

fn snapshot_with(key: &str, value: &str) -> String {
    let lab = Lab::new();
    let root = lab.root();
    let mut snapshot = json(&lab.run(["facts", "--root", root.to_str().unwrap()]).stdout);
    snapshot[key] = value.into();
    snapshot.to_string()
}
