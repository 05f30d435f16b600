//! Sets of keys, and maps from keys to verdicts.

use super::condition::{Key, Range};
use super::verdict::Verdict;

#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    pub keys: Vec<Key>,
    pub entries: Vec<(Range, Verdict)>,
    /// What is done with what no entry holds.
    pub otherwise: Option<Verdict>,
    /// The map changes while packets pass, or was not understood.
    pub uncertain: bool,
}

/// A named set and what is in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Set {
    /// `NFTA_SET_KEY_TYPE`, as nft numbers its types.
    pub key_type: u32,
    pub key_bytes: usize,
    pub interval: bool,
    /// Packets themselves add to it.
    pub dynamic: bool,
    /// Elements could not all be read.
    pub incomplete: bool,
    /// `*`: everything that is not in it is, with this verdict.
    pub catch_all: Option<Option<Verdict>>,
    pub elements: Vec<Element>,
}

/// One element of a set: all keys from one to another, as they lie in a register.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    pub from: Box<[u8]>,
    pub to: Box<[u8]>,
    pub verdict: Option<Verdict>,
}

impl Set {
    /// Whether its keys are several fields side by side: nft numbers each type with six bits.
    pub fn is_concatenation(&self) -> bool {
        self.key_type >= 1 << 6
    }

    /// The elements as numbers, the first byte the most significant; `None` when keys are longer than 16 bytes.
    pub fn ranges(&self) -> Option<Vec<(u128, u128)>> {
        let number = |bytes: &[u8]| {
            (bytes.len() <= 16).then(|| bytes.iter().fold(0, |all, byte| (all << 8) | u128::from(*byte)))
        };
        self.elements.iter().map(|element| Some((number(&element.from)?, number(&element.to)?))).collect()
    }
}
