//! Which zone firewalld takes an interface or a source for at run time, told from its own rules. A binding that its files
//! do not have is gone with the next reload; one that only they have comes with it.

use std::collections::BTreeMap;

use crate::facts::network::Network;
use crate::subjects::firewall::model::firewalld::Zone;
use crate::subjects::firewall::model::region;
use crate::subjects::firewall::model::rules::{Condition, Field, Rule, Ruleset, Step, Test, Verdict, text};

/// The chains that choose a zone, sources before interfaces: of firewalld's own table, and of iptables where that is its
/// backend. Those for sources alone are of firewalld before 1.0.
const CHAINS: [&str; 4] = ["filter_INPUT_ZONES_SOURCE", "filter_INPUT_ZONES", "INPUT_ZONES_SOURCE", "INPUT_ZONES"];
/// What the chain of a zone is called.
const OF_ZONE: [&str; 2] = ["filter_IN_", "IN_"];

/// What the running firewalld does otherwise than its files say, in words; `None` when it has no such chains here. `by_files`
/// is each interface with its zone.
pub(crate) fn differences(
    rules: &Ruleset,
    by_files: &[(String, String)],
    zones: &BTreeMap<String, (Zone, String)>,
) -> Option<Vec<String>> {
    let chains: Vec<_> =
        CHAINS.iter().flat_map(|name| rules.tables.iter().filter_map(|table| table.chains.get(*name))).collect();
    let choosing: Vec<(&Rule, &str)> =
        chains.iter().flat_map(|chain| &chain.rules).filter_map(|rule| Some((rule, zone(rule)?))).collect();
    if chains.is_empty() {
        return None;
    }
    let mut found = Vec::new();
    for (interface, by_file) in by_files {
        let now = choosing.iter().find(|(rule, _)| takes(rule, interface)).map(|(_, zone)| *zone);
        match now {
            Some(zone) if zone == by_file => {}
            Some(zone) => found.push(format!("{interface} is in the zone {zone} now, and in {by_file} by the files")),
            None => found.push(format!("{interface} is in no zone now, and in {by_file} by the files")),
        }
    }
    let now: Vec<(Network, &str)> = choosing
        .iter()
        .flat_map(|(rule, zone)| sources(rule).into_iter().map(move |network| (network, *zone)))
        .collect();
    let by_file = zones.iter().flat_map(|(name, (zone, _))| zone.sources.iter().map(move |source| (*source, &**name)));
    let by_file: Vec<(Network, &str)> = by_file.collect();
    let missing = |of: &[(Network, &str)], from: &[(Network, &str)], words: &str| {
        let missing = of.iter().filter(|it| !from.contains(it));
        missing.map(|(network, zone)| format!("{network} is in the zone {zone} {words}")).collect::<Vec<_>>()
    };
    found.extend(missing(&now, &by_file, "now, and not by the files"));
    found.extend(missing(&by_file, &now, "by the files, and not now"));
    found.dedup();
    Some(found)
}

/// The zone that a rule chooses.
fn zone(rule: &Rule) -> Option<&str> {
    rule.steps.iter().find_map(|step| {
        let Step::Verdict(Verdict::Goto(chain) | Verdict::Jump(chain)) = step else { return None };
        OF_ZONE.iter().find_map(|start| chain.strip_prefix(start))
    })
}

fn tests(rule: &Rule) -> impl Iterator<Item = &Test> {
    rule.steps.iter().filter_map(|step| if let Step::When(Condition::Test(test)) = step { Some(test) } else { None })
}

/// Whether a rule chooses by this interface, or takes all that is left.
fn takes(rule: &Rule, interface: &str) -> bool {
    let name = text(interface);
    let is_asked = |step: &Step| match step {
        Step::When(Condition::Test(test)) if test.keys.iter().all(|key| key.field == Field::NfProto) => true,
        Step::When(Condition::Test(test)) => {
            test.keys.iter().all(|key| key.field == Field::InName)
                && test.within.iter().any(|range| range.iter().all(|(low, high)| (*low..=*high).contains(&name)))
        }
        Step::When(Condition::Constant(always)) => *always,
        Step::When(Condition::Other(_)) => false,
        _ => true,
    };
    rule.steps.iter().all(is_asked)
}

/// The networks that a rule chooses by; of a set, which is an ipset here, none.
fn sources(rule: &Rule) -> Vec<Network> {
    let is_ipv6 = |test: &Test| {
        test.keys.iter().all(|key| key.field == Field::NfProto) && test.within.iter().all(|range| **range == [(10, 10)])
    };
    // A rule of a table of IPv6 alone does not ask; its networks are no small numbers.
    let v6 = |low: u128| tests(rule).any(is_ipv6) || low > u128::from(u32::MAX);
    let of_source = tests(rule).filter(|test| test.set.is_none() && !test.negated);
    let of_source = of_source.filter_map(|test| match &test.keys[..] {
        [key] if key.field == Field::Source => Some((key.mask, test)),
        _ => None,
    });
    let mut found = Vec::new();
    for (mask, test) in of_source {
        for (low, high) in test.within.iter().filter_map(|range| range.first().copied()) {
            let v6 = v6(low);
            let all = if v6 { u128::MAX } else { u32::MAX.into() };
            let free = if mask == u128::MAX { high - low } else { !mask & all };
            let width: u32 = if v6 { 128 } else { 32 };
            let prefix = width - (u128::BITS - free.leading_zeros());
            let network =
                u8::try_from(prefix).ok().and_then(|prefix| Network::around(region::address(low, v6), prefix));
            found.extend(network);
        }
    }
    found
}
