//! One rule of the guard in iptables: the few things that such a rule can ask, read from any text and written in one form.
//!
//! What is loaded is always written from here, so that no text of a journal becomes an option of a program.

use std::fmt;
use std::ops::RangeInclusive;

use super::{CHAIN, RESTRICT};
use crate::catalog::parameters::Protocol;
use crate::facts::network::Network;
use crate::subjects::firewall::model::region;
use crate::subjects::firewall::model::rules::{Condition, Field, Rule, Step, Test, Verdict, text};

/// What a rule of the guard asks and does. All of it must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one question that a rule can ask")]
pub struct RuleLine {
    /// Where it is from, and whether anything else is meant.
    pub source: Option<(Network, bool)>,
    pub destination: Option<Network>,
    /// From the host to itself.
    pub loopback: bool,
    /// Of a connection that is there already.
    pub established: bool,
    /// To which ports; at most [`SLOTS`] of them.
    pub ports: Option<(Protocol, Vec<RangeInclusive<u16>>)>,
    /// To an address of the host.
    pub local: bool,
    /// Answers would not go back where it came from.
    pub misrouted: bool,
    pub then: Then,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It goes on behind the guard: an accept would end the table for it.
    Return,
    Drop,
    /// On in the chain that lets in whom `allow` names.
    Restrict,
}

/// How many ports one match of `multiport` takes; a range counts twice (`XT_MULTI_PORTS`).
pub(crate) const SLOTS: usize = 15;

const LOOPBACK: &str = "lo";
const ESTABLISHED: &str = "RELATED,ESTABLISHED";
/// Bits of `ct state`: established and related.
const ESTABLISHED_BITS: u128 = 2 | 4;
/// `RTN_LOCAL`.
const LOCAL: u128 = 2;

impl RuleLine {
    pub fn new(then: Then) -> Self {
        Self {
            source: None,
            destination: None,
            loopback: false,
            established: false,
            ports: None,
            local: false,
            misrouted: false,
            then,
        }
    }

    /// From the options of a rule, in any order in which iptables writes them; `None` for anything that is not of the guard.
    pub fn parse(options: &str, v6: bool) -> Option<Self> {
        let network = |word: &str| word.parse::<Network>().ok().filter(|network| network.address().is_ipv6() == v6);
        let mut line = Self::new(Then::Return);
        let (mut protocol, mut ports, mut then) = (None, None, None);
        // Alone it asks the opposite.
        let mut is_asking_the_way = false;
        let mut words = options.split(' ');
        while let Some(word) = words.next() {
            let (word, negated) = if word == "!" { (words.next()?, true) } else { (word, false) };
            if (word, negated) == ("--invert", false) {
                line.misrouted = true;
                continue;
            }
            let value = words.next()?;
            match (word, negated) {
                ("-s", _) => line.source = Some((network(value)?, negated)),
                (_, true) => return None,
                ("-i", _) if value == LOOPBACK => line.loopback = true,
                ("-d", _) => line.destination = Some(network(value)?),
                ("-p", _) => protocol = Some(protocol_named(value)?),
                ("-m", _) if matches!(value, "tcp" | "udp" | "multiport" | "conntrack" | "addrtype") => {}
                ("-m", _) if value == "rpfilter" => is_asking_the_way = true,
                ("--dport" | "--dports", _) => ports = Some(parse_ports(value)?),
                ("--ctstate", _) if value == ESTABLISHED => line.established = true,
                ("--dst-type", _) if value == "LOCAL" => line.local = true,
                ("-j", _) if value == "RETURN" => then = Some(Then::Return),
                ("-j", _) if value == "DROP" => then = Some(Then::Drop),
                ("-g", _) if value == RESTRICT => then = Some(Then::Restrict),
                _ => return None,
            }
        }
        line.ports = match (protocol, ports) {
            (None, None) => None,
            (Some(protocol), Some(ports)) => Some((protocol, ports)),
            _ => return None,
        };
        (is_asking_the_way == line.misrouted).then_some(Self { then: then?, ..line })
    }

    /// The rule as the kernel has it; `None` when it asks or does anything else.
    pub fn of_rule(rule: &Rule, v6: bool) -> Option<Self> {
        let mut line = Self::new(Then::Return);
        let (mut protocol, mut ports, mut then) = (None, None, None);
        for step in &rule.steps {
            match step {
                Step::Count { .. } => {}
                Step::When(Condition::Test(test)) if then.is_none() => {
                    let [key] = &test.keys[..] else { return None };
                    let ranges: Vec<(u128, u128)> =
                        test.within.iter().filter_map(|range| range.first().copied()).collect();
                    match (key.field, test.negated) {
                        (Field::InName, false) if is_loopback(key.mask, &ranges) => line.loopback = true,
                        (Field::Source, negated) => line.source = Some((network(test, &ranges, v6)?, negated)),
                        (Field::FibSourcePresent, true) if ranges == [(1, 1)] => line.misrouted = true,
                        (Field::CtState, true) if key.mask == ESTABLISHED_BITS && ranges == [(0, 0)] => {
                            line.established = true;
                        }
                        (_, true) => return None,
                        (Field::Destination, _) => line.destination = Some(network(test, &ranges, v6)?),
                        (Field::L4Proto, _) => {
                            protocol = Some(match ranges[..] {
                                [(6, 6)] => Protocol::Tcp,
                                [(17, 17)] => Protocol::Udp,
                                _ => return None,
                            });
                        }
                        (Field::DestinationPort, _) if key.mask == u128::MAX => {
                            let range = |(low, high)| Some(u16::try_from(low).ok()?..=u16::try_from(high).ok()?);
                            ports = Some(ranges.into_iter().map(range).collect::<Option<Vec<_>>>()?);
                        }
                        (Field::FibDestinationType, _) if ranges == [(LOCAL, LOCAL)] => line.local = true,
                        _ => return None,
                    }
                }
                Step::Verdict(verdict) if then.is_none() => {
                    then = Some(match verdict {
                        Verdict::Return => Then::Return,
                        Verdict::Drop => Then::Drop,
                        Verdict::Goto(chain) if chain == RESTRICT => Then::Restrict,
                        _ => return None,
                    });
                }
                _ => return None,
            }
        }
        line.ports = match (protocol, ports) {
            (None, None) => None,
            (Some(protocol), Some(ports)) => Some((protocol, ports)),
            _ => return None,
        };
        Some(Self { then: then?, ..line })
    }
}

/// As iptables-save has it, in its order.
impl fmt::Display for RuleLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Everything is nothing that a rule asks.
        if let Some((network, negated)) = self.source.filter(|(network, _)| network.prefix() > 0) {
            write!(f, "{}-s {network} ", if negated { "! " } else { "" })?;
        }
        if let Some(network) = self.destination.filter(|network| network.prefix() > 0) {
            write!(f, "-d {network} ")?;
        }
        if self.loopback {
            write!(f, "-i {LOOPBACK} ")?;
        }
        if let Some((protocol, ports)) = &self.ports {
            let one = |range: &RangeInclusive<u16>| {
                let (first, last) = (range.start(), range.end());
                if first == last { first.to_string() } else { format!("{first}:{last}") }
            };
            let ports: Vec<String> = ports.iter().map(one).collect();
            write!(f, "-p {} -m multiport --dports {} ", protocol.name(), ports.join(","))?;
        }
        if self.established {
            write!(f, "-m conntrack --ctstate {ESTABLISHED} ")?;
        }
        if self.local {
            f.write_str("-m addrtype --dst-type LOCAL ")?;
        }
        if self.misrouted {
            f.write_str("-m rpfilter --invert ")?;
        }
        match self.then {
            Then::Return => f.write_str("-j RETURN"),
            Then::Drop => f.write_str("-j DROP"),
            Then::Restrict => write!(f, "-g {RESTRICT}"),
        }
    }
}

fn protocol_named(name: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp].into_iter().find(|protocol| protocol.name() == name)
}

fn parse_ports(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let one = |word: &str| {
        let (first, last) = word.split_once(':').unwrap_or((word, word));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    let ports = text.split(',').map(one).collect::<Option<Vec<_>>>()?;
    (ports.iter().all(|range| range.start() <= range.end()) && slots(&ports) <= SLOTS).then_some(ports)
}

/// How much room ports take.
pub(crate) fn slots(ports: &[RangeInclusive<u16>]) -> usize {
    ports.iter().map(|range| if range.start() == range.end() { 1 } else { 2 }).sum()
}

/// iptables-nft compares a name up to its end; a shorter comparison is that of `lo+`.
fn is_loopback(mask: u128, ranges: &[(u128, u128)]) -> bool {
    let name = text(LOOPBACK);
    let compared = mask.leading_ones();
    ranges == [(name, name)] && compared >= 24 && compared == mask.count_ones()
}

fn network(test: &Test, ranges: &[(u128, u128)], v6: bool) -> Option<Network> {
    let ([key], [(low, high)]) = (&test.keys[..], ranges) else { return None };
    let width = if v6 { u128::MAX } else { u128::from(u32::MAX) };
    let mask = key.mask & width;
    let prefix = u8::try_from(mask.count_ones()).ok()?;
    // A network's bits stand together at the front.
    let is_prefix = mask == width & !(width.checked_shr(prefix.into()).unwrap_or(0));
    let found = if mask == width {
        match Network::spanning(region::address(*low, v6), region::address(*high, v6))[..] {
            [network] => network,
            _ => return None,
        }
    } else {
        Network::around(region::address(*low, v6), prefix).filter(|_| low == high && is_prefix)?
    };
    Some(found)
}

/// Whether a rule of another chain ends in one of ours.
pub(crate) fn leads_here(rule: &str) -> bool {
    let mut from_the_end = rule.rsplit(' ');
    let (chain, flag) = (from_the_end.next(), from_the_end.next());
    matches!(chain, Some(CHAIN | RESTRICT)) && matches!(flag, Some("-j" | "-g"))
}
