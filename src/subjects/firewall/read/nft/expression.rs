//! The expressions of one rule of nf_tables, one after the other, into steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::registers::{Byte, Comparison, Registers, place};
use super::{be32, be64, find, name, verdict_of};
use crate::subjects::firewall::model::rules::{Condition, Family, Field, Map, Set, Step, Target, Test, Verdict};
use crate::subjects::firewall::read::xtables;

const DATA_VALUE: u16 = 1;

/// Follows one rule.
#[derive(Debug)]
pub struct Translator<'a> {
    sets: &'a BTreeMap<String, Set>,
    pub(super) registers: Registers,
    /// Whether the packet is known to be of IPv6 here: by the table, or by what the rule asked before.
    pub(super) v6: Option<bool>,
    pub(super) steps: Vec<Step>,
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

    pub(super) fn place(data: &[u8], attribute: u16) -> Option<usize> {
        be32(data, attribute).and_then(place)
    }

    /// Goes on for one family only.
    pub(super) fn only(&mut self, v6: bool) {
        if self.v6 != Some(v6) {
            self.when(Condition::equals(Field::NfProto, if v6 { 10 } else { 2 }, false));
        }
    }

    /// Keeps a condition, and what it says of the family.
    pub(super) fn when(&mut self, condition: Condition) {
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
