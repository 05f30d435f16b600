//! The networks of Docker on this host: who the workload's neighbours are, and how a packet can be routed past the
//! published ports.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::Network as Listed;

use super::answers::{Engine, failed};
use super::clash::{self, CLASH};
use super::client::{Answer, Answers};
use super::{NETWORKS, OUTSIDE, ROUTES, Request};
use crate::catalog::parameters::Protocol;
use crate::facts::network::Network;
use crate::facts::{Fact, Facts, Value, Version};

pub const AUTO: &str = "docker.networks-auto";

const SOURCE: &str = "GET /networks";

/// The option that names the bridge of a network (moby: `daemon/libnetwork/drivers/bridge`, `BridgeName`).
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// From here on the engine itself drops what is routed straight to a container.
const DROPS_ROUTED: &str = "28.0.0";

/// One network as `GET /networks` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerNetwork {
    pub id: String,
    pub name: String,
    pub driver: String,
    /// The device of a bridge network.
    pub bridge: String,
    pub subnets: Vec<Subnet>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    pub network: Network,
    /// Whether Docker took it from its pools. What it took itself it shows with a gateway, and a subnet that somebody
    /// asked for without one has none (moby: `daemon/network.go` `buildIPAMResources`); asked for with a gateway, it
    /// looks the same.
    pub maybe_auto: bool,
}

impl DockerNetwork {
    /// Its containers have addresses of their own in the outer network. The host's rules do not see their packets
    /// (kernel: `Documentation/networking/ipvlan.rst`; docs.docker.com: macvlan network driver).
    fn is_outside(&self) -> bool {
        matches!(self.driver.as_str(), "macvlan" | "ipvlan")
    }
}

/// A network from the answer; parts that are not understood are left out, since an address that is not known cannot be
/// allowed.
pub fn listed(network: Listed) -> DockerNetwork {
    let id = network.id.unwrap_or_default();
    let named = network.options.unwrap_or_default().remove(BRIDGE_NAME);
    let bridge = named.unwrap_or_else(|| format!("br-{}", id.chars().take(12).collect::<String>()));
    let blocks = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    let subnets = blocks.into_iter().filter_map(|block| {
        let network = block.subnet?.parse().ok()?;
        Some(Subnet { network, maybe_auto: block.gateway.is_some_and(|gateway| !gateway.is_empty()) })
    });
    DockerNetwork {
        name: network.name.unwrap_or_default(),
        driver: network.driver.unwrap_or_default(),
        bridge,
        subnets: subnets.collect(),
        id,
    }
}

pub(crate) fn insert(answers: &Answers, engine: &Engine<'_>, request: &Request, facts: &mut Facts) {
    let images = &request.workload_images;
    let Answer { result, took } = &answers.networks;
    let networks = match result {
        Ok(networks) => networks,
        Err(failure) => {
            for id in [NETWORKS, AUTO, ROUTES, OUTSIDE, CLASH] {
                facts.live(id, failed(failure, SOURCE, *took));
            }
            return;
        }
    };
    let bridges = || networks.iter().filter(|network| network.driver == "bridge");
    let subnets = |auto_only: bool| {
        let wanted = bridges().flat_map(|network| &network.subnets).filter(|subnet| !auto_only || subnet.maybe_auto);
        Value::Set(wanted.map(|subnet| subnet.network.to_string()).collect())
    };
    let outside: Vec<&str> = networks.iter().filter(|it| it.is_outside()).map(|it| &*it.name).collect();
    let mut fact = Fact::known(subnets(false), SOURCE).took(*took);
    if !outside.is_empty() {
        let names = outside.join(", ");
        fact = fact.note(format!("no bridge, so neither seen nor covered by the guard of this host: {names}"));
    }
    facts.live(NETWORKS, fact);
    facts.live(AUTO, Fact::known(subnets(true), SOURCE).took(*took));
    facts.live(ROUTES, routes(answers, engine, networks, images).took(*took));
    facts.live(OUTSIDE, without_a_bridge(answers, networks, images).took(*took));
    if request.wants(CLASH) {
        facts.live(CLASH, clash::fact(&request.host, engine.kind(), networks).took(*took));
    }
}

/// `CONTAINER on NETWORK (macvlan)` for every container of the workload whose packets do not pass the host's rules.
fn without_a_bridge(answers: &Answers, networks: &[DockerNetwork], images: &[String]) -> Fact {
    let source = "GET /networks, /containers/json";
    let containers = match &answers.containers.result {
        Ok(containers) => containers,
        Err(failure) => return Fact::unknown(failure.to_string(), None, source),
    };
    let mut found = BTreeSet::new();
    for container in containers.iter().filter(|container| container.is_workload(images)) {
        let of_container = networks.iter().filter(|network| container.networks.contains(&network.id));
        for network in of_container.filter(|network| network.is_outside()) {
            found.insert(format!("{} on {} ({})", container.name, network.name, network.driver));
        }
    }
    Fact::known(Value::Set(found), source)
}

/// `SUBNET tcp/6379` for every port of a workload container that an engine of this age lets be reached by the
/// container's own address.
fn routes(answers: &Answers, engine: &Engine<'_>, networks: &[DockerNetwork], images: &[String]) -> Fact {
    let source = "GET /version, /networks, /containers/json";
    let version = engine.version().and_then(|version| Version::parse(version.version.as_deref()?).ok());
    let old_enough = Version::parse(DROPS_ROUTED).ok();
    let drops_by_itself = !engine.is_podman() && version.is_some() && version >= old_enough;
    if drops_by_itself {
        let note = format!("the engine drops that by itself from {DROPS_ROUTED} on");
        return Fact::known(Value::Set(BTreeSet::new()), source).note(note);
    }
    let containers = match &answers.containers.result {
        Ok(containers) => containers,
        Err(failure) => return Fact::unknown(failure.to_string(), None, source),
    };
    let by_id: BTreeMap<&str, &DockerNetwork> =
        networks.iter().filter(|it| it.driver == "bridge").map(|network| (&*network.id, network)).collect();
    let mut found = BTreeSet::new();
    for container in containers.iter().filter(|container| container.is_workload(images)) {
        for network in container.networks.iter().filter_map(|id| by_id.get(&**id)) {
            for subnet in &network.subnets {
                found.extend(container.ports.iter().map(|(protocol, port): &(Protocol, u16)| {
                    format!("{} {}/{port}", subnet.network, protocol.name())
                }));
            }
        }
    }
    Fact::known(Value::Set(found), source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subjects::docker::client::Failure;
    use crate::subjects::docker::containers::Container;

    /// Seen failing with every network taken, and with those of ipvlan left out.
    #[test]
    fn containers_of_the_workload_in_the_outer_network_are_named() {
        let network = |id: &str, driver: &str| DockerNetwork {
            id: id.into(),
            name: format!("net-{id}"),
            driver: driver.into(),
            ..DockerNetwork::default()
        };
        let container = |name: &str, image: &str, networks: &[&str]| Container {
            name: name.into(),
            image: image.into(),
            networks: networks.iter().map(|id| (*id).to_owned()).collect(),
            ..Container::default()
        };
        let containers = vec![
            container("one", "redis:7", &["b", "m"]),
            container("two", "redis:7", &["b"]),
            container("three", "redis:7", &["i"]),
            container("other", "web:1", &["m"]),
        ];
        let not_asked = || Failure::NotAsked;
        let answers = Answers {
            ping: Answer::failed(not_asked()),
            version: Answer::failed(not_asked()),
            info: Answer::failed(not_asked()),
            containers: Answer { result: Ok(containers), took: std::time::Duration::ZERO },
            networks: Answer::failed(not_asked()),
        };
        let networks = [network("b", "bridge"), network("m", "macvlan"), network("i", "ipvlan")];
        let fact = without_a_bridge(&answers, &networks, &["redis".to_owned()]);
        let Some(Value::Set(found)) = fact.value() else { panic!("{fact:?}") };
        assert_eq!(found.iter().collect::<Vec<_>>(), ["one on net-m (macvlan)", "three on net-i (ipvlan)"]);
    }
}
