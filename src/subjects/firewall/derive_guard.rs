//! The guard of the workload's ports, compared with what the profile wants of it here.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::parameters::Parameters;
use crate::facts::network::Network;
use crate::facts::{Fact, Facts, Layer, State, Value};
use crate::subjects::firewall::model::guard::{Guard, Routed};
use crate::subjects::firewall::model::intent::Intent;
use crate::subjects::firewall::model::writer::Writer;

/// What it is made of.
pub(crate) const INPUTS: [&str; 7] = [
    "firewall.guard",
    "docker.networks",
    "docker.networks-auto",
    "docker.workload-routes",
    "docker.workload-outside",
    // Not for the comparison: the plan that comes of it is made by them.
    "firewall.programs",
    "firewall.iptables",
];

const GUARD: &str = INPUTS[0];

/// What the fact says where more than one writer left a guard.
pub const SEVERAL: &str = "several";

/// The guard that the profile wants on this host; an error when it would be a guess.
pub fn wanted(facts: &Facts, parameters: &Parameters) -> Result<Guard, String> {
    let networks = networks(facts);
    let networks = networks.as_deref().map_err(|why| &**why);
    let intent = Intent::new(parameters, networks).map_err(|error| error.to_string())?;
    Ok(Guard { intent, routed: routed(facts)? })
}

/// What helps where `allow` names networks that are not known.
pub const NO_NETWORKS_HELP: &str = "start Docker, or name the networks in `allow`";

/// Docker's networks; none where there is no Docker.
pub fn networks(facts: &Facts) -> Result<Vec<Network>, String> {
    match facts.get("docker.networks", Layer::Live).map(|fact| &fact.state) {
        Some(State::Known(Value::Set(words))) => words
            .iter()
            .map(|word| word.parse::<Network>().map_err(|error| format!("docker.networks: {error}")))
            .collect(),
        // No Docker, no networks: they are added by the next plan once there are some.
        Some(State::Absent(_)) => Ok(Vec::new()),
        Some(State::Unknown { error, .. }) => Err(error.clone()),
        _ => Err("docker.networks was not gathered".to_owned()),
    }
}

/// What an old engine leaves open behind the published ports, network by network.
fn routed(facts: &Facts) -> Result<Vec<Routed>, String> {
    // Where Docker does not answer, what it forwards is not known; a guard of the ports is worth having all the same, and
    // the next plan adds the rest.
    let fact = facts.get("docker.workload-routes", Layer::Live).map(|fact| &fact.state);
    let Some(State::Known(Value::Set(words))) = fact else { return Ok(Vec::new()) };
    let mut all: BTreeMap<Network, [Vec<u16>; 2]> = BTreeMap::new();
    for word in words {
        let bad = || format!("docker.workload-routes: `{word}` is not understood");
        let (network, port) = word.split_once(' ').ok_or_else(bad)?;
        let network: Network = network.parse().map_err(|_| bad())?;
        let (protocol, port) = port.split_once('/').ok_or_else(bad)?;
        let port: u16 = port.parse().map_err(|_| bad())?;
        // Everything is no network of containers, and no rule about it would be one.
        if network.prefix() == 0 {
            return Err(bad());
        }
        all.entry(network).or_default()[usize::from(protocol == "udp")].push(port);
    }
    let routed = |(network, [tcp, udp]): (_, [Vec<u16>; 2])| Routed {
        network,
        tcp: tcp.into_iter().collect(),
        udp: udp.into_iter().collect(),
    };
    Ok(all.into_iter().map(routed).collect())
}

/// The containers of the workload that no guard of this host covers, in words.
pub fn uncovered(facts: &Facts) -> Option<String> {
    match facts.value("docker.workload-outside") {
        Some(Value::Set(words)) if !words.is_empty() => {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            Some(format!(
                "no rule of this host sees the packets of {}: the guard does not cover them",
                words.join(", ")
            ))
        }
        _ => None,
    }
}

/// Whether any port is published where strangers can be.
fn is_published(parameters: &Parameters) -> bool {
    let is_loopback = |word: &String| word.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    parameters.ports().next().is_some() && !parameters.list("publish_address").iter().all(is_loopback)
}

pub(crate) fn guard(facts: &Facts, parameters: &Parameters) -> Result<Fact, Fact> {
    let found = text(facts, Layer::Live)?;
    let source = INPUTS.join(", ");
    let known = |word: &str| Fact::known(Value::Text(word.into()), source.clone());
    if !is_published(parameters) {
        return Ok(known("not needed").note("no port is published beyond loopback"));
    }
    let wanted = wanted(facts, parameters).map_err(|why| Fact::unknown(why, Some(NO_NETWORKS_HELP), &source))?;
    let auto = facts.get("docker.networks-auto", Layer::Live).and_then(Fact::value);
    let mut notes: Vec<String> = uncovered(facts).into_iter().collect();
    if let Some(Value::Set(words)) = auto
        && !words.is_empty()
    {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        notes.push(format!("Docker chose {} itself: a network that is made anew may get another", words.join(", ")));
    }
    let planned = Writer::of(found).map(|writer| writer.text(&wanted));
    let fact = match (found, planned) {
        ("none", _) => known("missing"),
        (found, Some(planned)) if found == planned => known("as planned"),
        (found, planned) => {
            notes.extend(planned.map(|planned| difference(found, &planned)));
            known("differs")
        }
    };
    Ok(if notes.is_empty() { fact } else { fact.note(notes.join("; ")) })
}

/// The lines of a guard that are not those of the planned one, and of these the ones that it does not have.
fn difference(found: &str, planned: &str) -> String {
    let without = |text: &str, other: &str| {
        let other: BTreeSet<&str> = other.lines().map(str::trim).collect();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !other.contains(line)).collect();
        if lines.is_empty() { "nothing".to_owned() } else { lines.join("; ") }
    };
    format!("has: {}. Wanted: {}", without(found, planned), without(planned, found))
}

pub(crate) fn persistence(facts: &Facts) -> Result<Fact, Fact> {
    let (live, boot) = (text(facts, Layer::Live)?, text(facts, Layer::Boot)?);
    let word = match (live, boot) {
        ("none", "none") => return Err(Fact::absent("there is no guard", GUARD)),
        (live, boot) if live == boot => "kept",
        (_, "none") => "lost",
        _ => "differs",
    };
    Ok(Fact::known(Value::Text(word.into()), GUARD))
}

fn text(facts: &Facts, layer: Layer) -> Result<&str, Fact> {
    let Some(fact) = facts.get(GUARD, layer) else {
        return Err(Fact::unknown(format!("{GUARD} was not gathered"), None, GUARD));
    };
    match &fact.state {
        State::Known(Value::Text(text)) => Ok(text),
        State::Known(other) => Err(Fact::unknown(format!("{GUARD} is `{other}`, not a text"), None, GUARD)),
        State::Absent(why) => Err(Fact::absent(why.clone(), GUARD)),
        State::Unknown { error, help } => Err(Fact::unknown(error.clone(), help.as_deref(), GUARD)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::parameters::{Port, Protocol, Setting};

    fn parameters(publish: &str) -> Parameters {
        let mut parameters = Parameters::default();
        let port = Port { name: "redis".into(), port: 6379, protocol: Protocol::Tcp, publish: true };
        parameters.insert("ports", Setting::Ports(vec![port]));
        parameters.insert("allow", Setting::List(vec!["docker:networks".into()]));
        parameters.insert("publish_address", Setting::List(vec![publish.into()]));
        parameters
    }

    fn facts(live: &str, boot: &str, networks: &[&str]) -> Facts {
        let mut facts = Facts::default();
        let text = |text: &str| Fact::known(Value::Text(text.into()), "test");
        let set = |words: &[&str]| Fact::known(Value::Set(words.iter().map(|word| (*word).into()).collect()), "test");
        facts.insert(GUARD, Layer::Live, text(live));
        facts.insert(GUARD, Layer::Boot, text(boot));
        facts.live("docker.networks", set(networks));
        facts.live("docker.networks-auto", set(&[]));
        facts.live("docker.workload-routes", set(&["172.18.0.0/16 tcp/6379", "172.18.0.0/16 udp/53"]));
        facts
    }

    fn word(fact: &Result<Fact, Fact>) -> String {
        match fact {
            Ok(fact) => fact.value().map(ToString::to_string).unwrap_or_default(),
            Err(fact) => format!("{:?}", fact.state),
        }
    }

    #[test]
    fn a_guard_is_as_planned_only_for_the_networks_that_there_are() {
        let open = parameters("0.0.0.0");
        let planned = wanted(&facts("none", "none", &["172.18.0.0/16"]), &open).unwrap();
        let text = planned.text();
        assert!(text.contains("ip saddr != 172.18.0.0/16 ip daddr 172.18.0.0/16 udp dport 53 goto restrict"), "{text}");
        let compare = |live: &str, networks: &[&str]| word(&guard(&facts(live, "none", networks), &open));
        assert_eq!(compare("none", &["172.18.0.0/16"]), "missing");
        for writer in Writer::ALL {
            let text = writer.text(&planned);
            assert_eq!(compare(&text, &["172.18.0.0/16"]), "as planned", "{text}");
            // A network was made anew and has another subnet.
            assert_eq!(compare(&text, &["172.19.0.0/16"]), "differs", "{text}");
            assert_eq!(compare(&writer.changed(), &["172.18.0.0/16"]), "differs");
        }
        assert_eq!(compare(SEVERAL, &["172.18.0.0/16"]), "differs");
        assert_eq!(word(&guard(&facts("none", "none", &[]), &parameters("127.0.0.1"))), "not needed");
    }

    /// Seen failing without the note: `differs`, and nobody knew in what.
    #[test]
    fn a_guard_that_differs_says_in_what() {
        let open = parameters("0.0.0.0");
        let then = wanted(&facts("none", "none", &["172.18.0.0/16"]), &open).unwrap();
        let [nft, iptables, _] = Writer::ALL;
        let line = |network| format!("-A PREFLIGHT-RESTRICT -s {network} -j RETURN");
        for (writer, note) in [
            (nft, "has: elements = { 172.18.0.0/16 }. Wanted: elements = { 172.19.0.0/16 }".to_owned()),
            (iptables, format!("has: {}. Wanted: {}", line("172.18.0.0/16"), line("172.19.0.0/16"))),
        ] {
            let fact = guard(&facts(&writer.text(&then), "none", &["172.19.0.0/16"]), &open).unwrap();
            assert_eq!(fact.note, Some(note));
        }
    }

    /// Seen failing without the note.
    #[test]
    fn a_guard_says_whom_it_does_not_cover() {
        let mut facts = facts("none", "none", &[]);
        facts.live(
            "docker.workload-outside",
            Fact::known(Value::Set(["redis on lan (macvlan)".to_owned()].into()), "test"),
        );
        let note = guard(&facts, &parameters("0.0.0.0")).unwrap().note.unwrap();
        assert!(note.contains("redis on lan (macvlan)"), "{note}");
    }

    #[test]
    fn unknown_networks_make_the_guard_unknown() {
        let mut facts = facts("none", "none", &[]);
        facts.live("docker.networks", Fact::unknown("Docker is stopped", None, "test"));
        assert!(word(&guard(&facts, &parameters("0.0.0.0"))).contains("Docker is stopped"));
    }

    #[test]
    fn a_guard_is_kept_when_the_boot_brings_the_same() {
        for (live, boot, expected) in
            [("a", "a", "kept"), ("a", "none", "lost"), ("a", "b", "differs"), ("none", "b", "differs")]
        {
            assert_eq!(word(&persistence(&facts(live, boot, &[]))), expected, "{live} {boot}");
        }
        assert!(word(&persistence(&facts("none", "none", &[]))).contains("Absent"));
    }
}
