//! Plans that no fixture root can ask for: Docker is not asked there.

use super::*;
use crate::catalog::library;
use crate::judge::wish::Standing;
use crate::plan::recovery;

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
        recovery: &|| recovery::Standing::InPlace,
        connected: &|_| Connected { sshd: Ok(BTreeSet::new()), peers: Ok(BTreeSet::new()) },
        would_lose: &|_, _| None,
    };
    plan(&[nofile()], &ground)
}

/// A plan for entries that are missing, on a host with that service manager.
fn entries(words: &[&str], os: &str, recovery: &recovery::Standing, existing: &[(&str, &str)]) -> Plan {
    let missing = Value::Set(words.iter().map(|word| (*word).to_owned()).collect());
    let mut wish = nofile();
    wish.finding.id = "firewall.entries".into();
    wish.fact = "derived.firewall.entries".into();
    (wish.live, wish.container) = (Standing::Off(missing), Standing::NotGathered);
    let text = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
    let ground = Ground {
        facts: &Facts::default(),
        parameters: &Parameters::default(),
        os: library::os_profile(os, &[]),
        is_live: true,
        allow: &[],
        existing: &Existing(existing.iter().map(text).collect()),
        recovery: &|| recovery.clone(),
        connected: &|_| Connected { sshd: Ok(BTreeSet::new()), peers: Ok(BTreeSet::new()) },
        would_lose: &|_, _| None,
    };
    plan(&[wish], &ground)
}

/// Seen failing with the service pushed behind the entry instead of spliced in before it.
#[test]
fn what_takes_an_entry_of_ufw_back_after_a_power_cut_comes_first() {
    let missing = recovery::Standing::Missing { program: "/usr/local/bin/preflight".into() };
    let words = ["ufw: tcp 6379-6381 from 172.20.0.0/16", "ufw: tcp 26379 from fd00::/8"];
    for (os, form) in [("debian", recovery::SYSTEMD), ("alpine", recovery::OPENRC)] {
        let plan = entries(&words, os, &missing, &[]);
        let targets: Vec<&str> = plan.changes.iter().map(|change| change.target.as_str()).collect();
        let service = [format!("file:{}", form.file), format!("link:{}", form.link)];
        assert_eq!(targets[..2], service);
        assert_eq!(targets[2..], ["ufw:tcp 26379 from fd00::/8", "ufw:tcp 6379-6381 from 172.20.0.0/16"]);
        assert!(plan.changes.iter().all(|change| change.layer == Layer::Live), "{plan:?}");
        // Also before what was planned before it.
        let both = [&["firewalld: home: tcp 6379 from 10.0.0.0/8"], &words[..]].concat();
        assert_eq!(entries(&both, os, &missing, &[]).changes[0].target, service[0]);
        assert_eq!(
            recovery::program(std::path::Path::new(form.file), &plan.changes[0].after),
            Some("/usr/local/bin/preflight")
        );
        // The file is there, and only the link is missing.
        let half = entries(&words, os, &missing, &[(form.file, &plan.changes[0].after)]);
        assert_eq!(half.changes[0].target, service[1]);
        assert_eq!(entries(&words, os, &recovery::Standing::InPlace, &[]).changes.len(), 2);
    }
    let plan = entries(&words, "debian", &recovery::Standing::InPlace, &[]);
    assert_eq!(
        (plan.changes[1].after.as_str(), plan.changes[1].undo.as_str()),
        (
            "ufw allow proto tcp from 172.20.0.0/16 to any port 6379:6381 comment preflight",
            "ufw delete allow proto tcp from 172.20.0.0/16 to any port 6379:6381"
        )
    );
    let plan = entries(&words, "debian", &recovery::Standing::Impossible("no room".into()), &[]);
    assert!(plan.changes.is_empty() && plan.manual.len() == 2, "{plan:?}");
}

#[test]
fn firewalld_gets_an_entry_now_and_keeps_it_after_the_confirm() {
    let plan = entries(&["firewalld: home: tcp 6379 from 10.0.0.0/8"], "rhel", &recovery::Standing::InPlace, &[]);
    let [live, boot] = &plan.changes[..] else { panic!("{plan:?}") };
    assert_eq!((live.layer, live.target.as_str()), (Layer::Live, "firewalld:home/tcp 6379 from 10.0.0.0/8"));
    assert_eq!((boot.layer, boot.target.as_str()), (Layer::Boot, "firewalld-permanent:home/tcp 6379 from 10.0.0.0/8"));
    assert!(boot.after.starts_with("firewall-cmd --permanent --zone=home --add-rich-rule='rule family=\"ipv4\""));
    assert!(boot.undo.starts_with("firewall-cmd --permanent --zone=home --remove-rich-rule='rule "));
}

/// Nothing but an entry becomes a command, whatever the snapshot says.
#[test]
fn a_rule_of_the_administrator_is_shown_and_not_overruled() {
    for word in [
        "ufw: tcp 6379 from 10.0.0.0/8 (kept out by deny tcp from 10.0.0.0/8 (rule 1))",
        "ufw: tcp 6379 from 10.0.0.0/8; reboot",
        "firewalld: --panic-on: tcp 6379 from 10.0.0.0/8",
        "firewalld: public: tcp 6379 from 10.0.0.0/8 (kept out by a rich rule)",
    ] {
        let plan = entries(&[word], "debian", &recovery::Standing::InPlace, &[]);
        assert!(plan.changes.is_empty() && plan.manual.len() == 1, "{word}: {plan:?}");
    }
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
