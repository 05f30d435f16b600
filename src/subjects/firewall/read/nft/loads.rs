//! The expressions that put a part of the packet, or what is known of it, into a register.

use super::expression::Translator;
use super::registers::{Byte, field, host_field};
use super::{be32, find};
use crate::subjects::firewall::model::rules::{Field, Step};

impl Translator<'_> {
    pub(super) fn payload(&mut self, data: &[u8]) -> Option<()> {
        const DESTINATION: u16 = 1;
        const BASE: u16 = 2;
        const OFFSET: u16 = 3;
        const LENGTH: u16 = 4;
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        let (base, offset, length) = (be32(data, BASE)?, be32(data, OFFSET)?, be32(data, LENGTH)?);
        // Without a destination it writes the header: only what is not looked at here may change unseen.
        let Some(at) = Self::place(data, DESTINATION) else {
            let bytes = offset..offset.checked_add(length)?;
            let looked_at = match base {
                NETWORK => bytes.end > 6,
                TRANSPORT => bytes.start < 4,
                _ => false,
            };
            return (!looked_at).then_some(());
        };
        let bytes: Vec<Byte> = (offset..offset.checked_add(length.min(64))?)
            .map(|at| match (base, self.v6) {
                (NETWORK, Some(v6)) => network_byte(v6, at),
                (TRANSPORT, _) => transport_byte(at),
                _ => Byte::Unknown,
            })
            .collect();
        self.registers.load(at, &bytes);
        Some(())
    }

    pub(super) fn meta(&mut self, data: &[u8]) -> Option<()> {
        const DESTINATION: u16 = 1;
        const KEY: u16 = 2;
        const SOURCE: u16 = 3;
        const MARK: u32 = 3;
        let key = be32(data, KEY)?;
        let Some(at) = Self::place(data, DESTINATION) else {
            if key == MARK {
                let (keep, set) = self.marked(Self::place(data, SOURCE)?, Field::Mark);
                self.steps.push(Step::SetMark { keep, set });
            }
            return Some(());
        };
        let bytes = match key {
            1 => field(Field::EtherType, 2),
            MARK => host_field(Field::Mark, 4),
            4 => host_field(Field::InIndex, 4),
            5 => host_field(Field::OutIndex, 4),
            6 => field(Field::InName, 16),
            7 => field(Field::OutName, 16),
            15 => field(Field::NfProto, 1),
            16 => field(Field::L4Proto, 1),
            19 => field(Field::PacketType, 1),
            25 => field(Field::Secpath, 1),
            _ => vec![Byte::Unknown; 16],
        };
        self.registers.load(at, &bytes);
        Some(())
    }

    /// What a mark becomes: the bits that stay, and those that are flipped; `None` when it is not known.
    fn marked(&self, at: usize, own: Field) -> (u32, Option<u32>) {
        let (mut keep, mut set) = ([0_u8; 4], [0_u8; 4]);
        let bytes = self.registers.get(at, 4);
        for ((byte, place), (keep, set)) in
            bytes.iter().zip(host_field(own, 4)).zip(keep.iter_mut().zip(set.iter_mut()))
        {
            match (*byte, place) {
                (Byte::Constant(value), _) => *set = value,
                (Byte::Of { field, at, mask, flip, .. }, Byte::Of { at: here, .. }) if field == own && at == here => {
                    (*keep, *set) = (mask, flip);
                }
                _ => return (0, None),
            }
        }
        (u32::from_ne_bytes(keep), Some(u32::from_ne_bytes(set)))
    }

    pub(super) fn connection(&mut self, data: &[u8]) -> Option<()> {
        const DESTINATION: u16 = 1;
        const KEY: u16 = 2;
        const DIRECTION: u16 = 3;
        const SOURCE: u16 = 4;
        const MARK: u32 = 3;
        let key = be32(data, KEY)?;
        let Some(at) = Self::place(data, DESTINATION) else {
            if key == MARK {
                let (keep, set) = self.marked(Self::place(data, SOURCE)?, Field::CtMark);
                self.steps.push(Step::SetConnectionMark { keep, set });
            }
            return Some(());
        };
        let direction = find(data, DIRECTION).and_then(|value| value.first().copied());
        // Of a connection of the other family they have nothing to read, and the rule ends (`nft_ct_get_eval`).
        match key {
            19 | 20 => self.only(false),
            21 | 22 => self.only(true),
            _ => {}
        }
        let address_bytes = if key == 21 || key == 22 || self.v6 == Some(true) { 16 } else { 4 };
        let bytes = match (key, direction) {
            (0, _) => host_field(Field::CtState, 4),
            (1, _) => field(Field::CtDirection, 1),
            (2, _) => host_field(Field::CtStatus, 4),
            (MARK, _) => host_field(Field::CtMark, 4),
            (7, _) => field(Field::CtFamily, 1),
            (8, Some(0)) if self.v6.is_some() => field(Field::CtOriginalSource, address_bytes),
            (9, Some(0)) if self.v6.is_some() => field(Field::CtOriginalDestination, address_bytes),
            (8, Some(1)) if self.v6.is_some() => field(Field::CtReplySource, address_bytes),
            (10, _) => field(Field::CtProtocol, 1),
            (11, Some(0)) => field(Field::CtOriginalSourcePort, 2),
            (12, Some(0)) => field(Field::CtOriginalDestinationPort, 2),
            (11, Some(1)) => field(Field::CtReplySourcePort, 2),
            (19 | 21, Some(0)) => field(Field::CtOriginalSource, address_bytes),
            (20 | 22, Some(0)) => field(Field::CtOriginalDestination, address_bytes),
            (19 | 21, Some(1)) => field(Field::CtReplySource, address_bytes),
            _ => vec![Byte::Unknown; 16],
        };
        self.registers.load(at, &bytes);
        Some(())
    }

    pub(super) fn fib(&mut self, data: &[u8]) -> Option<()> {
        const DESTINATION: u16 = 1;
        const RESULT: u16 = 2;
        const FLAGS: u16 = 3;
        const SADDR: u32 = 1;
        const DADDR: u32 = 2;
        const IIF: u32 = 8;
        const PRESENT: u32 = 32;
        const MARK: u32 = 4;
        let (result, flags) = (be32(data, RESULT)?, be32(data, FLAGS)?);
        let bytes = match (result, flags & !MARK) {
            (3, DADDR) => host_field(Field::FibDestinationType, 4),
            (3, flags) if flags == DADDR | IIF => host_field(Field::FibDestinationTypeHere, 4),
            (3, SADDR) => host_field(Field::FibSourceType, 4),
            (1 | 2, flags) if flags & SADDR != 0 && flags & PRESENT != 0 => {
                field(if flags & IIF != 0 { Field::FibSourcePresent } else { Field::FibSourceRouted }, 1)
            }
            (1, flags) if flags & SADDR != 0 => host_field(Field::FibSourceIndex, 4),
            (2, flags) if flags & SADDR != 0 => field(Field::FibSourceName, 16),
            _ => vec![Byte::Unknown; 16],
        };
        self.registers.load(Self::place(data, DESTINATION)?, &bytes);
        Some(())
    }
}

fn network_byte(v6: bool, at: u32) -> Byte {
    let of = |field, width, first: u32| match u8::try_from(at - first) {
        Ok(at) => Byte::Of { field, width, at, mask: 0xff, flip: 0 },
        Err(_) => Byte::Unknown,
    };
    match (v6, at) {
        (false, 6..=7) => of(Field::Fragment, 2, 6),
        (false, 9) => of(Field::L4Proto, 1, 9),
        (false, 12..=15) => of(Field::Source, 4, 12),
        (false, 16..=19) => of(Field::Destination, 4, 16),
        (true, 6) => of(Field::L4Proto, 1, 6),
        (true, 8..=23) => of(Field::Source, 16, 8),
        (true, 24..=39) => of(Field::Destination, 16, 24),
        _ => Byte::Unknown,
    }
}

fn transport_byte(at: u32) -> Byte {
    let of = |field, width, first: u32| match u8::try_from(at - first) {
        Ok(at) => Byte::Of { field, width, at, mask: 0xff, flip: 0 },
        Err(_) => Byte::Unknown,
    };
    match at {
        0..=1 => of(Field::SourcePort, 2, 0),
        2..=3 => of(Field::DestinationPort, 2, 2),
        13 => of(Field::TcpFlags, 1, 13),
        _ => Byte::Unknown,
    }
}
