//! What a derived fact is computed from. An input that is unknown makes the result unknown, one that is absent makes it
//! absent; both name the input.

use super::{Fact, Facts, Layer, State, Value, Version};

/// The known value of an input on the live layer, or the fact that the result is for want of it.
pub fn input<'a>(facts: &'a Facts, id: &str) -> Result<&'a Value, Fact> {
    let Some(fact) = facts.get(id, Layer::Live) else {
        return Err(Fact::unknown(format!("{id} was not gathered"), None, id));
    };
    match &fact.state {
        State::Known(value) => Ok(value),
        State::Absent(why) => Err(Fact::absent(format!("no {id}: {why}"), id)),
        State::Unknown { error, help } => Err(Fact::unknown(format!("{id}: {error}"), help.as_deref(), id)),
    }
}

pub fn version<'a>(facts: &'a Facts, id: &str) -> Result<&'a Version, Fact> {
    match input(facts, id)? {
        Value::Version(version) => Ok(version),
        other => Err(Fact::unknown(format!("{id} is `{other}`, not a version"), None, id)),
    }
}
