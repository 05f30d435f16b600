//! Which process of a service is its main one, as far as /proc tells. Only systemd itself knows, over its message bus; but
//! the main process is one whose parent is not of the service: systemd starts it, or it stays when its parent left.

use super::process_limits::hard_limit;
use crate::host::{Host, ReadError};

/// A process as /proc/PID/stat describes it (proc_pid_stat(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Cut to 15 bytes by the kernel.
    pub name: String,
    pub parent: i32,
    /// In clock ticks since the boot; a hundred are a second.
    pub started_ticks: u64,
}

/// Reads /proc/PID/stat. A name may hold anything, brackets and blanks too.
pub fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let started_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat { name: name.to_owned(), parent, started_ticks })
}

/// How many processes are looked at, and how deep groups of a service's own are.
const MAX_PROCESSES: usize = 4096;
const MAX_DEPTH: u8 = 4;

/// Why the limit of a main process is not known.
#[derive(Debug)]
pub enum Unclear {
    Unreadable(ReadError),
    /// Its processes are of another process namespace.
    OtherNamespace {
        path: String,
    },
    NotUnderstood {
        path: String,
    },
    /// Several may be the main one, and they differ: `NAME (PID) has LIMIT`, of the first five.
    Several {
        shown: Vec<String>,
        path: String,
    },
}

/// The hard limit on open files of the main process of the service whose control group this is, with its process id; `None`
/// when nothing runs. `program` is what its unit starts.
pub fn nofile(host: &Host, folder: &str, program: Option<&str>) -> Result<Option<(i32, i64)>, Unclear> {
    let mut ids = Vec::new();
    collect(host, folder, MAX_DEPTH, &mut ids).map_err(Unclear::Unreadable)?;
    let path = format!("{folder}/cgroup.procs");
    if ids.contains(&0) {
        return Err(Unclear::OtherNamespace { path });
    }
    let stats: Vec<(i32, Stat)> = ids
        .iter()
        .filter_map(|pid| Some((*pid, parse_stat(&host.read_text(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect();
    let mut roots: Vec<(i32, &str, i64)> = Vec::new();
    for (pid, stat) in stats.iter().filter(|(_, stat)| !ids.contains(&stat.parent)) {
        let path = format!("/proc/{pid}/limits");
        match host.read_text(&path) {
            Ok(text) => match hard_limit(&text) {
                Some(limit) => roots.push((*pid, &stat.name, limit)),
                None => return Err(Unclear::NotUnderstood { path }),
            },
            // It ended in between.
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(Unclear::Unreadable(error)),
        }
    }
    let of_program = || {
        // A helper that was left behind, such as the shims of containerd, has a parent outside, too.
        let cut = program?.bytes().take(15).collect::<Vec<u8>>();
        let of_program: Vec<_> = roots.iter().filter(|(_, name, _)| name.as_bytes() == cut).copied().collect();
        agreed(&of_program)
    };
    if let Some(found) = agreed(&roots).or_else(of_program) {
        return Ok(Some(found));
    }
    if roots.is_empty() {
        return Ok(None);
    }
    let shown = roots.iter().take(5).map(|(pid, name, limit)| format!("{name} ({pid}) has {limit}")).collect();
    Err(Unclear::Several { shown, path })
}

/// The first of the processes and the limit that all of them have.
fn agreed(processes: &[(i32, &str, i64)]) -> Option<(i32, i64)> {
    let (pid, _, limit) = processes.first()?;
    processes.iter().all(|(_, _, other)| other == limit).then_some((*pid, *limit))
}

/// The processes of a group; of the groups below only where it has none itself, since a service that was handed the
/// group over has its own processes there.
fn collect(host: &Host, folder: &str, depth: u8, ids: &mut Vec<i32>) -> Result<(), ReadError> {
    let found = match host.read_text(format!("{folder}/cgroup.procs")) {
        Ok(text) => text,
        Err(error) if error.is_absent() => String::new(),
        Err(error) => return Err(error),
    };
    let own: Vec<i32> = found.lines().filter_map(|line| line.trim().parse().ok()).collect();
    ids.extend(own.iter().take(MAX_PROCESSES.saturating_sub(ids.len())));
    if !own.is_empty() || depth == 0 {
        return Ok(());
    }
    for name in host.list(folder)?.iter().filter_map(|name| name.to_str()) {
        let below = format!("{folder}/{name}");
        if host.exists(format!("{below}/cgroup.procs")) {
            collect(host, &below, depth - 1, ids)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the files they read")]
mod tests {
    use super::super::process_limits::tests::limits;
    use super::*;
    use proptest::prelude::*;

    const GROUP: &str = "/sys/fs/cgroup/system.slice/x.service";

    /// A service's processes: pid, name, parent, limit; its group lists them in this order.
    fn seen(processes: &[(i32, &str, i32, &str)], program: Option<&str>) -> Option<Result<i64, String>> {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let ids: Vec<String> = processes.iter().map(|(pid, ..)| format!("{pid}\n")).collect();
        write(&format!("{GROUP}/cgroup.procs"), &ids.concat());
        for (pid, name, parent, limit) in processes {
            write(&format!("/proc/{pid}/stat"), &stat(*pid, name, *parent));
            write(&format!("/proc/{pid}/limits"), &limits(limit));
        }
        match nofile(&Host::at_root(root.path()), GROUP, program) {
            Ok(found) => found.map(|(_, limit)| Ok(limit)),
            Err(Unclear::Several { shown, .. }) => Some(Err(shown.join(", "))),
            Err(other) => Some(Err(format!("{other:?}"))),
        }
    }

    fn stat(pid: i32, name: &str, parent: i32) -> String {
        format!("{pid} ({name}) S {parent} 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 4711 1 1 18446744073709551615 1")
    }

    /// Seen failing with the first process of the group.
    #[test]
    fn a_child_that_the_group_lists_first_is_not_the_main_process() {
        let processes = [(9, "redis-rdb-bgsave", 70, "1024"), (70, "redis-server", 1, "65535")];
        assert_eq!(seen(&processes, None), Some(Ok(65535)));
    }

    /// Seen failing without the look at the program's name, which is cut to fifteen bytes.
    #[test]
    fn what_stays_of_an_earlier_start_does_not_count_beside_the_program() {
        let processes = [
            (60, "containerd-shim", 1, "1024"),
            (70, "redis-server-of", 1, "65535"),
            (71, "redis-server-of", 70, "7"),
            (80, "containerd-shim", 1, "1048576"),
        ];
        assert_eq!(seen(&processes, Some("redis-server-of-ours")), Some(Ok(65535)));
        let unknown = seen(&processes, Some("sh")).unwrap().unwrap_err();
        assert!(
            unknown.ends_with(
                "containerd-shim (60) has 1024, redis-server-of (70) has 65535, containerd-shim (80) has 1048576"
            ),
            "{unknown}"
        );
        let same = [(60, "a", 1, "1024"), (61, "b", 1, "1024")];
        assert_eq!(seen(&same, None), Some(Ok(1024)), "which one does not matter");
        assert_eq!(seen(&[], None), None);
        assert!(seen(&[(0, "x", 0, "1")], None).unwrap().is_err(), "a process outside of our namespace");
    }

    #[test]
    fn this_process_is_what_the_kernel_says() {
        let own = parse_stat(&std::fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        assert_eq!(own.parent, nix::unistd::getppid().as_raw());
        assert_eq!(parse_stat(&stat(7, "a) (b c) S", 3)).unwrap().name, "a) (b c) S");
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let now: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
        let age = now - f64::from(u32::try_from(own.started_ticks).unwrap()) / 100.0;
        assert!((0.0..600.0).contains(&age), "{age} seconds old");
    }

    proptest! {
        #[test]
        fn any_stat_is_read_or_refused(text in "\\PC{0,80}", name in "\\PC{0,20}", parent in any::<i32>()) {
            let _ = parse_stat(&text);
            let read = parse_stat(&stat(1, &name, parent)).unwrap();
            prop_assert_eq!((read.name, read.parent, read.started_ticks), (name, parent, 4711));
        }
    }
}
