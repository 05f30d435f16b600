//! Sets of packets: who sent them, to which address of the host, from which port.
//!
//! A packet "from any stranger" is not one packet. The rules it passes cut the set in two wherever they look at what
//! the sender or the path may choose, so that "open, but only to 10.0.0.0/8" comes out of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Numbers as ascending closed ranges that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    pub fn new(ranges: impl IntoIterator<Item = (u128, u128)>) -> Self {
        let mut sorted: Vec<(u128, u128)> = ranges.into_iter().filter(|(low, high)| low <= high).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(sorted.len());
        for (low, high) in sorted {
            match merged.last_mut() {
                Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Self(merged)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u128, u128)> {
        self.0.iter().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, number: u128) -> bool {
        let after = self.0.partition_point(|range| range.0 <= number);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|range| number <= range.1)
    }

    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut common = Vec::new();
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            let (low, high) = (a.0.max(b.0), a.1.min(b.1));
            if low <= high {
                common.push((low, high));
            }
            if a.1 < b.1 {
                left.next();
            } else {
                right.next();
            }
        }
        Self(common)
    }

    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for &(low, high) in &self.0 {
            let mut from = Some(low);
            let first = other.0.partition_point(|range| range.1 < low);
            for &(cut_low, cut_high) in other.0.iter().skip(first).take_while(|range| range.0 <= high) {
                let Some(start) = from else { break };
                if start < cut_low {
                    left.push((start, cut_low - 1));
                }
                from = cut_high.checked_add(1).filter(|next| *next <= high).map(|next| next.max(start));
            }
            if let Some(start) = from {
                left.push((start, high));
            }
        }
        Self(left)
    }
}

/// What a packet's sender and the way it took decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    Source,
    /// The address it was sent to, before anything rewrote it.
    Destination,
    SourcePort,
}

/// All packets with each of the three in its ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub source: Ranges,
    pub destination: Ranges,
    pub source_port: Ranges,
}

impl Block {
    pub fn get(&self, dimension: Dimension) -> &Ranges {
        match dimension {
            Dimension::Source => &self.source,
            Dimension::Destination => &self.destination,
            Dimension::SourcePort => &self.source_port,
        }
    }

    fn with(&self, dimension: Dimension, ranges: Ranges) -> Option<Self> {
        if ranges.is_empty() {
            return None;
        }
        let mut block = self.clone();
        match dimension {
            Dimension::Source => block.source = ranges,
            Dimension::Destination => block.destination = ranges,
            Dimension::SourcePort => block.source_port = ranges,
        }
        Some(block)
    }

    fn cut(&self, dimension: Dimension, ranges: &Ranges) -> (Option<Self>, Option<Self>) {
        let own = self.get(dimension);
        (self.with(dimension, own.intersect(ranges)), self.with(dimension, own.subtract(ranges)))
    }
}

/// Any set of packets, as blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Region(Vec<Block>);

impl Region {
    pub fn of(block: Block) -> Self {
        let empty = block.source.is_empty() || block.destination.is_empty() || block.source_port.is_empty();
        Self(if empty { Vec::new() } else { vec![block] })
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn blocks(&self) -> &[Block] {
        &self.0
    }

    /// Adds another's packets.
    pub fn add(&mut self, other: Self) {
        for block in other.0 {
            if self.0.contains(&block) {
                continue;
            }
            // The usual case: two halves that a rule cut apart come together again.
            let joined = self.0.iter_mut().find_map(|own| {
                let same = [Dimension::Source, Dimension::Destination, Dimension::SourcePort]
                    .map(|dimension| own.get(dimension) == block.get(dimension));
                let dimension = match same {
                    [false, true, true] => Dimension::Source,
                    [true, false, true] => Dimension::Destination,
                    [true, true, false] => Dimension::SourcePort,
                    _ => return None,
                };
                let both = Ranges::new(own.get(dimension).iter().chain(block.get(dimension).iter()));
                *own = own.with(dimension, both)?;
                Some(())
            });
            if joined.is_none() {
                self.0.push(block);
            }
        }
    }

    /// Those inside, and those outside.
    pub fn split(self, dimension: Dimension, ranges: &Ranges) -> (Self, Self) {
        let (mut inside, mut outside) = (Self::default(), Self::default());
        for block in self.0 {
            let (within, without) = block.cut(dimension, ranges);
            inside.add(Self(within.into_iter().collect()));
            outside.add(Self(without.into_iter().collect()));
        }
        (inside, outside)
    }

    #[must_use]
    pub fn subtract(mut self, other: &Self) -> Self {
        for cut in &other.0 {
            let mut left = Self::default();
            for block in self.0 {
                let mut rest = Some(block);
                for dimension in [Dimension::Source, Dimension::Destination, Dimension::SourcePort] {
                    let Some(block) = rest.take() else { break };
                    let (inside, outside) = block.cut(dimension, cut.get(dimension));
                    left.add(Self(outside.into_iter().collect()));
                    rest = inside;
                }
            }
            self = left;
        }
        self
    }

    /// All sources in it.
    pub fn sources(&self) -> Ranges {
        Ranges::new(self.0.iter().flat_map(|block| block.source.iter()))
    }
}

pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

pub fn address(number: u128, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::from_bits(number).into()
    } else {
        Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into()
    }
}

/// Sources in words: `10.0.0.0/8, 192.0.2.7 and 3 more ranges`.
pub fn describe(ranges: &Ranges, v6: bool) -> String {
    const SHOWN: usize = 3;
    let width: u32 = if v6 { 128 } else { 32 };
    let mut words: Vec<String> = Vec::new();
    for (low, high) in ranges.iter().take(SHOWN) {
        let (first, last) = (address(low, v6), address(high, v6));
        let span = high - low;
        let is_block = span & span.wrapping_add(1) == 0 && low & span == 0;
        words.push(match () {
            () if low == high => first.to_string(),
            () if is_block => format!("{first}/{}", width - span.count_ones()),
            () => format!("{first}-{last}"),
        });
    }
    let more = ranges.iter().count().saturating_sub(SHOWN);
    let text = words.join(", ");
    if more == 0 { text } else { format!("{text} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_ranges() -> impl Strategy<Value = Ranges> {
        prop::collection::vec((0_u128..40, 0_u128..40), 0..5).prop_map(Ranges::new)
    }

    fn any_block() -> impl Strategy<Value = Block> {
        (any_ranges(), any_ranges(), any_ranges()).prop_map(|(source, destination, source_port)| Block {
            source,
            destination,
            source_port,
        })
    }

    fn any_region() -> impl Strategy<Value = Region> {
        prop::collection::vec(any_block(), 0..4).prop_map(|blocks| {
            let mut region = Region::default();
            for block in blocks {
                region.add(Region::of(block));
            }
            region
        })
    }

    fn holds(region: &Region, packet: (u128, u128, u128)) -> bool {
        region.blocks().iter().any(|block| {
            block.source.contains(packet.0)
                && block.destination.contains(packet.1)
                && block.source_port.contains(packet.2)
        })
    }

    proptest! {
        #[test]
        fn ranges_are_sets(a in any_ranges(), b in any_ranges(), probe in 0_u128..42) {
            prop_assert_eq!(a.intersect(&b).contains(probe), a.contains(probe) && b.contains(probe));
            prop_assert_eq!(a.subtract(&b).contains(probe), a.contains(probe) && !b.contains(probe));
        }

        #[test]
        fn regions_are_sets(
            a in any_region(), b in any_region(), cut in any_ranges(), packet in (0_u128..42, 0_u128..42, 0_u128..42)
        ) {
            let mut both = a.clone();
            both.add(b.clone());
            prop_assert_eq!(holds(&both, packet), holds(&a, packet) || holds(&b, packet));
            prop_assert_eq!(holds(&a.clone().subtract(&b), packet), holds(&a, packet) && !holds(&b, packet));
            let (inside, outside) = a.clone().split(Dimension::Destination, &cut);
            prop_assert_eq!(holds(&inside, packet), holds(&a, packet) && cut.contains(packet.1));
            prop_assert_eq!(holds(&outside, packet), holds(&a, packet) && !cut.contains(packet.1));
        }
    }

    #[test]
    fn the_whole_range_is_no_overflow() {
        let all = Ranges::new([(0, u128::MAX)]);
        let one = Ranges::new([(u128::MAX, u128::MAX), (0, 0)]);
        assert_eq!(all.subtract(&one), Ranges::new([(1, u128::MAX - 1)]));
        assert_eq!(one.subtract(&all), Ranges::default());
        assert_eq!(describe(&Ranges::new([(0x0a00_0000, 0x0aff_ffff), (1, 3)]), false), "0.0.0.1-0.0.0.3, 10.0.0.0/8");
        assert_eq!(describe(&all, true), "::/0");
    }
}
