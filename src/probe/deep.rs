//! What only a sample over time can tell. Gathered only when asked for by id, that is with `--deep`.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};

use super::Context;
use crate::facts::{Fact, Facts, Value};
use crate::host::Host;

const CLOCK: &str = "deep.clocksource-system-time";
const STEAL: &str = "deep.cpu-steal";
const STAT: &str = "/proc/stat";

/// As Redis measures in `src/syscheck.c`: five ticks of a 100 Hz kernel.
const CLOCK_LOOP: Duration = Duration::from_millis(50);

/// Calls between two looks at the time that is over.
const CALLS_PER_LOOK: usize = 1000;

const STEAL_SAMPLE: Duration = Duration::from_secs(1);

/// Inserts `deep.clocksource-system-time` and `deep.cpu-steal`; both share the second that the latter takes.
pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    let started = Instant::now();
    if !cx.host.is_live() {
        for (id, source) in [(CLOCK, "clock_gettime(2)"), (STEAL, STAT)] {
            if cx.want.has(id) {
                facts.live(id, Fact::not_running(source));
            }
        }
        return;
    }
    let before = cx.want.has(STEAL).then(|| cpu_times(cx.host));
    if cx.want.has(CLOCK) {
        facts.live(CLOCK, clock_loop().took(started.elapsed()));
    }
    if let Some(before) = before {
        thread::sleep(STEAL_SAMPLE.saturating_sub(started.elapsed()));
        let fact = match (before, cpu_times(cx.host)) {
            (Ok(before), Ok(after)) => steal(before, after),
            (Err(fact), _) | (_, Err(fact)) => fact,
        };
        facts.live(STEAL, fact.took(started.elapsed()));
    }
}

/// Reads the clock for 50 ms. A clock source that the vDSO can read costs no time in the kernel; a slow one only that.
fn clock_loop() -> Fact {
    let source = "clock_gettime(2), getrusage(2)";
    let failed = |errno: nix::errno::Errno| Fact::unknown(errno.desc().to_lowercase(), None, source);
    let usage = || {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).map_err(failed)?;
        Ok((usage.user_time().num_microseconds(), usage.system_time().num_microseconds()))
    };
    let run = || {
        let before = usage()?;
        let started = Instant::now();
        while started.elapsed() < CLOCK_LOOP {
            for _ in 0..CALLS_PER_LOOK {
                std::hint::black_box(clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(failed)?);
            }
        }
        let after = usage()?;
        Ok((after.0 - before.0, after.1 - before.1))
    };
    match run() {
        Ok((user, system)) if user + system > 0 => Fact::known(Value::percent(system * 100 / (user + system)), source),
        Ok(_) => Fact::unknown("no CPU time was counted", Some("try again on a less busy host"), source),
        Err(fact) => fact,
    }
}

/// CPU time since boot, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTimes {
    pub steal: u64,
    pub total: u64,
}

/// The first line of `/proc/stat` (proc_stat(5)). Guest time is left out: it is part of user time already.
pub fn parse(text: &str) -> Option<CpuTimes> {
    let fields = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = fields.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let total = ticks.iter().try_fold(0_u64, |sum, ticks| sum.checked_add(*ticks))?;
    Some(CpuTimes { steal: *ticks.get(7)?, total })
}

fn cpu_times(host: &Host) -> Result<CpuTimes, Fact> {
    let text = host.read_text(STAT).map_err(|error| Fact::unreadable(&error, "there is no /proc/stat"))?;
    parse(&text).ok_or_else(|| Fact::unknown("the first line is not CPU times", None, STAT))
}

fn steal(before: CpuTimes, after: CpuTimes) -> Fact {
    let (stolen, total) = (after.steal.saturating_sub(before.steal), after.total.saturating_sub(before.total));
    let percent = u128::from(stolen) * 100;
    match percent.checked_div(u128::from(total)).and_then(|percent| i64::try_from(percent).ok()) {
        Some(percent) => Fact::known(Value::percent(percent), STAT),
        None => Fact::unknown("no CPU time was counted within a second", None, STAT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::State;
    use proptest::prelude::*;

    #[test]
    fn steal_is_the_share_of_the_time_between_two_looks() {
        let before = parse("cpu  100 0 100 700 0 0 0 100 50 0\ncpu0 1 1\n").unwrap();
        assert_eq!(before, CpuTimes { steal: 100, total: 1000 });
        let after = parse("cpu  150 0 100 720 0 0 0 130 90 0\n").unwrap();
        assert_eq!(steal(before, after).value(), Some(&Value::Percent(30)));
        assert!(matches!(steal(before, before).state, State::Unknown { .. }));
        assert_eq!(parse("cpu  1 2 3\n"), None);
    }

    #[test]
    fn the_loop_counts_time() {
        match clock_loop().state {
            State::Known(Value::Percent(percent)) => assert!(percent <= 100),
            state => panic!("{state:?}"),
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(cpu|cpu |[0-9]{1,20}| |\n|\\PC){0,30}") {
            if let Some(times) = parse(&text) {
                steal(times, CpuTimes { steal: 0, total: u64::MAX });
            }
        }
    }
}
