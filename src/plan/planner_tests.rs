//! Plans that no fixture root can ask for: Docker is not asked there.

use super::*;
use crate::catalog::library;
use crate::judge::wish::Standing;

/// A wish for a container limit of 65535 where Docker gives 1024.
fn nofile() -> Wish {
    let finding = serde_json::json!({
        "id": "limits.container-nofile", "check": "limits.container-nofile", "section": "LIMITS", "result": "fail",
        "severity": "required", "title": "t", "expected": "e", "observed": "o", "source": "s", "why": "w", "duration_us": 0,
    });
    Wish {
        finding: serde_json::from_value(finding).unwrap(),
        fact: "limits.container-nofile".into(),
        to: Value::Int(65535),
        live: Standing::NotGathered,
        boot: Standing::NotGathered,
        container: Standing::Off(Value::Int(1024)),
    }
}

fn planned(existing: Option<&str>, allow: &[&str]) -> Plan {
    let allow: Vec<String> = allow.iter().map(|id| (*id).to_owned()).collect();
    let existing =
        Existing(existing.map(|text| (files::DAEMON_JSON.to_owned(), text.to_owned())).into_iter().collect());
    let ground = Ground {
        facts: &Facts::default(),
        parameters: &Parameters::default(),
        os: library::os_profile("debian", &[]),
        is_live: true,
        allow: &allow,
        existing: &existing,
        would_lose: &|_, _| None,
    };
    plan(&[nofile()], &ground)
}

#[test]
fn without_consent_the_limit_is_the_users_to_set() {
    let plan = planned(Some("{}"), &[]);
    assert!(plan.changes.is_empty() && plan.conflicts.is_empty());
    assert_eq!(plan.manual[0].text, "ulimits:\n  nofile:\n    soft: 65535\n    hard: 65535");
}

#[test]
fn with_consent_the_daemons_file_is_merged() {
    let existing = r#"{"log-driver": "local", "default-ulimits": {"core": {"Name": "core", "Hard": 0, "Soft": 0}}}"#;
    for existing in [None, Some(""), Some("{}"), Some(existing)] {
        let plan = planned(existing, &[ALLOW_DAEMON_JSON]);
        assert_eq!(plan.conflicts[0].id, ALLOW_DAEMON_JSON);
        let change = &plan.changes[0];
        assert_eq!((change.before.as_deref(), change.restarts.as_slice()), (existing, &["docker".to_owned()][..]));
        let after: serde_json::Value = serde_json::from_str(&change.after).unwrap();
        assert_eq!(after["default-ulimits"]["nofile"]["Hard"], 65535);
        if existing.is_some_and(|text| text.contains("log-driver")) {
            assert_eq!(
                (&after["log-driver"], &after["default-ulimits"]["core"]["Name"]),
                (&"local".into(), &"core".into())
            );
        }
        // G2: until Docker was restarted the limit is still off, and there is nothing left to change.
        let again = planned(Some(&change.after), &[ALLOW_DAEMON_JSON]);
        assert!(again.changes.is_empty() && again.conflicts.is_empty(), "{again:?}");
        assert_eq!(again.manual[0].text, "systemctl restart docker");
    }
}

#[test]
fn a_broken_daemon_file_is_named_and_left_alone() {
    for broken in ["{", "[]", "\"x\"", r#"{"default-ulimits": 5}"#, "{\"a\": 1,}"] {
        let plan = planned(Some(broken), &[ALLOW_DAEMON_JSON]);
        assert!(plan.changes.is_empty() && plan.conflicts.is_empty(), "{broken}");
        assert!(plan.manual[0].reason.contains("daemon.json"), "{broken}: {:?}", plan.manual);
    }
}

#[test]
fn only_ids_that_can_conflict_are_allowable() {
    for id in [ALLOW_DAEMON_JSON, "owner:tuned", "owner:/etc/sysctl.d/99-zzz.conf"] {
        assert!(is_allowable(id), "{id}");
    }
    for id in ["", "all", "*", "owner:", "owner:x", "docker.deamon-json"] {
        assert!(!is_allowable(id), "{id}");
    }
    assert_eq!(owner_id("/etc/sysctl.d/99-zzz.conf:3"), "owner:/etc/sysctl.d/99-zzz.conf");
    assert_eq!(owner_id("/usr/lib/tuned/virtual-guest/tuned.conf:9"), "owner:tuned");
}
