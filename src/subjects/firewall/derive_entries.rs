//! Allow entries that the managers of the firewall lack, of whichever is active.

use std::collections::BTreeSet;

use crate::facts::AbsentReason;
use crate::facts::{Fact, Facts, Layer, State, Value};

/// What it is made of.
pub(crate) const INPUTS: [&str; 3] = ["firewall.ufw-entries", "firewall.firewalld-entries", "docker.networks"];

/// What `allow` may name: the probe looks at it when it compares.
pub(crate) const NETWORKS: &str = "docker.networks";

/// The missing entries, each with its manager: `ufw: tcp 6379-6381 from 172.20.0.0/16`.
pub(crate) fn missing(facts: &Facts) -> Result<Fact, Fact> {
    let mut found = BTreeSet::new();
    let mut sources = Vec::new();
    let mut is_running = true;
    for (manager, id) in ["ufw", "firewalld"].into_iter().zip(INPUTS) {
        let Some(fact) = facts.get(id, Layer::Live) else {
            return Err(Fact::unknown(format!("{id} was not gathered"), None, id));
        };
        match &fact.state {
            State::Known(Value::Set(words)) => {
                found.extend(words.iter().map(|word| format!("{manager}: {word}")));
                sources.push(fact.source.clone());
            }
            State::Known(other) => return Err(Fact::unknown(format!("{id} is `{other}`, not a set"), None, id)),
            State::Absent(why) => is_running &= *why != AbsentReason::NotRunning,
            State::Unknown { error, help } => return Err(Fact::unknown(error.clone(), help.as_deref(), &fact.source)),
        }
    }
    if !is_running {
        return Err(Fact::not_running(INPUTS.join(", ")));
    }
    if sources.is_empty() {
        return Err(Fact::absent("neither ufw nor firewalld is active", INPUTS.join(", ")));
    }
    Ok(Fact::known(Value::Set(found), sources.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(ufw: Fact, firewalld: Fact) -> Facts {
        let mut facts = Facts::default();
        facts.live(INPUTS[0], ufw);
        facts.live(INPUTS[1], firewalld);
        facts
    }

    #[test]
    fn the_active_manager_decides_and_an_unknown_one_is_no_pass() {
        let set = |words: &[&str]| Fact::known(Value::Set(words.iter().map(|&word| word.to_owned()).collect()), "x");
        let absent = || Fact::absent("not active", "y");
        let fact = missing(&facts(set(&["tcp 1 from ::/0"]), absent())).unwrap();
        assert_eq!(fact.value().unwrap().to_string(), "ufw: tcp 1 from ::/0");
        let both = missing(&facts(set(&["a"]), set(&["z: b"]))).unwrap();
        assert_eq!(both.value().unwrap().to_string(), "firewalld: z: b, ufw: a");
        assert!(missing(&facts(set(&[]), absent())).unwrap().value().is_some());
        for (ufw, firewalld, is_absent) in [
            (absent(), absent(), true),
            (set(&[]), Fact::unknown("denied", None, "z"), false),
            (Fact::not_running("x"), Fact::not_running("y"), true),
        ] {
            let fact = missing(&facts(ufw, firewalld)).unwrap_err();
            assert_eq!(matches!(fact.state, State::Absent(_)), is_absent, "{fact:?}");
        }
    }
}
