//! Rule sets in one form, whoever wrote them: nft, iptables over nf_tables, or the old iptables.
//!
//! A rule is a list of steps, in the order in which the kernel takes them. What preflight does not understand is kept as
//! what it may be: a condition that is neither true nor false, or a statement that may do anything.

mod condition;
mod field;
mod ports;
mod sets;
mod verdict;

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use self::condition::{Condition, Key, Range, Test, text};
pub use self::field::Field;
pub use self::ports::PortClasses;
pub use self::sets::{Element, Map, Set};
pub use self::verdict::Verdict;

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

impl Ruleset {
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
