//! Settings that are sets of numbers: several owners add to them, so each gives back only what it brought.

use std::collections::BTreeSet;

use crate::change::id::TxId;
use crate::change::knob::{Capabilities, Knob, KnobError, Reading, Undo, Undoing};
use crate::facts::Layer;
use crate::host::safe_file::Tree;
use crate::subjects::kernel::knob_sysctl::Sysctl;

/// Settings whose value is a set of port numbers (`proc_do_large_bitmap` in kernel/sysctl.c).
const SETS: [&str; 1] = ["net.ipv4.ip_local_reserved_ports"];

pub(crate) fn is_set(name: &str) -> bool {
    SETS.contains(&name)
}

/// `6379-6381,26379`, as the kernel prints it: sorted, in runs. An empty text is the empty set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers(BTreeSet<u16>);

impl Numbers {
    /// `None` when the text is not such a set.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = BTreeSet::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
            if first > last {
                return None;
            }
            numbers.extend(first..=last);
        }
        Some(Self(numbers))
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }

    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }

    pub fn includes(&self, other: &Self) -> bool {
        self.0.is_superset(&other.0)
    }
}

impl std::fmt::Display for Numbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut runs: Vec<(u16, u16)> = Vec::new();
        for &number in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
                _ => runs.push((number, number)),
            }
        }
        let words: Vec<String> = runs
            .iter()
            .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
            .collect();
        f.write_str(&words.join(","))
    }
}

/// A set in `/proc/sys`.
#[derive(Debug)]
pub struct NumberSet<'a>(Sysctl<'a>);

impl<'a> NumberSet<'a> {
    pub fn new(tree: &'a Tree, name: &str) -> Result<Self, KnobError> {
        Sysctl::new(tree, name).map(Self)
    }
}

/// What is there, as a set; what cannot be read as one counts as empty, and then nothing is taken from it.
fn numbers(reading: &Reading) -> Numbers {
    reading.value.as_deref().and_then(Numbers::parse).unwrap_or_default()
}

fn parsed(text: &str) -> Numbers {
    Numbers::parse(text).unwrap_or_default()
}

impl Knob for NumberSet<'_> {
    fn target(&self) -> &str {
        self.0.target()
    }

    fn layer(&self) -> Layer {
        Layer::Live
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn read(&self) -> Result<Reading, KnobError> {
        self.0.read()
    }

    fn validate(&self, after: &str) -> Result<(), KnobError> {
        match Numbers::parse(after) {
            Some(_) => Ok(()),
            None => Err(self.0.bad(after, "expected numbers and ranges such as `6379-6381,26379`")),
        }
    }

    fn stage(&self, tx: &TxId, after: &str) -> Result<(), KnobError> {
        self.0.stage(tx, after)
    }

    fn unstage(&self, _: &TxId) -> Result<(), KnobError> {
        Ok(())
    }

    fn write(&self, _: &TxId, value: &str) -> Result<(), KnobError> {
        self.0.set(value)
    }

    fn restore(&self, tx: &TxId, to: &Reading) -> Result<(), KnobError> {
        self.0.restore(tx, to)
    }

    fn merge(&self, current: &Reading, after: &str) -> String {
        numbers(current).union(&parsed(after)).to_string()
    }

    fn holds(&self, current: &Reading, after: &str) -> bool {
        numbers(current).includes(&parsed(after))
    }

    /// Gives back only ours: what we added and somebody else did not have before.
    fn undo(&self, case: Undoing<'_>) -> Undo {
        let ours = parsed(case.wrote).minus(&numbers(case.before));
        let current = numbers(case.current);
        let left = current.minus(&ours);
        if left == current { Undo::Already } else { Undo::Restore { to: Reading::of(left.to_string()), drifted: None } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn set(text: &str) -> Numbers {
        Numbers::parse(text).unwrap()
    }

    #[test]
    fn sets_read_and_print_as_the_kernel_does() {
        assert_eq!(set("26379,6379-6381,6380").to_string(), "6379-6381,26379");
        assert_eq!(set("").to_string(), "");
        assert_eq!(set("65534-65535").to_string(), "65534-65535");
        for text in ["a", "1-", "-1", "2-1", "65536", "1;2"] {
            assert_eq!(Numbers::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_rollback_gives_back_only_ours() {
        let tree = Tree::open(Path::new("/")).unwrap();
        let knob = NumberSet::new(&tree, "net.ipv4.ip_local_reserved_ports").unwrap();
        let before = Reading::of("8080,6380");
        let wrote = knob.merge(&before, "6379-6381");
        assert_eq!(wrote, "6379-6381,8080");
        // Somebody adds 9000 meanwhile; 6380 was there before us.
        let current = Reading::of("6379-6381,8080,9000");
        let undo = knob.undo(Undoing { before: &before, wrote: &wrote, observed: None, current: &current });
        assert_eq!(undo, Undo::Restore { to: Reading::of("6380,8080,9000"), drifted: None });
    }

    proptest! {
        #[test]
        fn union_then_minus_is_where_it_began(a in proptest::collection::btree_set(0_u16..200, 0..40),
                                              b in proptest::collection::btree_set(0_u16..200, 0..40)) {
            let (a, b) = (Numbers(a), Numbers(b));
            let union = a.union(&b);
            prop_assert_eq!(union.minus(&b.minus(&a)), a);
            prop_assert_eq!(Numbers::parse(&union.to_string()), Some(union));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}|[0-9,-]{0,60}") {
            let _ = Numbers::parse(&text);
        }
    }
}
