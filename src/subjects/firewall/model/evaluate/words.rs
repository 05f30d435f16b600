//! Tables and rules in words.

use super::super::rules::{Backend, Rule, Table};

pub(super) fn place(table: &Table) -> String {
    let legacy = if table.backend == Backend::Legacy { "legacy " } else { "" };
    format!("{legacy}{} {}", table.family.name(), table.name)
}

/// A rule in words.
pub(super) fn reference(table: &Table, chain: &str, rule: &Rule) -> String {
    let place = format!("{}, chain {chain}", place(table));
    match (rule.handle, &rule.text) {
        (Some(handle), None) => format!("{place}, handle {handle}"),
        (Some(handle), Some(text)) => format!("{place}, handle {handle} ({text})"),
        (None, Some(text)) => format!("{place}: {text}"),
        (None, None) => place,
    }
}
