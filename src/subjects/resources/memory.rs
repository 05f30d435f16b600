//! Memory and swap: what the host has, and what the tightest control group around this process leaves of it.
//!
//! The live host's totals come from sysinfo. Under a root, and for huge pages, which sysinfo does not know, the five
//! lines needed are read here: procfs-core wants some thirty and refuses the file when a sandbox leaves one out.

use std::path::Path;
use std::time::Instant;

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::cgroup;
use super::cgroup_limits::{self, MemoryLimit};
use crate::facts::value::human_bytes;
use crate::facts::{Fact, Facts, Value};
use crate::host::{Host, ReadError};
use crate::subjects::context::Context;

pub const MEMINFO: &str = "/proc/meminfo";

/// The lines of `/proc/meminfo` that matter here, in bytes. A missing line is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meminfo {
    pub total: Option<u64>,
    pub available: Option<u64>,
    pub swap_total: Option<u64>,
    /// `HugePages_Total`: pages of the default size.
    pub huge_pages: Option<u64>,
    pub huge_page_size: Option<u64>,
}

/// Reads the text of `/proc/meminfo` (proc_meminfo(5)). What is not a number of kB or of pages is missing.
pub fn parse(text: &str) -> Meminfo {
    let mut meminfo = Meminfo::default();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let field = match name {
            "MemTotal" => &mut meminfo.total,
            "MemAvailable" => &mut meminfo.available,
            "SwapTotal" => &mut meminfo.swap_total,
            "HugePages_Total" => &mut meminfo.huge_pages,
            "Hugepagesize" => &mut meminfo.huge_page_size,
            _ => continue,
        };
        let mut words = rest.split_whitespace();
        let number = words.next().and_then(|word| word.parse::<u64>().ok());
        *field = match words.next() {
            None => number,
            // The kernel says kB and means KiB.
            Some("kB") => number.and_then(|number| number.checked_mul(1024)),
            Some(_) => None,
        };
    }
    meminfo
}

/// Inserts `memory.total`, `memory.available`, `memory.hugepages` and `swap.total`.
pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    let wanted = |id: &str| cx.want.has(id);
    let limited = wanted("memory.total") || wanted("memory.available");
    if limited || wanted("swap.total") {
        let started = Instant::now();
        let meminfo = totals(cx.host);
        let limits = if limited {
            cx.mounts().and_then(|mounts| {
                cgroup_limits::memory_limits(cx.host, cgroup::shared_membership(cx)?.as_deref(), mounts)
            })
        } else {
            Ok(Vec::new())
        };
        for (id, of) in [
            ("memory.total", total as fn(&Meminfo, &Limits) -> Fact),
            ("memory.available", available),
            ("swap.total", |meminfo, _| swap(meminfo)),
        ] {
            if wanted(id) {
                let fact = match &meminfo {
                    Ok(meminfo) => of(meminfo, &limits),
                    Err(fact) => fact.clone(),
                };
                facts.live(id, fact.took(started.elapsed()));
            }
        }
    }
    if wanted("memory.hugepages") {
        let started = Instant::now();
        let fact = match cx.host.read_text(MEMINFO) {
            Ok(text) => hugepages(&parse(&text)),
            Err(error) => Fact::unreadable_of_kernel(cx.host, &error, "there is no /proc/meminfo"),
        };
        facts.live("memory.hugepages", fact.took(started.elapsed()));
    }
}

type Limits = Result<Vec<MemoryLimit>, ReadError>;

fn totals(host: &Host) -> Result<Meminfo, Fact> {
    if !host.is_live() {
        return host.read_text(MEMINFO).map(|text| parse(&text)).map_err(|error| no_meminfo(&error));
    }
    let kinds = RefreshKind::nothing().with_memory(MemoryRefreshKind::everything());
    let system = System::new_with_specifics(kinds).map_err(|error| Fact::unknown(error.to_string(), None, MEMINFO))?;
    // sysinfo says 0 for what it could not read. No swap is a real 0, but only where the rest was readable.
    let known = |bytes: u64| (bytes > 0).then_some(bytes);
    let total = known(system.total_memory());
    if total.is_none() && host.unmounted(Path::new(MEMINFO)).is_some() {
        return Err(Fact::unknown("/proc is not there", Some("mount /proc and /sys"), MEMINFO));
    }
    Ok(Meminfo {
        total,
        available: known(system.available_memory()),
        swap_total: total.map(|_| system.total_swap()),
        ..Meminfo::default()
    })
}

fn no_meminfo(error: &ReadError) -> Fact {
    Fact::unreadable(error, "there is no /proc/meminfo: not a running host, or /proc is not mounted")
}

fn missing(name: &str) -> Fact {
    Fact::unknown(format!("{MEMINFO} has no usable {name}"), None, MEMINFO)
}

fn total(meminfo: &Meminfo, limits: &Limits) -> Fact {
    let Some(host) = meminfo.total.filter(|bytes| *bytes > 0) else { return missing("MemTotal") };
    let limits = match limits {
        Ok(limits) => limits,
        Err(error) => return cgroup_limits::unreadable(error),
    };
    match limits.iter().min_by_key(|limit| limit.bytes) {
        None => Fact::known(Value::Bytes(host), MEMINFO),
        Some(limit) if limit.bytes < host => {
            let (bytes, group) = (human_bytes(limit.bytes), &limit.group);
            Fact::known(Value::Bytes(limit.bytes), limit.file.display().to_string())
                .note(format!("limited to {bytes} by cgroup {group}; the host has {}", human_bytes(host)))
        }
        Some(limit) => Fact::known(Value::Bytes(host), MEMINFO).note(format!(
            "all of the host's; cgroup {} would allow {}",
            limit.group,
            human_bytes(limit.bytes)
        )),
    }
}

fn available(meminfo: &Meminfo, limits: &Limits) -> Fact {
    let Some(host) = meminfo.available.filter(|bytes| *bytes > 0) else { return missing("MemAvailable") };
    let limits = match limits {
        Ok(limits) => limits,
        Err(error) => return cgroup_limits::unreadable(error),
    };
    match limits.iter().min_by_key(|limit| limit.left).filter(|limit| limit.left < host) {
        None => Fact::known(Value::Bytes(host), MEMINFO),
        Some(limit) => Fact::known(Value::Bytes(limit.left), limit.file.display().to_string()).note(format!(
            "limited by cgroup {}: {} left of {}; the host has {} available",
            limit.group,
            human_bytes(limit.left),
            human_bytes(limit.bytes),
            human_bytes(host)
        )),
    }
}

fn swap(meminfo: &Meminfo) -> Fact {
    match meminfo.swap_total {
        Some(bytes) => Fact::known(Value::Bytes(bytes), MEMINFO),
        None => missing("SwapTotal"),
    }
}

fn hugepages(meminfo: &Meminfo) -> Fact {
    match (meminfo.huge_pages, meminfo.huge_page_size) {
        (None, None) => Fact::absent("this kernel has no huge pages", MEMINFO),
        (Some(pages), Some(size)) => match pages.checked_mul(size) {
            Some(bytes) => Fact::known(Value::Bytes(bytes), MEMINFO),
            None => missing("HugePages_Total"),
        },
        (None, _) => missing("HugePages_Total"),
        (_, None) => missing("Hugepagesize"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::State;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    fn limit(bytes: u64, left: u64) -> MemoryLimit {
        MemoryLimit { bytes, left, group: "/x".into(), file: "/sys/fs/cgroup/x/memory.max".into() }
    }

    fn host() -> Meminfo {
        parse(
            "MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\nSwapTotal: 0 kB\nHugePages_Total:       4\nHugepagesize:       2048 kB\n",
        )
    }

    #[test]
    fn sysinfo_and_the_file_agree() {
        let text = Host::live().read_text(MEMINFO).unwrap();
        let (ours, theirs) = (parse(&text), totals(&Host::live()).unwrap());
        assert_eq!(ours.total, theirs.total);
        assert_eq!(ours.swap_total, theirs.swap_total);
        let apart = ours.available.unwrap().abs_diff(theirs.available.unwrap());
        assert!(apart < ours.total.unwrap() / 4, "available differs by {apart} within a moment");
    }

    #[test]
    fn the_tightest_limit_binds_and_both_numbers_are_shown() {
        let fact = total(&host(), &Ok(vec![limit(4 * GIB, GIB), limit(2 * GIB, 2 * GIB)]));
        assert_eq!(fact.value(), Some(&Value::Bytes(2 * GIB)));
        assert_eq!(fact.note.as_deref(), Some("limited to 2 GiB by cgroup /x; the host has 16 GiB"));
        assert_eq!(fact.source, "/sys/fs/cgroup/x/memory.max");
        let fact = available(&host(), &Ok(vec![limit(4 * GIB, GIB), limit(2 * GIB, 2 * GIB)]));
        assert_eq!(fact.value(), Some(&Value::Bytes(GIB)), "what is left may bind at another level than the limit");
    }

    #[test]
    fn a_limit_above_the_host_does_not_bind() {
        let fact = total(&host(), &Ok(vec![limit(64 * GIB, 64 * GIB)]));
        assert_eq!(fact.value(), Some(&Value::Bytes(16 * GIB)));
        assert_eq!(fact.note.as_deref(), Some("all of the host's; cgroup /x would allow 64 GiB"));
        assert_eq!(available(&host(), &Ok(vec![])).value(), Some(&Value::Bytes(8 * GIB)));
    }

    #[test]
    fn what_is_missing_or_zero_is_unknown() {
        for text in ["", "MemTotal: 0 kB\nMemAvailable: 0 kB\n", "MemTotal: many kB\n", "MemTotal: 1 GB\n"] {
            let meminfo = parse(text);
            for fact in [total(&meminfo, &Ok(vec![])), available(&meminfo, &Ok(vec![])), swap(&meminfo)] {
                assert!(matches!(fact.state, State::Unknown { .. }), "{text:?}: {fact:?}");
            }
        }
        let unreadable = Host::live().read_text("/no/such/limit").map(|_| Vec::new());
        assert!(matches!(total(&host(), &unreadable).state, State::Unknown { .. }));
    }

    #[test]
    fn huge_pages_and_swap_are_sizes() {
        assert_eq!(hugepages(&host()).value(), Some(&Value::Bytes(8 << 20)));
        assert_eq!(swap(&host()).value(), Some(&Value::Bytes(0)), "no swap is a value, not an unknown");
        assert!(matches!(hugepages(&Meminfo::default()).state, State::Absent(_)));
        let absurd = parse("HugePages_Total: 18446744073709551615\nHugepagesize: 2048 kB\n");
        assert!(matches!(hugepages(&absurd).state, State::Unknown { .. }));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "((MemTotal|SwapTotal|Hugepagesize|:| |kB|[0-9]{1,20}|\n|\\PC){0,20})") {
            let meminfo = parse(&text);
            total(&meminfo, &Ok(vec![]));
            hugepages(&meminfo);
        }
    }
}
