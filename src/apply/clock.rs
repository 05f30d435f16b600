//! Time as a transaction needs it: which boot this is, how long it has been up, and what the calendar says.

use std::thread;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::host::Host;

/// Deadlines are kept in `CLOCK_BOOTTIME`, which runs on through a suspend and which no NTP step moves; it only has a
/// meaning together with the boot id. The wall clock is for people.
pub trait Clock: std::fmt::Debug {
    /// `/proc/sys/kernel/random/boot_id`: a new one with every boot.
    fn boot_id(&self) -> String;
    /// Time since boot, suspends included.
    fn boottime(&self) -> Duration;
    /// The calendar, in UTC.
    fn wall(&self) -> jiff::Timestamp;
    fn sleep(&self, duration: Duration);
}

/// The clocks of the running kernel.
#[derive(Debug)]
pub struct SystemClock {
    boot_id: String,
}

impl SystemClock {
    /// Under a root there is no boot: the id is then empty, and nothing live is ever changed.
    pub fn new(host: &Host) -> Self {
        let boot_id = if host.is_live() { host.read_text("/proc/sys/kernel/random/boot_id").ok() } else { None };
        Self { boot_id: boot_id.map(|text| text.trim().to_owned()).unwrap_or_default() }
    }
}

impl Clock for SystemClock {
    fn boot_id(&self) -> String {
        self.boot_id.clone()
    }

    fn boottime(&self) -> Duration {
        boottime()
    }

    fn wall(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    fn sleep(&self, duration: Duration) {
        thread::sleep(duration);
    }
}

/// The running kernel's time since boot.
pub(crate) fn boottime() -> Duration {
    // clock_gettime(2) fails only for clocks that the kernel does not have; this one is there since 2.6.39.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// `20261122T101500Z`, the first part of a transaction id.
pub(crate) fn compact_utc(wall: jiff::Timestamp) -> String {
    wall.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// A span in whole microseconds, as the journal keeps it.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
