//! The extensions of iptables as the kernel keeps them: structures of C, in the order of the machine
//! (`include/uapi/linux/netfilter/xt_*.h`). iptables-nft has them inside its rules of nf_tables.
//!
//! A match that is not known is a condition that is neither true nor false; a target that is not known may do anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::subjects::firewall::model::rules::{Condition, Field, Key, Step, Target, Verdict};

/// Bits of a connection's state that iptables counts in another way than nft.
pub const STATE_SNAT: u32 = 1 << 6;
pub const STATE_DNAT: u32 = 1 << 7;
pub const STATE_UNTRACKED: u32 = 1 << 8;

/// `IPS_SRC_NAT`, `IPS_DST_NAT` of `nf_conntrack_common.h`.
const STATUS_SNAT: u32 = 1 << 4;
const STATUS_DNAT: u32 = 1 << 5;
/// `NF_CT_STATE_UNTRACKED_BIT`.
const NFT_UNTRACKED: u32 = 1 << 6;

/// What a match asks; all of it must hold.
pub fn conditions(name: &str, revision: u32, information: &[u8], v6: Option<bool>) -> Vec<Condition> {
    let info = Information(information);
    let read = match (name, revision) {
        ("tcp", 0) => tcp(&info),
        ("udp", 0) => udp(&info),
        ("multiport", 1) => multiport(&info),
        ("conntrack", 1..=3) => conntrack(&info, revision, v6),
        ("state", 0) => info.u32(0).map(|mask| vec![state(mask, false)]),
        ("addrtype", 0..=1) => addrtype(&info, revision),
        ("mark", 1) => mark(&info, Field::Mark),
        ("connmark", 1) => mark(&info, Field::CtMark),
        ("iprange", 1) => iprange(&info, v6),
        ("pkttype", 0) => {
            (|| Some(vec![Condition::equals(Field::PacketType, info.u32(0)?.into(), info.u32(4)? != 0)]))()
        }
        // From the outside all packets come by the way that answers take: others have no answer.
        ("rpfilter", 0) => info.u8(0).map(|flags| {
            let (is_loose, inverted) = (flags & 1 != 0, flags & 8 != 0);
            let field = if is_loose { Field::FibSourceRouted } else { Field::FibSourcePresent };
            vec![Condition::equals(field, 1, inverted)]
        }),
        _ => None,
    };
    read.unwrap_or_else(|| vec![Condition::Other(format!("-m {name}"))])
}

/// What a target does.
pub fn target(name: &str, revision: u32, information: &[u8], v6: Option<bool>) -> Vec<Step> {
    let info = Information(information);
    let read = match (name, revision) {
        ("REJECT", _) => Some(Step::Verdict(Verdict::Reject)),
        ("MASQUERADE" | "SNAT", _) => Some(Step::Snat),
        ("DNAT", _) => dnat(&info, revision, v6),
        ("REDIRECT", _) => redirect(&info, v6),
        ("NFQUEUE" | "QUEUE", _) => Some(Step::Verdict(Verdict::Elsewhere("a queue to a program"))),
        ("MARK", 2) => (|| Some(Step::SetMark { keep: !info.u32(4)?, set: Some(info.u32(0)?) }))(),
        ("CONNMARK", 1..=2) => connmark(&info, revision),
        ("NOTRACK", _) => Some(Step::NoTrack),
        ("CT", _) => match info.u16(0) {
            Some(flags) if flags & 1 != 0 => Some(Step::NoTrack),
            Some(_) => return Vec::new(),
            None => None,
        },
        _ if is_harmless(name) => return Vec::new(),
        _ => None,
    };
    vec![read.unwrap_or_else(|| Step::Unknown(format!("-j {name}")))]
}

/// Targets that only note or change what no rule here looks at, and always go on with the next rule.
pub fn is_harmless(name: &str) -> bool {
    matches!(
        name,
        "LOG"
            | "NFLOG"
            | "ULOG"
            | "TRACE"
            | "AUDIT"
            | "TCPMSS"
            | "TCPOPTSTRIP"
            | "CHECKSUM"
            | "CLASSIFY"
            | "DSCP"
            | "TOS"
            | "ECN"
            | "TTL"
            | "HL"
            | "SET"
            | "TEE"
            | "LED"
            | "IDLETIMER"
            | "RATEEST"
            | "SECMARK"
            | "CONNSECMARK"
    )
}

/// `-m conntrack --ctstate`, with the bits of iptables: true when the connection is in one of the states.
pub fn state(mask: u32, negated: bool) -> Condition {
    let states = mask & 0xf | if mask & STATE_UNTRACKED != 0 { NFT_UNTRACKED } else { 0 };
    let status =
        if mask & STATE_SNAT != 0 { STATUS_SNAT } else { 0 } | if mask & STATE_DNAT != 0 { STATUS_DNAT } else { 0 };
    any_bit(&[(Field::CtState, states), (Field::CtStatus, status)], negated)
}

/// Whether any of the bits is set.
pub fn any_bit(bits: &[(Field, u32)], negated: bool) -> Condition {
    let keys: Vec<Key> = bits
        .iter()
        .filter(|(_, mask)| *mask != 0)
        .map(|(field, mask)| Key { field: *field, mask: (*mask).into() })
        .collect();
    if keys.is_empty() {
        return Condition::Constant(negated);
    }
    let none = vec![(0, 0); keys.len()].into_boxed_slice();
    Condition::Test(crate::subjects::firewall::model::rules::Test {
        keys,
        within: vec![none].into(),
        negated: !negated,
        set: None,
    })
}

/// Addresses masked.
pub fn masked_address(field: Field, address: IpAddr, mask: IpAddr, negated: bool) -> Condition {
    let (address, mask) = (
        crate::subjects::firewall::model::region::number(address),
        crate::subjects::firewall::model::region::number(mask),
    );
    let value = address & mask;
    Condition::masked(Key { field, mask }, [(value, value)], negated)
}

struct Information<'a>(&'a [u8]);

impl Information<'_> {
    fn u8(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.0.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
    }

    fn be16(&self, at: usize) -> Option<u16> {
        self.0.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.0.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
    }

    /// A `union nf_inet_addr`.
    fn address(&self, at: usize, v6: bool) -> Option<IpAddr> {
        Some(if v6 {
            Ipv6Addr::from(<[u8; 16]>::try_from(self.0.get(at..at + 16)?).ok()?).into()
        } else {
            Ipv4Addr::from(<[u8; 4]>::try_from(self.0.get(at..at + 4)?).ok()?).into()
        })
    }
}

fn ports(field: Field, low: u16, high: u16, negated: bool) -> Option<Condition> {
    let is_any = (low, high) == (0, u16::MAX) && !negated;
    (!is_any).then(|| Condition::within(field, [(low.into(), high.into())], negated))
}

fn tcp(info: &Information<'_>) -> Option<Vec<Condition>> {
    let (option, mask, compare, inverted) = (info.u8(8)?, info.u8(9)?, info.u8(10)?, info.u8(11)?);
    let mut all = Vec::new();
    all.extend(ports(Field::SourcePort, info.u16(0)?, info.u16(2)?, inverted & 1 != 0));
    all.extend(ports(Field::DestinationPort, info.u16(4)?, info.u16(6)?, inverted & 2 != 0));
    if mask != 0 || inverted & 4 != 0 {
        let value = u128::from(compare);
        let key = Key { field: Field::TcpFlags, mask: mask.into() };
        all.push(Condition::masked(key, [(value, value)], inverted & 4 != 0));
    }
    if option != 0 {
        all.push(Condition::Other("--tcp-option".into()));
    }
    Some(all)
}

fn udp(info: &Information<'_>) -> Option<Vec<Condition>> {
    let inverted = info.u8(8)?;
    let mut all = Vec::new();
    all.extend(ports(Field::SourcePort, info.u16(0)?, info.u16(2)?, inverted & 1 != 0));
    all.extend(ports(Field::DestinationPort, info.u16(4)?, info.u16(6)?, inverted & 2 != 0));
    Some(all)
}

fn multiport(info: &Information<'_>) -> Option<Vec<Condition>> {
    let (which, count, negated) = (info.u8(0)?, usize::from(info.u8(1)?), info.u8(47)? != 0);
    let (mut ranges, mut at) = (Vec::new(), 0);
    while at < count {
        let low = info.u16(2 + 2 * at)?;
        let mut high = low;
        if info.u8(32 + at)? != 0 {
            at += 1;
            high = info.u16(2 + 2 * at)?;
        }
        ranges.push((u128::from(low), u128::from(high)));
        at += 1;
    }
    Some(vec![match which {
        0 => Condition::within(Field::SourcePort, ranges, negated),
        1 => Condition::within(Field::DestinationPort, ranges, negated),
        _ => Condition::Other("-m multiport --ports".into()),
    }])
}

fn conntrack(info: &Information<'_>, revision: u32, v6: Option<bool>) -> Option<Vec<Condition>> {
    let (asked, inverted) = (info.u16(146)?, info.u16(148)?);
    let (state_mask, status_mask) = match revision {
        1 => (info.u8(150)?.into(), info.u8(151)?.into()),
        _ => (info.u16(150)?, info.u16(152)?),
    };
    let not = |flag: u16| inverted & flag != 0;
    let mut all = Vec::new();
    let address = |flag: u16, field, at| -> Option<Condition> {
        let v6 = v6?;
        Some(masked_address(field, info.address(at, v6)?, info.address(at + 16, v6)?, not(flag)))
    };
    let port = |flag: u16, field, at: usize, high_at: usize| -> Option<Condition> {
        let (low, high) =
            if revision == 3 { (info.u16(at)?, info.u16(high_at)?) } else { (info.be16(at)?, info.be16(at)?) };
        Some(Condition::within(field, [(low.into(), high.into())], not(flag)))
    };
    for flag in (0..16).map(|bit| 1_u16 << bit).filter(|flag| asked & flag != 0) {
        all.push(match flag {
            0x0001 => state(state_mask.into(), not(flag)),
            0x0002 => Condition::equals(Field::CtProtocol, info.u16(136)?.into(), not(flag)),
            0x0004 => address(flag, Field::CtOriginalSource, 0)?,
            0x0008 => address(flag, Field::CtOriginalDestination, 32)?,
            0x0010 => address(flag, Field::CtReplySource, 64)?,
            0x0040 => any_bit(&[(Field::CtStatus, status_mask.into())], not(flag)),
            0x0100 => port(flag, Field::CtOriginalSourcePort, 138, 154)?,
            0x0200 => port(flag, Field::CtOriginalDestinationPort, 140, 156)?,
            0x0400 => port(flag, Field::CtReplySourcePort, 142, 158)?,
            // `--ctdir ORIGINAL`; inverted, REPLY.
            0x1000 => Condition::equals(Field::CtDirection, 0, not(flag)),
            0x2000 => continue,
            _ => Condition::Other("-m conntrack".into()),
        });
    }
    Some(all)
}

/// Route types as iptables numbers them: a bit for each.
pub fn route_types(field: Field, mask: u16, negated: bool) -> Condition {
    let types = (0..16_u128).filter(|kind| mask & (1 << *kind) != 0).map(|kind| (kind, kind));
    Condition::within(field, types, negated)
}

fn addrtype(info: &Information<'_>, revision: u32) -> Option<Vec<Condition>> {
    let (source, destination) = (info.u16(0)?, info.u16(2)?);
    let (not_source, not_destination, here) = if revision == 0 {
        (info.u32(4)? != 0, info.u32(8)? != 0, false)
    } else {
        let flags = info.u32(4)?;
        (flags & 1 != 0, flags & 2 != 0, flags & 0xc != 0)
    };
    let mut all = Vec::new();
    if source != 0 {
        all.push(route_types(Field::FibSourceType, source, not_source));
    }
    if destination != 0 {
        let field = if here { Field::FibDestinationTypeHere } else { Field::FibDestinationType };
        all.push(route_types(field, destination, not_destination));
    }
    Some(all)
}

fn mark(info: &Information<'_>, field: Field) -> Option<Vec<Condition>> {
    let (value, mask) = (u128::from(info.u32(0)?), u128::from(info.u32(4)?));
    Some(vec![Condition::masked(Key { field, mask }, [(value, value)], info.u8(8)? != 0)])
}

fn iprange(info: &Information<'_>, v6: Option<bool>) -> Option<Vec<Condition>> {
    let (v6, flags) = (v6?, info.u8(64)?);
    let of = |field, at, negated| {
        let number = |at| info.address(at, v6).map(crate::subjects::firewall::model::region::number);
        Some(Condition::within(field, [(number(at)?, number(at + 16)?)], negated))
    };
    let mut all = Vec::new();
    if flags & 1 != 0 {
        all.push(of(Field::Source, 0, flags & 0x10 != 0)?);
    }
    if flags & 2 != 0 {
        all.push(of(Field::Destination, 32, flags & 0x20 != 0)?);
    }
    Some(all)
}

const MAP_ADDRESSES: u32 = 1;
const MAP_PORTS: u32 = 2;
/// All others but `NF_NAT_RANGE_PERSISTENT`.
const ODD: u32 = !(MAP_ADDRESSES | MAP_PORTS | 8);

/// `nf_nat_ipv4_multi_range_compat` of the old IPv4 targets, `nf_nat_range` and `nf_nat_range2` of the others.
fn dnat(info: &Information<'_>, revision: u32, v6: Option<bool>) -> Option<Step> {
    let v6 = v6?;
    let (flags, low, high, port_low, port_high) = if !v6 && revision == 0 {
        (info.u32(4)?, info.address(8, false)?, info.address(12, false)?, info.be16(16)?, info.be16(18)?)
    } else {
        (info.u32(0)?, info.address(4, v6)?, info.address(20, v6)?, info.be16(36)?, info.be16(38)?)
    };
    let is_one = (flags & MAP_ADDRESSES == 0 || low == high) && (flags & MAP_PORTS == 0 || port_low == port_high);
    Some(match (flags & MAP_ADDRESSES != 0, flags & ODD == 0 && is_one) {
        (_, false) => Step::Dnat { to: Target::Unknown, port: None },
        (mapped, true) => Step::Dnat {
            to: if mapped { Target::Address(low) } else { Target::Same },
            port: (flags & MAP_PORTS != 0).then_some(port_low),
        },
    })
}

fn redirect(info: &Information<'_>, v6: Option<bool>) -> Option<Step> {
    let (flags, low, high) = if v6? {
        (info.u32(0)?, info.be16(36)?, info.be16(38)?)
    } else {
        (info.u32(4)?, info.be16(16)?, info.be16(18)?)
    };
    let port = match (flags & MAP_PORTS != 0, low == high) {
        (false, _) => None,
        (true, true) => Some(low),
        (true, false) => return Some(Step::Dnat { to: Target::Unknown, port: None }),
    };
    Some(Step::Dnat { to: Target::Host, port })
}

fn connmark(info: &Information<'_>, revision: u32) -> Option<Step> {
    let (value, mask) = (info.u32(0)?, info.u32(4)?);
    let shifted = revision == 2 && info.u8(13)? != 0;
    Some(match info.u8(if revision == 1 { 12 } else { 14 })? {
        0 => Step::SetConnectionMark { keep: !mask, set: (!shifted).then_some(value) },
        1 => Step::SetConnectionMark { keep: 0, set: None },
        _ => Step::SetMark { keep: 0, set: None },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_condition(name in "tcp|udp|multiport|conntrack|state|addrtype|mark|iprange|pkttype|rpfilter|x",
            revision in 0_u32..4, bytes in prop::collection::vec(any::<u8>(), 0..170), v6 in any::<Option<bool>>()) {
            let _ = conditions(&name, revision, &bytes, v6);
        }

        #[test]
        fn any_bytes_are_a_target(name in "DNAT|REDIRECT|MARK|CONNMARK|CT|X", revision in 0_u32..3,
            bytes in prop::collection::vec(any::<u8>(), 0..60), v6 in any::<Option<bool>>()) {
            let _ = target(&name, revision, &bytes, v6);
        }
    }

    #[test]
    fn what_is_not_known_is_said_so() {
        assert_eq!(conditions("u32", 0, &[0; 64], Some(false)), [Condition::Other("-m u32".into())]);
        assert_eq!(conditions("tcp", 0, &[0; 3], Some(false)), [Condition::Other("-m tcp".into())]);
        assert_eq!(target("TPROXY", 1, &[0; 64], Some(false)), [Step::Unknown("-j TPROXY".into())]);
        assert_eq!(target("LOG", 0, &[], Some(false)), []);
    }
}
