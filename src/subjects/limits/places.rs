//! Where the boot reads limits that preflight writes.

use crate::apply::knob::place::FilePlace;
use crate::change::files;

pub const FILES: &[FilePlace] = &[
    FilePlace::ours("/etc/systemd/system/*.service.d/99-zz-preflight.conf", 0o644),
    FilePlace::shared(files::DAEMON_JSON),
];
