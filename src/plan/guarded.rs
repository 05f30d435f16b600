//! What became of a guard since it was applied: Docker's networks may be others, and other programs empty the rules of the
//! kernel.

use super::truth::HostTruth;
use crate::apply::Overridden;
use crate::apply::journal::Step;
use crate::catalog::parameters::{Parameters, Setting};
use crate::facts::derived::firewall_guard;
use crate::facts::network::{DOCKER_NETWORKS, Network};
use crate::firewall::boot::{self, Origin};
use crate::firewall::intent::Intent;
use crate::firewall::iptables::Variant;
use crate::firewall::writer::Writer;
use crate::host::Host;
use crate::probe::docker;
use crate::probe::firewall::manager;
use crate::probe::{Context, Want};

/// Who wrote the guard of a step; `None` for any other step.
fn writer(step: &Step) -> Option<Writer> {
    Writer::named(step.target.strip_prefix("guard:")?)
}

pub(super) fn outdated(truth: &HostTruth<'_>, step: &Step) -> Result<Option<Overridden>, String> {
    let Some(file) = writer(step).and_then(|writer| boot::paths(writer).first()) else { return Ok(None) };
    let file = truth.host.read_optional(file).map_err(|error| error.to_string())?;
    // Without the file, or with another, the drift of the file itself says so.
    let Some(origin) = file.as_deref().and_then(Origin::of) else { return Ok(None) };
    if !origin.allow.iter().any(|word| word == DOCKER_NETWORKS) {
        return Ok(None);
    }
    let now = docker_networks(truth).map_err(|why| format!("whether Docker's networks are still those: {why}"))?;
    Ok(compare(&origin, &now).map(|(expected, found)| Overridden {
        target: step.target.clone(),
        expected,
        found,
        by: "Docker's networks are others".to_owned(),
    }))
}

/// Whom the guard lets in, and whom it would now; `None` when that is the same.
fn compare(origin: &Origin, now: &[Network]) -> Option<(String, String)> {
    let mut parameters = Parameters::default();
    parameters.insert("allow", Setting::List(origin.allow.clone()));
    let allowed = |networks: &[Network]| -> Option<String> {
        let Intent { allow4, allow6, .. } = Intent::new(&parameters, Ok(networks)).ok()?;
        Some(allow4.iter().chain(&allow6).map(ToString::to_string).collect::<Vec<_>>().join(", "))
    };
    let (then, now) = (allowed(&origin.networks)?, allowed(now)?);
    (then != now).then_some((then, now))
}

fn docker_networks(truth: &HostTruth<'_>) -> Result<Vec<Network>, String> {
    let want = Want::new(std::iter::once(docker::NETWORKS.to_owned()));
    let parameters = Parameters::default();
    let cx = Context::new(truth.host, &want, &parameters, truth.os);
    firewall_guard::networks(&docker::start(&cx).finish().facts)
}

/// Who empties the rules of everybody.
pub(super) fn suspect(host: &Host, step: &Step) -> Option<String> {
    // ufw writes with iptables, which is nftables' on all but old hosts.
    let of_ufw = || step.target.starts_with("ufw:").then_some(Writer::Iptables(Variant::Nft));
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

    /// Seen failing with `now` made of the networks of then.
    #[test]
    fn a_guard_is_outdated_when_it_would_let_in_others() {
        let networks = |words: &[&str]| words.iter().map(|word| word.parse().unwrap()).collect::<Vec<Network>>();
        let allow = ["172.20.0.0/16", DOCKER_NETWORKS].map(str::to_owned).to_vec();
        let origin = Origin { allow, networks: networks(&["172.18.0.0/16"]) };
        assert_eq!(compare(&origin, &networks(&["172.18.0.0/16"])), None);
        // What lies in an allowed network changes nothing.
        assert_eq!(compare(&origin, &networks(&["172.20.1.0/24", "172.18.0.0/16"])), None);
        let (then, now) = compare(&origin, &networks(&["172.19.0.0/16"])).unwrap();
        assert_eq!((then.as_str(), now.as_str()), ("172.18.0.0/16, 172.20.0.0/16", "172.19.0.0/16, 172.20.0.0/16"));
    }
}
