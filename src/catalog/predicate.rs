//! The grammar of predicates: what a fact is compared with, and how.

use std::slice;

use serde::{Deserialize, Serialize};

use super::diagnostic::{Code, Diagnostics, Place};
use super::reader::{Fields, wrong_type};
use super::tree::{Kind as Tree, Node};
use crate::facts::{Kind, Value};

/// Something to compare a fact with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Literal {
    Value(Value),
    /// `{ param = "tcp_backlog" }`
    Parameter(String),
    /// `{ fact = "derived.memory.needed" }`
    Fact(String),
}

/// A literal where it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Term {
    pub literal: Literal,
    pub place: Place,
}

/// One question to a fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Predicate {
    AtLeast(Term),
    AtMost(Term),
    Equals(Term),
    OneOf(Vec<Term>),
    /// Both ends belong to the range.
    Range([Term; 2]),
    /// All of these words are in the set.
    Includes(Term),
}

impl Predicate {
    pub const KEYS: [&str; 6] = ["at_least", "at_most", "equals", "one_of", "range", "includes"];

    pub fn terms(&self) -> &[Term] {
        match self {
            Self::AtLeast(term) | Self::AtMost(term) | Self::Equals(term) | Self::Includes(term) => {
                slice::from_ref(term)
            }
            Self::OneOf(terms) => terms,
            Self::Range(ends) => ends,
        }
    }
}

/// Reads `{ at_least = "4 GiB" }`: exactly one predicate about a fact of the given kind.
pub fn read(
    value: &Node,
    what: &'static str,
    kind: Kind,
    source: usize,
    diagnostics: &mut Diagnostics,
) -> Option<Predicate> {
    let mut fields = Fields::of(value, what, source, diagnostics)?;
    let predicate = take(&mut fields, what, kind, diagnostics);
    fields.finish(diagnostics);
    predicate
}

/// Takes the one predicate among the fields of a table that may hold other keys too (`when`).
pub fn take(fields: &mut Fields<'_>, what: &str, kind: Kind, diagnostics: &mut Diagnostics) -> Option<Predicate> {
    let source = fields.source();
    let found: Vec<(&str, &Node)> =
        Predicate::KEYS.into_iter().filter_map(|key| Some((key, fields.take(key)?))).collect();
    let (key, value) = match found.as_slice() {
        [one] => *one,
        several => {
            let place = fields.place.clone();
            let message = if several.is_empty() {
                format!("`{what}` asks nothing: an empty predicate would be green by accident")
            } else {
                let keys: Vec<&str> = several.iter().map(|(key, _)| *key).collect();
                format!("`{what}` holds {} predicates ({}): only one is allowed", keys.len(), keys.join(", "))
            };
            diagnostics.report(Code::BadPredicate, place, message).hint =
                Some(format!("write one of {}", Predicate::KEYS.join(", ")));
            return None;
        }
    };
    let place = Place { source, span: value.span.clone() };
    let ordered =
        matches!(kind, Kind::Int | Kind::Percent | Kind::Bytes | Kind::Duration | Kind::Version | Kind::Sysctl);
    let fits = match key {
        "at_least" | "at_most" | "range" => ordered,
        "includes" => kind == Kind::Set,
        "one_of" => kind != Kind::Set,
        _ => true,
    };
    if !fits {
        let message = format!("`{key}` cannot be asked of a {}", kind.name());
        diagnostics.report(Code::WrongPredicate, place, message);
        return None;
    }
    let mut list = |value: &Node| -> Option<Vec<Term>> {
        let Some(items) = value.as_array() else {
            wrong_type(diagnostics, Place { source, span: value.span.clone() }, key, "a list", value);
            return None;
        };
        items.iter().map(|item| term(item, kind, source, diagnostics)).collect()
    };
    let predicate = match key {
        "at_least" => term(value, kind, source, diagnostics).map(Predicate::AtLeast),
        "at_most" => term(value, kind, source, diagnostics).map(Predicate::AtMost),
        "equals" => term(value, kind, source, diagnostics).map(Predicate::Equals),
        "includes" => term(value, kind, source, diagnostics).map(Predicate::Includes),
        "one_of" => {
            let terms = list(value)?;
            if terms.is_empty() {
                diagnostics.report(Code::BadPredicate, place, "`one_of` is empty: no value can match");
                return None;
            }
            Some(Predicate::OneOf(terms))
        }
        _ => {
            let terms = list(value)?;
            let Ok(ends) = <[Term; 2]>::try_from(terms) else {
                diagnostics.report(Code::BadPredicate, place, "`range` takes two values: the lowest and the highest");
                return None;
            };
            if let [Literal::Value(low), Literal::Value(high)] = ends.each_ref().map(|end| &end.literal)
                && crate::facts::compare::order(low, high) == Some(std::cmp::Ordering::Greater)
            {
                diagnostics.report(Code::EmptyRange, place, format!("no value lies between {low} and {high}"));
                return None;
            }
            Some(Predicate::Range(ends))
        }
    };
    predicate.filter(|predicate| is_ordered(predicate, kind, diagnostics))
}

/// A kernel setting may be a number or text; only numbers are ordered.
fn is_ordered(predicate: &Predicate, kind: Kind, d: &mut Diagnostics) -> bool {
    if kind != Kind::Sysctl || matches!(predicate, Predicate::Equals(_) | Predicate::OneOf(_)) {
        return true;
    }
    let text = predicate.terms().iter().find(|term| matches!(&term.literal, Literal::Value(Value::Text(_))));
    if let Some(term) = text {
        let message = "text has no order: no value could ever be told to be more or less";
        d.report(Code::WrongType, term.place.clone(), message).hint = Some("write a number without quotes".to_owned());
    }
    text.is_none()
}

/// Reads a literal of the fact's kind, `{ param = "…" }` or `{ fact = "…" }`.
pub fn term(value: &Node, kind: Kind, source: usize, diagnostics: &mut Diagnostics) -> Option<Term> {
    let place = Place { source, span: value.span.clone() };
    if value.as_table().is_some() {
        let mut fields = Fields::of(value, "literal", source, diagnostics)?;
        let parameter = fields.text("param", diagnostics);
        let fact = fields.text("fact", diagnostics);
        fields.finish(diagnostics);
        return match (parameter, fact) {
            (Some(name), None) => Some(Term { literal: Literal::Parameter(name.value), place: name.place }),
            (None, Some(id)) => Some(Term { literal: Literal::Fact(id.value), place: id.place }),
            _ => {
                let message = "write either `{ param = \"…\" }` or `{ fact = \"…\" }`";
                diagnostics.report(Code::BadPredicate, place, message);
                None
            }
        };
    }
    let value = literal(value, kind, &place, diagnostics)?;
    Some(Term { literal: Literal::Value(value), place })
}

/// Reads a plain value of a kind. A number for a size, or a size for a number, is the wrong unit.
pub fn literal(value: &Node, kind: Kind, place: &Place, diagnostics: &mut Diagnostics) -> Option<Value> {
    let raw = &value.kind;
    let wrong = |diagnostics: &mut Diagnostics, code: Code, message: String| {
        diagnostics.report(code, place.clone(), message).hint =
            Some(format!("write something like {}", kind.example()));
        None
    };
    match (raw, kind) {
        (Tree::Boolean(flag), Kind::Bool) => Some(Value::Bool(*flag)),
        (Tree::Integer(Some(number)), Kind::Int | Kind::Sysctl) => Some(Value::Int(*number)),
        (Tree::Integer(None), Kind::Int | Kind::Sysctl) => {
            wrong(diagnostics, Code::OutOfRange, "this number does not fit into 64 bits".to_owned())
        }
        (Tree::Integer(_), Kind::Bytes | Kind::Duration | Kind::Percent) => {
            wrong(diagnostics, Code::WrongUnit, format!("a number without a unit: a {} is wanted", kind.name()))
        }
        (Tree::Text(text), Kind::Text | Kind::Sysctl) => Some(Value::Text(text.clone())),
        (Tree::Text(text), Kind::Bytes | Kind::Duration | Kind::Percent | Kind::Version) => match kind.parse(text) {
            Ok(value) => Some(value),
            Err(message) => {
                let code = if kind == Kind::Version { Code::WrongType } else { Code::WrongUnit };
                wrong(diagnostics, code, message)
            }
        },
        (Tree::Array(items), Kind::Set) => {
            let mut words = std::collections::BTreeSet::new();
            for item in items {
                match item.as_text() {
                    Some(word) => words.insert(word.to_owned()),
                    None => return wrong(diagnostics, Code::WrongType, "a set holds texts only".to_owned()),
                };
            }
            Some(Value::Set(words))
        }
        _ => {
            let message = format!("`{}` is no {}", raw_text(raw), kind.name());
            wrong(diagnostics, Code::WrongType, message)
        }
    }
}

/// What was written, shortly.
fn raw_text(kind: &Tree) -> String {
    match kind {
        Tree::Text(text) | Tree::Other(text) => text.clone(),
        Tree::Integer(number) => number.map_or_else(|| "…".to_owned(), |number| number.to_string()),
        Tree::Boolean(flag) => flag.to_string(),
        Tree::Array(_) => "[…]".to_owned(),
        Tree::Table(_) => "{…}".to_owned(),
    }
}
