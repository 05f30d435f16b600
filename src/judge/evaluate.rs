//! One predicate against one value, with every literal resolved.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::Resolver;
use crate::catalog::check::NOMINAL_PERCENT;
use crate::catalog::predicate::{Literal, Predicate, Term};
use crate::facts::{Layer, State, Value, compare, words};

/// Whether the value satisfies the predicate. An error says which literal could not be determined, or that the two cannot be
/// compared: that is unknown, never a pass and never a failure.
pub(super) fn holds(
    predicate: &Predicate,
    value: &Value,
    nominal: bool,
    resolver: &Resolver<'_>,
) -> Result<bool, String> {
    let order = |term: &Term| {
        let literal = resolver.literal(term)?;
        let shown = nominal.then(|| shrink(&literal)).flatten();
        let literal = shown.as_ref().unwrap_or(&literal);
        compare::order(value, literal).ok_or_else(|| incomparable(value, literal))
    };
    match predicate {
        Predicate::AtLeast(term) => Ok(order(term)? != Ordering::Less),
        Predicate::AtMost(term) => Ok(order(term)? != Ordering::Greater),
        Predicate::Range(ends) => {
            let [low, high] = ends;
            Ok(order(low)? != Ordering::Less && order(high)? != Ordering::Greater)
        }
        Predicate::Equals(term) => {
            let literal = resolver.literal(term)?;
            compare::same(value, &literal).ok_or_else(|| incomparable(value, &literal))
        }
        Predicate::OneOf(terms) => {
            for term in terms {
                let literal = resolver.literal(term)?;
                if compare::same(value, &literal).ok_or_else(|| incomparable(value, &literal))? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Predicate::Includes(term) => {
            let literal = resolver.literal(term)?;
            match (value, &*literal) {
                (Value::Set(present), Value::Set(wanted)) => Ok(wanted.is_subset(present)),
                _ => Err(incomparable(value, &literal)),
            }
        }
    }
}

/// What a machine sold with that size shows; `None` of what is no size.
fn shrink(literal: &Value) -> Option<Value> {
    let Value::Bytes(bytes) = literal else { return None };
    let shown = u128::from(*bytes) * u128::from(NOMINAL_PERCENT) / 100;
    Some(Value::Bytes(u64::try_from(shown).unwrap_or(u64::MAX)))
}

fn incomparable(value: &Value, literal: &Value) -> String {
    format!("`{value}` ({}) cannot be compared with `{literal}` ({})", value.kind().name(), literal.kind().name())
}

/// What a predicate is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notation {
    /// A cell of a table: `≥ 4 GiB`.
    Signs,
    /// A sentence: `at least 4 GiB`.
    Words,
}

/// The predicate for people, literals resolved; `fact` is what it is asked of. What cannot be resolved is named.
pub(super) fn words(
    predicate: &Predicate,
    fact: &str,
    nominal: bool,
    notation: Notation,
    resolver: &Resolver<'_>,
) -> String {
    let one = |term: &Term| match resolver.literal(term) {
        Ok(value) => words::words(fact, &value).into_owned(),
        Err(_) => match &term.literal {
            Literal::Parameter(name) => format!("the parameter {name}"),
            Literal::Fact(id) => id.clone(),
            Literal::Value(value) => value.to_string(),
        },
    };
    let [least, most] = match notation {
        Notation::Signs => ["≥", "≤"],
        Notation::Words => ["at least", "at most"],
    };
    let suffix = if nominal { " (nominal)" } else { "" };
    match predicate {
        Predicate::AtLeast(term) => format!("{least} {}{suffix}", one(term)),
        Predicate::AtMost(term) => format!("{most} {}{suffix}", one(term)),
        Predicate::Equals(term) => one(term),
        Predicate::Includes(term) => format!("includes {}", one(term)),
        Predicate::Range(ends) => format!("{} to {}", one(&ends[0]), one(&ends[1])),
        Predicate::OneOf(terms) => {
            let words: Vec<String> = terms.iter().map(one).collect();
            match words.split_last() {
                Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
                _ => words.concat(),
            }
        }
    }
}

impl Resolver<'_> {
    /// The value a literal stands for.
    pub(super) fn literal<'t>(&'t self, term: &'t Term) -> Result<Cow<'t, Value>, String> {
        match &term.literal {
            Literal::Value(value) => Ok(Cow::Borrowed(value)),
            Literal::Parameter(name) => {
                let value = self.parameters.value(name).map(Cow::Borrowed);
                value.ok_or_else(|| format!("the profile has no parameter `{name}`"))
            }
            Literal::Fact(id) => match self.find(id).get(Layer::Live).map(|fact| &fact.state) {
                Some(State::Known(value)) => Ok(Cow::Owned(value.clone())),
                Some(State::Absent(why)) => Err(format!("{id} is absent: {why}")),
                Some(State::Unknown { error, .. }) => Err(format!("{id} is unknown: {error}")),
                None => Err(format!("{id} was not gathered")),
            },
        }
    }
}
