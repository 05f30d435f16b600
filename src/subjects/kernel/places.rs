//! Where the boot reads kernel settings and huge pages that preflight writes.

use crate::apply::knob::place::{FilePlace, LinkPlace};
use crate::change::files;

pub const FILES: &[FilePlace] = &[
    FilePlace::ours(files::SYSCTL, 0o644),
    // In tmpfiles.d the first line for a path wins, so ours comes first.
    FilePlace::ours("/etc/tmpfiles.d/00-preflight*.conf", 0o644),
    FilePlace::ours(files::OPENRC, 0o755),
    FilePlace::ours(files::TUNED, 0o644),
    FilePlace::ours(files::TUNED_NEW, 0o644),
    FilePlace::shared(files::TUNED_ACTIVE),
    FilePlace::shared(files::TUNED_MODE),
];

/// `rc-update add preflight-thp boot` makes the same.
pub const LINKS: &[LinkPlace] = &[LinkPlace::new(files::OPENRC_LINK, files::OPENRC)];
