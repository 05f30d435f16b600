//! The tables of iptables-legacy, read into the rule model.
//!
//! A table is one block of entries: a packet header to compare, matches, a target. Chains are where the kernel enters the
//! block, and behind entries with the target ERROR, whose text is the chain's name. The layouts are those of
//! `include/uapi/linux/netfilter/x_tables.h`, `netfilter_ipv4/ip_tables.h` and `netfilter_ipv6/ip6_tables.h`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::nft::text;
use super::xtables::{self, masked_address};
use crate::host::describe;
use crate::host::xtables::{self as kernel, RawTable};
use crate::subjects::firewall::model::rules::{
    Backend, Base, Chain, Condition, Family, Field, Hook, Rule, Step, Table, Verdict,
};

/// Where the parts of `struct ipt_entry` and `struct ip6t_entry` are.
struct Layout {
    address_bytes: usize,
    names: usize,
    protocol: usize,
    flags: usize,
    inverted: usize,
    target_offset: usize,
    counters: usize,
    matches: usize,
}

const V4: Layout = Layout {
    address_bytes: 4,
    names: 16,
    protocol: 80,
    flags: 82,
    inverted: 83,
    target_offset: 88,
    counters: 96,
    matches: 112,
};
const V6: Layout = Layout {
    address_bytes: 16,
    names: 64,
    protocol: 128,
    flags: 131,
    inverted: 132,
    target_offset: 140,
    counters: 152,
    matches: 168,
};

/// `IFNAMSIZ`.
const NAME_BYTES: usize = 16;
/// `struct xt_entry_match` and `struct xt_entry_target`: the size, the name, the revision.
const EXTENSION_BYTES: usize = 32;

const INVERTED_IN: u8 = 0x01;
const INVERTED_OUT: u8 = 0x02;
const INVERTED_SOURCE: u8 = 0x08;
const INVERTED_DESTINATION: u8 = 0x10;
const INVERTED_PROTOCOL: u8 = 0x40;

const HOOKS: [Hook; 5] = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
const HOOK_NAMES: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Reads one table that the kernel has.
pub fn read(name: &str, v6: bool) -> Result<Table, String> {
    let place = || format!("the table {name} of {}tables-legacy", if v6 { "ip6" } else { "ip" });
    let raw = kernel::table(v6, name).map_err(|error| format!("{}: {}", place(), describe(&error)))?;
    parse(name, v6, &raw).ok_or_else(|| format!("{} is not laid out as is known", place()))
}

/// Reads one table; `None` when it is not laid out as expected.
pub fn parse(name: &str, v6: bool, raw: &RawTable) -> Option<Table> {
    let entries = entries(&raw.entries, if v6 { &V6 } else { &V4 })?;
    let starts: BTreeSet<usize> = entries.iter().map(|entry| entry.at).collect();
    let places = |hook: usize| -> Option<(usize, usize)> {
        let (start, policy) = (raw.hook_entry.get(hook)?, raw.underflow.get(hook)?);
        Some((usize::try_from(*start).ok()?, usize::try_from(*policy).ok()?))
    };
    let mut bases = BTreeMap::new();
    for hook in (0..HOOKS.len()).filter(|hook| raw.valid_hooks & (1 << hook) != 0) {
        let (start, policy) = places(hook)?;
        if !starts.contains(&start) || !starts.contains(&policy) || policy < start {
            return None;
        }
        bases.insert(start, (hook, policy));
    }
    // The names of chains by where their first rule is: that is what a jump names.
    let ends = |entry: &Raw<'_>| entry.error_name();
    let names: BTreeMap<usize, String> = entries.iter().filter_map(|entry| Some((entry.next, ends(entry)?))).collect();
    let mut chains: BTreeMap<String, Chain> = BTreeMap::new();
    let mut current: Option<(String, Option<usize>)> = None;
    for entry in &entries {
        if let Some((hook, policy)) = bases.get(&entry.at) {
            let base = Base {
                hook: HOOKS[*hook],
                priority: priority(name, *hook)?,
                nat: name == "nat",
                policy_drop: false,
                devices: Vec::new(),
            };
            chains.insert(HOOK_NAMES[*hook].to_owned(), Chain { base: Some(base), rules: Vec::new() });
            current = Some((HOOK_NAMES[*hook].to_owned(), Some(*policy)));
        }
        if let Some(chain) = ends(entry) {
            // The last of all has the name ERROR and begins nothing.
            current = starts.contains(&entry.next).then(|| {
                chains.entry(chain.clone()).or_default();
                (chain, None)
            });
            continue;
        }
        let (chain, policy) = current.clone()?;
        let chain = chains.get_mut(&chain)?;
        if policy == Some(entry.at) {
            if let Some(base) = &mut chain.base {
                base.policy_drop = entry.verdict()? == DROP;
            }
            current = None;
        } else {
            chain.rules.push(entry.rule(v6, &names)?);
        }
    }
    // A chain of a user ends with a return that nobody wrote.
    for chain in chains.values_mut().filter(|chain| chain.base.is_none()) {
        chain.rules.pop()?;
    }
    let family = if v6 { Family::Ip6 } else { Family::Ip };
    let (name, sets) = (name.to_owned(), BTreeMap::new());
    Some(Table { family, name, backend: Backend::Legacy, dormant: false, chains, sets })
}

/// `enum nf_ip_hook_priorities`.
fn priority(table: &str, hook: usize) -> Option<i32> {
    Some(match table {
        "raw" => -300,
        "mangle" => -150,
        // Rewriting of the destination before routing and for packets of the host, of the source at the end.
        "nat" => {
            if matches!(hook, 0 | 3) {
                -100
            } else {
                100
            }
        }
        "filter" => 0,
        "security" => 50,
        _ => return None,
    })
}

/// Verdicts of the kernel as a standard target holds them: `-NF_DROP - 1` and so on, `XT_RETURN`.
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
const RETURN: i32 = -5;

/// One entry in its place.
struct Raw<'a> {
    layout: &'a Layout,
    at: usize,
    next: usize,
    bytes: &'a [u8],
    matches: &'a [u8],
    target: Extension<'a>,
}

struct Extension<'a> {
    name: String,
    revision: u8,
    data: &'a [u8],
    size: usize,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes).map(usize::from)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

fn extension(bytes: &[u8]) -> Option<Extension<'_>> {
    let size = u16_at(bytes, 0)?;
    let data = bytes.get(EXTENSION_BYTES..size)?;
    let (name, revision) = (text(bytes.get(2..EXTENSION_BYTES - 1)?), *bytes.get(EXTENSION_BYTES - 1)?);
    Some(Extension { name, revision, data, size })
}

fn entries<'a>(block: &'a [u8], layout: &'a Layout) -> Option<Vec<Raw<'a>>> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < block.len() {
        let rest = block.get(at..)?;
        let (target, next) = (u16_at(rest, layout.target_offset)?, u16_at(rest, layout.target_offset + 2)?);
        let bytes = rest.get(..next).filter(|_| next >= layout.matches)?;
        let matches = bytes.get(layout.matches..target)?;
        all.push(Raw { layout, at, next: at + next, bytes, matches, target: extension(bytes.get(target..)?)? });
        at += next;
    }
    Some(all)
}

impl Raw<'_> {
    /// The name that an entry of the target ERROR gives to the chain behind it.
    fn error_name(&self) -> Option<String> {
        (self.target.name == "ERROR").then(|| text(self.target.data))
    }

    /// Of a standard target.
    fn verdict(&self) -> Option<i32> {
        let number = self.target.data.get(..4).filter(|_| self.target.name.is_empty())?;
        number.try_into().ok().map(i32::from_ne_bytes)
    }

    fn rule(&self, v6: bool, names: &BTreeMap<usize, String>) -> Option<Rule> {
        let mut steps: Vec<Step> = self.header(v6)?.into_iter().map(Step::When).collect();
        let mut rest = self.matches;
        while !rest.is_empty() {
            let one = extension(rest)?;
            let conditions = xtables::conditions(&one.name, one.revision.into(), one.data, Some(v6));
            steps.extend(conditions.into_iter().map(Step::When));
            rest = rest.get(one.size..).filter(|_| one.size > 0)?;
        }
        let at = self.layout.counters;
        steps.push(Step::Count { packets: u64_at(self.bytes, at)?, bytes: u64_at(self.bytes, at + 8)? });
        if let Some(number) = self.verdict() {
            steps.extend(self.standard(number, v6, names)?.map(Step::Verdict));
        } else {
            let target = &self.target;
            steps.extend(xtables::target(&target.name, target.revision.into(), target.data, Some(v6)));
        }
        Some(Rule { handle: None, text: None, steps })
    }

    /// `None` for a jump to nowhere; inside, `None` for a rule without a target, which is a jump to the next one.
    #[expect(clippy::option_option, reason = "a rule that does nothing is not one that cannot be read")]
    fn standard(&self, number: i32, v6: bool, names: &BTreeMap<usize, String>) -> Option<Option<Verdict>> {
        let goto = if v6 { 4 } else { 2 };
        Some(Some(match number {
            DROP => Verdict::Drop,
            ACCEPT => Verdict::Accept,
            RETURN => Verdict::Return,
            number if number < 0 => Verdict::Elsewhere("a queue to a program"),
            number => {
                let to = usize::try_from(number).ok()?;
                if to == self.next {
                    return Some(None);
                }
                let chain = names.get(&to)?.clone();
                let is_goto = self.bytes.get(self.layout.flags)? & goto != 0;
                if is_goto { Verdict::Goto(chain) } else { Verdict::Jump(chain) }
            }
        }))
    }

    /// What the entry itself compares: addresses, interfaces, the protocol.
    fn header(&self, v6: bool) -> Option<Vec<Condition>> {
        let (layout, bytes) = (self.layout, self.bytes);
        let inverted = *bytes.get(layout.inverted)?;
        let address = |index: usize| -> Option<IpAddr> {
            let at = index * layout.address_bytes;
            let bytes = bytes.get(at..at + layout.address_bytes)?;
            Some(if v6 {
                Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()
            } else {
                Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()
            })
        };
        let mut all = Vec::new();
        // In order: source, destination, and their masks.
        for (index, field, flag) in [(0, Field::Source, INVERTED_SOURCE), (1, Field::Destination, INVERTED_DESTINATION)]
        {
            let (value, mask) = (address(index)?, address(index + 2)?);
            if !mask.is_unspecified() || inverted & flag != 0 {
                all.push(masked_address(field, value, mask, inverted & flag != 0));
            }
        }
        for (index, field, flag) in [(0, Field::InName, INVERTED_IN), (1, Field::OutName, INVERTED_OUT)] {
            let part = |index: usize| {
                let at = layout.names + index * NAME_BYTES;
                bytes.get(at..at + NAME_BYTES)
            };
            let (name, mask) = (part(index)?, part(index + 2)?);
            let compared = mask.iter().take_while(|byte| **byte != 0).count();
            if compared > 0 {
                // A name is compared with its end; `eth+`, which stands there as it is written, without.
                let compared = name.get(..compared)?;
                let is_prefix = !compared.contains(&0) && compared.len() < NAME_BYTES;
                all.push(Condition::interface(field, &text(compared), is_prefix, inverted & flag != 0));
            }
        }
        let protocol = u16_at(bytes, layout.protocol)?;
        if protocol != 0 {
            let number = u128::try_from(protocol).ok()?;
            all.push(Condition::equals(Field::L4Proto, number, inverted & INVERTED_PROTOCOL != 0));
        }
        // Fragments of IPv4, the traffic class of IPv6: neither is followed here.
        let odd = if v6 { 2 } else { 1 };
        if *bytes.get(layout.flags)? & odd != 0 {
            all.push(Condition::Other(if v6 { "--tos" } else { "-f" }.to_owned()));
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As the kernel has `-i lo` and `! -i outs+`. With the `+` taken for a part of the name, a port counted as open that
    /// such a rule really kept closed.
    #[test]
    fn an_interface_is_a_name_or_how_it_begins() {
        let said = |name: &str, compared: usize, inverted: u8| {
            let mut entry = vec![0; V4.matches + 40];
            entry[V4.names..V4.names + name.len()].copy_from_slice(name.as_bytes());
            entry[V4.names + 2 * NAME_BYTES..][..compared].fill(0xff);
            entry[V4.inverted] = inverted;
            let offsets = [V4.matches, V4.matches + 40].map(|offset| u16::try_from(offset).unwrap().to_ne_bytes());
            entry[V4.target_offset..][..4].copy_from_slice(&offsets.concat());
            entry[V4.matches..][..2].copy_from_slice(&40_u16.to_ne_bytes());
            entries(&entry, &V4).unwrap()[0].header(false).unwrap()
        };
        assert_eq!(said("lo", 3, 0), [Condition::interface(Field::InName, "lo", false, false)]);
        assert_eq!(said("outs+", 4, INVERTED_IN), [Condition::interface(Field::InName, "outs", true, true)]);
        assert_eq!(said("", 0, 0), []);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_table_or_none(
            entries in prop::collection::vec(any::<u8>(), 0..600), hooks in any::<u32>(), at in any::<[u32; 5]>(), v6 in any::<bool>()
        ) {
            let raw = RawTable { valid_hooks: hooks, hook_entry: at, underflow: at, entries };
            let _ = parse("mangle", v6, &raw);
        }

        /// Entries with sizes that fit, so that what is behind the sizes is looked at.
        #[test]
        fn any_entry_is_read_or_refused(
            parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 80), "|ERROR|DROP|tcp", any::<i32>()), 0..6), v6 in any::<bool>()
        ) {
            let layout = if v6 { &V6 } else { &V4 };
            let (mut entries, size) = (Vec::new(), layout.matches + 72);
            for (noise, name, verdict) in parts {
                let mut entry = vec![0; size];
                entry[..80].copy_from_slice(&noise);
                let word = |number: usize| u16::try_from(number).unwrap().to_ne_bytes();
                entry[layout.target_offset..layout.target_offset + 2].copy_from_slice(&word(layout.matches + 32));
                entry[layout.target_offset + 2..layout.target_offset + 4].copy_from_slice(&word(size));
                entry[layout.matches..layout.matches + 2].copy_from_slice(&word(32));
                let target = layout.matches + 32;
                entry[target..target + 2].copy_from_slice(&word(40));
                entry[target + 2..target + 2 + name.len()].copy_from_slice(name.as_bytes());
                entry[target + 32..target + 36].copy_from_slice(&verdict.to_ne_bytes());
                entries.extend(entry);
            }
            let raw = RawTable { valid_hooks: 1, hook_entry: [0; 5], underflow: [u32::try_from(size).unwrap(); 5], entries };
            let _ = parse("mangle", v6, &raw);
        }
    }
}
