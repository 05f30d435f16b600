//! What the workload needs, from its parameters alone. The factors are those of the Redis documentation: up to twice
//! `maxmemory` while a save or a rewrite copies pages under heavy writes.

use crate::catalog::parameters::Parameters;
use crate::facts::{Fact, Value};

const GIB: u64 = 1 << 30;

/// The descriptors Redis keeps for itself (`CONFIG_MIN_RESERVED_FDS` in `src/server.h`).
const RESERVED_DESCRIPTORS: i64 = 32;

const SOURCE: &str = "maxmemory, nodes_here";

pub(crate) fn needed(parameters: &Parameters) -> Result<Fact, Fact> {
    per_node(parameters, 4, GIB, "2 × maxmemory, and 1 GiB")
}

pub(crate) fn tight(parameters: &Parameters) -> Result<Fact, Fact> {
    per_node(parameters, 3, GIB / 2, "1.5 × maxmemory, and 512 MiB")
}

pub(crate) fn disk_needed(parameters: &Parameters) -> Result<Fact, Fact> {
    per_node(parameters, 6, 0, "3 × maxmemory")
}

/// `nodes_here × halves / 2 × maxmemory + extra`.
fn per_node(parameters: &Parameters, halves: u64, extra: u64, formula: &str) -> Result<Fact, Fact> {
    let maxmemory = parameters.bytes("maxmemory").ok_or_else(|| missing("maxmemory"))?;
    let nodes = parameters.int("nodes_here").ok_or_else(|| missing("nodes_here"))?;
    if maxmemory == 0 {
        // To Redis 0 means "no limit", which no host can satisfy.
        return Err(Fact::unknown("maxmemory is 0, which means no limit", Some("set maxmemory"), SOURCE));
    }
    let nodes_count = u64::try_from(nodes)
        .map_err(|_| Fact::unknown(format!("nodes_here is {nodes}"), Some("set nodes_here"), SOURCE))?;
    let bytes = u128::from(nodes_count)
        .checked_mul(u128::from(maxmemory))
        .and_then(|bytes| bytes.checked_mul(u128::from(halves)))
        .and_then(|bytes| (bytes / 2).checked_add(u128::from(extra)))
        .and_then(|bytes| u64::try_from(bytes).ok())
        .ok_or_else(|| Fact::unknown("maxmemory × nodes_here does not fit in 64 bits", None, SOURCE))?;
    let plural = if nodes == 1 { "node" } else { "nodes" };
    let each = Value::Bytes(maxmemory);
    Ok(Fact::known(Value::Bytes(bytes), SOURCE).note(format!("{nodes} {plural} × {formula}; maxmemory is {each}")))
}

pub(crate) fn nofile_needed(parameters: &Parameters) -> Result<Fact, Fact> {
    let clients = parameters.int("maxclients").ok_or_else(|| missing("maxclients"))?;
    match clients.checked_add(RESERVED_DESCRIPTORS) {
        Some(files) if clients > 0 => Ok(Fact::known(Value::Int(files), "maxclients")),
        _ => Err(Fact::unknown(format!("maxclients is {clients}"), Some("set maxclients"), "maxclients")),
    }
}

fn missing(name: &'static str) -> Fact {
    Fact::unknown(format!("the profile has no parameter `{name}`"), None, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::parameters::Setting;
    use proptest::prelude::*;

    fn parameters(maxmemory: u64, nodes: i64, clients: i64) -> Parameters {
        let mut parameters = Parameters::default();
        parameters.insert("maxmemory", Setting::One(Value::Bytes(maxmemory)));
        parameters.insert("nodes_here", Setting::One(Value::Int(nodes)));
        parameters.insert("maxclients", Setting::One(Value::Int(clients)));
        parameters
    }

    #[test]
    fn three_nodes_of_half_a_gigabyte_need_four() {
        let given = parameters(GIB / 2, 3, 1000);
        let value = |result: Result<Fact, Fact>| result.unwrap().value().cloned().unwrap();
        assert_eq!(value(needed(&given)), Value::Bytes(4 * GIB));
        assert_eq!(value(tight(&given)), Value::Bytes(11 * GIB / 4));
        assert_eq!(value(disk_needed(&given)), Value::Bytes(9 * GIB / 2));
        assert_eq!(value(nofile_needed(&given)), Value::Int(1032));
        assert_eq!(
            needed(&given).unwrap().note.as_deref(),
            Some("3 nodes × 2 × maxmemory, and 1 GiB; maxmemory is 512 MiB")
        );
    }

    #[test]
    fn what_cannot_be_computed_is_unknown() {
        for given in [parameters(u64::MAX, 2, i64::MAX), parameters(0, 3, 0), parameters(1, -1, -1)] {
            assert!(needed(&given).is_err() && tight(&given).is_err() && nofile_needed(&given).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_input_overflows(maxmemory in any::<u64>(), nodes in any::<i64>(), clients in any::<i64>()) {
            let given = parameters(maxmemory, nodes, clients);
            if let (Ok(needed), Ok(tight)) = (needed(&given), tight(&given)) {
                let bytes = |fact: &Fact| match fact.value() { Some(Value::Bytes(bytes)) => *bytes, _ => 0 };
                prop_assert!(bytes(&needed) > bytes(&tight));
            }
            let _ = nofile_needed(&given);
        }
    }
}
