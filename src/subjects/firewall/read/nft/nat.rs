//! The expressions that rewrite addresses and ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::be32;
use super::expression::Translator;
use crate::subjects::firewall::model::rules::{Step, Target};

impl Translator<'_> {
    /// The constant port in a register; without a register, none. `None`: it is no constant.
    #[expect(clippy::option_option, reason = "not given, and not known, are two things")]
    fn port(&self, data: &[u8], attribute: u16) -> Option<Option<u16>> {
        let Some(at) = Self::place(data, attribute) else { return Some(None) };
        let bytes = self.registers.constant(at, 2)?;
        Some(Some(u16::from_be_bytes(bytes.try_into().ok()?)))
    }

    /// The same of a range, when it is of one port.
    #[expect(clippy::option_option, reason = "not given, and not known, are two things")]
    pub(super) fn one_port(&self, data: &[u8], low: u16, high: u16) -> Option<Option<u16>> {
        let port = self.port(data, low)?;
        (Self::place(data, high).is_none() || self.port(data, high)? == port).then_some(port)
    }

    pub(super) fn nat(&mut self, data: &[u8]) -> Option<()> {
        const KIND: u16 = 1;
        const FAMILY: u16 = 2;
        const ADDRESS_MIN: u16 = 3;
        const ADDRESS_MAX: u16 = 4;
        const PORT_MIN: u16 = 5;
        const PORT_MAX: u16 = 6;
        const SNAT: u32 = 0;
        const V4: u32 = 2;
        const V6: u32 = 10;
        // In a table of both families, packets of the other one go on (`nft_nat_inet_eval`).
        match be32(data, FAMILY) {
            Some(V4) => self.only(false),
            Some(V6) => self.only(true),
            _ => {}
        }
        if be32(data, KIND)? == SNAT {
            self.steps.push(Step::Snat);
            return Some(());
        }
        let address = |at| -> Option<IpAddr> {
            Some(if be32(data, FAMILY)? == V6 {
                Ipv6Addr::from(<[u8; 16]>::try_from(self.registers.constant(at, 16)?).ok()?).into()
            } else {
                Ipv4Addr::from(<[u8; 4]>::try_from(self.registers.constant(at, 4)?).ok()?).into()
            })
        };
        let (low, high) = (Self::place(data, ADDRESS_MIN), Self::place(data, ADDRESS_MAX));
        let to = match (low, high) {
            (None, _) => Target::Same,
            (Some(low), high) => match (address(low), high.map(address)) {
                (Some(low), None) => Target::Address(low),
                (Some(low), Some(Some(high))) if low == high => Target::Address(low),
                _ => Target::Unknown,
            },
        };
        let (to, port) = match self.one_port(data, PORT_MIN, PORT_MAX) {
            Some(port) => (to, port),
            None => (Target::Unknown, None),
        };
        self.steps.push(Step::Dnat { to, port });
        Some(())
    }
}
