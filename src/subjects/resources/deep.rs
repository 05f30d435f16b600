//! What only a sample over time can tell. Gathered only when asked for by id, that is with `--deep`.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};

use crate::facts::{Fact, Facts, Value};
use crate::host::{Host, describe, space};
use crate::subjects::context::Context;

const CLOCK: &str = "deep.clocksource-system-time";
const STEAL: &str = "deep.cpu-steal";
const FSYNC: &str = "deep.data-fsync";
const STAT: &str = "/proc/stat";
const FSYNC_SOURCE: &str = "open(2) O_TMPFILE, fdatasync(2)";

/// As Redis measures in `src/syscheck.c`: five ticks of a 100 Hz kernel.
const CLOCK_LOOP: Duration = Duration::from_millis(50);

/// Calls between two looks at the time that is over.
const CALLS_PER_LOOK: usize = 1000;

const STEAL_SAMPLE: Duration = Duration::from_secs(1);

/// As much as Redis appends at once with small values, as often as 99 % can be told of.
const WRITE_BYTES: usize = 4096;
const WRITES: usize = 64;

/// A disk that needs longer for them is slow, however long it would need.
const FSYNC_PATIENCE: Duration = Duration::from_secs(5);

/// Inserts `deep.clocksource-system-time`, `deep.data-fsync` and `deep.cpu-steal`; they share the second that the last takes.
pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    let started = Instant::now();
    if !cx.host.is_live() {
        for (id, source) in [(CLOCK, "clock_gettime(2)"), (FSYNC, FSYNC_SOURCE), (STEAL, STAT)] {
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
    if cx.want.has(FSYNC) {
        let writing = Instant::now();
        facts.live(FSYNC, data_fsync(cx.parameters.text("data_dir")).took(writing.elapsed()));
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

/// Writes where the data directory is or will be, and waits for the disk each time.
fn data_fsync(data_dir: Option<&str>) -> Fact {
    let Some(data_dir) = data_dir else {
        return Fact::absent("the profile has no parameter `data_dir`", "data_dir");
    };
    if !Path::new(data_dir).is_absolute() {
        return Fact::unknown(format!("`{data_dir}` is not an absolute path"), Some("set data_dir"), "data_dir");
    }
    let failed = |error: &io::Error, place: &Path| {
        let help = match error.kind() {
            io::ErrorKind::PermissionDenied => Some("run as root"),
            io::ErrorKind::ReadOnlyFilesystem => Some("mount it for writing"),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("make room there"),
            // NFS and old overlays know no file without a name; one with a name could be left behind.
            _ => Some("measure with fio or ioping where the data will lie"),
        };
        Fact::unknown(
            format!("nothing could be written to {}: {}", place.display(), describe(error)),
            help,
            FSYNC_SOURCE,
        )
    };
    let place = match space::nearest(Path::new(data_dir)) {
        Ok(place) => place,
        Err(error) => return failed(&error, Path::new(data_dir)),
    };
    match sample_fsync(&place.path) {
        Ok(times) => match slowest_but_one_in_a_hundred(times) {
            Some(time) => Fact::known(Value::Duration(time), format!("{FSYNC_SOURCE} in {}", place.path.display())),
            None => Fact::unknown("nothing was measured", None, FSYNC_SOURCE),
        },
        Err(error) => failed(&error, &place.path),
    }
}

/// How long each write took, of an unnamed file: a kill leaves nothing behind.
fn sample_fsync(folder: &Path) -> io::Result<Vec<Duration>> {
    let file = fs::OpenOptions::new().write(true).custom_flags(nix::libc::O_TMPFILE).mode(0o600).open(folder)?;
    let block = [0x5a; WRITE_BYTES];
    let started = Instant::now();
    let mut times = Vec::with_capacity(WRITES);
    for at in 0..WRITES {
        let before = Instant::now();
        file.write_all_at(&block, u64::try_from(at * WRITE_BYTES).map_err(io::Error::other)?)?;
        file.sync_data()?;
        times.push(before.elapsed());
        if started.elapsed() > FSYNC_PATIENCE {
            break;
        }
    }
    Ok(times)
}

/// The time that 99 % of them took at most, by the nearest rank; the longest of fewer than a hundred.
fn slowest_but_one_in_a_hundred(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get((times.len() * 99).div_ceil(100).checked_sub(1)?).copied()
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
    fn one_in_a_hundred_may_be_slower() {
        let of = |count: u64| slowest_but_one_in_a_hundred((1..=count).rev().map(Duration::from_millis).collect());
        assert_eq!((of(0), of(1), of(64)), (None, Some(Duration::from_millis(1)), Some(Duration::from_millis(64))));
        assert_eq!((of(100), of(200)), (Some(Duration::from_millis(99)), Some(Duration::from_millis(198))));
    }

    /// Seen failing with a file that has a name.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test looks at its own folder")]
    fn a_write_is_measured_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let before = fs::metadata(folder.path()).unwrap().modified().unwrap();
        let fact = data_fsync(folder.path().join("redis/data").to_str());
        assert!(matches!(fact.value(), Some(Value::Duration(time)) if !time.is_zero()), "{fact:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(fs::metadata(folder.path()).unwrap().modified().unwrap(), before, "not even for a moment");
        assert!(matches!(data_fsync(None).state, State::Absent(_)));
    }

    /// Where no file without a name is to be had nothing is written, and that is no pass.
    #[test]
    fn where_nothing_can_be_written_it_is_unknown() {
        let fact = data_fsync(Some("/proc/self"));
        assert!(matches!(&fact.state, State::Unknown { error, help: Some(_) } if error.contains("/proc/")), "{fact:?}");
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
