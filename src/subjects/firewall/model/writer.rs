//! What a guard can be written with. The guard is the same; the text of it and the place in the kernel are not.

use super::guard::{Guard, TABLE};
use super::iptables::{self, Variant};

/// One way to write the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// A table of its own in nftables.
    Nft,
    /// Chains of its own in the table mangle, where nft is missing.
    Iptables(Variant),
}

impl Writer {
    /// In the order in which they are preferred.
    pub const ALL: [Self; 3] = [Self::Nft, Self::Iptables(Variant::Nft), Self::Iptables(Variant::Legacy)];

    /// As facts and targets name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables(variant) => variant.name(),
        }
    }

    /// The program that loads it.
    pub fn program(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables(variant) => variant.program(),
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|writer| writer.name() == name)
    }

    /// The knob: one for each, so that what was done by one is taken back by the same, whatever the host's `iptables`
    /// stands for by then.
    pub fn target(self) -> String {
        format!("guard:{}", self.name())
    }

    /// The guard as it is compared, shown and loaded.
    pub fn text(self, guard: &Guard) -> String {
        match self {
            Self::Nft => guard.text(),
            Self::Iptables(variant) => iptables::text(guard, variant),
        }
    }

    /// How the fact names what is ours and not as preflight writes it.
    pub fn changed(self) -> String {
        match self {
            Self::Nft => "changed".to_owned(),
            Self::Iptables(variant) => format!("changed, {}", variant.name()),
        }
    }

    /// Who wrote a text of [`Writer::text`] or [`Writer::changed`].
    pub fn of(text: &str) -> Option<Self> {
        let is_of = |writer: &Self| match writer {
            Self::Nft => text.starts_with(&format!("table {TABLE} ")),
            Self::Iptables(variant) => [false, true].iter().any(|v6| text.starts_with(&iptables::head(*variant, *v6))),
        };
        Self::ALL.into_iter().find(|writer| text == writer.changed() || is_of(writer))
    }

    /// How to take it away by hand.
    pub fn removal(self) -> String {
        match self {
            Self::Nft => format!("nft delete table {TABLE}"),
            Self::Iptables(variant) => {
                let names = [iptables::CHAIN, iptables::RESTRICT].join(" and ");
                format!("take the chains {names} out of the table mangle of {}, IPv4 and IPv6", variant.name())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_names_its_writer() {
        for writer in Writer::ALL {
            assert_eq!(Writer::of(&writer.text(&Guard::default())), Some(writer));
            assert_eq!(Writer::of(&writer.changed()), Some(writer));
            assert_eq!(Writer::named(writer.name()), Some(writer));
        }
        for text in ["", "none", "several", "table inet filter {\n}\n", "iptables-nft", "# iptables-nft"] {
            assert_eq!(Writer::of(text), None, "{text}");
        }
    }
}
