//! The guard as the kernel has it, in the form of the text that loads it.

use super::{CHAIN, ChainEntry, FamilyRules, HOOK, Jump, RESTRICT, RuleLine, TABLE, Variant, join};
use crate::subjects::firewall::model::rules::{Backend, Chain, Family, Rule, Ruleset, Step, Table, Verdict};

/// What there is of a guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelGuard {
    None,
    Guard(String),
    /// Something of ours that no guard has.
    Changed,
}

/// Looks for the guard of a variant among the rules of the kernel.
pub fn read(rules: &Ruleset, variant: Variant) -> KernelGuard {
    let backend = match variant {
        Variant::Nft => Backend::Nft,
        Variant::Legacy => Backend::Legacy,
    };
    let part = |family| {
        let is_it = |table: &&Table| table.family == family && table.name == TABLE && table.backend == backend;
        rules.tables.iter().find(is_it).map_or(Some(FamilyRules::default()), |table| part(table, family == Family::Ip6))
    };
    match (part(Family::Ip), part(Family::Ip6)) {
        (Some(v4), Some(v6)) => join(variant, &[v4, v6]).map_or(KernelGuard::None, KernelGuard::Guard),
        _ => KernelGuard::Changed,
    }
}

/// What one table has of the guard; `None` when that is no guard's.
fn part(table: &Table, v6: bool) -> Option<FamilyRules> {
    let entries = |chain: &Chain| {
        chain.rules.iter().map(|rule| RuleLine::of_rule(rule, v6).map(ChainEntry::Known)).collect::<Option<Vec<_>>>()
    };
    let of = |name: &str| match table.chains.get(name) {
        Some(chain) => entries(chain).map(Some),
        None => Some(None),
    };
    let mut part = FamilyRules { chain: of(CHAIN)?, restrict: of(RESTRICT)?, ..FamilyRules::default() };
    for (name, chain) in &table.chains {
        let mut is_past = false;
        for rule in &chain.rules {
            if leads_here(rule) && !matches!(name.as_str(), CHAIN | RESTRICT) {
                if name != HOOK || part.jump != Jump::Missing || !is_the_jump(rule) {
                    return None;
                }
                part.jump = if is_past { Jump::Late } else { Jump::First };
            }
            is_past |= !goes_on(rule);
        }
    }
    (!table.dormant || part == FamilyRules::default()).then_some(part)
}

fn leads_here(rule: &Rule) -> bool {
    rule.steps.iter().any(|step| match step {
        Step::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => matches!(chain.as_str(), CHAIN | RESTRICT),
        _ => false,
    })
}

fn is_the_jump(rule: &Rule) -> bool {
    let mut steps = rule.steps.iter().filter(|step| !matches!(step, Step::Count { .. }));
    matches!((steps.next(), steps.next()), (Some(Step::Verdict(Verdict::Jump(chain))), None) if chain == CHAIN)
}

/// Whether every packet is at the next rule after this one.
fn goes_on(rule: &Rule) -> bool {
    rule.steps.iter().all(|step| {
        matches!(
            step,
            Step::When(_)
                | Step::Count { .. }
                | Step::SetMark { .. }
                | Step::SetConnectionMark { .. }
                | Step::Verdict(Verdict::Continue)
        )
    })
}

/// Packets that the guard of a table has dropped; `None` where it has none.
pub fn dropped(table: &Table) -> Option<u64> {
    let drops = |rule: &&Rule| rule.steps.contains(&Step::Verdict(Verdict::Drop));
    let chains = table.chains.get(CHAIN).into_iter().chain([table.chains.get(RESTRICT)?]);
    let counted = chains.flat_map(|chain| &chain.rules).filter(drops).flat_map(|rule| &rule.steps);
    Some(counted.map(|step| if let Step::Count { packets, .. } = step { *packets } else { 0 }).sum())
}
