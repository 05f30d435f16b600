//! The expressions of one rule of nf_tables, one after the other, into steps.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::registers::{Byte, Comparison, Registers, field, host_field, place};
use super::{be32, be64, find, name, verdict_of};
use crate::subjects::firewall::model::rules::{Condition, Family, Field, Map, Set, Step, Target, Test, Verdict};
use crate::subjects::firewall::read::xtables;

const DATA_VALUE: u16 = 1;

/// Follows one rule.
#[derive(Debug)]
pub struct Translator<'a> {
    sets: &'a BTreeMap<String, Set>,
    registers: Registers,
    /// Whether the packet is known to be of IPv6 here: by the table, or by what the rule asked before.
    v6: Option<bool>,
    steps: Vec<Step>,
    comment: Option<String>,
}

/// The verdict in an attribute of data.
pub(crate) fn verdict(data: &[u8]) -> Option<Verdict> {
    const VERDICT: u16 = 2;
    const CODE: u16 = 1;
    const CHAIN: u16 = 2;
    let verdict = find(data, VERDICT)?;
    Some(verdict_of(be32(verdict, CODE)?.cast_signed(), name(verdict, CHAIN)))
}

impl<'a> Translator<'a> {
    pub fn new(family: Family, sets: &'a BTreeMap<String, Set>) -> Self {
        let v6 = match family {
            Family::Ip => Some(false),
            Family::Ip6 => Some(true),
            _ => None,
        };
        Self { sets, registers: Registers::default(), v6, steps: Vec::new(), comment: None }
    }

    pub fn finish(self) -> (Vec<Step>, Option<String>) {
        (self.steps, self.comment)
    }

    /// One expression. What cannot be read may do anything.
    pub fn take(&mut self, name: &str, data: &[u8]) {
        if self.try_take(name, data).is_none() {
            self.steps.push(Step::Unknown(if name.is_empty() { "a torn expression".into() } else { name.to_owned() }));
        }
    }

    fn other(&mut self, what: &str) {
        self.steps.push(Step::When(Condition::Other(what.to_owned())));
    }

    fn try_take(&mut self, name: &str, data: &[u8]) -> Option<()> {
        match name {
            "payload" => self.payload(data)?,
            "meta" => self.meta(data)?,
            "ct" => self.connection(data)?,
            "fib" => self.fib(data)?,
            "cmp" => self.compare(data)?,
            "range" => self.range(data)?,
            "bitwise" => self.bitwise(data)?,
            "byteorder" => self.byteorder(data)?,
            "immediate" => self.immediate(data)?,
            "lookup" => self.lookup(data)?,
            "nat" => self.nat(data)?,
            "redir" => {
                const PORT_MIN: u16 = 1;
                const PORT_MAX: u16 = 2;
                let (to, port) = match self.one_port(data, PORT_MIN, PORT_MAX) {
                    Some(port) => (Target::Host, port),
                    None => (Target::Unknown, None),
                };
                self.steps.push(Step::Dnat { to, port });
            }
            "masq" => self.steps.push(Step::Snat),
            "reject" => self.steps.push(Step::Verdict(Verdict::Reject)),
            "queue" => self.steps.push(Step::Verdict(Verdict::Elsewhere("a queue to a program"))),
            "notrack" => self.steps.push(Step::NoTrack),
            "counter" => {
                const BYTES: u16 = 1;
                const PACKETS: u16 = 2;
                self.steps.push(Step::Count { packets: be64(data, PACKETS)?, bytes: be64(data, BYTES)? });
            }
            "log" | "last" | "dup" | "flow_offload" => {}
            "limit" | "quota" | "connlimit" | "dynset" => self.other(name),
            "objref" => {
                const KIND: u16 = 1;
                const COUNTER: u32 = 1;
                const HELPER: u32 = 3;
                const TIMEOUT: u32 = 7;
                match be32(data, KIND) {
                    Some(COUNTER | HELPER | TIMEOUT) => {}
                    _ => self.other("a named object"),
                }
            }
            "match" => self.xt_match(data)?,
            "target" => self.xt_target(data)?,
            // These only load; without what they look at, the rule ends.
            "exthdr" | "rt" | "socket" | "osf" | "hash" | "numgen" | "tunnel" | "xfrm" => {
                const DESTINATION: u16 = 1;
                if let Some(at) = be32(data, DESTINATION).and_then(place) {
                    self.registers.load_unknown(at, 16);
                }
                self.other(name);
            }
            _ => return None,
        }
        Some(())
    }

    fn place(data: &[u8], attribute: u16) -> Option<usize> {
        be32(data, attribute).and_then(place)
    }

    fn payload(&mut self, data: &[u8]) -> Option<()> {
        const DESTINATION: u16 = 1;
        const BASE: u16 = 2;
        const OFFSET: u16 = 3;
        const LENGTH: u16 = 4;
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        let (base, offset, length) = (be32(data, BASE)?, be32(data, OFFSET)?, be32(data, LENGTH)?);
        // Without a destination it writes the header: only what is not looked at here may change unseen.
        let Some(at) = Self::place(data, DESTINATION) else {
            let bytes = offset..offset.checked_add(length)?;
            let looked_at = match base {
                NETWORK => bytes.end > 6,
                TRANSPORT => bytes.start < 4,
                _ => false,
            };
            return (!looked_at).then_some(());
        };
        let bytes: Vec<Byte> = (offset..offset.checked_add(length.min(64))?)
            .map(|at| match (base, self.v6) {
                (NETWORK, Some(v6)) => network_byte(v6, at),
                (TRANSPORT, _) => transport_byte(at),
                _ => Byte::Unknown,
            })
            .collect();
        self.registers.load(at, &bytes);
        Some(())
    }

    fn meta(&mut self, data: &[u8]) -> Option<()> {
        const DESTINATION: u16 = 1;
        const KEY: u16 = 2;
        const SOURCE: u16 = 3;
        const MARK: u32 = 3;
        let key = be32(data, KEY)?;
        let Some(at) = Self::place(data, DESTINATION) else {
            if key == MARK {
                let (keep, set) = self.marked(Self::place(data, SOURCE)?, Field::Mark);
                self.steps.push(Step::SetMark { keep, set });
            }
            return Some(());
        };
        let bytes = match key {
            1 => field(Field::EtherType, 2),
            MARK => host_field(Field::Mark, 4),
            4 => host_field(Field::InIndex, 4),
            5 => host_field(Field::OutIndex, 4),
            6 => field(Field::InName, 16),
            7 => field(Field::OutName, 16),
            15 => field(Field::NfProto, 1),
            16 => field(Field::L4Proto, 1),
            19 => field(Field::PacketType, 1),
            25 => field(Field::Secpath, 1),
            _ => vec![Byte::Unknown; 16],
        };
        self.registers.load(at, &bytes);
        Some(())
    }

    /// What a mark becomes: the bits that stay, and those that are flipped; `None` when it is not known.
    fn marked(&self, at: usize, own: Field) -> (u32, Option<u32>) {
        let (mut keep, mut set) = ([0_u8; 4], [0_u8; 4]);
        let bytes = self.registers.get(at, 4);
        for ((byte, place), (keep, set)) in
            bytes.iter().zip(host_field(own, 4)).zip(keep.iter_mut().zip(set.iter_mut()))
        {
            match (*byte, place) {
                (Byte::Constant(value), _) => *set = value,
                (Byte::Of { field, at, mask, flip, .. }, Byte::Of { at: here, .. }) if field == own && at == here => {
                    (*keep, *set) = (mask, flip);
                }
                _ => return (0, None),
            }
        }
        (u32::from_ne_bytes(keep), Some(u32::from_ne_bytes(set)))
    }

    fn connection(&mut self, data: &[u8]) -> Option<()> {
        const DESTINATION: u16 = 1;
        const KEY: u16 = 2;
        const DIRECTION: u16 = 3;
        const SOURCE: u16 = 4;
        const MARK: u32 = 3;
        let key = be32(data, KEY)?;
        let Some(at) = Self::place(data, DESTINATION) else {
            if key == MARK {
                let (keep, set) = self.marked(Self::place(data, SOURCE)?, Field::CtMark);
                self.steps.push(Step::SetConnectionMark { keep, set });
            }
            return Some(());
        };
        let direction = find(data, DIRECTION).and_then(|value| value.first().copied());
        // Of a connection of the other family they have nothing to read, and the rule ends (`nft_ct_get_eval`).
        match key {
            19 | 20 => self.only(false),
            21 | 22 => self.only(true),
            _ => {}
        }
        let address_bytes = if key == 21 || key == 22 || self.v6 == Some(true) { 16 } else { 4 };
        let bytes = match (key, direction) {
            (0, _) => host_field(Field::CtState, 4),
            (1, _) => field(Field::CtDirection, 1),
            (2, _) => host_field(Field::CtStatus, 4),
            (MARK, _) => host_field(Field::CtMark, 4),
            (7, _) => field(Field::CtFamily, 1),
            (8, Some(0)) if self.v6.is_some() => field(Field::CtOriginalSource, address_bytes),
            (9, Some(0)) if self.v6.is_some() => field(Field::CtOriginalDestination, address_bytes),
            (8, Some(1)) if self.v6.is_some() => field(Field::CtReplySource, address_bytes),
            (10, _) => field(Field::CtProtocol, 1),
            (11, Some(0)) => field(Field::CtOriginalSourcePort, 2),
            (12, Some(0)) => field(Field::CtOriginalDestinationPort, 2),
            (11, Some(1)) => field(Field::CtReplySourcePort, 2),
            (19 | 21, Some(0)) => field(Field::CtOriginalSource, address_bytes),
            (20 | 22, Some(0)) => field(Field::CtOriginalDestination, address_bytes),
            (19 | 21, Some(1)) => field(Field::CtReplySource, address_bytes),
            _ => vec![Byte::Unknown; 16],
        };
        self.registers.load(at, &bytes);
        Some(())
    }

    fn fib(&mut self, data: &[u8]) -> Option<()> {
        const DESTINATION: u16 = 1;
        const RESULT: u16 = 2;
        const FLAGS: u16 = 3;
        const SADDR: u32 = 1;
        const DADDR: u32 = 2;
        const IIF: u32 = 8;
        const PRESENT: u32 = 32;
        const MARK: u32 = 4;
        let (result, flags) = (be32(data, RESULT)?, be32(data, FLAGS)?);
        let bytes = match (result, flags & !MARK) {
            (3, DADDR) => host_field(Field::FibDestinationType, 4),
            (3, flags) if flags == DADDR | IIF => host_field(Field::FibDestinationTypeHere, 4),
            (3, SADDR) => host_field(Field::FibSourceType, 4),
            (1 | 2, flags) if flags & SADDR != 0 && flags & PRESENT != 0 => {
                field(if flags & IIF != 0 { Field::FibSourcePresent } else { Field::FibSourceRouted }, 1)
            }
            (1, flags) if flags & SADDR != 0 => host_field(Field::FibSourceIndex, 4),
            (2, flags) if flags & SADDR != 0 => field(Field::FibSourceName, 16),
            _ => vec![Byte::Unknown; 16],
        };
        self.registers.load(Self::place(data, DESTINATION)?, &bytes);
        Some(())
    }

    /// Goes on for one family only.
    fn only(&mut self, v6: bool) {
        if self.v6 != Some(v6) {
            self.when(Condition::equals(Field::NfProto, if v6 { 10 } else { 2 }, false));
        }
    }

    /// Keeps a condition, and what it says of the family.
    fn when(&mut self, condition: Condition) {
        if let Condition::Test(test) = &condition
            && !test.negated
            && let [key] = &test.keys[..]
            && let [range] = &test.within[..]
        {
            match (key.field, range.first()) {
                (Field::NfProto, Some((2, 2))) | (Field::EtherType, Some((0x0800, 0x0800))) => self.v6 = Some(false),
                (Field::NfProto, Some((10, 10))) | (Field::EtherType, Some((0x86dd, 0x86dd))) => self.v6 = Some(true),
                _ => {}
            }
        }
        self.steps.push(Step::When(condition));
    }

    fn compare(&mut self, data: &[u8]) -> Option<()> {
        const SOURCE: u16 = 1;
        const HOW: u16 = 2;
        const DATA: u16 = 3;
        let how = match be32(data, HOW)? {
            0 => Comparison::Equal,
            1 => Comparison::NotEqual,
            2 => Comparison::Less,
            3 => Comparison::LessOrEqual,
            4 => Comparison::Greater,
            5 => Comparison::GreaterOrEqual,
            _ => return None,
        };
        let value = find(find(data, DATA)?, DATA_VALUE)?;
        let condition = self.registers.compare(Self::place(data, SOURCE)?, value, how);
        self.when(condition);
        Some(())
    }

    fn range(&mut self, data: &[u8]) -> Option<()> {
        const SOURCE: u16 = 1;
        const HOW: u16 = 2;
        const FROM: u16 = 3;
        const TO: u16 = 4;
        let (low, high) = (find(find(data, FROM)?, DATA_VALUE)?, find(find(data, TO)?, DATA_VALUE)?);
        let condition = self.registers.range(Self::place(data, SOURCE)?, low, high, be32(data, HOW)? != 0);
        self.when(condition);
        Some(())
    }

    fn bitwise(&mut self, data: &[u8]) -> Option<()> {
        const SOURCE: u16 = 1;
        const DESTINATION: u16 = 2;
        const LENGTH: u16 = 3;
        const MASK: u16 = 4;
        const FLIP: u16 = 5;
        const OPERATION: u16 = 6;
        let to = Self::place(data, DESTINATION)?;
        if be32(data, OPERATION).unwrap_or_default() == 0 {
            let mask = find(find(data, MASK)?, DATA_VALUE)?;
            let flip = find(find(data, FLIP)?, DATA_VALUE)?;
            self.registers.mask(Self::place(data, SOURCE)?, to, mask, flip);
        } else {
            self.registers.load_unknown(to, usize::try_from(be32(data, LENGTH)?).ok()?);
        }
        Some(())
    }

    fn byteorder(&mut self, data: &[u8]) -> Option<()> {
        const SOURCE: u16 = 1;
        const DESTINATION: u16 = 2;
        const LENGTH: u16 = 4;
        const SIZE: u16 = 5;
        let (from, to) = (Self::place(data, SOURCE)?, Self::place(data, DESTINATION)?);
        let (length, unit) = (usize::try_from(be32(data, LENGTH)?).ok()?, usize::try_from(be32(data, SIZE)?).ok()?);
        if cfg!(target_endian = "little") {
            self.registers.swap(from, to, length.min(64), unit);
        } else {
            let bytes = self.registers.get(from, length.min(64)).to_vec();
            self.registers.load(to, &bytes);
        }
        Some(())
    }

    fn immediate(&mut self, data: &[u8]) -> Option<()> {
        const DESTINATION: u16 = 1;
        const DATA: u16 = 2;
        let value = find(data, DATA)?;
        if let Some(verdict) = verdict(value) {
            self.steps.push(Step::Verdict(verdict));
        } else {
            let bytes: Vec<Byte> = find(value, DATA_VALUE)?.iter().map(|byte| Byte::Constant(*byte)).collect();
            self.registers.load(Self::place(data, DESTINATION)?, &bytes);
        }
        Some(())
    }

    fn lookup(&mut self, data: &[u8]) -> Option<()> {
        const SET: u16 = 1;
        const SOURCE: u16 = 2;
        const DESTINATION: u16 = 3;
        const FLAGS: u16 = 5;
        const VERDICT_REGISTER: u32 = 0;
        let set_name = name(data, SET)?;
        let set = self.sets.get(&set_name)?;
        let at = Self::place(data, SOURCE)?;
        let uncertain = set.dynamic || set.incomplete;
        let read = self.registers.elements(at, set.key_bytes, &set.elements);
        let to = be32(data, DESTINATION);
        if to == Some(VERDICT_REGISTER) {
            let (keys, boxes) = read.clone().unwrap_or_default();
            let verdicts = set.elements.iter().map(|element| element.verdict.clone());
            let pairs = boxes.into_iter().zip(verdicts).filter_map(|(within, verdict)| within.zip(verdict));
            let mut entries: Vec<_> = pairs.collect();
            if read.is_none() {
                // Which entry holds is not known; which verdicts there are, is.
                entries = set
                    .elements
                    .iter()
                    .filter_map(|element| Some((Box::default(), element.verdict.clone()?)))
                    .collect();
            }
            let otherwise = set.catch_all.clone().flatten();
            self.steps.push(Step::Map(Map { keys, entries, otherwise, uncertain: uncertain || read.is_none() }));
            return Some(());
        }
        if let Some(to) = to {
            // A map to a value: what is looked up is not followed.
            self.registers.load_unknown(place(to)?, 16);
            if set.catch_all.is_some() {
                return Some(());
            }
        }
        let negated = be32(data, FLAGS).unwrap_or_default() & 1 != 0;
        let condition = match read {
            _ if uncertain => Condition::Other(format!("@{set_name}, which changes by itself")),
            _ if set.catch_all.is_some() => Condition::Constant(!negated),
            None => Condition::Other(format!("a look-up in @{set_name}")),
            Some((keys, boxes)) => {
                let within: Vec<_> = boxes.into_iter().flatten().collect();
                let named = (!set_name.starts_with("__set")).then(|| set_name.clone());
                if keys.is_empty() || within.is_empty() {
                    let test = Test { keys, within: Arc::new(Vec::new()), negated, set: named };
                    if test.keys.is_empty() { Condition::Constant(negated) } else { Condition::Test(test) }
                } else {
                    Condition::Test(Test { keys, within: Arc::new(within), negated, set: named })
                }
            }
        };
        self.when(condition);
        Some(())
    }

    /// The constant port in a register; without a register, none. `None`: it is no constant.
    #[expect(clippy::option_option, reason = "not given, and not known, are two things")]
    fn port(&self, data: &[u8], attribute: u16) -> Option<Option<u16>> {
        let Some(at) = Self::place(data, attribute) else { return Some(None) };
        let bytes = self.registers.constant(at, 2)?;
        Some(Some(u16::from_be_bytes(bytes.try_into().ok()?)))
    }

    /// The same of a range, when it is of one port.
    #[expect(clippy::option_option, reason = "not given, and not known, are two things")]
    fn one_port(&self, data: &[u8], low: u16, high: u16) -> Option<Option<u16>> {
        let port = self.port(data, low)?;
        (Self::place(data, high).is_none() || self.port(data, high)? == port).then_some(port)
    }

    fn nat(&mut self, data: &[u8]) -> Option<()> {
        const KIND: u16 = 1;
        const FAMILY: u16 = 2;
        const ADDRESS_MIN: u16 = 3;
        const ADDRESS_MAX: u16 = 4;
        const PORT_MIN: u16 = 5;
        const PORT_MAX: u16 = 6;
        const SNAT: u32 = 0;
        const V4: u32 = 2;
        const V6: u32 = 10;
        // In a table of both families, packets of the other one go on (`nft_nat_inet_eval`).
        match be32(data, FAMILY) {
            Some(V4) => self.only(false),
            Some(V6) => self.only(true),
            _ => {}
        }
        if be32(data, KIND)? == SNAT {
            self.steps.push(Step::Snat);
            return Some(());
        }
        let address = |at| -> Option<IpAddr> {
            Some(if be32(data, FAMILY)? == V6 {
                Ipv6Addr::from(<[u8; 16]>::try_from(self.registers.constant(at, 16)?).ok()?).into()
            } else {
                Ipv4Addr::from(<[u8; 4]>::try_from(self.registers.constant(at, 4)?).ok()?).into()
            })
        };
        let (low, high) = (Self::place(data, ADDRESS_MIN), Self::place(data, ADDRESS_MAX));
        let to = match (low, high) {
            (None, _) => Target::Same,
            (Some(low), high) => match (address(low), high.map(address)) {
                (Some(low), None) => Target::Address(low),
                (Some(low), Some(Some(high))) if low == high => Target::Address(low),
                _ => Target::Unknown,
            },
        };
        let (to, port) = match self.one_port(data, PORT_MIN, PORT_MAX) {
            Some(port) => (to, port),
            None => (Target::Unknown, None),
        };
        self.steps.push(Step::Dnat { to, port });
        Some(())
    }

    fn xt_match(&mut self, data: &[u8]) -> Option<()> {
        let (name, revision, information) = xt(data)?;
        if name == "comment" {
            self.comment = Some(super::text(information));
            return Some(());
        }
        for condition in xtables::conditions(&name, revision, information, self.v6) {
            self.when(condition);
        }
        Some(())
    }

    fn xt_target(&mut self, data: &[u8]) -> Option<()> {
        let (name, revision, information) = xt(data)?;
        self.steps.extend(xtables::target(&name, revision, information, self.v6));
        Some(())
    }
}

/// Name, revision and information of an extension of iptables.
fn xt(data: &[u8]) -> Option<(String, u32, &[u8])> {
    const NAME: u16 = 1;
    const REVISION: u16 = 2;
    const INFORMATION: u16 = 3;
    Some((name(data, NAME)?, be32(data, REVISION)?, find(data, INFORMATION)?))
}

fn network_byte(v6: bool, at: u32) -> Byte {
    let of = |field, width, first: u32| match u8::try_from(at - first) {
        Ok(at) => Byte::Of { field, width, at, mask: 0xff, flip: 0 },
        Err(_) => Byte::Unknown,
    };
    match (v6, at) {
        (false, 6..=7) => of(Field::Fragment, 2, 6),
        (false, 9) => of(Field::L4Proto, 1, 9),
        (false, 12..=15) => of(Field::Source, 4, 12),
        (false, 16..=19) => of(Field::Destination, 4, 16),
        (true, 6) => of(Field::L4Proto, 1, 6),
        (true, 8..=23) => of(Field::Source, 16, 8),
        (true, 24..=39) => of(Field::Destination, 16, 24),
        _ => Byte::Unknown,
    }
}

fn transport_byte(at: u32) -> Byte {
    let of = |field, width, first: u32| match u8::try_from(at - first) {
        Ok(at) => Byte::Of { field, width, at, mask: 0xff, flip: 0 },
        Err(_) => Byte::Unknown,
    };
    match at {
        0..=1 => of(Field::SourcePort, 2, 0),
        2..=3 => of(Field::DestinationPort, 2, 2),
        13 => of(Field::TcpFlags, 1, 13),
        _ => Byte::Unknown,
    }
}
