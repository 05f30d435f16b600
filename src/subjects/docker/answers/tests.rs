use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::facts::{Layer, State};
use crate::subjects::docker::client::{inspected, listed};
use crate::subjects::docker::daemon::Daemon;

fn answer<T>(result: Result<T, Failure>) -> Answer<T> {
    Answer { result, took: Duration::from_micros(1) }
}

fn answers(version: Json, info: Json) -> Answers {
    Answers {
        ping: answer(Ok(())),
        version: answer(serde_json::from_value(version).map_err(|error| Failure::Answer(error.to_string()))),
        info: answer(serde_json::from_value(info).map_err(|error| Failure::Answer(error.to_string()))),
        containers: answer(Ok(Vec::new())),
        networks: Answer::failed(Failure::NotAsked),
    }
}

fn facts_with(answers: &Answers, daemon: Daemon) -> Facts {
    let mut facts = Facts::default();
    insert(&Engine::new(answers), &Ok((daemon, "daemon.json".into())), &mut facts);
    facts
}

fn facts(version: Json, info: Json) -> Facts {
    facts_with(&answers(version, info), Daemon::default())
}

fn shown(facts: &Facts, id: &str) -> String {
    match &facts.get(id, Layer::Live).unwrap().state {
        State::Known(value) => value.to_string(),
        State::Absent(why) => format!("absent: {why}"),
        State::Unknown { error, .. } => format!("unknown: {error}"),
    }
}

#[test]
fn an_engine_is_told_by_what_it_says() {
    let docker = json!({"Version": "28.3.3", "ApiVersion": "1.51", "MinAPIVersion": "1.24",
        "Components": [{"Name": "Engine", "Version": "28.3.3"}]});
    let podman = json!({"Version": "4.3.1", "ApiVersion": "1.41", "MinAPIVersion": "1.24",
        "Components": [{"Name": "Podman Engine", "Version": "4.3.1"}, {"Name": "Conmon", "Version": "x"}]});
    for (version, info, kind) in [
        (&docker, json!({}), "docker"),
        (&docker, json!({"OperatingSystem": "Docker Desktop"}), "desktop"),
        (&docker, json!({"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]}), "rootless"),
        (&podman, json!({"SecurityOptions": ["name=rootless"]}), "podman"),
    ] {
        assert_eq!(shown(&facts(version.clone(), info), "docker.kind"), kind);
    }
    let facts = facts(podman, json!({}));
    assert_eq!(shown(&facts, "docker.version"), "absent: the engine is Podman 4.3.1, not Docker");
    assert_eq!(shown(&facts, "docker.api"), "1.41");
}

#[test]
fn info_becomes_facts() {
    let info = json!({"CgroupVersion": "2", "MemoryLimit": true, "SwapLimit": false, "Driver": "overlay2",
        "LoggingDriver": "json-file", "LiveRestoreEnabled": false, "Warnings": ["WARNING: No swap limit support"],
        "FirewallBackend": {"Driver": "nftables+firewalld"}});
    let found = facts(json!({}), info);
    for (id, expected) in [
        ("docker.cgroup", "2"),
        ("docker.memory-limit", "yes"),
        ("docker.swap-limit", "no"),
        ("docker.storage-driver", "overlay2"),
        ("docker.log-driver", "json-file"),
        ("docker.log-bounded", "no"),
        ("docker.live-restore", "no"),
        ("docker.warnings", "WARNING: No swap limit support"),
        ("docker.firewall-backend", "nftables"),
    ] {
        assert_eq!(shown(&found, id), expected, "{id}");
    }
    let found = facts(json!({}), json!({"Warnings": null, "LoggingDriver": "journald"}));
    assert_eq!(shown(&found, "docker.warnings"), "none");
    assert_eq!(shown(&found, "docker.log-bounded"), "yes");
    assert_eq!(shown(&found, "docker.firewall-backend"), "iptables");
    assert_eq!(shown(&found, "docker.cgroup"), "unknown: the answer has no usable CgroupVersion");
    assert_eq!(shown(&found, "docker.version"), "unknown: the answer has no usable Version");
}

#[test]
fn daemon_json_bounds_logs_and_turns_the_firewall_off() {
    let answers = answers(json!({}), json!({"LoggingDriver": "json-file"}));
    let hosts = vec!["fd://".into(), "tcp://0.0.0.0:2375".into()];
    let daemon = Daemon { log_max_size: Some("10m".into()), iptables: Some(false), hosts, ..Daemon::default() };
    let found = facts_with(&answers, daemon);
    assert_eq!(shown(&found, "docker.open-hosts"), "tcp://0.0.0.0:2375");
    assert_eq!(shown(&found, "docker.log-bounded"), "yes");
    assert_eq!(shown(&found, "docker.firewall-backend"), "none");
    let mut found = Facts::default();
    insert(&Engine::new(&answers), &Err("/etc/docker/daemon.json is not valid JSON".into()), &mut found);
    assert_eq!(shown(&found, "docker.log-bounded"), "unknown: /etc/docker/daemon.json is not valid JSON");
    assert_eq!(shown(&found, "docker.firewall-backend"), "unknown: /etc/docker/daemon.json is not valid JSON");
    assert_eq!(shown(&found, "docker.open-hosts"), "unknown: /etc/docker/daemon.json is not valid JSON");
    assert_eq!(shown(&found, "docker.log-driver"), "json-file", "the engine's own word does not need the file");
}

#[test]
fn an_answer_that_did_not_come_is_unknown_and_the_others_are_not() {
    let late = || Failure::Deadline(Duration::from_secs(2));
    let mut answers = answers(json!({"Version": "20.10.24"}), json!({}));
    answers.info = answer(Err(late()));
    let found = facts_with(&answers, Daemon::default());
    assert_eq!(shown(&found, "docker.state"), "running");
    assert_eq!(shown(&found, "docker.version"), "20.10.24");
    for id in FROM_INFO {
        assert_eq!(shown(&found, id), "unknown: no answer within 2000 ms", "{id}");
    }
    answers.ping = answer(Err(late()));
    assert_eq!(shown(&facts_with(&answers, Daemon::default()), "docker.state"), "hanging");
    answers.ping = answer(Err(Failure::Answer("status 500: broken".into())));
    assert_eq!(shown(&facts_with(&answers, Daemon::default()), "docker.state"), "failing");
}

/// Any JSON, shallow.
fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        "\\PC{0,20}".prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::hash_map("\\PC{0,8}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// An answer that has the right fields with anything in them.
fn hostile(fields: &'static [&'static str]) -> impl Strategy<Value = Json> {
    prop::collection::vec((prop::sample::select(fields), any_json()), 0..6)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

proptest! {
    #[test]
    fn no_answer_is_too_strange(
        version in hostile(&["Version", "ApiVersion", "MinAPIVersion", "Components", "Os"]),
        info in hostile(&["CgroupVersion", "Driver", "LoggingDriver", "SecurityOptions", "Warnings", "DockerRootDir",
            "FirewallBackend", "Containerd", "OperatingSystem", "MemoryLimit"]),
        summary in hostile(&["Id", "Names", "Image", "Command", "Ports", "Labels", "State"]),
        details in hostile(&["State", "HostConfig", "Name", "Id"]),
    ) {
        let found = facts(version, info);
        for (id, layers) in found.iter() {
            let kind = crate::facts::registry::spec(id).expect("a registered fact").kind;
            if let Some(value) = layers.live.as_ref().and_then(Fact::value) {
                prop_assert!(kind.admits(value), "{} is {:?}", id, value);
            }
        }
        if let Ok(summary) = serde_json::from_value(summary) {
            let mut container = listed(summary);
            if let Ok(details) = serde_json::from_value(details) {
                inspected(&mut container, details);
            }
            prop_assert!(container.published.iter().all(|published| published.port != 0));
        }
    }
}
