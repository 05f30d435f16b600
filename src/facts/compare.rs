//! Comparing values: numbers as numbers, versions as versions, sets as sets.

use std::cmp::Ordering;

use crate::facts::Value;

/// How two values of one kind are ordered; `None` when they cannot be compared.
pub fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Percent(left), Value::Percent(right)) => Some(left.cmp(right)),
        (Value::Bytes(left), Value::Bytes(right)) => Some(left.cmp(right)),
        (Value::Duration(left), Value::Duration(right)) => Some(left.cmp(right)),
        (Value::Version(left), Value::Version(right)) => left.partial_cmp(right),
        _ => None,
    }
}

/// Whether two values are the same; `None` when they are of different kinds. Versions are the same when they compare
/// equal, whatever the vendor appended.
pub fn same(left: &Value, right: &Value) -> Option<bool> {
    if let Some(ordering) = order(left, right) {
        return Some(ordering == Ordering::Equal);
    }
    match (left, right) {
        (Value::Text(_), Value::Text(_)) | (Value::Bool(_), Value::Bool(_)) | (Value::Set(_), Value::Set(_)) => {
            Some(left == right)
        }
        // A kernel setting may be a number on one host and a word on the next; both are what the kernel printed.
        (Value::Text(_), Value::Int(_)) | (Value::Int(_), Value::Text(_)) => Some(false),
        _ => None,
    }
}
