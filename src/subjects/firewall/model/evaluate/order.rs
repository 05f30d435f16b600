//! In which order the kernel calls the base chains of a hook.

use super::super::packet::{Interface, Way};
use super::super::rules::{Base, Chain, Hook, Ruleset, Table};
use super::words::place;

/// Which of several base chains with the same priority is called first: the one that was registered first, and when that
/// was nobody tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ties {
    AsListed,
    Reversed,
}

/// The base chains of a hook that a way leads through, in the order in which they are called.
pub(super) fn called<'a>(
    rules: &'a Ruleset,
    way: &Way<'_>,
    hook: Hook,
    ties: Ties,
) -> Vec<(&'a Table, &'a str, &'a Chain, &'a Base)> {
    let is_on_the_way = |table: &Table, base: &Base| match hook {
        // Whatever the family: of netdev and of inet.
        Hook::Ingress => base.is_bound_to(&way.interface.name),
        _ => table.family.sees(way.v6),
    };
    let mut chains: Vec<_> =
        rules.base_chains().filter(|(table, _, _, base)| base.hook == hook && is_on_the_way(table, base)).collect();
    if ties == Ties::Reversed {
        chains.reverse();
    }
    chains.sort_by_key(|(.., base)| base.priority);
    chains
}

/// Two chains whose order nobody tells, in words.
pub(super) fn tie(rules: &Ruleset, way: &Way<'_>) -> Option<String> {
    const HOOKS: [Hook; 5] = [Hook::Ingress, Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Postrouting];
    let in_words = |(table, name, ..): &(&Table, &str, &Chain, &Base)| format!("{}, chain {name}", place(table));
    HOOKS.into_iter().find_map(|hook| {
        let chains = called(rules, way, hook, Ties::AsListed);
        let same = chains.windows(2).find(|pair| {
            let [(_, _, one, of_one), (_, _, other, of_other)] = pair else { return false };
            let decide = |chain: &Chain, base: &Base| base.policy_drop || !chain.rules.is_empty();
            of_one.priority == of_other.priority && decide(one, of_one) && decide(other, of_other)
        })?;
        Some(format!("{} and {}", in_words(&same[0]), in_words(&same[1])))
    })
}

/// Chains at the ingress of devices that are none of these, in words: a bond's or a bridge's member sees the packets before
/// the interface that has the address does, and which is whose is not followed.
pub fn not_followed(rules: &Ruleset, interfaces: &[&Interface]) -> Vec<String> {
    let chains = rules.base_chains().filter(|(_, _, chain, base)| {
        let does_something = base.policy_drop || !chain.rules.is_empty();
        base.hook == Hook::Ingress && does_something && !interfaces.iter().any(|one| base.is_bound_to(&one.name))
    });
    chains
        .map(|(table, name, _, base)| format!("{}, chain {name} at {}", place(table), base.devices.join(" ")))
        .collect()
}
