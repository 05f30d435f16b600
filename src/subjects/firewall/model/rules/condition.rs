//! What a rule asks.

use std::sync::Arc;

use super::field::Field;

/// What a rule asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    Test(Test),
    /// Always or never.
    Constant(bool),
    /// Neither true nor false; the text names it.
    Other(String),
}

/// The keys lie in one of the boxes, or in none when negated.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    pub keys: Vec<Key>,
    pub within: Arc<Vec<Range>>,
    pub negated: bool,
    /// The named set that the ranges are from.
    pub set: Option<String>,
}

/// One box: a closed range for each key.
pub type Range = Box<[(u128, u128)]>;

/// One looked-at field. Numbers are those that people write; texts are 16 bytes, the first the most significant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub field: Field,
    /// The bits that are looked at.
    pub mask: u128,
}

impl Key {
    pub fn whole(field: Field) -> Self {
        Self { field, mask: u128::MAX }
    }

    /// Whether it depends on the port that a packet was sent to.
    pub(super) fn is_port(&self) -> bool {
        matches!(self.field, Field::DestinationPort | Field::CtOriginalDestinationPort | Field::CtReplySourcePort)
    }
}

impl Condition {
    /// `field == value`, or not.
    pub fn equals(field: Field, value: u128, negated: bool) -> Self {
        Self::within(field, [(value, value)], negated)
    }

    pub fn within(field: Field, ranges: impl IntoIterator<Item = (u128, u128)>, negated: bool) -> Self {
        Self::masked(Key::whole(field), ranges, negated)
    }

    pub fn masked(key: Key, ranges: impl IntoIterator<Item = (u128, u128)>, negated: bool) -> Self {
        let within = Arc::new(ranges.into_iter().map(|range| Box::from([range])).collect());
        Self::Test(Test { keys: vec![key], within, negated, set: None })
    }

    /// An interface by its name; `eth+` of iptables, and `eth*` of nft, stand for all that start so.
    pub fn interface(field: Field, name: &str, prefix: bool, negated: bool) -> Self {
        let low = text(name);
        let bits = name.len().min(16) * 8;
        let high =
            if prefix { low | u128::MAX.checked_shr(u32::try_from(bits).unwrap_or(128)).unwrap_or(0) } else { low };
        Self::within(field, [(low, high)], negated)
    }
}

/// A text as the number a register holds: 16 bytes, padded with zeros.
pub fn text(name: &str) -> u128 {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    u128::from_be_bytes(bytes)
}
