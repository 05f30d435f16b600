//! Who would be shut out: who is connected to the workload now, and whether sshd listens on one of its ports. Walks all
//! connections and all processes, so only a plan that closes something asks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::connections::{self, Connection};
use super::interfaces;
use crate::catalog::parameters::Protocol;
use crate::facts::network::Network;
use crate::host::sock_diag::{self, Entry, Which};
use crate::host::{Host, describe, nfnetlink, process, rtnetlink};
use crate::subjects::firewall::model::intent::Intent;
use crate::subjects::firewall::model::packet::Interface;

const PATIENCE: Duration = Duration::from_secs(5);

/// Programs that let people in; the init process holds the socket where it starts one of them by connection.
const SSHD: [&str; 5] = ["sshd", "dropbear", "tinysshd", "systemd", "init"];

/// What was found; an error where it could not be determined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Ports of the workload that sshd listens on.
    pub sshd: Result<BTreeSet<u16>, String>,
    /// `203.0.113.9 (port 6379)`: connected now, and not allowed.
    pub peers: Result<BTreeSet<String>, String>,
}

/// Looks at the network namespace of the calling thread.
pub fn look(host: &Host, intent: &Intent) -> Connected {
    Connected { sshd: sshd(host, intent), peers: peers(host, intent) }
}

fn dump(which: Which) -> Result<Vec<Entry>, String> {
    sock_diag::dump_both(Protocol::Tcp, which).map_err(|error| format!("sock_diag: {}", describe(&error)))
}

fn sshd(host: &Host, intent: &Intent) -> Result<BTreeSet<u16>, String> {
    let listeners = dump(Which::Listening)?.into_iter().filter(|entry| intent.tcp.contains(entry.port));
    let mut wanted: BTreeMap<u64, u16> = listeners.map(|entry| (entry.inode, entry.port)).collect();
    if wanted.is_empty() {
        return Ok(BTreeSet::new());
    }
    if !process::is_root() {
        return Err("only root sees who listens there".to_owned());
    }
    let mut found = BTreeSet::new();
    for pid in process::ids().map_err(|error| format!("/proc: {}", describe(&error)))? {
        let name = match host.read_text(format!("/proc/{pid}/comm")) {
            Ok(name) => name,
            Err(error) if error.is_gone() => continue,
            Err(error) => return Err(error.to_string()),
        };
        let name = name.trim();
        if !SSHD.iter().any(|known| name == *known || name.starts_with("sshd-")) {
            continue;
        }
        for fd in process::open_files(pid).unwrap_or_default() {
            if let Ok(Some(inode)) = process::socket_inode(pid, fd)
                && let Some(port) = wanted.remove(&inode)
            {
                found.insert(port);
            }
        }
    }
    Ok(found)
}

/// Sockets of this host, and connections that are sent on to containers.
fn peers(host: &Host, intent: &Intent) -> Result<BTreeSet<String>, String> {
    let mut outsiders = Outsiders::new(intent, &dump(Which::Established)?);
    // Asked for its connections, the kernel walks the whole table, which takes ten milliseconds when it is empty, too.
    if tracks_none(host) {
        return Ok(outsiders.found);
    }
    let links = rtnetlink::interfaces(PATIENCE).map_err(|error| format!("interfaces: {}", describe(&error)))?;
    outsiders.here =
        interfaces::parse(&links).iter().flat_map(|link| places(&link.interface, link.kind == "bridge")).collect();
    let mut each = |message: &[u8]| outsiders.add_forwarded(&connections::parse(message));
    nfnetlink::connections(PATIENCE, &mut each).map_err(|error| format!("nf_conntrack: {}", describe(&error)))?;
    Ok(outsiders.found)
}

/// Whether the kernel says that it tracks no connection of this network namespace.
fn tracks_none(host: &Host) -> bool {
    host.read_text("/proc/sys/net/netfilter/nf_conntrack_count").is_ok_and(|text| text.trim() == "0")
}

/// Where packets end on this host: at an address of an interface and, behind a bridge, whose name containers may choose,
/// anywhere.
fn places(interface: &Interface, is_bridge: bool) -> Vec<Network> {
    if is_bridge {
        return interface.networks().collect();
    }
    let single = |address: &IpAddr| Network::around(*address, if address.is_ipv4() { 32 } else { 128 });
    interface.addresses.iter().filter_map(|(address, _)| single(address)).collect()
}

/// Who is connected to the workload, and is in no network that is allowed.
struct Outsiders<'a> {
    intent: &'a Intent,
    /// A connection of the host with itself has both ends here; the guard lets loopback through, whatever the address.
    own: BTreeSet<IpAddr>,
    /// See [`places`].
    here: Vec<Network>,
    found: BTreeSet<String>,
}

impl<'a> Outsiders<'a> {
    fn new(intent: &'a Intent, entries: &[Entry]) -> Self {
        let own = entries.iter().map(|entry| entry.address).collect();
        let mut outsiders = Self { intent, own, here: Vec::new(), found: BTreeSet::new() };
        for entry in entries {
            if let Some(peer) = entry.peer {
                outsiders.add(peer, entry.port);
            }
        }
        outsiders
    }

    fn add(&mut self, peer: IpAddr, port: u16) {
        let is_outside = !peer.is_loopback() && !self.own.contains(&peer);
        if self.intent.tcp.contains(port) && is_outside && !self.intent.allows(peer) {
            self.found.insert(format!("{peer} (port {port})"));
        }
    }

    fn add_forwarded(&mut self, connections: &[Connection]) {
        for connection in connections.iter().filter(|connection| connection.is_established()) {
            if self.ends_here(connection) {
                self.add(connection.original.source, connection.original.destination_port);
            }
        }
    }

    /// What only passes through, from a container or from a neighbour that this host routes for, is no business of the
    /// guard. Where the destination was rewritten, it was this host's.
    fn ends_here(&self, connection: &Connection) -> bool {
        let to = connection.original.destination;
        to != connection.reply.source || self.here.iter().any(|place| place.contains(to))
    }
}

#[cfg(test)]
mod tests {
    use super::connections::Tuple;
    use super::*;

    fn socket(address: &str, port: u16, peer: &str) -> Entry {
        Entry {
            address: address.parse().unwrap(),
            port,
            peer: Some(peer.parse().unwrap()),
            inode: 1,
            uid: 0,
            v6_only: None,
            listening: false,
            time_wait: false,
        }
    }

    /// Each line of the reasons was seen failing with its part of `Outsiders::add` left out.
    #[test]
    fn only_outsiders_at_the_ports_of_the_workload_are_named() {
        let intent = Intent {
            tcp: [6379, 26379].into_iter().collect(),
            allow4: vec!["172.20.0.0/16".parse().unwrap()],
            ..Intent::default()
        };
        let entries = [
            socket("192.0.2.1", 6379, "203.0.113.9"),
            // Allowed.
            socket("192.0.2.1", 6379, "172.20.0.5"),
            // Not a port of the workload.
            socket("192.0.2.1", 22, "203.0.113.8"),
            // The host with itself.
            socket("192.0.2.1", 6379, "192.0.2.1"),
            socket("127.0.0.1", 6379, "127.0.0.1"),
        ];
        let mut outsiders = Outsiders::new(&intent, &entries);
        assert_eq!(outsiders.found, ["203.0.113.9 (port 6379)".to_owned()].into());
        let connection = |source: &str, state| Connection {
            protocol: 6,
            original: Tuple {
                source: source.parse().unwrap(),
                source_port: 40000,
                destination: "192.0.2.1".parse().unwrap(),
                destination_port: 26379,
            },
            reply: Tuple {
                source: "172.17.0.2".parse().unwrap(),
                source_port: 6379,
                destination: source.parse().unwrap(),
                destination_port: 40000,
            },
            tcp_state: Some(state),
        };
        // 3 is established, 7 waits for late packets (`nf_conntrack_tcp.h`).
        outsiders.add_forwarded(&[
            connection("198.51.100.4", 3),
            connection("198.51.100.5", 7),
            connection("192.0.2.1", 3),
            connection("127.0.0.9", 3),
            connection("172.20.0.6", 3),
        ]);
        assert_eq!(outsiders.found.len(), 2);
        assert!(outsiders.found.contains("198.51.100.4 (port 26379)"), "{:?}", outsiders.found);
    }

    /// Seen failing with every tracked connection taken for one to this host: a container that talks to a Redis elsewhere
    /// was to be cut off.
    #[test]
    fn what_passes_through_is_not_cut() {
        let intent = Intent { tcp: [6379].into_iter().collect(), ..Intent::default() };
        let mut outsiders = Outsiders::new(&intent, &[]);
        let interface = |name: &str, address: &str, prefix| Interface {
            name: name.into(),
            index: 2,
            addresses: vec![(address.parse().unwrap(), prefix)],
        };
        let here =
            [places(&interface("eth0", "192.0.2.1", 24), false), places(&interface("b", "172.17.0.1", 16), true)];
        outsiders.here = here.concat();
        let connection = |to: &str, really: &str| Connection {
            protocol: 6,
            original: Tuple {
                source: "198.51.100.4".parse().unwrap(),
                source_port: 40000,
                destination: to.parse().unwrap(),
                destination_port: 6379,
            },
            reply: Tuple {
                source: really.parse().unwrap(),
                source_port: 6379,
                destination: "198.51.100.4".parse().unwrap(),
                destination_port: 40000,
            },
            tcp_state: Some(3),
        };
        for (to, really, is_cut) in [
            ("203.0.113.7", "203.0.113.7", false),
            // A neighbour in the host's own network.
            ("192.0.2.9", "192.0.2.9", false),
            ("192.0.2.1", "192.0.2.1", true),
            // Published, and routed straight to a container.
            ("192.0.2.1", "172.17.0.2", true),
            ("172.17.0.2", "172.17.0.2", true),
        ] {
            outsiders.found.clear();
            outsiders.add_forwarded(&[connection(to, really)]);
            assert_eq!(!outsiders.found.is_empty(), is_cut, "{to} {really}");
        }
    }
}
