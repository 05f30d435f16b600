//! The registers of the nf_tables machine, followed byte by byte: which byte of which field of the packet is where.
//!
//! nft joins neighbouring fields in one load, compares parts of an address for a prefix, and keeps the keys of a
//! concatenation side by side. On bytes all of these are the same thing.

use std::sync::Arc;

use crate::subjects::firewall::model::rules::{Condition, Element, Field, Key, Range, Test};

const BYTES: usize = 64;

/// One byte of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Byte {
    Unknown,
    Constant(u8),
    /// `(byte `at` of the field & mask) ^ flip`; byte 0 is the most significant of `width`.
    Of {
        field: Field,
        width: u8,
        at: u8,
        mask: u8,
        flip: u8,
    },
}

#[derive(Debug, Clone)]
pub struct Registers([Byte; BYTES]);

/// How a register is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A field that is spread over the bytes of a key.
#[derive(Debug)]
struct Part {
    key: Key,
    width: u8,
    flip: u128,
    /// Where in the key, and which byte of the field.
    at: Vec<(usize, u8)>,
}

impl Default for Registers {
    fn default() -> Self {
        Self([Byte::Unknown; BYTES])
    }
}

/// All bytes of a field, most significant first.
pub fn field(field: Field, width: usize) -> Vec<Byte> {
    let width = u8::try_from(width).unwrap_or(u8::MAX);
    (0..width).map(|at| Byte::Of { field, width, at, mask: 0xff, flip: 0 }).collect()
}

/// A number that the kernel keeps in the order of the machine.
pub fn host_field(name: Field, width: usize) -> Vec<Byte> {
    let mut bytes = field(name, width);
    if cfg!(target_endian = "little") {
        bytes.reverse();
    }
    bytes
}

/// Where a register begins: the old ones have 16 bytes, the new ones 4 (`nft_parse_register`). `None` for the verdict.
pub fn place(register: u32) -> Option<usize> {
    match register {
        1..=4 => usize::try_from((register - 1) * 16).ok(),
        8..=23 => usize::try_from((register - 8) * 4).ok(),
        _ => None,
    }
}

impl Registers {
    /// Writes bytes, and the zeros that fill up the last word.
    pub fn load(&mut self, at: usize, bytes: &[Byte]) {
        let padded = bytes
            .iter()
            .copied()
            .chain(std::iter::repeat_n(Byte::Constant(0), bytes.len().next_multiple_of(4) - bytes.len()));
        for (to, from) in self.0.iter_mut().skip(at).zip(padded) {
            *to = from;
        }
    }

    pub fn load_unknown(&mut self, at: usize, length: usize) {
        self.load(at, &vec![Byte::Unknown; length.min(BYTES)]);
    }

    pub fn get(&self, at: usize, length: usize) -> &[Byte] {
        self.0.get(at..at.saturating_add(length)).unwrap_or_default()
    }

    /// The bytes, when all are constants.
    pub fn constant(&self, at: usize, length: usize) -> Option<Vec<u8>> {
        let bytes = self.get(at, length);
        let constant = |byte: &Byte| if let Byte::Constant(byte) = byte { Some(*byte) } else { None };
        if bytes.len() == length { bytes.iter().map(constant).collect() } else { None }
    }

    /// `(x & mask) ^ flip`, byte by byte.
    pub fn mask(&mut self, from: usize, to: usize, mask: &[u8], flip: &[u8]) {
        let result: Vec<Byte> = self
            .get(from, mask.len())
            .iter()
            .zip(mask.iter().zip(flip))
            .map(|(byte, (and, xor))| match *byte {
                Byte::Constant(value) => Byte::Constant((value & and) ^ xor),
                Byte::Of { field, width, at, mask, flip } => {
                    Byte::Of { field, width, at, mask: mask & and, flip: (flip & and) ^ xor }
                }
                Byte::Unknown => Byte::Unknown,
            })
            .collect();
        self.load(to, &result);
    }

    /// Turns the bytes of each unit around.
    pub fn swap(&mut self, from: usize, to: usize, length: usize, unit: usize) {
        let turned: Vec<Byte> =
            self.get(from, length).chunks(unit.max(1)).flat_map(|chunk| chunk.iter().rev().copied()).collect();
        self.load(to, &turned);
    }

    pub fn compare(&self, at: usize, data: &[u8], how: Comparison) -> Condition {
        let negated = match how {
            Comparison::Equal => false,
            Comparison::NotEqual => true,
            Comparison::Less | Comparison::LessOrEqual | Comparison::Greater | Comparison::GreaterOrEqual => {
                return self.order(at, data, how);
            }
        };
        let Some((parts, constants)) = self.parts(at, data.len()) else { return unknown() };
        if constants.iter().any(|(at, value)| data.get(*at) != Some(value)) {
            return Condition::Constant(negated);
        }
        let Some(range) = exact(&parts, data) else { return Condition::Constant(negated) };
        test(parts, vec![range], negated)
    }

    fn order(&self, at: usize, data: &[u8], how: Comparison) -> Condition {
        let Some(part) = self.ordered(at, data.len()) else { return unknown() };
        let (value, highest) = (number(data), u128::MAX >> (128 - 8 * u32::from(part.width)));
        let range = match how {
            Comparison::Less => value.checked_sub(1).map(|high| (0, high)),
            Comparison::Greater => value.checked_add(1).map(|low| (low, highest)),
            Comparison::LessOrEqual => Some((0, value)),
            _ => Some((value, highest)),
        };
        match range {
            Some(range) => Condition::masked(part.key, [range], false),
            None => Condition::Constant(false),
        }
    }

    /// `low <= x <= high`.
    pub fn range(&self, at: usize, low: &[u8], high: &[u8], negated: bool) -> Condition {
        match self.ordered(at, low.len()) {
            Some(part) => Condition::masked(part.key, [(number(low), number(high))], negated),
            None => unknown(),
        }
    }

    /// The keys and boxes for elements of a set. `None` when some byte is not known. An element that no packet can equal
    /// has no box.
    pub fn elements(&self, at: usize, length: usize, elements: &[Element]) -> Option<(Vec<Key>, Vec<Option<Range>>)> {
        let (parts, constants) = self.parts(at, length)?;
        let mut boxes = Vec::with_capacity(elements.len());
        for element in elements {
            let is_possible = constants.iter().all(|(at, value)| {
                element.from.get(*at).is_some_and(|from| from <= value)
                    && element.to.get(*at).is_some_and(|to| to >= value)
            });
            boxes.push(match () {
                () if !is_possible => None,
                () if element.from == element.to => exact(&parts, &element.from),
                () => {
                    if !parts.iter().all(Part::is_ordered) {
                        return None;
                    }
                    let of = |part: &Part| (part.value(&element.from), part.value(&element.to));
                    Some(parts.iter().map(of).collect())
                }
            });
        }
        Some((parts.into_iter().map(|part| part.key).collect(), boxes))
    }

    /// The one field that all bytes are of, in order.
    fn ordered(&self, at: usize, length: usize) -> Option<Part> {
        let (mut parts, constants) = self.parts(at, length)?;
        let part = parts.pop().filter(|part| parts.is_empty() && constants.is_empty() && part.is_ordered())?;
        Some(part)
    }

    /// The fields that bytes are of, and the bytes that are constants. `None` when one is unknown.
    #[expect(clippy::type_complexity, reason = "two lists, taken apart at once")]
    fn parts(&self, at: usize, length: usize) -> Option<(Vec<Part>, Vec<(usize, u8)>)> {
        let bytes = self.get(at, length);
        if bytes.len() != length || length == 0 {
            return None;
        }
        let (mut parts, mut constants): (Vec<Part>, Vec<(usize, u8)>) = (Vec::new(), Vec::new());
        for (place, byte) in bytes.iter().enumerate() {
            match *byte {
                Byte::Unknown => return None,
                Byte::Constant(value) => constants.push((place, value)),
                Byte::Of { field, width, at, mask, flip } => {
                    let shift = 8 * u32::from(width.checked_sub(at + 1)?);
                    let is_new = |part: &Part| part.key.field != field || part.at.iter().any(|(_, known)| *known == at);
                    if parts.last().is_none_or(is_new) {
                        parts.push(Part { key: Key { field, mask: 0 }, width, flip: 0, at: Vec::new() });
                    }
                    let part = parts.last_mut()?;
                    part.key.mask |= u128::from(mask) << shift;
                    part.flip |= u128::from(flip) << shift;
                    part.at.push((place, at));
                }
            }
        }
        for part in &mut parts {
            if part.key.mask == u128::MAX >> (128 - 8 * u32::from(part.width)) {
                part.key.mask = u128::MAX;
            }
        }
        Some((parts, constants))
    }
}

impl Part {
    fn value(&self, data: &[u8]) -> u128 {
        let byte = |(place, at): &(usize, u8)| {
            u128::from(data.get(*place).copied().unwrap_or_default())
                << (8 * u32::from(self.width.saturating_sub(at + 1)))
        };
        self.at.iter().map(byte).fold(0, |all, byte| all | byte) ^ self.flip
    }

    /// Whole, unflipped and most significant byte first: greater bytes are greater numbers.
    fn is_ordered(&self) -> bool {
        self.flip == 0
            && self.at.len() == usize::from(self.width)
            && self.at.iter().zip(0..).all(|((_, at), want)| *at == want)
    }
}

/// The one value of each part; `None` when the mask leaves no such value.
fn exact(parts: &[Part], data: &[u8]) -> Option<Range> {
    let value = |part: &Part| {
        let value = part.value(data);
        (value & !part.key.mask == 0).then_some((value, value))
    };
    parts.iter().map(value).collect()
}

fn test(parts: Vec<Part>, boxes: Vec<Range>, negated: bool) -> Condition {
    if parts.is_empty() {
        return Condition::Constant(!negated);
    }
    let keys = parts.into_iter().map(|part| part.key).collect();
    Condition::Test(Test { keys, within: Arc::new(boxes), negated, set: None })
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().take(16).fold(0, |all, byte| (all << 8) | u128::from(*byte))
}

fn unknown() -> Condition {
    Condition::Other("a comparison of what is not known".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ports_loaded_at_once_are_two_fields() {
        let mut registers = Registers::default();
        let both: Vec<Byte> = [field(Field::SourcePort, 2), field(Field::DestinationPort, 2)].concat();
        registers.load(0, &both);
        let Condition::Test(test) = registers.compare(0, &[0, 53, 0x18, 0xeb], Comparison::Equal) else { panic!() };
        assert_eq!(test.keys, [Key::whole(Field::SourcePort), Key::whole(Field::DestinationPort)]);
        assert_eq!(test.within[0][..], [(53, 53), (6379, 6379)]);
    }

    #[test]
    fn a_part_of_an_address_is_a_prefix() {
        let mut registers = Registers::default();
        registers.load(0, &field(Field::Source, 4)[..2]);
        let Condition::Test(test) = registers.compare(0, &[10, 1], Comparison::NotEqual) else { panic!() };
        assert_eq!(test.keys, [Key { field: Field::Source, mask: 0xffff_0000 }]);
        assert_eq!(test.within[0][..], [(0x0a01_0000, 0x0a01_0000)]);
        assert!(test.negated);
    }

    #[test]
    fn numbers_of_the_machine_are_turned_around() {
        let mut registers = Registers::default();
        registers.load(0, &host_field(Field::Mark, 4));
        let Condition::Test(test) = registers.compare(0, &0x1234_u32.to_ne_bytes(), Comparison::Equal) else {
            panic!()
        };
        assert_eq!(test.within[0][..], [(0x1234, 0x1234)]);
        let order = registers.compare(0, &0x1234_u32.to_be_bytes(), Comparison::Less);
        assert_eq!(matches!(order, Condition::Other(_)), cfg!(target_endian = "little"));
        registers.swap(0, 0, 4, 4);
        assert_eq!(
            cfg!(target_endian = "little"),
            registers.compare(0, &[0, 0, 0, 9], Comparison::Less) == Condition::within(Field::Mark, [(0, 8)], false)
        );
    }

    #[test]
    fn what_a_mask_cuts_off_is_never_equal() {
        let mut registers = Registers::default();
        registers.load(0, &field(Field::TcpFlags, 1));
        registers.mask(0, 0, &[0x17], &[0]);
        assert_eq!(registers.compare(0, &[0x20], Comparison::Equal), Condition::Constant(false));
        assert_eq!(registers.compare(0, &[0x20], Comparison::NotEqual), Condition::Constant(true));
    }
}
