//! Whole CPUs that this process may use: the least of those online, its affinity, and the quotas of the control groups.

use std::time::Instant;

use super::cgroup;
use super::cgroup_limits::{self, CpuQuota};
use crate::facts::{Fact, Facts, Value, ranges};
use crate::host::{Host, cpus};
use crate::subjects::context::Context;

const ONLINE: &str = "/sys/devices/system/cpu/online";
const AFFINITY: &str = "sched_getaffinity(2)";

/// Inserts `cpu.count`.
pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    if !cx.want.has("cpu.count") {
        return;
    }
    let started = Instant::now();
    let fact = if cx.host.is_live() {
        let quotas = cx
            .mounts()
            .and_then(|mounts| cgroup_limits::cpu_quotas(cx.host, cgroup::shared_membership(cx)?.as_deref(), mounts));
        match (cpus::allowed(), quotas) {
            (Ok(allowed), Ok(quotas)) => count(allowed, online(cx.host), &quotas),
            (Err(error), _) => Fact::unknown(crate::host::describe(&error), None, AFFINITY),
            (_, Err(error)) => cgroup_limits::unreadable(&error),
        }
    } else {
        Fact::not_running(AFFINITY)
    };
    facts.live("cpu.count", fact.took(started.elapsed()));
}

/// How many CPUs are online; `None` without /sys, where the affinity alone (which only holds CPUs in use) decides.
fn online(host: &Host) -> Option<usize> {
    let ranges = ranges::parse(&host.read_text(ONLINE).ok()?)?;
    let count = ranges.iter().map(|range| u64::from(range.end() - range.start()) + 1).sum::<u64>();
    usize::try_from(count).ok().filter(|count| *count > 0)
}

fn count(allowed: usize, online: Option<usize>, quotas: &[CpuQuota]) -> Fact {
    let usable = allowed.min(online.unwrap_or(allowed));
    let whole = |count: usize| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
    let host = online.map_or_else(|| format!("{allowed} allowed"), |online| format!("{online} online"));
    if let Some(quota) = quotas.iter().min_by_key(|quota| quota.millicpus)
        && u128::from(quota.millicpus) < usable as u128 * 1000
    {
        let (share, group) = (human_millicpus(quota.millicpus), &quota.group);
        let count = Value::Int(i64::try_from(quota.millicpus / 1000).unwrap_or(i64::MAX));
        return Fact::known(count, quota.file.display().to_string())
            .note(format!("{share} by the quota of cgroup {group}; {host}"));
    }
    match online {
        Some(online) if allowed < online => {
            Fact::known(whole(allowed), AFFINITY).note(format!("{allowed} by the affinity of this process; {host}"))
        }
        Some(online) => Fact::known(whole(online), ONLINE),
        None => Fact::known(whole(allowed), AFFINITY),
    }
}

/// `1.5 CPUs`, `1 CPU`, `0.25 CPUs`.
fn human_millicpus(millicpus: u64) -> String {
    let (whole, rest) = (millicpus / 1000, millicpus % 1000);
    let fraction = format!("{rest:03}");
    match fraction.trim_end_matches('0') {
        "" if whole == 1 => "1 CPU".to_owned(),
        "" => format!("{whole} CPUs"),
        digits => format!("{whole}.{digits} CPUs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(millicpus: u64) -> CpuQuota {
        CpuQuota { millicpus, group: "/x".into(), file: "/sys/fs/cgroup/x/cpu.max".into() }
    }

    #[test]
    fn the_least_of_the_three_binds_and_is_named() {
        for (fact, count, note) in [
            (count(8, Some(8), &[]), 8, None),
            (count(8, Some(8), &[quota(16_000)]), 8, None),
            (count(2, Some(8), &[quota(4_000)]), 2, Some("2 by the affinity of this process; 8 online")),
            (count(8, Some(8), &[quota(4_000), quota(1_500)]), 1, Some("1.5 CPUs by the quota of cgroup /x; 8 online")),
            (count(1, Some(2), &[quota(500)]), 0, Some("0.5 CPUs by the quota of cgroup /x; 2 online")),
            (count(4, None, &[quota(1_000)]), 1, Some("1 CPU by the quota of cgroup /x; 4 allowed")),
            (count(4, None, &[]), 4, None),
        ] {
            assert_eq!(fact.value(), Some(&Value::Int(count)));
            assert_eq!(fact.note.as_deref(), note);
        }
    }

    #[test]
    fn this_machine_has_cpus() {
        let online = online(&Host::live()).unwrap();
        let allowed = cpus::allowed().unwrap();
        assert!(allowed >= 1 && online >= allowed);
    }
}
