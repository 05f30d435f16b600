//! Whether the clock follows a reference, as the kernel itself knows it: no daemon is asked, so any may keep the time.

use std::time::{Duration, Instant};

use crate::facts::{Fact, Facts, Value};
use crate::host::{clock, describe};
use crate::subjects::context::Context;

const ADJTIMEX: &str = "adjtimex(2)";

/// From here the kernel itself gives up (`NTP_PHASE_LIMIT` of `include/linux/timex.h`); systemd's `NTPSynchronized` is
/// below it (`src/basic/time-util.c`, `ntp_synced()`), whatever `STA_UNSYNC` says.
pub const UNSYNCHRONIZED: Duration = Duration::from_secs(16);

/// Inserts `time.synchronized` and `time.max-error`.
pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    if !cx.want.any("time.") {
        return;
    }
    let started = Instant::now();
    let error = cx.host.is_live().then(clock::max_error);
    for (id, of) in [("time.synchronized", synchronized as fn(Duration) -> Value), ("time.max-error", Value::Duration)]
    {
        if cx.want.has(id) {
            let fact = match &error {
                Some(Ok(error)) => {
                    let fact = Fact::known(of(*error), ADJTIMEX);
                    if *error < UNSYNCHRONIZED { fact } else { fact.note("no reference for hours, or never one") }
                }
                Some(Err(error)) => Fact::unknown(describe(error), Some("allow the system call adjtimex"), ADJTIMEX),
                None => Fact::not_running(ADJTIMEX),
            };
            facts.live(id, fact.took(started.elapsed()));
        }
    }
}

fn synchronized(error: Duration) -> Value {
    Value::Bool(error < UNSYNCHRONIZED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_seconds_is_where_the_clock_is_on_its_own() {
        assert_eq!(synchronized(Duration::from_micros(15_999_999)), Value::Bool(true));
        assert_eq!(synchronized(Duration::from_secs(16)), Value::Bool(false));
        assert!(clock::max_error().unwrap() <= UNSYNCHRONIZED);
    }
}
