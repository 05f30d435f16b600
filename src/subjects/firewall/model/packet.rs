//! What rules see of a new connection from outside, at each place on its way.

use std::net::IpAddr;

use super::region::{Dimension, Ranges, Region, number};
use super::rules::{Condition, Field, Hook, Key, Range, Test, text};
use crate::catalog::parameters::Protocol;
use crate::facts::network::Network;

/// An interface of the host, with its addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    /// Each with the prefix of the network it is in.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Interface {
    /// The networks that are reached by it without a gateway.
    pub fn networks(&self) -> impl Iterator<Item = Network> {
        self.addresses.iter().filter_map(|(address, prefix)| Network::around(*address, *prefix))
    }
}

/// How far conntrack has come with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracking {
    /// Before the hook of conntrack.
    Before,
    New,
    /// Told not to.
    Untracked,
}

/// Where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// The address it was sent to.
    Original,
    /// Rewritten to this one.
    Address(IpAddr),
    /// Rewritten to an address of the host.
    Host,
    Unknown,
}

/// The interface it leaves by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// None: it is not routed yet, or for the host itself.
    None,
    Interface {
        name: String,
        index: Option<u32>,
    },
    Unknown,
}

/// Everything about a packet but what its [`Region`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub hook: Hook,
    pub destination: Destination,
    pub port: Option<u16>,
    pub tracking: Tracking,
    /// Its destination was rewritten.
    pub rewritten: bool,
    pub mark: Option<u32>,
    pub connection_mark: Option<u32>,
    pub out: Out,
}

/// What stays the same on the whole way.
#[derive(Debug, Clone)]
pub struct Way<'a> {
    pub v6: bool,
    pub protocol: Protocol,
    /// The port it was sent to.
    pub port: u16,
    /// Where it came in.
    pub interface: &'a Interface,
    pub interfaces: &'a [Interface],
}

/// Boxes of several dimensions are cut out one by one; beyond this many it is not worth it.
const MAX_BOXES: usize = 4096;

enum Seen {
    Known(u128),
    Chosen(Dimension),
    Unknown,
    /// Reading it ends the rule.
    Ends,
}

impl Way<'_> {
    /// Which interface has an address; loopback is everywhere.
    pub fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback()
            || self.interfaces.iter().any(|interface| interface.addresses.iter().any(|(own, _)| *own == address))
    }

    #[expect(clippy::match_same_arms, reason = "in the order of the fields")]
    fn see(&self, packet: &Packet, region: &Region, key: Key) -> Seen {
        let looks_at = |bits: u128| key.mask & bits != 0;
        let tracked = packet.tracking == Tracking::New;
        let tracked = |seen: Seen| if tracked { seen } else { Seen::Ends };
        match key.field {
            Field::NfProto => Seen::Known(if self.v6 { 10 } else { 2 }),
            Field::EtherType => Seen::Known(if self.v6 { 0x86dd } else { 0x0800 }),
            Field::L4Proto => Seen::Known(self.protocol_number()),
            Field::Source => Seen::Chosen(Dimension::Source),
            Field::Destination => match packet.destination {
                Destination::Original => Seen::Chosen(Dimension::Destination),
                Destination::Address(address) => Seen::Known(number(address)),
                Destination::Host | Destination::Unknown => Seen::Unknown,
            },
            Field::SourcePort => Seen::Chosen(Dimension::SourcePort),
            Field::DestinationPort => packet.port.map_or(Seen::Unknown, |port| Seen::Known(port.into())),
            // The sender may or may not forbid fragments; it sends none.
            Field::Fragment if looks_at(0xc000) => Seen::Unknown,
            Field::Fragment => Seen::Known(0),
            Field::TcpFlags if self.protocol == Protocol::Tcp => Seen::Known(0x02),
            Field::TcpFlags => Seen::Unknown,
            Field::InName => Seen::Known(text(&self.interface.name)),
            Field::InIndex => Seen::Known(self.interface.index.into()),
            Field::OutName => match &packet.out {
                Out::None => Seen::Known(0),
                Out::Interface { name, .. } => Seen::Known(text(name)),
                Out::Unknown => Seen::Unknown,
            },
            Field::OutIndex => match &packet.out {
                Out::None => Seen::Known(0),
                Out::Interface { index: Some(index), .. } => Seen::Known((*index).into()),
                Out::Interface { index: None, .. } | Out::Unknown => Seen::Unknown,
            },
            Field::PacketType | Field::Secpath => Seen::Known(0),
            Field::Mark => packet.mark.map_or(Seen::Unknown, |mark| Seen::Known(mark.into())),
            Field::CtState => Seen::Known(match packet.tracking {
                Tracking::Before => 1,
                Tracking::New => 8,
                Tracking::Untracked => 64,
            }),
            // Bits beyond these are of no first packet, or say how far the kernel has come.
            Field::CtStatus if looks_at(!0x3f) => tracked(Seen::Unknown),
            Field::CtStatus => tracked(Seen::Known(if packet.rewritten { 0x20 } else { 0 })),
            Field::CtDirection => tracked(Seen::Known(0)),
            Field::CtMark => tracked(packet.connection_mark.map_or(Seen::Unknown, |mark| Seen::Known(mark.into()))),
            Field::CtFamily => tracked(Seen::Known(if self.v6 { 10 } else { 2 })),
            Field::CtProtocol => tracked(Seen::Known(self.protocol_number())),
            Field::CtOriginalSource => tracked(Seen::Chosen(Dimension::Source)),
            Field::CtOriginalDestination => tracked(Seen::Chosen(Dimension::Destination)),
            Field::CtOriginalSourcePort => tracked(Seen::Chosen(Dimension::SourcePort)),
            Field::CtOriginalDestinationPort => tracked(Seen::Known(self.port.into())),
            Field::CtReplySource => tracked(match packet.destination {
                Destination::Original => Seen::Chosen(Dimension::Destination),
                Destination::Address(address) => Seen::Known(number(address)),
                Destination::Host | Destination::Unknown => Seen::Unknown,
            }),
            Field::CtReplySourcePort => tracked(packet.port.map_or(Seen::Unknown, |port| Seen::Known(port.into()))),
            Field::FibDestinationType => match packet.destination {
                Destination::Original | Destination::Host => Seen::Known(LOCAL),
                Destination::Address(address) if self.is_local(address) => Seen::Known(LOCAL),
                Destination::Address(_) => Seen::Known(UNICAST),
                Destination::Unknown => Seen::Unknown,
            },
            Field::FibDestinationTypeHere => {
                let here = Ranges::new(self.interface.addresses.iter().map(|(own, _)| (number(*own), number(*own))));
                let all_here = region.blocks().iter().all(|block| block.destination.subtract(&here).is_empty());
                if packet.destination == Destination::Original && all_here { Seen::Known(LOCAL) } else { Seen::Unknown }
            }
            // Who is no stranger to the routes of this host: others would get no answer.
            Field::FibSourceType => Seen::Known(UNICAST),
            Field::FibSourceIndex => Seen::Known(self.interface.index.into()),
            Field::FibSourceName => Seen::Known(text(&self.interface.name)),
            Field::FibSourcePresent | Field::FibSourceRouted => Seen::Known(1),
        }
    }

    fn protocol_number(&self) -> u128 {
        match self.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }

    /// Those of which a condition may be true, and those of which it may be false. What is in both is not known.
    pub fn test(&self, condition: &Condition, packet: &Packet, region: Region) -> (Region, Region) {
        match condition {
            Condition::Constant(true) => (region, Region::default()),
            Condition::Constant(false) => (Region::default(), region),
            Condition::Other(_) => (region.clone(), region),
            Condition::Test(Test { keys, within, negated, .. }) => {
                let Some((inside, outside)) = self.boxes(keys, within, packet, region.clone()) else {
                    return (Region::default(), region);
                };
                if *negated { (outside, inside) } else { (inside, outside) }
            }
        }
    }

    /// Those that may lie in a box, and those that may lie in none. `None`: a key cannot be read, which ends the rule.
    pub fn boxes(&self, keys: &[Key], boxes: &[Range], packet: &Packet, region: Region) -> Option<(Region, Region)> {
        let seen: Vec<Seen> = keys.iter().map(|key| self.see(packet, &region, *key)).collect();
        if seen.iter().any(|seen| matches!(seen, Seen::Ends)) {
            return None;
        }
        let mut is_certain = !seen.iter().any(|seen| matches!(seen, Seen::Unknown));
        let is_possible = |range: &&Range| {
            keys.iter().zip(&seen).zip(range.iter()).all(|((key, seen), (low, high))| match seen {
                Seen::Known(value) => (low..=high).contains(&&(value & key.mask)),
                _ => true,
            })
        };
        let chosen: Vec<(usize, Dimension)> = seen
            .iter()
            .enumerate()
            .filter_map(|(at, seen)| if let Seen::Chosen(of) = seen { Some((at, *of)) } else { None })
            .collect();
        let possible = boxes.iter().filter(is_possible);
        let mut cut = |at: usize, range: &Range| -> Option<(u128, u128)> {
            let (key, (low, high)) = (keys.get(at)?, *range.get(at)?);
            let range = of_chosen(*key, low, high, self.v6);
            is_certain &= range.is_some();
            range
        };
        let (inside, outside) = match &chosen[..] {
            [] => {
                let mut possible = possible;
                if possible.next().is_some() { (region, Region::default()) } else { (Region::default(), region) }
            }
            [(at, dimension)] => {
                let mut whole = false;
                let ranges = Ranges::new(
                    possible
                        .filter_map(|range| {
                            let cut = cut(*at, range);
                            whole |= cut.is_none();
                            cut
                        })
                        .collect::<Vec<_>>(),
                );
                if whole { (region, Region::default()) } else { region.split(*dimension, &ranges) }
            }
            _ => {
                let possible: Vec<&Range> = possible.collect();
                if possible.len() > MAX_BOXES {
                    return Some((region.clone(), region));
                }
                let (mut inside, mut rest) = (Region::default(), region);
                for range in possible {
                    let mut within = rest.clone();
                    for (at, dimension) in &chosen {
                        if let Some(cut) = cut(*at, range) {
                            (within, _) = within.split(*dimension, &Ranges::new([cut]));
                        }
                    }
                    rest = rest.subtract(&within);
                    inside.add(within);
                }
                (inside, rest)
            }
        };
        if is_certain {
            return Some((inside, outside));
        }
        let mut may_be_outside = outside;
        may_be_outside.add(inside.clone());
        Some((inside, may_be_outside))
    }
}

pub(crate) const UNICAST: u128 = 1;
pub(crate) const LOCAL: u128 = 2;

/// The range that a key asks for; `None` when its mask makes no range.
fn of_chosen(key: Key, low: u128, high: u128, v6: bool) -> Option<(u128, u128)> {
    if key.mask == u128::MAX {
        return Some((low, high));
    }
    let width = match key.field {
        Field::SourcePort | Field::CtOriginalSourcePort => 16,
        _ if v6 => 128,
        _ => 32,
    };
    let all = u128::MAX >> (128 - width);
    let free = !key.mask & all;
    // The free bits are the last ones.
    let is_prefix = free & free.wrapping_add(1) == 0;
    (is_prefix && low == high).then_some((low, low | free))
}
