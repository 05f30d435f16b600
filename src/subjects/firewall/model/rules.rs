//! Rule sets in one form, whoever wrote them: nft, iptables over nf_tables, or the old iptables.
//!
//! A rule is a list of steps, in the order in which the kernel takes them. What preflight does not understand is kept as
//! what it may be: a condition that is neither true nor false, or a statement that may do anything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Every table of every family.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ruleset {
    pub tables: Vec<Table>,
}

/// Whose packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    Ip,
    Ip6,
    /// Both of the above.
    Inet,
    Bridge,
    Netdev,
    Arp,
    Other,
}

impl Family {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
            Self::Arp => "arp",
            Self::Other => "other",
        }
    }

    /// Whether IP packets of a version come here on their way through the host.
    pub fn sees(self, v6: bool) -> bool {
        match self {
            Self::Ip => !v6,
            Self::Ip6 => v6,
            Self::Inet => true,
            Self::Bridge | Self::Netdev | Self::Arp | Self::Other => false,
        }
    }
}

/// What the rules were written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// nf_tables: nft, iptables-nft.
    Nft,
    /// The old x_tables of iptables-legacy.
    Legacy,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub family: Family,
    pub name: String,
    pub backend: Backend,
    /// Switched off as a whole: its chains are not called.
    pub dormant: bool,
    pub chains: BTreeMap<String, Chain>,
    pub sets: BTreeMap<String, Set>,
}

/// Where the kernel calls a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    Ingress,
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    Egress,
    Other,
}

impl Hook {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
            Self::Other => "another hook",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    pub hook: Hook,
    pub priority: i32,
    /// `type nat`: called for the first packet of a connection, at the place of NAT.
    pub nat: bool,
    pub policy_drop: bool,
    /// Of ingress and egress chains: the devices they are bound to; `eth*` for all that start so.
    pub devices: Vec<String>,
}

impl Base {
    pub fn is_bound_to(&self, device: &str) -> bool {
        let fits = |of: &String| of == device || of.strip_suffix('*').is_some_and(|start| device.starts_with(start));
        self.devices.iter().any(fits)
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chain {
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rule {
    /// The number nft knows it by.
    pub handle: Option<u64>,
    /// What it says, where that is known: a line of iptables-save, a comment.
    pub text: Option<String>,
    pub steps: Vec<Step>,
}

/// One expression of a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The rule ends here unless this holds.
    When(Condition),
    Verdict(Verdict),
    /// A verdict map: the verdict of the first entry that holds; the rule ends here when none does.
    Map(Map),
    /// The packet's mark is set; `None` to what is not known.
    SetMark {
        keep: u32,
        set: Option<u32>,
    },
    /// The connection's mark is set.
    SetConnectionMark {
        keep: u32,
        set: Option<u32>,
    },
    /// The connection is not tracked.
    NoTrack,
    /// The destination is rewritten. In a base chain of another hook it has no effect here.
    Dnat {
        to: Target,
        port: Option<u16>,
    },
    /// The source is rewritten, which ends a chain like `accept`.
    Snat,
    /// What passed here, as counted by the kernel.
    Count {
        packets: u64,
        bytes: u64,
    },
    /// A statement that may do anything with the packet: stop it, take it, let it pass.
    Unknown(String),
}

/// Where a destination is rewritten to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    Address(IpAddr),
    /// Only the port changes.
    Same,
    /// The host itself: `redirect`.
    Host,
    /// Not known: taken from a map, or one of several.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    /// Dropped with an answer.
    Reject,
    /// On with the next rule.
    Continue,
    Return,
    Jump(String),
    Goto(String),
    /// Handed to a program or another path: what becomes of it is not known.
    Elsewhere(&'static str),
}

/// What a rule asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    Test(Test),
    /// Always or never.
    Constant(bool),
    /// Neither true nor false; the text names it.
    Other(String),
}

/// The keys lie in one of the boxes, or in none when negated.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    pub keys: Vec<Key>,
    pub within: Arc<Vec<Range>>,
    pub negated: bool,
    /// The named set that the ranges are from.
    pub set: Option<String>,
}

/// One box: a closed range for each key.
pub type Range = Box<[(u128, u128)]>;

/// One looked-at field. Numbers are those that people write; texts are 16 bytes, the first the most significant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub field: Field,
    /// The bits that are looked at.
    pub mask: u128,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    pub keys: Vec<Key>,
    pub entries: Vec<(Range, Verdict)>,
    /// What is done with what no entry holds.
    pub otherwise: Option<Verdict>,
    /// The map changes while packets pass, or was not understood.
    pub uncertain: bool,
}

/// A named set and what is in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Set {
    /// `NFTA_SET_KEY_TYPE`, as nft numbers its types.
    pub key_type: u32,
    pub key_bytes: usize,
    pub interval: bool,
    /// Packets themselves add to it.
    pub dynamic: bool,
    /// Elements could not all be read.
    pub incomplete: bool,
    /// `*`: everything that is not in it is, with this verdict.
    pub catch_all: Option<Option<Verdict>>,
    pub elements: Vec<Element>,
}

/// One element of a set: all keys from one to another, as they lie in a register.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    pub from: Box<[u8]>,
    pub to: Box<[u8]>,
    pub verdict: Option<Verdict>,
}

impl Set {
    /// Whether its keys are several fields side by side: nft numbers each type with six bits.
    pub fn is_concatenation(&self) -> bool {
        self.key_type >= 1 << 6
    }

    /// The elements as numbers, the first byte the most significant; `None` when keys are longer than 16 bytes.
    pub fn ranges(&self) -> Option<Vec<(u128, u128)>> {
        let number = |bytes: &[u8]| {
            (bytes.len() <= 16).then(|| bytes.iter().fold(0, |all, byte| (all << 8) | u128::from(*byte)))
        };
        self.elements.iter().map(|element| Some((number(&element.from)?, number(&element.to)?))).collect()
    }
}

/// What can be looked at of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// 2 for IPv4, 10 for IPv6.
    NfProto,
    /// The EtherType.
    EtherType,
    L4Proto,
    Source,
    Destination,
    SourcePort,
    DestinationPort,
    /// Flags and offset of IPv4.
    Fragment,
    TcpFlags,
    InName,
    OutName,
    InIndex,
    OutIndex,
    /// `PACKET_HOST` and so on.
    PacketType,
    Mark,
    /// Passed through IPsec.
    Secpath,
    /// Bits of nft: 1 invalid, 2 established, 4 related, 8 new, 64 untracked.
    CtState,
    CtStatus,
    CtDirection,
    CtMark,
    CtProtocol,
    /// As `NfProto`, of the connection.
    CtFamily,
    CtOriginalSource,
    CtOriginalDestination,
    CtOriginalSourcePort,
    CtOriginalDestinationPort,
    CtReplySource,
    CtReplySourcePort,
    /// The kind of route to the destination: 1 unicast, 2 local, 3 broadcast, 5 multicast.
    FibDestinationType,
    /// The same as seen from the interface it came in by.
    FibDestinationTypeHere,
    FibSourceType,
    /// The interface that answers would take, 0 for none.
    FibSourceIndex,
    FibSourceName,
    /// Whether that is the interface it came in by.
    FibSourcePresent,
    /// Whether there is any such interface.
    FibSourceRouted,
}

impl Field {
    /// Its size in a register of nf_tables, where that is the same for both families.
    pub fn bytes(self) -> usize {
        match self {
            Self::NfProto
            | Self::L4Proto
            | Self::TcpFlags
            | Self::PacketType
            | Self::CtDirection
            | Self::CtProtocol
            | Self::CtFamily
            | Self::FibSourcePresent
            | Self::FibSourceRouted
            | Self::Secpath => 1,
            Self::EtherType
            | Self::SourcePort
            | Self::DestinationPort
            | Self::Fragment
            | Self::CtOriginalSourcePort
            | Self::CtOriginalDestinationPort
            | Self::CtReplySourcePort => 2,
            Self::InName | Self::OutName | Self::FibSourceName => 16,
            _ => 4,
        }
    }
}

impl Key {
    pub fn whole(field: Field) -> Self {
        Self { field, mask: u128::MAX }
    }

    /// Whether it depends on the port that a packet was sent to.
    fn is_port(&self) -> bool {
        matches!(self.field, Field::DestinationPort | Field::CtOriginalDestinationPort | Field::CtReplySourcePort)
    }
}

impl Condition {
    /// `field == value`, or not.
    pub fn equals(field: Field, value: u128, negated: bool) -> Self {
        Self::within(field, [(value, value)], negated)
    }

    pub fn within(field: Field, ranges: impl IntoIterator<Item = (u128, u128)>, negated: bool) -> Self {
        Self::masked(Key::whole(field), ranges, negated)
    }

    pub fn masked(key: Key, ranges: impl IntoIterator<Item = (u128, u128)>, negated: bool) -> Self {
        let within = Arc::new(ranges.into_iter().map(|range| Box::from([range])).collect());
        Self::Test(Test { keys: vec![key], within, negated, set: None })
    }

    /// An interface by its name; `eth+` of iptables, and `eth*` of nft, stand for all that start so.
    pub fn interface(field: Field, name: &str, prefix: bool, negated: bool) -> Self {
        let low = text(name);
        let bits = name.len().min(16) * 8;
        let high =
            if prefix { low | u128::MAX.checked_shr(u32::try_from(bits).unwrap_or(128)).unwrap_or(0) } else { low };
        Self::within(field, [(low, high)], negated)
    }
}

/// A text as the number a register holds: 16 bytes, padded with zeros.
pub fn text(name: &str) -> u128 {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    u128::from_be_bytes(bytes)
}

/// Which ports the rules tell apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortClasses {
    /// Ports without one of these, in order, between them fare alike: from it on a rule holds, or no longer.
    Between(Vec<u128>),
    /// A rule looks at single bits: any two may fare differently.
    Single,
}

impl PortClasses {
    /// A number that ports of one class have in common.
    pub fn of(&self, port: u16) -> usize {
        match self {
            Self::Between(bounds) => bounds.partition_point(|bound| *bound <= port.into()),
            Self::Single => port.into(),
        }
    }
}

impl Ruleset {
    pub fn port_classes(&self) -> PortClasses {
        const ALL_BITS: u128 = 0xffff;
        let mut bounds = Vec::new();
        let chains = self.tables.iter().flat_map(|table| table.chains.values());
        for step in chains.flat_map(|chain| &chain.rules).flat_map(|rule| &rule.steps) {
            let keys = match step {
                Step::When(Condition::Test(test)) => &test.keys,
                Step::Map(map) => &map.keys,
                _ => continue,
            };
            // Only then are the ranges looked at: a set may hold a hundred thousand addresses.
            for (at, key) in keys.iter().enumerate().filter(|(_, key)| key.is_port()) {
                if key.mask & ALL_BITS != ALL_BITS {
                    return PortClasses::Single;
                }
                let mut add = |range: &Range| {
                    let of_key = range.get(at).into_iter();
                    bounds.extend(of_key.flat_map(|(low, high)| [*low, high.saturating_add(1)]));
                };
                match step {
                    Step::When(Condition::Test(test)) => test.within.iter().for_each(&mut add),
                    Step::Map(map) => map.entries.iter().for_each(|(range, _)| add(range)),
                    _ => {}
                }
            }
        }
        bounds.sort_unstable();
        bounds.dedup();
        PortClasses::Between(bounds)
    }

    pub fn table(&self, family: Family, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.family == family && table.name == name && table.backend == Backend::Nft)
    }

    /// The base chains that are called, with their tables.
    pub fn base_chains(&self) -> impl Iterator<Item = (&Table, &str, &Chain, &Base)> {
        let called = self.tables.iter().filter(|table| !table.dormant);
        called.flat_map(|table| {
            let based =
                table.chains.iter().filter_map(|(name, chain)| Some((name.as_str(), chain, chain.base.as_ref()?)));
            based.map(move |(name, chain, base)| (table, name, chain, base))
        })
    }
}
