//! The guard: what preflight itself puts in the way of strangers, as the text of nftables.
//!
//! One table of our own on the prerouting hook, before any DNAT: there a packet still has the port that it was sent to, so
//! that one rule covers a port that Docker publishes, its proxy, and a process of the host. Only the workload's ports are
//! looked at and the policy is accept, so that it cannot close anything else, and it never opens what another table closes:
//! an accept ends a chain, not the way through the others (nft(8), "Verdict statements").

mod listing;
mod read;
mod routed;

use std::fmt::Write as _;

pub use self::listing::{is_one_table, is_owned, tidy};
use super::intent::{Intent, PortSet};
use crate::facts::network::Network;

/// The table, and what `nft` calls it.
pub const TABLE: &str = "inet preflight";

/// Takes the table away, on every nft, and where there is none. Before a table it makes that one anew, and all of it is
/// one transaction of the kernel. (`destroy` needs nft 1.0.7.)
pub const REMOVE: &str = "table inet preflight\ndelete table inet preflight\n";

/// What the guard lets through to which ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    pub intent: Intent,
    /// What an older engine lets anybody reach by the container's own address, one for each network of the workload.
    pub routed: Vec<Routed>,
}

/// Ports of containers that a packet can be routed to past every published port. Engines from 28.0.0 on drop that by
/// themselves (moby: `daemon/libnetwork/drivers/bridge/internal/iptabler`, "DIRECT ACCESS FILTERING").
///
/// Who is in the network by its address is a neighbour of the containers, and must come from where answers to it go. The
/// name of the bridge is not asked: a network that is made anew has another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    pub network: Network,
    /// The ports inside of the containers.
    pub tcp: PortSet,
    pub udp: PortSet,
}

impl Guard {
    /// The table, in the one form in which guards are written and compared. One statement a line: nft 1.0.6 takes
    /// nothing else.
    pub fn text(&self) -> String {
        let Intent { tcp, udp, allow4, allow6 } = &self.intent;
        let mut text = format!("table {TABLE} {{\n");
        let mut set = |name: &str, kind: &str, elements: &str| {
            if !elements.is_empty() {
                let _ = write!(
                    text,
                    "\tset {name} {{\n\t\ttype {kind}\n\t\tflags interval\n\t\telements = {{ {elements} }}\n\t}}\n"
                );
            }
        };
        set("tcp_ports", "inet_service", &tcp.to_string());
        set("udp_ports", "inet_service", &udp.to_string());
        set("allow4", "ipv4_addr", &list(allow4));
        set("allow6", "ipv6_addr", &list(allow6));
        text.push_str("\tchain guard {\n\t\ttype filter hook prerouting priority -150; policy accept;\n");
        text.push_str("\t\tiifname \"lo\" accept\n\t\tct state established,related accept\n");
        for (protocol, _) in [("tcp", tcp), ("udp", udp)].into_iter().filter(|(_, ports)| !ports.is_empty()) {
            let _ = writeln!(text, "\t\t{protocol} dport @{protocol}_ports fib daddr type local goto restrict");
        }
        for routed in &self.routed {
            routed.write(&mut text);
        }
        text.push_str("\t}\n\tchain restrict {\n");
        for (family, name, networks) in [("ip", "allow4", allow4), ("ip6", "allow6", allow6)] {
            if !networks.is_empty() {
                let _ = writeln!(text, "\t\t{family} saddr @{name} accept");
            }
        }
        text.push_str("\t\tcounter drop\n\t}\n}\n");
        text
    }
}

/// What nft asks whether a packet came in where answers to it would not go out. Newer ones list it otherwise.
const MISROUTED: &str = "fib saddr . iif oif missing";

/// As nft lists it: a single address without its prefix.
fn element(network: &Network) -> String {
    let is_host = network.prefix() == if network.address().is_ipv4() { 32 } else { 128 };
    if is_host { network.address().to_string() } else { network.to_string() }
}

fn list(networks: &[Network]) -> String {
    networks.iter().map(element).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn networks(words: &[&str]) -> Vec<Network> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    pub(super) fn guard() -> Guard {
        Guard {
            intent: Intent {
                tcp: (6379..=6381).chain(26379..=26381).collect(),
                udp: PortSet::default(),
                allow4: networks(&["172.20.0.0/16", "203.0.113.50"]),
                allow6: Vec::new(),
            },
            routed: vec![Routed {
                network: "172.20.0.0/16".parse().unwrap(),
                tcp: [6379].into_iter().collect(),
                udp: PortSet::default(),
            }],
        }
    }

    #[test]
    fn the_table_is_the_documented_one() {
        insta::assert_snapshot!(guard().text().replace('\t', "  "), @r#"
        table inet preflight {
          set tcp_ports {
            type inet_service
            flags interval
            elements = { 6379-6381, 26379-26381 }
          }
          set allow4 {
            type ipv4_addr
            flags interval
            elements = { 172.20.0.0/16, 203.0.113.50 }
          }
          chain guard {
            type filter hook prerouting priority -150; policy accept;
            iifname "lo" accept
            ct state established,related accept
            tcp dport @tcp_ports fib daddr type local goto restrict
            ip saddr 172.20.0.0/16 fib saddr . iif oif missing ip daddr 172.20.0.0/16 tcp dport 6379 counter drop
            ip saddr != 172.20.0.0/16 ip daddr 172.20.0.0/16 tcp dport 6379 goto restrict
          }
          chain restrict {
            ip saddr @allow4 accept
            counter drop
          }
        }
        "#);
    }
}
