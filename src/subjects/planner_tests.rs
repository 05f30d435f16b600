//! Plans that no fixture root can ask for: Docker is not asked there.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

use crate::apply::recovery;
use crate::catalog::library;
use crate::catalog::parameters::Parameters;
use crate::change::files;
use crate::change::files::Existing;
use crate::facts::{Fact, Facts, Layer, Value};
use crate::judge::wish::Standing;
use crate::subjects::firewall::derive_guard as firewall_guard;
use crate::subjects::firewall::read::peers::Connected;

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
    let context = PlanContext {
        facts: &Facts::default(),
        parameters: &Parameters::default(),
        os: library::os_profile("debian", &[]),
        is_live: true,
        allow: &allow,
        existing: &existing,
        would_lose: &|_, _| None,
    };
    let asked = Asked {
        recovery: &|| recovery::Standing::InPlace,
        connected: &|_| Connected { sshd: Ok(BTreeSet::new()), peers: Ok(BTreeSet::new()) },
        guard_service: &|| Some(false),
    };
    plan(&[nofile()], &context, &asked)
}

/// A plan for entries that are missing, on a host with that service manager.
fn entries(words: &[&str], os: &str, recovery: &recovery::Standing, existing: &[(&str, &str)]) -> Plan {
    let missing = Value::Set(words.iter().map(|word| (*word).to_owned()).collect());
    let mut wish = nofile();
    wish.finding.id = "firewall.entries".into();
    wish.fact = "derived.firewall.entries".into();
    (wish.live, wish.container) = (Standing::Off(missing), Standing::NotGathered);
    let text = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
    let context = PlanContext {
        facts: &Facts::default(),
        parameters: &Parameters::default(),
        os: library::os_profile(os, &[]),
        is_live: true,
        allow: &[],
        existing: &Existing(existing.iter().map(text).collect()),
        would_lose: &|_, _| None,
    };
    let asked = Asked {
        recovery: &|| recovery.clone(),
        connected: &|_| Connected { sshd: Ok(BTreeSet::new()), peers: Ok(BTreeSet::new()) },
        guard_service: &|| Some(false),
    };
    plan(&[wish], &context, &asked)
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
}

/// What the plan for the guard looks at besides its facts.
#[derive(Clone)]
struct Around {
    connected: Connected,
    service: Option<bool>,
    existing: Existing,
    outside: BTreeSet<String>,
    /// What is installed, and what `iptables` stands for; `None`: not gathered.
    programs: Option<(&'static [&'static str], Option<&'static str>)>,
    boot: &'static str,
}

impl Default for Around {
    fn default() -> Self {
        let connected = Connected { sshd: Ok(BTreeSet::new()), peers: Ok(BTreeSet::new()) };
        Self {
            connected,
            service: Some(false),
            existing: Existing::default(),
            outside: BTreeSet::new(),
            programs: None,
            boot: "none",
        }
    }
}

/// In place of the guard's text: the kernel does not say.
const UNREADABLE: &str = "unreadable";

fn guarded(os: &str, live: &str, around: &Around) -> Plan {
    use crate::catalog::parameters::{Port, Protocol, Setting};
    let mut parameters = Parameters::default();
    let port = Port { name: "redis".into(), port: 6379, protocol: Protocol::Tcp, publish: true };
    parameters.insert("ports", Setting::Ports(vec![port]));
    parameters.insert("allow", Setting::List(vec!["10.0.0.0/8".into(), "docker:networks".into()]));
    parameters.insert("publish_address", Setting::List(vec!["0.0.0.0".into()]));
    let mut facts = Facts::default();
    let known = Fact::known(Value::Text(live.into()), "test");
    facts.live("firewall.guard", if live == UNREADABLE { Fact::unknown("denied", None, "test") } else { known });
    facts.insert("firewall.guard", Layer::Boot, Fact::known(Value::Text(around.boot.into()), "test"));
    facts.live("docker.networks", Fact::known(Value::Set(["172.18.0.0/16".to_owned()].into()), "test"));
    facts.live("docker.workload-outside", Fact::known(Value::Set(around.outside.clone()), "test"));
    if let Some((programs, iptables)) = around.programs {
        let names = programs.iter().map(|name| (*name).to_owned()).collect();
        facts.live("firewall.programs", Fact::known(Value::Set(names), "test"));
        let absent = || Fact::absent("not installed", "test");
        let variant = iptables.map_or_else(absent, |name| Fact::known(Value::Text(name.into()), "test"));
        facts.live("firewall.iptables", variant);
    }
    let mut wish = nofile();
    wish.finding.id = "firewall.guard".into();
    wish.fact = "derived.firewall.guard".into();
    wish.to = Value::Text("as planned".into());
    let word = if live == "none" { "missing" } else { "as planned" };
    let standing = if live == "none" { Standing::Off } else { Standing::Accepted };
    (wish.live, wish.container) = (standing(Value::Text(word.into())), Standing::NotGathered);
    let context = PlanContext {
        facts: &facts,
        parameters: &parameters,
        os: library::os_profile(os, &[]),
        is_live: true,
        allow: &[],
        existing: &around.existing,
        would_lose: &|_, _| None,
    };
    let asked = Asked {
        recovery: &|| recovery::Standing::InPlace,
        connected: &|_| around.connected.clone(),
        guard_service: &|| around.service,
    };
    plan(&[wish], &context, &asked)
}

fn targets(plan: &Plan) -> Vec<&str> {
    plan.changes.iter().map(|change| change.target.as_str()).collect()
}

/// Seen failing with the start planned without a systemd, and without the look at the files that are there.
#[test]
fn the_guard_is_loaded_now_and_started_when_its_files_are_there() {
    use crate::subjects::firewall::model::boot;
    let files = [boot::FILE, boot::UNIT].map(|path| format!("file:{path}"));
    let [link, follow, ..] = boot::UNIT_LINKS.map(|link| format!("link:{link}"));
    let all = ["guard:nft", &files[0], &files[1], &link, &follow, boot::SERVICE];
    let whole = guarded("debian", "none", &Around::default());
    assert_eq!(targets(&whole), all);
    assert!(whole.changes[0].connectivity_risk && whole.changes[0].layer == Layer::Live, "{whole:?}");
    assert!(whole.changes[1..].iter().all(|change| change.layer == Layer::Boot), "{whole:?}");
    let origin = boot::Origin::of(&whole.changes[1].after).unwrap();
    assert_eq!(origin.networks, ["172.18.0.0/16".parse().unwrap()]);

    // Without a systemd that runs nothing is started.
    assert_eq!(targets(&guarded("debian", "none", &Around { service: None, ..Around::default() })), all[..5]);
    // OpenRC has its own script, and no such service.
    let openrc = guarded("alpine", "none", &Around { service: None, ..Around::default() });
    assert_eq!(targets(&openrc)[2..], [format!("file:{}", boot::OPENRC), format!("link:{}", boot::OPENRC_LINK)]);

    // Everything is there; then one thing is not.
    let mut there: BTreeMap<String, String> = whole.changes[1..3]
        .iter()
        .map(|change| (change.target.trim_start_matches("file:").to_owned(), change.after.clone()))
        .collect();
    let (_, unit, links) = boot::service(crate::subjects::firewall::model::writer::Writer::Nft, false);
    there.extend(links.iter().map(|link| ((*link).to_owned(), unit.clone())));
    let live = whole.changes[0].after.clone();
    let around = |existing: &BTreeMap<String, String>, service| Around {
        existing: Existing(existing.clone()),
        service: Some(service),
        ..Around::default()
    };
    assert_eq!(targets(&guarded("debian", &live, &around(&there, true))), [""; 0]);
    assert_eq!(targets(&guarded("debian", &live, &around(&there, false))), [boot::SERVICE]);
    there.remove(boot::FILE);
    assert_eq!(targets(&guarded("debian", &live, &around(&there, true))), [files[0].as_str()]);
}

/// Seen failing with the guard that is there not asked in `writer`: a second one is planned.
#[test]
fn the_guard_is_written_with_nft_and_else_with_the_iptables_of_the_host() {
    const BOTH: &[&str] = &["iptables-nft", "iptables-legacy"];
    const ALL: &[&str] = &["nft", "iptables-nft", "iptables-legacy"];
    let plan = |live: &str, boot, programs, iptables| {
        let around = Around { programs: Some((programs, iptables)), boot, ..Around::default() };
        let plan = guarded("debian", live, &around);
        let guards = plan.changes.iter().filter(|change| change.target.starts_with("guard:"));
        let guards: Vec<String> = guards.map(|change| change.target.clone()).collect();
        (guards.join(" "), plan.manual.iter().map(|manual| manual.reason.clone()).collect::<String>())
    };
    let chosen = |live: &str, boot, programs, iptables| plan(live, boot, programs, iptables).0;
    assert_eq!(chosen("none", "none", ALL, Some("iptables-legacy")), "guard:nft");
    assert_eq!(chosen("none", "none", BOTH, Some("iptables-legacy")), "guard:iptables-legacy");
    assert_eq!(chosen("none", "none", BOTH, Some("iptables-nft")), "guard:iptables-nft");
    // One that is there stays where it is, also when only the next boot would bring it.
    assert_eq!(chosen("changed, iptables-legacy", "none", ALL, Some("iptables-nft")), "guard:iptables-legacy");
    assert_eq!(chosen("none", "changed, iptables-nft", ALL, Some("iptables-legacy")), "guard:iptables-nft");
    assert_eq!(chosen("changed", "none", ALL, None), "guard:nft");
    for (live, programs, iptables, why) in [
        ("none", &[][..], None, "neither nft nor an iptables"),
        // There, and of no known variant.
        ("none", BOTH, None, "neither nft nor an iptables"),
        ("changed", BOTH, Some("iptables-nft"), "written with nft, and that is not on this host any more"),
        ("changed, iptables-legacy", &["nft"], None, "written with iptables-legacy, and that is not on this host"),
        (firewall_guard::SEVERAL, ALL, None, "more than one guard"),
    ] {
        let (guards, reason) = plan(live, "none", programs, iptables);
        assert!(guards.is_empty() && reason.contains(why), "{live}: {guards} {reason}");
    }
}

/// Root without CAP_NET_ADMIN. Seen failing with the files planned all the same: the next boot would have loaded a guard
/// that nobody had looked at, without a word about sshd or who is connected.
#[test]
fn a_guard_that_cannot_be_looked_at_is_not_left_to_the_boot() {
    let plan = guarded("debian", UNREADABLE, &Around::default());
    assert_eq!(targets(&plan), [""; 0]);
    assert!(matches!(&plan.manual[..], [manual] if manual.reason.contains("denied")), "{plan:?}");
}

/// Seen failing with sshd's ports, the peers, and the error about the peers not heeded in `guard_conflicts`.
#[test]
fn whoever_is_inside_and_would_be_shut_out_is_a_conflict() {
    let with = |sshd: Result<BTreeSet<u16>, String>, peers: Result<BTreeSet<String>, String>| {
        let around = Around { connected: Connected { sshd, peers }, ..Around::default() };
        let plan = guarded("debian", "none", &around);
        plan.conflicts.iter().map(|conflict| (conflict.id.clone(), conflict.reason.clone())).collect::<Vec<_>>()
    };
    let (nobody, none) = (|| Ok(BTreeSet::new()), || Ok(BTreeSet::new()));
    assert_eq!(with(none(), nobody()), []);
    for (sshd, peers, id, words) in [
        (Ok([6379].into()), nobody(), "firewall.sshd-port", "sshd listens on 6379"),
        (Err("denied".to_owned()), nobody(), "firewall.sshd-port", "cannot be determined: denied"),
        (none(), Ok(["203.0.113.9".to_owned()].into()), "firewall.cut-peers", "203.0.113.9"),
        (none(), Err("denied".to_owned()), "firewall.cut-peers", "cannot be determined: denied"),
    ] {
        let [(found, reason)] = &with(sshd, peers)[..] else { panic!("{words}: not one conflict") };
        assert!(found == id && reason.contains(words), "{found} {reason}");
    }
}

/// Seen failing without the step in `Planner::firewall_guard`.
#[test]
fn the_plan_names_the_containers_that_no_guard_covers() {
    let around = Around { outside: ["redis on lan (macvlan)".to_owned()].into(), ..Around::default() };
    let [manual] = &guarded("debian", "none", &around).manual[..] else { panic!("not one step") };
    assert!(manual.reason.contains("redis on lan (macvlan)"), "{manual:?}");
    assert!(guarded("debian", "none", &Around::default()).manual.is_empty());
}
