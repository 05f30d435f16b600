//! What became of a guard since it was applied: Docker's networks may be others, and other programs empty the rules of the
//! kernel.

use std::collections::BTreeSet;

use crate::apply::Overridden;
use crate::apply::journal::Step;
use crate::catalog::os::OsProfile;
use crate::catalog::parameters::{Parameters, Setting};
use crate::change::target::Target;
use crate::facts::network::{DOCKER_NETWORKS, Network};
use crate::host::Host;
use crate::subjects::context::{Context, Want};
use crate::subjects::docker;
use crate::subjects::firewall::derive_guard as firewall_guard;
use crate::subjects::firewall::model::boot;
use crate::subjects::firewall::model::boot::Origin;
use crate::subjects::firewall::model::intent::Intent;
use crate::subjects::firewall::model::iptables::Variant;
use crate::subjects::firewall::model::writer::Writer;
use crate::subjects::firewall::read::manager;

/// Who wrote the guard of a step; `None` for any other step.
fn writer(step: &Step) -> Option<Writer> {
    match Target::of(&step.target)? {
        Target::Guard(name) => Writer::named(name),
        _ => None,
    }
}

pub fn outdated(host: &Host, os: &OsProfile, step: &Step) -> Result<Option<Overridden>, String> {
    let Some(file) = writer(step).and_then(|writer| boot::paths(writer).first()) else { return Ok(None) };
    let file = host.read_optional(file).map_err(|error| error.to_string())?;
    // Without the file, or with another, the drift of the file itself says so.
    let Some(origin) = file.as_deref().and_then(Origin::of) else { return Ok(None) };
    let routed = routed_to(&step.after);
    if routed.is_empty() && !origin.allow.iter().any(|word| word == DOCKER_NETWORKS) {
        return Ok(None);
    }
    let now = docker_networks(host, os).map_err(|why| format!("whether Docker's networks are still those: {why}"))?;
    Ok(compare(&origin, &routed, &now).map(|(expected, found)| Overridden {
        target: step.target.clone(),
        expected,
        found,
        by: "Docker's networks are others".to_owned(),
    }))
}

/// What the guard does for the networks that there were, and which it would be now; `None` when that is the same.
fn compare(origin: &Origin, routed: &[Network], now: &[Network]) -> Option<(String, String)> {
    let list = |networks: &mut dyn Iterator<Item = &Network>| {
        let words: Vec<String> = networks.map(ToString::to_string).collect();
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    };
    let mut parameters = Parameters::default();
    parameters.insert("allow", Setting::List(origin.allow.clone()));
    let allowed = |networks: &[Network]| -> Option<String> {
        let Intent { allow4, allow6, .. } = Intent::new(&parameters, Ok(networks)).ok()?;
        Some(list(&mut allow4.iter().chain(&allow6)))
    };
    if origin.allow.iter().any(|word| word == DOCKER_NETWORKS) {
        let (then, now) = (allowed(&origin.networks)?, allowed(now)?);
        if then != now {
            return Some((format!("lets in {then}"), now));
        }
    }
    let gone = routed.iter().any(|network| !now.contains(network));
    gone.then(|| (format!("closes the way to containers in {}", list(&mut routed.iter())), list(&mut now.iter())))
}

/// The networks whose containers' own addresses a guard's text closes to strangers.
fn routed_to(guard: &str) -> Vec<Network> {
    let words: Vec<&str> = guard.split_whitespace().collect();
    // `fib daddr type` is no network.
    let after =
        words.windows(2).filter(|pair| matches!(pair[0], "daddr" | "-d")).filter_map(|pair| pair[1].parse().ok());
    after.collect::<BTreeSet<Network>>().into_iter().collect()
}

fn docker_networks(host: &Host, os: &OsProfile) -> Result<Vec<Network>, String> {
    let want = Want::new(std::iter::once(docker::NETWORKS.to_owned()));
    let parameters = Parameters::default();
    let cx = Context::new(host, &want, &parameters, os);
    firewall_guard::networks(&docker::start(&cx).finish().facts)
}

/// Who empties the rules of everybody.
pub fn suspect(host: &Host, step: &Step) -> Option<String> {
    // ufw writes with iptables, which is nftables' on all but old hosts.
    let of_ufw = || {
        let is_ufw = matches!(Target::of(&step.target), Some(Target::Ufw(_)));
        is_ufw.then_some(Writer::Iptables(Variant::Nft))
    };
    let writer = writer(step).or_else(of_ufw)?;
    // docs/firewall.md, "Afterwards".
    if matches!(writer, Writer::Iptables(_)) && manager::firewalld_is_active(host) {
        return Some("firewalld takes away every rule of iptables when it is reloaded".to_owned());
    }
    let flusher = manager::flusher(host).filter(|_| writer != Writer::Iptables(Variant::Legacy));
    flusher.map(|place| format!("nftables.service takes away every rule when it is restarted ({place})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subjects::firewall::model::guard::{Guard, Routed};
    use crate::subjects::firewall::model::intent::PortSet;

    fn networks(words: &[&str]) -> Vec<Network> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    /// Seen failing with `now` made of the networks of then.
    #[test]
    fn a_guard_is_outdated_when_it_would_let_in_others() {
        let allow = ["172.20.0.0/16", DOCKER_NETWORKS].map(str::to_owned).to_vec();
        let origin = Origin { allow, networks: networks(&["172.18.0.0/16"]) };
        let compare = |now: &[&str]| compare(&origin, &[], &networks(now));
        assert_eq!(compare(&["172.18.0.0/16"]), None);
        // What lies in an allowed network changes nothing.
        assert_eq!(compare(&["172.20.1.0/24", "172.18.0.0/16"]), None);
        let (then, now) = compare(&["172.19.0.0/16"]).unwrap();
        assert_eq!((&*then, &*now), ("lets in 172.18.0.0/16, 172.20.0.0/16", "172.19.0.0/16, 172.20.0.0/16"));
    }

    /// `check` calls such a guard different. Seen failing with the networks of `allow` alone compared.
    #[test]
    fn a_guard_is_outdated_when_the_containers_are_elsewhere() {
        let network = "172.18.0.0/16".parse().unwrap();
        let routed = vec![Routed { network, tcp: [6379].into_iter().collect(), udp: PortSet::default() }];
        let guard = Guard { routed, ..Guard::default() };
        let origin = Origin { allow: vec!["172.16.0.0/12".to_owned()], networks: Vec::new() };
        for writer in Writer::ALL {
            let routed = routed_to(&writer.text(&guard));
            assert_eq!(routed, networks(&["172.18.0.0/16"]), "{writer:?}");
            assert_eq!(compare(&origin, &routed, &networks(&["172.17.0.0/16", "172.18.0.0/16"])), None);
            let (then, now) = compare(&origin, &routed, &networks(&["172.19.0.0/16"])).unwrap();
            assert_eq!((&*then, &*now), ("closes the way to containers in 172.18.0.0/16", "172.19.0.0/16"));
            assert_eq!(compare(&origin, &routed, &[]).unwrap().1, "none");
        }
    }
}
