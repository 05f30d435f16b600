//! What a firewall manager is asked to let through: one range of ports from one network.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::intent::Intent;
use crate::catalog::parameters::Protocol;
use crate::facts::network::Network;

/// One allow entry. Written `tcp 6379-6381 from 172.20.0.0/16`, always with the prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    pub protocol: Protocol,
    pub ports: RangeInclusive<u16>,
    pub from: Network,
}

impl Entry {
    /// The entries that an intent comes to, IPv4 first.
    pub fn all(intent: &Intent) -> Vec<Self> {
        let networks = || intent.allow4.iter().chain(&intent.allow6);
        let of = |protocol, ports: &RangeInclusive<u16>| {
            let ports = ports.clone();
            networks().map(move |from| Self { protocol, ports: ports.clone(), from: *from }).collect::<Vec<_>>()
        };
        let tcp = intent.tcp.ranges().flat_map(|ports| of(Protocol::Tcp, ports));
        let udp = intent.udp.ranges().flat_map(|ports| of(Protocol::Udp, ports));
        let mut all: Vec<Self> = tcp.chain(udp).collect();
        all.sort_by_key(|entry| !entry.is_ipv4());
        all
    }

    pub fn is_ipv4(&self) -> bool {
        self.from.address().is_ipv4()
    }

    /// The ports with whatever a tool puts between the first and the last.
    pub fn ports_with(&self, between: char) -> String {
        let (first, last) = (self.ports.start(), self.ports.end());
        if first == last { first.to_string() } else { format!("{first}{between}{last}") }
    }

    /// Whether a rule about these ports from that network is about any packet that this entry is about.
    pub fn meets(&self, ports: &RangeInclusive<u16>, from: &Network) -> bool {
        ports.start() <= self.ports.end()
            && self.ports.start() <= ports.end()
            && (from.covers(&self.from) || self.from.covers(from))
    }

    /// Whether a rule about these ports from that network is about every packet that this entry is about.
    pub fn is_within(&self, ports: &RangeInclusive<u16>, from: &Network) -> bool {
        ports.start() <= self.ports.start() && self.ports.end() <= ports.end() && from.covers(&self.from)
    }
}

/// What the rules of a manager make of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryState {
    /// Let through, so that nothing is to be added.
    Open,
    /// No rule lets all of it through.
    Missing,
    /// A rule of somebody keeps it or a part of it out, before an entry of ours would be looked at. Named.
    Denied(String),
}

/// Reads `6379` or, with something between them, `6379:6381`; the first is not above the last.
pub fn ports(text: &str, between: char) -> Option<RangeInclusive<u16>> {
    let port = |digits: &str| {
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
        digits.parse::<u16>().ok().filter(|_| is_plain)
    };
    let (first, last) = text.split_once(between).unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} from {}", self.protocol.name(), self.ports_with('-'), self.from)
    }
}

/// The text is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an entry such as `tcp 6379-6381 from 172.20.0.0/16`")]
pub struct NoEntry;

impl FromStr for Entry {
    type Err = NoEntry;

    /// Only the one way in which an entry is written, so that what a journal names can be nothing else.
    fn from_str(text: &str) -> Result<Self, NoEntry> {
        let words: Vec<&str> = text.split(' ').collect();
        let [protocol, range, "from", from] = words[..] else { return Err(NoEntry) };
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(NoEntry),
        };
        let entry =
            Self { protocol, ports: ports(range, '-').ok_or(NoEntry)?, from: from.parse().map_err(|_| NoEntry)? };
        if entry.to_string() == text { Ok(entry) } else { Err(NoEntry) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    pub(crate) fn any_entry() -> impl Strategy<Value = Entry> {
        let network = prop_oneof![
            (any::<u32>(), 0_u8..=32).prop_map(|(bits, prefix)| (IpAddr::from(Ipv4Addr::from_bits(bits)), prefix)),
            (any::<u128>(), 0_u8..=128).prop_map(|(bits, prefix)| (IpAddr::from(Ipv6Addr::from_bits(bits)), prefix)),
        ];
        (any::<bool>(), 1_u16.., 1_u16.., network).prop_map(|(is_tcp, one, other, (address, prefix))| Entry {
            protocol: if is_tcp { Protocol::Tcp } else { Protocol::Udp },
            ports: one.min(other)..=one.max(other),
            from: Network::around(address, prefix).unwrap(),
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(entry in any_entry()) {
            prop_assert_eq!(entry.to_string().parse::<Entry>(), Ok(entry));
        }

        /// No word of a shell, no option and no second command gets through the grammar.
        #[test]
        fn an_entry_is_nothing_else(text in "\\PC{0,60}|(tcp|udp|any) [0-9:,-]{1,12} (from|to) [0-9a-f.:/ ;-]{1,30}") {
            if let Ok(entry) = text.parse::<Entry>() {
                prop_assert_eq!(entry.to_string(), text);
            }
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for text in [
            "",
            "tcp 6379 from 172.20.0.1/16",
            "tcp 6379 from 172.20.0.0",
            "tcp 0 from 10.0.0.0/8",
            "tcp 06379 from 10.0.0.0/8",
            "tcp 7-6 from 10.0.0.0/8",
            "tcp 6379-6379 from 10.0.0.0/8",
            "tcp 6379 from 10.0.0.0/8 ",
            "tcp 6379  from 10.0.0.0/8",
            "tcp 6379 from 10.0.0.0/8; reboot",
            "tcp 6379 from any",
            "--dry-run 6379 from 10.0.0.0/8",
        ] {
            assert!(text.parse::<Entry>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_intent_becomes_one_entry_per_range_and_network() {
        let network = |text: &str| text.parse::<Network>().unwrap();
        let intent = Intent {
            tcp: [6379, 6380, 26379].into_iter().collect(),
            udp: [53].into_iter().collect(),
            allow4: vec![network("172.20.0.0/16")],
            allow6: vec![network("fd00::/8")],
        };
        let all: Vec<String> = Entry::all(&intent).iter().map(Entry::to_string).collect();
        assert_eq!(
            all,
            [
                "tcp 6379-6380 from 172.20.0.0/16",
                "tcp 26379 from 172.20.0.0/16",
                "udp 53 from 172.20.0.0/16",
                "tcp 6379-6380 from fd00::/8",
                "tcp 26379 from fd00::/8",
                "udp 53 from fd00::/8",
            ]
        );
    }
}
