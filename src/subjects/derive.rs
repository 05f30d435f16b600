//! Derived facts: named pure functions of facts and parameters. Arithmetic and relations live here, so that the
//! catalogue's grammar needs none.
//!
//! An input that is unknown makes the result unknown, one that is absent makes it absent; both name the input.

use crate::catalog::os::OsProfile;
use crate::catalog::parameters::Parameters;
use crate::facts::{Fact, Facts, registry};
use crate::subjects::docker::derive as docker;
use crate::subjects::firewall::{derive_entries as firewall_entries, derive_guard as firewall_guard};
use crate::subjects::os::derive as os;
use crate::subjects::ports::derive as port;
use crate::subjects::resources::derive as memory;

/// The facts that a derived fact needs, so that they are gathered before it.
pub fn inputs(id: &str) -> Vec<String> {
    if let Some(instance) = id.strip_prefix(port::STATE) {
        return port::state_inputs(instance).into();
    }
    let inputs: &[&str] = match id {
        "derived.os.support" => &["os.id", "os.version"],
        "derived.docker.api-overlap" => &["docker.api", "docker.api-min"],
        "derived.docker.ip-forward" => &["sysctl.net.ipv4.ip_forward", "docker.firewall-backend"],
        "derived.firewall.entries" if registry::spec(firewall_entries::NETWORKS).is_some() => {
            &[firewall_entries::INPUTS[0], firewall_entries::INPUTS[1], firewall_entries::NETWORKS]
        }
        "derived.firewall.entries" => &firewall_entries::INPUTS,
        "derived.firewall.guard" => &firewall_guard::INPUTS,
        "derived.firewall.persistence" => &["firewall.guard"],
        "derived.port.ephemeral-overlap" => {
            &["sysctl.net.ipv4.ip_local_port_range", "sysctl.net.ipv4.ip_local_reserved_ports"]
        }
        _ => &[],
    };
    inputs.iter().map(|input| (*input).to_owned()).collect()
}

/// Computes a derived fact. `today` is the snapshot's day, `YYYY-MM-DD`. An id that nobody registered is unknown.
pub fn derive(id: &str, facts: &Facts, parameters: &Parameters, os: &OsProfile, today: &str) -> Fact {
    let result = match id {
        "derived.os.support" => os::support(facts, os, today),
        "derived.docker.api-overlap" => docker::api_overlap(facts),
        "derived.docker.ip-forward" => docker::ip_forward(facts),
        "derived.memory.needed" => memory::needed(parameters),
        "derived.memory.tight" => memory::tight(parameters),
        "derived.disk.needed" => memory::disk_needed(parameters),
        "derived.nofile.needed" => memory::nofile_needed(parameters),
        "derived.firewall.entries" => firewall_entries::missing(facts),
        "derived.firewall.guard" => firewall_guard::guard(facts, parameters),
        "derived.firewall.persistence" => firewall_guard::persistence(facts),
        "derived.port.ephemeral-overlap" => port::ephemeral_overlap(facts, parameters),
        _ if id.starts_with(port::STATE) => port::state(&id[port::STATE.len()..], facts, parameters),
        _ => Err(Fact::unknown(format!("`{id}` is not a derived fact"), None, "preflight")),
    };
    result.unwrap_or_else(|fact| fact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{State, registry};

    #[test]
    fn every_registered_derived_fact_is_computed_and_its_inputs_are_registered() {
        let os = OsProfile::blank("debian");
        let derived: Vec<_> = registry::FACTS.iter().filter(|spec| spec.id.starts_with("derived.")).collect();
        assert!(derived.len() >= 7);
        for spec in derived {
            let fact = derive(spec.id, &Facts::default(), &Parameters::default(), &os, "2026-11-22");
            let State::Unknown { error, .. } = &fact.state else {
                panic!("{} is known without any input: {fact:?}", spec.id)
            };
            assert!(!error.contains("is not a derived fact"), "{} is registered but not computed", spec.id);
            for input in inputs(spec.id) {
                assert!(registry::spec(&input).is_some(), "{input}");
                assert!(spec.source.contains(&input), "{} does not name {input}", spec.id);
            }
        }
    }
}
