//! What runs with an older value than an applied one. A service shows its limit; of what Redis took from the kernel when
//! it started, some can be seen from outside and some cannot, and then that is said.

use crate::apply::StaleProcess;
use crate::apply::journal::Step;
use crate::facts::{Fact, State, Value};
use crate::host::main_process::parse_stat;
use crate::host::{Host, process};
use crate::subjects::limits::service;
use crate::subjects::ports as port;

use crate::change::files;
use crate::change::target::Target;

/// The programs that take the length of their queue and their huge pages from the kernel when they start.
const REDIS: [&str; 4] = ["redis-server", "redis-sentinel", "valkey-server", "valkey-sentinel"];

/// `USER_HZ`, in which the kernel counts for programs: a hundred on every architecture that is built for.
const TICK_US: u64 = 10_000;

/// `since_us` is when the step was done in this boot; what was done before this boot everything found when it started.
/// `live_limit` tells the limit of a service's process.
pub(crate) fn behind(
    host: &Host,
    step: &Step,
    since_us: Option<u64>,
    live_limit: &dyn Fn(&str) -> Option<Fact>,
) -> Result<Vec<StaleProcess>, String> {
    if !host.is_live() {
        return Ok(Vec::new());
    }
    let target = Target::of(&step.target);
    if let Some(unit) = target.and_then(Target::drop_in_service) {
        let limit = service::assignments(&step.after).last().map(|(_, limit)| limit);
        return Ok(limit.and_then(|limit| of_service(unit, limit, &live_limit(unit)?)).into_iter().collect());
    }
    let Some(since_us) = since_us else { return Ok(Vec::new()) };
    match target {
        Some(Target::Sysctl("net.core.somaxconn")) => each(host, since_us, &REDIS, |pid| of_queue(host, pid)),
        Some(Target::HugePages(_)) => each(host, since_us, &REDIS, |pid| of_huge_pages(host, pid)),
        Some(Target::File(files::DAEMON_JSON)) => {
            each(host, since_us, &["dockerd"], |_| Some((true, "it reads that file only when it starts")))
        }
        _ => Ok(Vec::new()),
    }
}

fn of_service(unit: &str, limit: i64, live: &Fact) -> Option<StaleProcess> {
    let (is_certain, reason) = match &live.state {
        // Without a process the fact is that of the next start.
        State::Known(Value::Int(now)) if *now < limit && live.source.starts_with("/proc/") => {
            (true, format!("it runs with {now} and gets {limit} with its next start, after `systemctl daemon-reload`"))
        }
        State::Unknown { error, .. } => (false, error.clone()),
        _ => return None,
    };
    Some(StaleProcess { what: unit.to_owned(), is_certain, reason })
}

/// The programs of a name that were started before, with what is known of each.
fn each(
    host: &Host,
    since_us: u64,
    names: &[&str],
    known: impl Fn(i32) -> Option<(bool, &'static str)>,
) -> Result<Vec<StaleProcess>, String> {
    let mut found = Vec::new();
    for pid in process::ids().map_err(|error| format!("/proc: {}", crate::host::describe(&error)))? {
        let stat = match host.read_text(format!("/proc/{pid}/stat")) {
            Ok(text) => text,
            Err(error) if error.is_gone() => continue,
            Err(error) => return Err(error.to_string()),
        };
        let Some(stat) = parse_stat(&stat) else { continue };
        let is_older = stat.started_ticks.saturating_mul(TICK_US) < since_us;
        if !is_older || !names.contains(&stat.name.as_str()) {
            continue;
        }
        let Some((is_certain, reason)) = known(pid) else { continue };
        let belongs = host.read_text(format!("/proc/{pid}/cgroup")).map(|text| port::cgroup::parse(&text));
        let container = belongs.ok().and_then(|belongs| belongs.container);
        let of = container.map(|id| format!(", container {}", id.get(..12).unwrap_or(&id))).unwrap_or_default();
        let reason = format!("it was started before the change; {reason}");
        found.push(StaleProcess { what: format!("{} (process {pid}{of})", stat.name), is_certain, reason });
    }
    Ok(found)
}

/// The queue of a listening socket keeps the bound of when it was opened; in a network of its own it never was the host's.
fn of_queue(host: &Host, pid: i32) -> Option<(bool, &'static str)> {
    match (host.link_target("/proc/self/ns/net"), host.link_target(format!("/proc/{pid}/ns/net"))) {
        (Some(ours), Some(theirs)) if ours != theirs => None,
        (Some(_), Some(_)) => Some((true, "its listening sockets keep the bound of then")),
        _ => Some((false, "whether it is in this network cannot be seen without root")),
    }
}

/// Redis can keep itself from huge pages (`disable-thp`), and then has none.
fn of_huge_pages(host: &Host, pid: i32) -> Option<(bool, &'static str)> {
    let status = host.read_text(format!("/proc/{pid}/status")).ok()?;
    let has_none = status.lines().any(|line| line.split_whitespace().eq(["THP_enabled:", "0"]));
    (!has_none).then_some((false, "it may hold huge pages of then, which cannot be seen without disturbing it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(target: &str, after: &str) -> Step {
        Step {
            id: "x".into(),
            layer: crate::facts::Layer::Boot,
            target: target.into(),
            after: after.into(),
            before_sha256: None,
            restarts: Vec::new(),
            connectivity_risk: false,
        }
    }

    /// Seen failing with the source not looked at: a service that does not run was to be restarted.
    #[test]
    fn a_service_is_behind_while_its_process_has_less() {
        let step =
            step("file:/etc/systemd/system/redis.service.d/99-zz-preflight.conf", "[Service]\nLimitNOFILE=65535\n");
        let known = |limit: i64, source: &str| Fact::known(Value::Int(limit), source);
        let of = |fact: Fact| {
            behind(&Host::live(), &step, None, &|unit| (unit == "redis.service").then(|| fact.clone())).unwrap()
        };
        assert!(of(known(1024, "/proc/7/limits"))[0].is_certain);
        assert_eq!(of(known(65535, "/proc/7/limits")), []);
        assert_eq!(of(known(1_000_000, "/proc/7/limits")), []);
        assert_eq!(of(known(1024, "/usr/lib/systemd/system/redis.service:3")), []);
        assert!(!of(Fact::unknown("denied", None, "/proc/7/limits"))[0].is_certain);
        assert_eq!(of(Fact::absent("no such service", "x")), []);
    }
}
