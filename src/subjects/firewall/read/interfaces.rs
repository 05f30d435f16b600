//! The interfaces of the host, and which of them strangers may be behind.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::nft::{find, text};
use crate::host::netlink::messages;
use crate::host::rtnetlink::{NEW_ADDRESS, NEW_LINK};
use crate::subjects::firewall::model::packet::Interface;

/// An interface as the kernel describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub interface: Interface,
    pub up: bool,
    pub loopback: bool,
    /// It is a port of another interface: a bridge, a bond.
    pub master: Option<u32>,
    /// `bridge`, `veth`, `vlan`; empty for hardware.
    pub kind: String,
}

/// Reads what `host::rtnetlink::interfaces` hands on.
pub fn parse(bytes: &[u8]) -> Vec<Link> {
    let mut links: BTreeMap<u32, Link> = BTreeMap::new();
    for message in messages(bytes) {
        match message.kind {
            NEW_LINK => {
                if let Some(link) = link(message.payload) {
                    links.insert(link.interface.index, link);
                }
            }
            NEW_ADDRESS => {
                let Some((index, address, prefix)) = address(message.payload) else { continue };
                if let Some(link) = links.get_mut(&index) {
                    link.interface.addresses.push((address, prefix));
                }
            }
            _ => {}
        }
    }
    links.into_values().collect()
}

/// `struct ifinfomsg` and its attributes.
fn link(payload: &[u8]) -> Option<Link> {
    const HEADER: usize = 16;
    const NAME: u16 = 3;
    const MASTER: u16 = 10;
    const INFORMATION: u16 = 18;
    const KIND: u16 = 1;
    const UP: u32 = 1;
    const LOOPBACK: u32 = 8;
    let number = |at: usize| payload.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let (index, flags, body) = (number(4)?, number(8)?, payload.get(HEADER..)?);
    let master = find(body, MASTER).and_then(|value| value.try_into().ok().map(u32::from_ne_bytes));
    Some(Link {
        interface: Interface { name: text(find(body, NAME)?), index, addresses: Vec::new() },
        up: flags & UP != 0,
        loopback: flags & LOOPBACK != 0,
        master: master.filter(|index| *index != 0),
        kind: find(body, INFORMATION).and_then(|information| find(information, KIND)).map(text).unwrap_or_default(),
    })
}

/// `struct ifaddrmsg` and its attributes: the interface, the address, its prefix.
fn address(payload: &[u8]) -> Option<(u32, IpAddr, u8)> {
    const HEADER: usize = 8;
    const ADDRESS: u16 = 1;
    /// The own address where the other one is that of the peer.
    const LOCAL: u16 = 2;
    let prefix = *payload.get(1)?;
    let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
    let body = payload.get(HEADER..)?;
    let bytes = find(body, LOCAL).or_else(|| find(body, ADDRESS))?;
    let address = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some((index, address, prefix))
}

/// The interfaces that packets of strangers come in by: those that are up, and are neither loopback, nor a port of a
/// bridge or bond (the packets come in by that one), nor a bridge that only containers are on.
pub fn outside<'a>(links: &'a [Link], container_bridges: &[String]) -> Vec<&'a Interface> {
    let is_outside = |link: &&Link| {
        let is_port = link.master.and_then(|index| links.iter().find(|other| other.interface.index == index));
        let carries = is_port.is_none_or(|master| master.kind == "vrf");
        let of_containers = link.kind == "bridge"
            && (is_container_bridge(&link.interface.name) || container_bridges.contains(&link.interface.name));
        link.up
            && !link.loopback
            && carries
            && !of_containers
            && !matches!(link.kind.as_str(), "dummy" | "ifb" | "nlmon" | "vrf")
    };
    links.iter().filter(is_outside).map(|link| &link.interface).collect()
}

/// By the names that Docker and Podman give: `docker0`, `br-0123456789ab`, `docker_gwbridge`, `podman1`, `cni-podman0`.
pub fn is_container_bridge(name: &str) -> bool {
    let of_network =
        |id: &str| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let numbered = |prefix: &str| {
        name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    name == "docker_gwbridge"
        || name.strip_prefix("br-").is_some_and(of_network)
        || ["docker", "podman", "cni-podman"].into_iter().any(numbered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link(name: &str, index: u32, kind: &str, master: Option<u32>) -> Link {
        let interface = Interface { name: name.into(), index, addresses: Vec::new() };
        Link { interface, up: true, loopback: name == "lo", master, kind: kind.into() }
    }

    #[test]
    fn strangers_come_by_what_is_no_container_and_no_port() {
        let links = [
            link("lo", 1, "", None),
            link("eth0", 2, "", None),
            link("docker0", 3, "bridge", None),
            link("veth12", 4, "veth", Some(3)),
            link("br0", 5, "bridge", None),
            link("eth1", 6, "", Some(5)),
            link("br-0123456789ab", 7, "bridge", None),
            link("dummy0", 8, "dummy", None),
            link("wg0", 9, "wireguard", None),
            Link { up: false, ..link("eth2", 10, "", None) },
            link("mynet", 11, "bridge", None),
            link("veth-up", 12, "veth", None),
        ];
        let names: Vec<&str> = outside(&links, &["mynet".into()]).iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["eth0", "br0", "wg0", "veth-up"]);
    }

    #[test]
    fn the_names_of_docker_and_podman_are_known() {
        for name in ["docker0", "docker_gwbridge", "br-0123456789ab", "podman1", "cni-podman0"] {
            assert!(is_container_bridge(name), "{name}");
        }
        for name in ["br-lan", "br-0123456789AB", "docker", "br0", "dockerx", "podman"] {
            assert!(!is_container_bridge(name), "{name}");
        }
    }

    #[test]
    fn the_interfaces_of_this_machine_have_their_addresses() {
        let bytes = crate::host::rtnetlink::interfaces(std::time::Duration::from_secs(5)).unwrap();
        let links = parse(&bytes);
        let loopback = links.iter().find(|link| link.loopback).unwrap();
        assert_eq!((loopback.interface.name.as_str(), loopback.interface.index), ("lo", 1));
        assert!(!loopback.up || loopback.interface.addresses.contains(&([127, 0, 0, 1].into(), 8)), "{loopback:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_left_out(kind in prop_oneof![Just(NEW_LINK), Just(NEW_ADDRESS)], payload in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = u32::try_from(16 + payload.len()).unwrap().to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(payload);
            let _ = parse(&bytes);
        }
    }
}
