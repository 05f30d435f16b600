//! Where the boot reads the guard, and what makes it start.

use super::model::boot;
use crate::apply::knob::place::{FilePlace, LinkPlace};

pub const FILES: &[FilePlace] = &[
    FilePlace::ours(boot::FILE, 0o644),
    FilePlace::ours(boot::IPTABLES[0], 0o644),
    FilePlace::ours(boot::IPTABLES[1], 0o644),
    FilePlace::ours(boot::UNIT, 0o644),
    FilePlace::ours(boot::OPENRC, 0o755),
];

pub const LINKS: &[LinkPlace] = &[
    LinkPlace::new(boot::OPENRC_LINK, boot::OPENRC),
    LinkPlace::new(boot::UNIT_LINKS[0], boot::UNIT),
    LinkPlace::new(boot::UNIT_LINKS[1], boot::UNIT),
    LinkPlace::new(boot::UNIT_LINKS[2], boot::UNIT),
    LinkPlace::new(boot::UNIT_LINKS[3], boot::UNIT),
    LinkPlace::new(boot::UNIT_LINKS[4], boot::UNIT),
    LinkPlace::new(boot::UNIT_LINKS[5], boot::UNIT),
];
