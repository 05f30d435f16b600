//! Which ports the rules tell apart.

use super::{Condition, Range, Ruleset, Step};

/// Which ports the rules tell apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortClasses {
    /// Ports without one of these, in order, between them fare alike: from it on a rule holds, or no longer.
    Between(Vec<u128>),
    /// A rule looks at single bits: any two may fare differently.
    Single,
}

impl PortClasses {
    /// A number that ports of one class have in common.
    pub fn of(&self, port: u16) -> usize {
        match self {
            Self::Between(bounds) => bounds.partition_point(|bound| *bound <= port.into()),
            Self::Single => port.into(),
        }
    }
}

impl Ruleset {
    pub fn port_classes(&self) -> PortClasses {
        const ALL_BITS: u128 = 0xffff;
        let mut bounds = Vec::new();
        let chains = self.tables.iter().flat_map(|table| table.chains.values());
        for step in chains.flat_map(|chain| &chain.rules).flat_map(|rule| &rule.steps) {
            let keys = match step {
                Step::When(Condition::Test(test)) => &test.keys,
                Step::Map(map) => &map.keys,
                _ => continue,
            };
            // Only then are the ranges looked at: a set may hold a hundred thousand addresses.
            for (at, key) in keys.iter().enumerate().filter(|(_, key)| key.is_port()) {
                if key.mask & ALL_BITS != ALL_BITS {
                    return PortClasses::Single;
                }
                let mut add = |range: &Range| {
                    let of_key = range.get(at).into_iter();
                    bounds.extend(of_key.flat_map(|(low, high)| [*low, high.saturating_add(1)]));
                };
                match step {
                    Step::When(Condition::Test(test)) => test.within.iter().for_each(&mut add),
                    Step::Map(map) => map.entries.iter().for_each(|(range, _)| add(range)),
                    _ => {}
                }
            }
        }
        bounds.sort_unstable();
        bounds.dedup();
        PortClasses::Between(bounds)
    }
}
