//! What all that read the kernel's rules have in common: how long they wait, and how they name the source.

use std::time::Duration;

use crate::subjects::firewall::model::rules::{Backend, Ruleset};

pub(crate) const SOURCE: &str = "nf_tables (nfnetlink)";

/// The kernel answers within milliseconds, also with thousands of rules.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Where the rules were read.
pub(crate) fn source(rules: &Ruleset) -> String {
    let is_old = rules.tables.iter().any(|table| table.backend == Backend::Legacy);
    if is_old { format!("{SOURCE}, x_tables (getsockopt)") } else { SOURCE.to_owned() }
}

/// Rule sets for tests.
#[cfg(test)]
pub(in crate::subjects::firewall) mod samples {
    use std::collections::BTreeMap;

    use super::Backend;
    use crate::subjects::firewall::model::rules::{Base, Chain, Family, Hook, Rule, Step, Table};

    pub(in crate::subjects::firewall) fn rule(steps: Vec<Step>) -> Rule {
        Rule { steps, ..Rule::default() }
    }

    pub(in crate::subjects::firewall) fn table(name: &str, chains: &[(&str, Option<Base>, Vec<Rule>)]) -> Table {
        let chains = chains
            .iter()
            .map(|(name, base, rules)| ((*name).to_owned(), Chain { base: base.clone(), rules: rules.clone() }));
        Table {
            family: Family::Inet,
            name: name.into(),
            backend: Backend::Nft,
            dormant: false,
            chains: chains.collect(),
            sets: BTreeMap::new(),
        }
    }

    pub(in crate::subjects::firewall) fn base(hook: Hook, policy_drop: bool) -> Base {
        Base { hook, priority: 0, nat: false, policy_drop, devices: Vec::new() }
    }
}
