//! Which allow entries the profile wants and ufw or firewalld does not have, told from their own files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Instant;

use super::bindings::{bindings, interfaces, zones as permanent_zones};
use super::kernel::{PATIENCE, SOURCE};
use super::{manager, nft, zones};
use crate::facts::network::Network;
use crate::facts::{Fact, Facts, Layer, State, Value};
use crate::host::{Host, ReadError, describe, nfnetlink};
use crate::subjects::context::Context;
use crate::subjects::firewall::model::entry::{Entry, EntryState};
use crate::subjects::firewall::model::firewalld;
use crate::subjects::firewall::model::firewalld::Zone;
use crate::subjects::firewall::model::intent::Intent;
use crate::subjects::firewall::model::rules::Ruleset;
use crate::subjects::firewall::model::ufw;

const UFW: &str = "firewall.ufw-entries";
const FIREWALLD: &str = "firewall.firewalld-entries";
const DOCKER_NETWORKS: &str = "docker.networks";

/// Compares what is there with what the profile wants. Docker has answered by now: `allow` may name its networks.
pub fn conclude(cx: &Context<'_>, facts: &mut Facts) {
    type Gather = fn(&Host, &Intent) -> Result<Fact, ReadError>;
    let with_rules: Gather = |host, intent| of_firewalld(host, intent, running());
    let all: [(&str, &str, &str, Gather); 2] =
        [(UFW, "ufw", ufw::CONF, of_ufw), (FIREWALLD, "firewalld", firewalld::CONF, with_rules)];
    for (id, manager, source, gather) in all {
        if !cx.want.has(id) {
            continue;
        }
        let started = Instant::now();
        let fact = if cx.host.is_live() {
            let is_active = match manager {
                "ufw" => manager::ufw_of(cx.host, facts),
                _ => Ok(manager::firewalld_of(cx.host, facts)),
            };
            match (is_active, intent(cx, facts)) {
                (Err(error), _) => Fact::unreadable(&error, "it is gone"),
                (Ok(false), _) => Fact::absent(format!("{manager} is not active"), source),
                (Ok(true), Err(why)) => Fact::unknown(why, None, source),
                (Ok(true), Ok(intent)) => {
                    gather(cx.host, &intent).unwrap_or_else(|error| Fact::unreadable(&error, "it is gone"))
                }
            }
        } else {
            Fact::not_running(source)
        };
        facts.live(id, fact.took(started.elapsed()));
    }
}

/// What the profile wants, with the networks that Docker has. Where there is no Docker, it has none.
pub(crate) fn intent(cx: &Context<'_>, facts: &Facts) -> Result<Intent, String> {
    let networks: Result<Vec<Network>, &str> = match facts.get(DOCKER_NETWORKS, Layer::Live).map(|fact| &fact.state) {
        None => Err("they were not asked for"),
        Some(State::Absent(_)) => Ok(Vec::new()),
        Some(State::Unknown { error, .. }) => Err(error),
        Some(State::Known(Value::Set(words))) => {
            words.iter().map(|word| word.parse::<Network>().map_err(|_| "one is not understood")).collect()
        }
        Some(State::Known(_)) => Err("they are no set"),
    };
    let networks = match &networks {
        Ok(networks) => Ok(networks.as_slice()),
        Err(why) => Err(*why),
    };
    Intent::new(cx.parameters, networks).map_err(|error| error.to_string())
}

/// An entry that is not open, in the words of the set.
fn missing(entry: &Entry, state: EntryState) -> Option<String> {
    match state {
        EntryState::Open => None,
        EntryState::Missing => Some(entry.to_string()),
        EntryState::Denied(by) => Some(format!("{entry} (kept out by {by})")),
    }
}

fn of_ufw(host: &Host, intent: &Intent) -> Result<Fact, ReadError> {
    let defaults = host.read_optional(ufw::DEFAULTS)?.unwrap_or_default();
    let has_ipv6 = ufw::has_ipv6(&defaults);
    let mut rules = Vec::new();
    for path in ufw::RULES {
        rules.extend(ufw::parse(&host.read_optional(path)?.unwrap_or_default()));
    }
    let allows = ufw::default_allows(&defaults);
    // Without IPv6 ufw takes no such entry.
    let wanted = Entry::all(intent).into_iter().filter(|entry| has_ipv6 || entry.is_ipv4());
    let found = wanted.filter_map(|entry| missing(&entry, ufw::state(&rules, allows, &entry))).collect();
    Ok(Fact::known(Value::Set(found), ufw::RULES.join(", ")))
}

/// The rules of nf_tables that firewalld may have written.
fn running() -> Result<Ruleset, String> {
    let bytes =
        nfnetlink::ruleset(PATIENCE).map_err(|error| format!("the rules of the kernel: {}", describe(&error)))?;
    Ok(bytes.map(|bytes| nft::parse(&bytes)).unwrap_or_default())
}

fn of_firewalld(host: &Host, intent: &Intent, running: Result<Ruleset, String>) -> Result<Fact, ReadError> {
    let conf = host.read_optional(firewalld::CONF)?.unwrap_or_default();
    let zones = permanent_zones(host)?;
    let bound = bindings(host)?;
    let mut used: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut by_files = Vec::new();
    for interface in interfaces(&host.read_text("/proc/net/dev")?) {
        let by_file = zones.iter().find(|(_, zone)| zone.0.interfaces.contains(&interface)).map(|(name, _)| name);
        let name = by_file.or_else(|| bound.get(&interface)).map_or(firewalld::default_zone(&conf), String::as_str);
        by_files.push((interface.clone(), name.to_owned()));
        used.entry(name.to_owned()).or_default().push(interface);
    }
    let different = match running.map(|rules| zones::differences(&rules, &by_files, &zones)) {
        Ok(different) => different,
        Err(why) => return Ok(Fact::unknown(why, Some("run preflight as root"), SOURCE)),
    };
    if let Some(different) = different.as_ref().filter(|different| !different.is_empty()) {
        // An entry would go into one of the two, and be right until the next reload, or only after it.
        let why = format!("firewalld runs otherwise than its files say: {}", different.join("; "));
        let help = "firewall-cmd --runtime-to-permanent keeps what runs; --reload, or --remove-interface and --remove-source, take it back";
        return Ok(Fact::unknown(why, Some(help), SOURCE));
    }
    let mut found = BTreeSet::new();
    let mut sources = Vec::new();
    let mut by_interface = Vec::new();
    for name in used.keys() {
        let Some((zone, path)) = zones.get(name) else {
            let folders = firewalld::ZONES.join(", ");
            return Ok(Fact::unknown(format!("the zone `{name}` has no file that is understood"), None, folders));
        };
        sources.push(path.clone());
        by_interface.push((name, zone));
    }
    let by_source: Vec<(&String, &Zone)> =
        zones.iter().map(|(name, (zone, _))| (name, zone)).filter(|(_, zone)| !zone.sources.is_empty()).collect();
    for entry in Entry::all(intent) {
        for (name, zone) in in_charge(&entry, &by_interface, &by_source) {
            found.extend(missing(&entry, zone.state(&entry)).map(|words| format!("{name}: {words}")));
        }
    }
    for (name, _) in by_source {
        let path = &zones[name].1;
        if !sources.contains(path) {
            sources.push(path.clone());
        }
    }
    let notes = used.iter().map(|(zone, names)| format!("{zone}: {}", names.join(" ")));
    let mut note = format!("zones in use: {}", notes.collect::<Vec<_>>().join(", "));
    if different.is_none() {
        note.push_str(
            "; whether it runs otherwise than its files say was not looked at: it has no chains in nf_tables",
        );
    }
    for (name, (zone, _)) in zones.iter().filter(|(_, (zone, _))| !zone.other_sources.is_empty()) {
        let _ =
            write!(note, "; who is in {} is in the zone {name}, and was not looked for", zone.other_sources.join(", "));
    }
    Ok(Fact::known(Value::Set(found), sources.join(", ")).note(note))
}

/// The zones that decide about an entry: firewalld looks at the sources of zones before it looks at interfaces
/// (`firewalld.zones(5)`). A zone that refuses a part of the network is somebody's exception, and stays one.
fn in_charge<'a>(
    entry: &Entry,
    by_interface: &[(&'a String, &'a Zone)],
    by_source: &[(&'a String, &'a Zone)],
) -> Vec<(&'a String, &'a Zone)> {
    let of_all = |zone: &Zone| zone.sources.iter().any(|source| source.covers(&entry.from));
    let of_some = |zone: &Zone| zone.sources.iter().any(|source| entry.from.covers(source)) && !zone.refuses;
    let bound = by_source.iter().filter(|(_, zone)| of_all(zone) || of_some(zone));
    let mut all: Vec<_> = bound.copied().collect();
    if !by_source.iter().any(|(_, zone)| of_all(zone)) {
        all.extend(
            by_interface.iter().filter(|(name, _)| !all.iter().any(|(known, _)| known == name)).collect::<Vec<_>>(),
        );
    }
    all
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the files they read")]
mod tests {
    use super::*;

    fn intent() -> Intent {
        Intent {
            tcp: [6379, 6380].into_iter().collect(),
            allow4: vec!["172.20.0.0/16".parse().unwrap()],
            allow6: vec!["fd00::/8".parse().unwrap()],
            ..Intent::default()
        }
    }

    fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let host = Host::at_root(root.path());
        (root, host)
    }

    fn words(fact: &Fact) -> Vec<String> {
        match fact.value() {
            Some(Value::Set(words)) => words.iter().cloned().collect(),
            other => panic!("{other:?} in {fact:?}"),
        }
    }

    #[test]
    fn what_ufw_lacks_is_named() {
        let defaults = (ufw::DEFAULTS, "IPV6=yes\nDEFAULT_INPUT_POLICY=\"DROP\"\n");
        let four = (ufw::RULES[0], "### tuple ### deny tcp 6380 0.0.0.0/0 any 172.20.1.0/24 in\n");
        let six = (ufw::RULES[1], "### tuple ### allow tcp 6379:6380 ::/0 any fd00::/8 in\n");
        let fact = |files: &[(&str, &str)]| of_ufw(&root(files).1, &intent()).unwrap();
        assert_eq!(words(&fact(&[defaults])), ["tcp 6379-6380 from 172.20.0.0/16", "tcp 6379-6380 from fd00::/8"]);
        assert_eq!(
            words(&fact(&[defaults, four, six])),
            ["tcp 6379-6380 from 172.20.0.0/16 (kept out by deny tcp from 172.20.1.0/24 (rule 1))"]
        );
        let no_ipv6 = (ufw::DEFAULTS, "IPV6=no\n");
        assert_eq!(words(&fact(&[no_ipv6])), ["tcp 6379-6380 from 172.20.0.0/16"]);
        assert!(words(&fact(&[(ufw::DEFAULTS, "IPV6=yes\nDEFAULT_INPUT_POLICY=\"ACCEPT\"\n")])).is_empty());
    }

    /// firewalld's chain for zones, with interfaces bound and a default.
    fn rules_of(bound: &[(&str, &str)], default: &str) -> Ruleset {
        use super::super::kernel::samples::{rule, table};
        use crate::subjects::firewall::model::rules::{Condition, Field, Step, Verdict};
        let goto = |zone: &str| Step::Verdict(Verdict::Goto(format!("filter_IN_{zone}")));
        let by_name = |name: &str| Step::When(Condition::interface(Field::InName, name, false, false));
        let mut rules: Vec<_> = bound.iter().map(|(name, zone)| rule(vec![by_name(name), goto(zone)])).collect();
        rules.push(rule(vec![goto(default)]));
        Ruleset { tables: vec![table("firewalld", &[("filter_INPUT_ZONES", None, rules)])] }
    }

    /// What is bound at run time only decides until the next reload. Seen failing with `zones::differences` finding none.
    #[test]
    fn a_zone_that_is_bound_at_run_time_only_is_not_known() {
        let files = [
            (firewalld::CONF, "DefaultZone=home\n"),
            ("/proc/net/dev", "  eth0: 2\n"),
            ("/usr/lib/firewalld/zones/home.xml", "<zone><source address='172.20.0.0/16'/></zone>"),
        ];
        let of = |rules: Ruleset| of_firewalld(&root(&files).1, &intent(), Ok(rules)).unwrap();
        let fact = of(rules_of(&[("eth0", "work")], "home"));
        let State::Unknown { error, .. } = &fact.state else { panic!("{fact:?}") };
        assert!(error.contains("eth0 is in the zone work now, and in home by the files"), "{error}");
        assert!(error.contains("172.20.0.0/16 is in the zone home by the files, and not now"), "{error}");
        let failed = of_firewalld(&root(&files).1, &intent(), Err("denied".into())).unwrap();
        assert!(matches!(failed.state, State::Unknown { .. }), "{failed:?}");
    }

    /// Seen failing with the connections not looked at: `eth1` was then taken to be in the default zone.
    #[test]
    fn what_firewalld_lacks_is_named_for_each_zone_in_use() {
        let conf = (firewalld::CONF, "DefaultZone=home\n");
        let dev = (
            "/proc/net/dev",
            "Inter-|\n face |\n    lo: 1\n  eth0: 2\n  eth1: 3\n  eth2: 3\ndocker0: 4\nbr-0123456789ab: 5\nvethab12cd3: 6\n",
        );
        let home = ("/usr/lib/firewalld/zones/home.xml", "<zone><short>x</short></zone>");
        let public = (
            "/etc/firewalld/zones/public.xml",
            "<zone><interface name='eth0'/><rule family='ipv4'><source address='172.20.0.0/16'/><port port='6379-6380' protocol='tcp'/><accept/></rule></zone>",
        );
        let shipped = ("/usr/lib/firewalld/zones/public.xml", "<zone target='ACCEPT'/>");
        let trusted = ("/usr/lib/firewalld/zones/trusted.xml", "<zone target='ACCEPT'/>");
        let nm = (
            "/etc/NetworkManager/system-connections/a.nmconnection",
            "[connection]\nid=a\ninterface-name=eth1\nzone=trusted\n",
        );
        let fact = of_firewalld(
            &root(&[conf, dev, home, public, shipped, trusted, nm]).1,
            &intent(),
            Ok(rules_of(&[("eth0", "public"), ("eth1", "trusted")], "home")),
        )
        .unwrap();
        assert_eq!(
            words(&fact),
            [
                "home: tcp 6379-6380 from 172.20.0.0/16",
                "home: tcp 6379-6380 from fd00::/8",
                "public: tcp 6379-6380 from fd00::/8",
            ]
        );
        assert_eq!(fact.note.as_deref(), Some("zones in use: home: eth2, public: eth0, trusted: eth1"));
        let broken = ("/etc/firewalld/zones/home.xml", "<zone>");
        let fact = of_firewalld(&root(&[conf, dev, broken]).1, &intent(), Ok(Ruleset::default())).unwrap();
        assert!(matches!(fact.state, State::Unknown { .. }), "{fact:?}");
    }

    /// Seen failing with the interfaces alone looked at: the entries went to `home`, where nobody of 172.20.0.0/16 is.
    #[test]
    fn a_zone_that_is_bound_to_a_network_is_in_charge_of_it() {
        let conf = (firewalld::CONF, "DefaultZone=home\n");
        let dev = ("/proc/net/dev", "  eth0: 2\n");
        let home = ("/usr/lib/firewalld/zones/home.xml", "<zone/>");
        let of = |zone: &str| {
            let cluster = ("/etc/firewalld/zones/cluster.xml", zone);
            of_firewalld(&root(&[conf, dev, home, cluster]).1, &intent(), Ok(Ruleset::default())).unwrap()
        };
        let ipv6 = "home: tcp 6379-6380 from fd00::/8";
        let whole = of("<zone><source address='172.16.0.0/12'/></zone>");
        assert_eq!(words(&whole), ["cluster: tcp 6379-6380 from 172.20.0.0/16", ipv6]);
        assert_eq!(whole.source, "/usr/lib/firewalld/zones/home.xml, /etc/firewalld/zones/cluster.xml");
        let part = of("<zone><source address='172.20.5.0/24'/></zone>");
        let both = ["cluster: tcp 6379-6380 from 172.20.0.0/16", "home: tcp 6379-6380 from 172.20.0.0/16", ipv6];
        assert_eq!(words(&part), both);
        let bad = of("<zone target='DROP'><source address='172.20.5.5'/><source ipset='bad'/></zone>");
        assert_eq!(words(&bad), both[1..], "an exception is not undone");
        let note = bad.note.unwrap();
        assert!(note.contains("was not looked at: it has no chains"), "{note}");
        assert!(note.ends_with("; who is in ipset:bad is in the zone cluster, and was not looked for"), "{note}");
    }
}
