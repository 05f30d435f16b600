//! What the profile wants of a firewall: which ports, and from where they may be reached.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::catalog::parameters::{Parameters, Protocol};
use crate::facts::network::{Allowed, Network};

/// The ports of the workload and who may reach them. Everybody else is to be kept out; other ports are nobody's
/// business here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intent {
    pub tcp: PortSet,
    pub udp: PortSet,
    /// Whom `allow` names, IPv4 and IPv6, sorted and without networks that others contain.
    pub allow4: Vec<Network>,
    pub allow6: Vec<Network>,
}

/// Port ranges, ascending, that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PortSet(Vec<RangeInclusive<u16>>);

/// Why there is no intent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntentError {
    /// `allow` names the networks of Docker, and these are not known.
    #[error("`allow` names docker:networks, which are not known: {0}")]
    DockerNetworks(String),
    /// Lint refuses this; a parameter that nobody declared comes here too.
    #[error("allow: {0}")]
    Allow(String),
}

impl Intent {
    /// The intent of a profile. `docker_networks` are the subnets of Docker on this host, or why they are not known;
    /// they only matter where `allow` names them.
    pub fn new(parameters: &Parameters, docker_networks: Result<&[Network], &str>) -> Result<Self, IntentError> {
        let ports = |protocol| parameters.ports().filter(move |port| port.publish && port.protocol == protocol);
        let of = |protocol| ports(protocol).map(|port| port.port).collect();
        let mut networks = Vec::new();
        for word in parameters.list("allow") {
            match word.parse().map_err(|error| IntentError::Allow(format!("{error}")))? {
                Allowed::Network(network) => networks.push(network),
                Allowed::DockerNetworks => {
                    let known = docker_networks.map_err(|why| IntentError::DockerNetworks(why.to_owned()))?;
                    networks.extend_from_slice(known);
                }
            }
        }
        let (allow4, allow6) = networks.into_iter().partition(|network| network.address().is_ipv4());
        Ok(Self { tcp: of(Protocol::Tcp), udp: of(Protocol::Udp), allow4: widest(allow4), allow6: widest(allow6) })
    }

    /// Whether an address is among those that may reach the ports.
    pub fn allows(&self, address: IpAddr) -> bool {
        let networks = if address.is_ipv4() { &self.allow4 } else { &self.allow6 };
        networks.iter().any(|network| network.contains(address))
    }

    /// Nothing is published, so there is nothing to guard.
    pub fn is_empty(&self) -> bool {
        self.tcp.is_empty() && self.udp.is_empty()
    }
}

/// Sorted, without those that lie in another.
fn widest(networks: Vec<Network>) -> Vec<Network> {
    let all: BTreeSet<Network> = networks.into_iter().collect();
    let is_covered = |network: &Network| all.iter().any(|other| other != network && other.covers(network));
    all.iter().filter(|network| !is_covered(network)).copied().collect()
}

impl PortSet {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn ranges(&self) -> impl Iterator<Item = &RangeInclusive<u16>> {
        self.0.iter()
    }

    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let sorted: BTreeSet<u16> = ports.into_iter().collect();
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        for port in sorted {
            match ranges.last_mut() {
                Some(last) if last.end().checked_add(1) == Some(port) => *last = *last.start()..=port,
                _ => ranges.push(port..=port),
            }
        }
        Self(ranges)
    }
}

/// `6379-6381, 26379`: as nft writes the elements of a set.
impl std::fmt::Display for PortSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            if range.start() == range.end() {
                write!(f, "{comma}{}", range.start())?;
            } else {
                write!(f, "{comma}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::parameters::{Port, Setting};
    use proptest::prelude::*;

    fn parameters(ports: &[(u16, Protocol, bool)], allow: &[&str]) -> Parameters {
        let mut parameters = Parameters::default();
        let port =
            |&(port, protocol, publish): &(u16, Protocol, bool)| Port { name: "redis".into(), port, protocol, publish };
        parameters.insert("ports", Setting::Ports(ports.iter().map(port).collect()));
        parameters.insert("allow", Setting::List(allow.iter().map(|&word| word.to_owned()).collect()));
        parameters
    }

    fn networks(words: &[&str]) -> Vec<Network> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn ports_and_networks_are_merged() {
        let tcp = |port| (port, Protocol::Tcp, true);
        let ports = [tcp(6379), tcp(6381), tcp(6380), tcp(26379), (53, Protocol::Udp, true), (9, Protocol::Tcp, false)];
        let allow = ["172.20.0.0/16", "docker:networks", "fd00::/8", "203.0.113.50"];
        let docker = networks(&["172.17.0.0/16", "172.20.3.0/24", "fd00:1::/64"]);
        let intent = Intent::new(&parameters(&ports, &allow), Ok(&docker)).unwrap();
        assert_eq!(intent.tcp.to_string(), "6379-6381, 26379");
        assert_eq!(intent.udp.to_string(), "53");
        assert_eq!(intent.allow4, networks(&["172.17.0.0/16", "172.20.0.0/16", "203.0.113.50"]));
        assert_eq!(intent.allow6, networks(&["fd00::/8"]));
        assert!(intent.allows("172.20.3.4".parse().unwrap()) && intent.allows("fd00:1::5".parse().unwrap()));
        assert!(!intent.allows("203.0.113.51".parse().unwrap()) && !intent.allows("2001:db8::1".parse().unwrap()));
        assert!(!intent.is_empty());
    }

    #[test]
    fn unknown_networks_of_docker_only_matter_where_they_are_named() {
        let ports = [(6379, Protocol::Tcp, true)];
        let without = parameters(&ports, &["10.0.0.0/8"]);
        assert!(Intent::new(&without, Err("Docker is stopped")).is_ok());
        let error = Intent::new(&parameters(&ports, &["docker:networks"]), Err("Docker is stopped")).unwrap_err();
        assert_eq!(error, IntentError::DockerNetworks("Docker is stopped".into()));
    }

    proptest! {
        #[test]
        fn a_port_set_holds_exactly_its_ports(ports in prop::collection::btree_set(any::<u16>(), 0..40), probe in any::<u16>()) {
            let set: PortSet = ports.iter().copied().collect();
            prop_assert!(ports.iter().all(|port| set.contains(*port)));
            prop_assert_eq!(set.contains(probe), ports.contains(&probe));
            prop_assert!(set.0.windows(2).all(|pair| u32::from(*pair[0].end()) + 1 < u32::from(*pair[1].start())));
        }

        #[test]
        fn nothing_is_lost_by_leaving_out_what_is_covered(
            blocks in prop::collection::vec((any::<u32>(), 0_u8..=32), 1..8), probe in any::<u32>()
        ) {
            let all: Vec<Network> = blocks.iter()
                .map(|(bits, prefix)| Network::around(IpAddr::from(std::net::Ipv4Addr::from_bits(*bits)), *prefix).unwrap())
                .collect();
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(probe));
            let kept = widest(all.clone());
            prop_assert_eq!(all.iter().any(|network| network.contains(address)), kept.iter().any(|network| network.contains(address)));
        }
    }
}
