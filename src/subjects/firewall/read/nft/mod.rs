//! The messages of nf_tables, read into the rule model: tables, chains, sets with their elements, rules.
//!
//! `include/uapi/linux/netfilter/nf_tables.h` has all numbers. Whatever is torn, unknown or does not fit becomes
//! something that is not known; nothing is skipped that could let a packet through or stop it.

pub mod expression;
mod loads;
mod nat;
pub mod registers;

use std::collections::BTreeMap;

use crate::host::netlink::{attributes, messages};
use crate::host::nfnetlink::{GENERIC_BYTES, NEW_CHAIN, NEW_RULE, NEW_SET, NEW_SET_ELEMENTS, NEW_TABLE};
use crate::subjects::firewall::model::rules::{
    Backend, Base, Chain, Element, Family, Hook, Rule, Ruleset, Set, Table, Verdict,
};

/// The value of an attribute.
pub(crate) fn find(attributes_of: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(attributes_of).find(|(number, _)| *number == wanted).map(|(_, value)| value)
}

pub(crate) fn be32(attributes_of: &[u8], wanted: u16) -> Option<u32> {
    find(attributes_of, wanted)?.get(..4)?.try_into().ok().map(u32::from_be_bytes)
}

fn be64(attributes_of: &[u8], wanted: u16) -> Option<u64> {
    find(attributes_of, wanted)?.get(..8)?.try_into().ok().map(u64::from_be_bytes)
}

pub(crate) fn name(attributes_of: &[u8], wanted: u16) -> Option<String> {
    find(attributes_of, wanted).map(text)
}

/// A name of the kernel, up to its NUL.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

fn family(number: u8) -> Family {
    match number {
        1 => Family::Inet,
        2 => Family::Ip,
        3 => Family::Arp,
        5 => Family::Netdev,
        7 => Family::Bridge,
        10 => Family::Ip6,
        _ => Family::Other,
    }
}

/// Reads what `host::nfnetlink::ruleset` hands on: tables before chains, sets and rules.
pub fn parse(bytes: &[u8]) -> Ruleset {
    let mut ruleset = Ruleset::default();
    let of_kind = |kind| {
        messages(bytes)
            .filter(move |message| message.kind == kind)
            .filter_map(|message| Some((family(*message.payload.first()?), message.payload.get(GENERIC_BYTES..)?)))
    };
    for (family, body) in of_kind(NEW_TABLE) {
        const NAME: u16 = 1;
        const FLAGS: u16 = 2;
        const DORMANT: u32 = 1;
        let Some(name) = name(body, NAME) else { continue };
        let dormant = be32(body, FLAGS).unwrap_or_default() & DORMANT != 0;
        let (chains, sets) = (BTreeMap::new(), BTreeMap::new());
        ruleset.tables.push(Table { family, name, backend: Backend::Nft, dormant, chains, sets });
    }
    for (family, body) in of_kind(NEW_CHAIN) {
        let Some((name, chain)) = chain(family, body) else { continue };
        if let Some(table) = table_of(&mut ruleset, family, body) {
            table.chains.insert(name, chain);
        }
    }
    for (family, body) in of_kind(NEW_SET) {
        let Some((name, set)) = set(body) else { continue };
        if let Some(table) = table_of(&mut ruleset, family, body) {
            table.sets.insert(name, set);
        }
    }
    for (family, body) in of_kind(NEW_SET_ELEMENTS) {
        const SET: u16 = 2;
        let Some(name) = name(body, SET) else { continue };
        if let Some(set) = table_of(&mut ruleset, family, body).and_then(|table| table.sets.get_mut(&name)) {
            add_elements(set, body);
        }
    }
    for table in &mut ruleset.tables {
        table.sets.values_mut().for_each(close);
    }
    for (family, body) in of_kind(NEW_RULE) {
        const CHAIN: u16 = 2;
        let Some(name) = name(body, CHAIN) else { continue };
        let Some(table) = table_of(&mut ruleset, family, body) else { continue };
        let rule = rule(family, body, &table.sets);
        table.chains.entry(name).or_default().rules.push(rule);
    }
    ruleset
}

/// The table an object names; all objects but tables have its name as their first attribute.
fn table_of<'a>(ruleset: &'a mut Ruleset, family: Family, body: &[u8]) -> Option<&'a mut Table> {
    const TABLE: u16 = 1;
    let name = name(body, TABLE)?;
    ruleset.tables.iter_mut().find(|table| table.family == family && table.name == name)
}

fn chain(family: Family, body: &[u8]) -> Option<(String, Chain)> {
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    const TYPE: u16 = 7;
    let name_of = name(body, NAME)?;
    let base = find(body, HOOK).map(|hook_of| {
        const NUMBER: u16 = 1;
        const PRIORITY: u16 = 2;
        const DEVICE: u16 = 3;
        const DEVICES: u16 = 4;
        // Linux 6.16 and later also bind to all devices whose names start so.
        const PREFIX: u16 = 2;
        let device = |(kind, name)| if kind == PREFIX { format!("{}*", text(name)) } else { text(name) };
        let devices = find(hook_of, DEVICES).map(|list| attributes(list).map(device).collect());
        Base {
            hook: be32(hook_of, NUMBER).map_or(Hook::Other, |number| hook(family, number)),
            priority: be32(hook_of, PRIORITY).unwrap_or_default().cast_signed(),
            nat: name(body, TYPE).is_some_and(|kind| kind == "nat"),
            policy_drop: be32(body, POLICY) == Some(0),
            devices: devices.or_else(|| Some(vec![name(hook_of, DEVICE)?])).unwrap_or_default(),
        }
    });
    Some((name_of, Chain { base, rules: Vec::new() }))
}

fn hook(family: Family, number: u32) -> Hook {
    match (family, number) {
        (Family::Netdev, 0) | (Family::Inet, 5) => Hook::Ingress,
        (Family::Netdev, 1) => Hook::Egress,
        (Family::Ip | Family::Ip6 | Family::Inet | Family::Bridge, 0) => Hook::Prerouting,
        (Family::Ip | Family::Ip6 | Family::Inet | Family::Bridge, 1) => Hook::Input,
        (Family::Ip | Family::Ip6 | Family::Inet | Family::Bridge, 2) => Hook::Forward,
        (Family::Ip | Family::Ip6 | Family::Inet | Family::Bridge, 3) => Hook::Output,
        (Family::Ip | Family::Ip6 | Family::Inet | Family::Bridge, 4) => Hook::Postrouting,
        _ => Hook::Other,
    }
}

fn set(body: &[u8]) -> Option<(String, Set)> {
    const NAME: u16 = 2;
    const FLAGS: u16 = 3;
    const KEY_TYPE: u16 = 4;
    const KEY_LENGTH: u16 = 5;
    const INTERVAL: u32 = 4;
    const EVAL: u32 = 0x20;
    let flags = be32(body, FLAGS).unwrap_or_default();
    let set = Set {
        key_type: be32(body, KEY_TYPE).unwrap_or_default(),
        key_bytes: be32(body, KEY_LENGTH).and_then(|length| usize::try_from(length).ok()).unwrap_or_default(),
        interval: flags & INTERVAL != 0,
        dynamic: flags & EVAL != 0,
        ..Set::default()
    };
    Some((name(body, NAME)?, set))
}

/// Adds the elements of one message. Until [`close`], an end of an interval is an element without a `to`.
fn add_elements(set: &mut Set, body: &[u8]) {
    const ELEMENTS: u16 = 3;
    const KEY: u16 = 1;
    const DATA: u16 = 2;
    const FLAGS: u16 = 3;
    const KEY_END: u16 = 10;
    const INTERVAL_END: u32 = 1;
    const CATCH_ALL: u32 = 2;
    const VALUE: u16 = 1;
    for (_, element) in attributes(find(body, ELEMENTS).unwrap_or_default()) {
        let flags = be32(element, FLAGS).unwrap_or_default();
        let verdict = find(element, DATA).and_then(expression::verdict);
        if flags & CATCH_ALL != 0 {
            set.catch_all = Some(verdict);
            continue;
        }
        let key = |number| Some(Box::<[u8]>::from(find(find(element, number)?, VALUE)?));
        let Some(from) = key(KEY) else {
            set.incomplete = true;
            continue;
        };
        let to = match key(KEY_END) {
            Some(to) => to,
            None if flags & INTERVAL_END != 0 => Box::default(),
            None => from.clone(),
        };
        set.elements.push(Element { from, to, verdict });
    }
}

/// Sorts, and makes one element of the begin and the end that the kernel lists for an interval.
fn close(set: &mut Set) {
    // An end comes before the begin of the next interval at the same place.
    set.elements.sort_by(|a, b| a.from.cmp(&b.from).then(a.to.len().cmp(&b.to.len())));
    let is_end = |element: &Element| element.to.is_empty();
    // Concatenations of ranges have both ends in one element.
    let has_both = |element: &Element| !is_end(element) && element.from != element.to;
    if !set.interval || set.elements.iter().any(has_both) || set.is_concatenation() {
        set.elements.retain(|element| !is_end(element));
        return;
    }
    let mut closed: Vec<Element> = Vec::with_capacity(set.elements.len() / 2 + 1);
    let mut elements = std::mem::take(&mut set.elements).into_iter().peekable();
    while let Some(mut element) = elements.next() {
        if is_end(&element) {
            continue;
        }
        element.to = match elements.peek() {
            Some(next) => before(&next.from),
            // Up to the last of all keys.
            None => vec![0xff; element.from.len()].into(),
        };
        closed.push(element);
    }
    set.elements = closed;
}

/// The key before a key.
fn before(key: &[u8]) -> Box<[u8]> {
    let mut bytes: Box<[u8]> = key.into();
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != 0xff {
            break;
        }
    }
    bytes
}

fn rule(family: Family, body: &[u8], sets: &BTreeMap<String, Set>) -> Rule {
    const HANDLE: u16 = 3;
    const EXPRESSIONS: u16 = 4;
    const USER_DATA: u16 = 7;
    let mut translator = expression::Translator::new(family, sets);
    for (_, one) in attributes(find(body, EXPRESSIONS).unwrap_or_default()) {
        const NAME: u16 = 1;
        const DATA: u16 = 2;
        translator.take(&name(one, NAME).unwrap_or_default(), find(one, DATA).unwrap_or_default());
    }
    let (steps, comment) = translator.finish();
    Rule { handle: be64(body, HANDLE), text: comment.or_else(|| user_comment(find(body, USER_DATA)?)), steps }
}

/// The comment that nft keeps in a rule's user data: type, length, value.
fn user_comment(mut bytes: &[u8]) -> Option<String> {
    const COMMENT: u8 = 0;
    while let [kind, length, rest @ ..] = bytes {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text(value));
        }
        bytes = rest.get(usize::from(*length)..)?;
    }
    None
}

/// What a verdict of the kernel is here.
pub(crate) fn verdict_of(code: i32, chain: Option<String>) -> Verdict {
    match (code, chain) {
        (0, _) => Verdict::Drop,
        (1, _) => Verdict::Accept,
        (-1 | -2, _) => Verdict::Continue,
        (-3, Some(chain)) => Verdict::Jump(chain),
        (-4, Some(chain)) => Verdict::Goto(chain),
        (-5, _) => Verdict::Return,
        _ => Verdict::Elsewhere("another verdict"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netlink::attribute;
    use proptest::prelude::*;

    fn message(kind: u16, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(20 + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([family, 0, 0, 0]);
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn begins_and_ends_become_intervals() {
        let element = |key: u8, to: u8| Element {
            from: Box::from([key]),
            to: if to == 0 { Box::default() } else { Box::from([to]) },
            verdict: None,
        };
        // As the kernel lists 3-4, 5 and 250 to the last; an end stands before the begin of the next.
        let elements =
            vec![element(250, 250), element(6, 0), element(5, 5), element(5, 0), element(3, 3), element(0, 0)];
        let mut set = Set { key_bytes: 1, interval: true, elements, ..Set::default() };
        close(&mut set);
        assert_eq!(set.ranges().unwrap(), [(3, 4), (5, 5), (250, 255)]);
    }

    /// In a table of both families: else IPv6 goes where only IPv4 does.
    #[test]
    fn what_one_family_has_ends_the_rule_for_the_other() {
        use crate::subjects::firewall::model::rules::{Condition, Field, Step, Target};
        let sets = BTreeMap::new();
        let steps = |name: &str, data: &[(u16, u32)]| {
            let mut translator = expression::Translator::new(Family::Inet, &sets);
            let data: Vec<u8> =
                data.iter().flat_map(|(number, value)| attribute(*number, &value.to_be_bytes())).collect();
            translator.take(name, &data);
            translator.finish().0
        };
        let only = |number| Step::When(Condition::equals(Field::NfProto, number, false));
        // `ct original ip saddr`, `ct original ip6 daddr`, `dnat ip6 to`.
        assert_eq!(steps("ct", &[(1, 1), (2, 19), (3, 0)]), [only(2)]);
        assert_eq!(steps("ct", &[(1, 1), (2, 22), (3, 0)]), [only(10)]);
        assert_eq!(steps("nat", &[(1, 1), (2, 10)]), [only(10), Step::Dnat { to: Target::Same, port: None }]);
    }

    proptest! {
        /// Bytes that get past the headers: a table with a chain and a set, then anything.
        #[test]
        fn any_object_is_read_or_left_out(
            family in prop_oneof![Just(1_u8), Just(2), Just(10), any::<u8>()],
            kind in prop_oneof![Just(NEW_CHAIN), Just(NEW_RULE), Just(NEW_SET), Just(NEW_SET_ELEMENTS)],
            attributes in prop::collection::vec((0_u16..12, prop::collection::vec(any::<u8>(), 0..60)), 0..6),
        ) {
            let mut bytes = message(NEW_TABLE, family, &attribute(1, b"t\0"));
            let rest: Vec<u8> = attributes.iter().flat_map(|(number, value)| attribute(*number, value)).collect();
            let body = [attribute(1, b"t\0"), attribute(2, b"s\0"), rest].concat();
            bytes.extend(message(kind, family, &body));
            let _ = parse(&bytes);
        }

        #[test]
        fn any_expression_is_read_or_unknown(
            name in "payload|meta|ct|fib|cmp|range|bitwise|byteorder|immediate|lookup|nat|redir|match|target|objref|counter|x",
            attributes in prop::collection::vec((1_u16..8, prop_oneof![
                prop::collection::vec(any::<u8>(), 0..24),
                (0_u32..24).prop_map(|number| number.to_be_bytes().to_vec()),
            ]), 0..7),
        ) {
            let sets = BTreeMap::from([("s".to_owned(), Set { key_bytes: 4, ..Set::default() })]);
            let mut translator = expression::Translator::new(Family::Inet, &sets);
            let data: Vec<u8> = attributes.iter().flat_map(|(number, value)| attribute(*number, value)).collect();
            translator.take(&name, &data);
            translator.take("cmp", &data);
            let _ = translator.finish();
        }
    }
}
