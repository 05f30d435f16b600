//! The hard limit on open files that a container of the workload gets.
//!
//! Redis raises its soft limit up to the hard one by itself, so the hard one counts. limits.conf never reaches a
//! container (it is read by PAM sessions): the limit is what a running container was given, else what `docker run`
//! would hand out: `default-ulimits` of daemon.json, else what containerd itself runs with, since a container inherits
//! that through its shim.

use super::Request;
use super::client::Answers;
use super::configuration::Configuration;
use super::process::process_name;
use super::sysctls::belongs;
use crate::facts::{Fact, Value};
use crate::host::Host;
use crate::host::process_limits::hard_limit;
use crate::subjects::docker::containers::Container;

/// Files that hold the process id of the containerd that starts containers: dockerd's own, then the system's.
const PID_FILES: [&str; 2] = ["/run/docker/containerd/containerd.pid", "/run/containerd/containerd.pid"];

/// The processes of containerd's unit, by cgroup layout: unified, hybrid, legacy.
const CGROUP_FILES: [&str; 3] = [
    "/sys/fs/cgroup/system.slice/containerd.service/cgroup.procs",
    "/sys/fs/cgroup/unified/system.slice/containerd.service/cgroup.procs",
    "/sys/fs/cgroup/systemd/system.slice/containerd.service/cgroup.procs",
];

/// What a prediction stands on.
#[derive(Debug)]
pub struct NofileContext<'a> {
    pub host: &'a Host,
    /// Whether the engine answered: only then is the whole of /proc searched.
    pub answered: bool,
    pub kind: Option<&'static str>,
    /// dockerd's process, when known.
    pub listener: Option<i32>,
}

/// What running containers have, else the prediction.
pub fn fact(context: &NofileContext<'_>, configuration: &Configuration, answers: &Answers, request: &Request) -> Fact {
    let running = answers.containers.result.as_deref().unwrap_or_default();
    let workload: Vec<&Container> =
        running.iter().filter(|container| container.is_workload(&request.workload_images)).collect();
    measured(context.host, configuration, &workload)
        .unwrap_or_else(|| predicted(context, configuration, "no way to tell what containerd runs with"))
}

/// The smallest limit that the running containers were given.
///
/// The limit of the container's own process is not the answer: Redis brings its hard limit down to what it needs when
/// the soft one is too low (`adjustOpenFilesLimit` in redis `server.c`: 10032, or in steps of 16). In this order: what
/// the container was created with, what dockerd gives by default, what the shim that started it has.
fn measured(host: &Host, configuration: &Configuration, containers: &[&Container]) -> Option<Fact> {
    let given = |container: &Container| -> Option<(i64, String, Option<i64>)> {
        let pid = container.pid.filter(|pid| belongs(host, *pid, &container.id));
        let own = pid.and_then(|pid| limit_of(host, pid));
        if let Some(limit) = container.nofile_hard {
            return Some((unlimited(limit), "GET /containers/ID/json Ulimits".to_owned(), own));
        }
        if let Ok((daemon, source)) = configuration
            && let Some(limit) = daemon.nofile_hard
        {
            return Some((unlimited(limit), format!("{source} default-ulimits"), own));
        }
        let shim = pid
            .and_then(|pid| parent(host, pid))
            .filter(|parent| process_name(host, *parent).is_some_and(|name| name.starts_with("containerd-shim")));
        match shim.and_then(|shim| Some((shim, limit_of(host, shim)?))) {
            Some((shim, limit)) => Some((limit, format!("/proc/{shim}/limits of its containerd-shim"), own)),
            None => Some((own?, format!("/proc/{}/limits", pid?), None)),
        }
    };
    let all: Vec<_> =
        containers.iter().filter_map(|container| Some((given(container)?, container.name.as_str()))).collect();
    let count = all.len();
    let ((limit, source, own), name) = all.into_iter().min_by_key(|((limit, ..), _)| *limit)?;
    let place = if count == 1 { format!("in {name}") } else { format!("in {name}, the lowest of {count} containers") };
    let note = match own.filter(|own| *own != limit) {
        Some(own) => format!("{place}; its process now runs with {own}"),
        None => place,
    };
    Some(Fact::known(Value::Int(limit), source).note(note))
}

/// -1 is "unlimited" to Docker; the kernel caps it at fs.nr_open.
fn unlimited(limit: i64) -> i64 {
    if limit < 0 { i64::MAX } else { limit }
}

fn limit_of(host: &Host, pid: i32) -> Option<i64> {
    hard_limit(&host.read_text(format!("/proc/{pid}/limits")).ok()?)
}

/// The parent of a process, from `/proc/PID/status`.
fn parent(host: &Host, pid: i32) -> Option<i32> {
    let status = host.read_text(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

/// What a new container would get; `unknown` is the error when nothing tells.
pub fn predicted(context: &NofileContext<'_>, configuration: &Configuration, unknown: &str) -> Fact {
    let help = Some("start the workload, or set `ulimits` in its Compose file");
    match (context.kind, configuration) {
        (Some("podman"), _) => {
            return Fact::unknown("Podman's default comes from containers.conf, which is not read", help, "Podman");
        }
        (Some("desktop"), _) => {
            return Fact::unknown("containers run inside Docker Desktop's virtual machine", help, "Docker Desktop");
        }
        (_, Err(error)) => return Fact::unknown(error.clone(), Some("run as root, or fix the file"), "daemon.json"),
        (_, Ok((daemon, source))) => {
            if let Some(limit) = daemon.nofile_hard {
                return from_daemon(limit, source);
            }
        }
    }
    let Some((pid, name)) = containerd(context) else {
        return Fact::unknown(unknown, help, "/proc/PID/limits of containerd");
    };
    let source = format!("/proc/{pid}/limits");
    match context.host.read_text(&source).map(|text| hard_limit(&text)) {
        Ok(Some(limit)) => {
            Fact::known(Value::Int(limit), source).note(format!("predicted: a container inherits the limit of {name}"))
        }
        Ok(None) => Fact::unknown("the limits were not understood", help, source),
        Err(error) => Fact::unreadable(&error, "containerd has ended"),
    }
}

/// `default-ulimits`, for every container that says nothing else.
pub fn from_daemon(limit: i64, source: &str) -> Fact {
    Fact::known(Value::Int(unlimited(limit)), format!("{source} default-ulimits"))
        .note("predicted: what Docker gives by default")
}

/// The process that starts containers, and its name.
fn containerd(context: &NofileContext<'_>) -> Option<(i32, String)> {
    let host = context.host;
    let from = |file: &str| -> Option<i32> { host.read_text(file).ok()?.lines().next()?.trim().parse().ok() };
    let named = |pid: i32| {
        let name = process_name(host, pid)?;
        ["containerd", "dockerd"].contains(&name.as_str()).then_some((pid, name))
    };
    // dockerd's own containerd is its child and has its limits, so dockerd's process stands for it.
    let files = PID_FILES.iter().chain(&CGROUP_FILES).find_map(|file| named(from(file)?));
    files.or_else(|| named(context.listener?)).or_else(|| if context.answered { search(host) } else { None })
}

/// The last resort: a walk over all processes, containerd before dockerd.
fn search(host: &Host) -> Option<(i32, String)> {
    let entries = host.list("/proc").ok()?;
    let pids = || entries.iter().filter_map(|entry| entry.to_str()?.parse::<i32>().ok());
    ["containerd", "dockerd"].into_iter().find_map(|name| {
        let pid = pids().find(|pid| process_name(host, *pid).as_deref() == Some(name))?;
        Some((pid, name.to_owned()))
    })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the files they read")]
mod tests {
    use super::*;
    use crate::facts::State;
    use crate::host::process_limits::tests::limits;
    use crate::subjects::docker::daemon::Daemon;
    use std::fs;

    fn write(root: &std::path::Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn context(host: &Host) -> NofileContext<'_> {
        NofileContext { host, answered: true, kind: Some("docker"), listener: None }
    }

    #[expect(clippy::unnecessary_wraps, reason = "what the code is given")]
    fn nothing() -> Configuration {
        Ok((Daemon::default(), "/etc/docker/daemon.json".into()))
    }

    #[test]
    fn containerd_is_found_by_its_pid_file_only_while_it_is_containerd() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at_root(root.path());
        write(root.path(), "run/docker/containerd/containerd.pid", "70\n");
        write(root.path(), "proc/70/comm", "bash\n");
        write(root.path(), "proc/70/limits", &limits("1"));
        write(root.path(), "proc/80/comm", "containerd\n");
        write(root.path(), "proc/80/limits", &limits("2048"));
        let fact = predicted(&context(&host), &nothing(), "");
        assert_eq!(fact.value(), Some(&Value::Int(2048)), "a stale pid file was believed");
        assert!(fact.note.unwrap().starts_with("predicted"));
        let silent = NofileContext { answered: false, ..context(&host) };
        let fact = predicted(&silent, &nothing(), "Docker is stopped");
        assert!(matches!(&fact.state, State::Unknown { error, .. } if error == "Docker is stopped"), "{fact:?}");
    }

    /// A container's process 7 under shim 6, with a Redis that brought its own limit down.
    fn running(root: &std::path::Path) -> Container {
        let id = "a".repeat(64);
        write(root, "proc/7/cgroup", &format!("1:cpu:/docker/{id}\n"));
        write(root, "proc/7/limits", &limits("10032"));
        write(root, "proc/7/status", "Name:\tredis-server\nPPid:\t6\n");
        write(root, "proc/6/comm", "containerd-shim\n");
        write(root, "proc/6/limits", &limits("524288"));
        write(root, "proc/1/cgroup", "1:cpu:/\n");
        write(root, "proc/1/limits", &limits("9"));
        Container { id, name: "redis-1".into(), pid: Some(7), ..Container::default() }
    }

    #[test]
    fn a_redis_that_lowered_its_own_limit_does_not_hide_what_it_was_given() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at_root(root.path());
        let container = running(root.path());
        let fact = measured(&host, &nothing(), &[&container]).unwrap();
        assert_eq!(fact.value(), Some(&Value::Int(524_288)), "{fact:?}");
        assert_eq!(fact.note.as_deref(), Some("in redis-1; its process now runs with 10032"));
        write(root.path(), "proc/6/comm", "conmon\n");
        let fact = measured(&host, &nothing(), &[&container]).unwrap();
        assert_eq!(fact.value(), Some(&Value::Int(10_032)), "Podman's conmon is not where limits come from");
    }

    #[test]
    fn a_process_outside_the_container_is_not_believed() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at_root(root.path());
        let mut container = Container { pid: Some(1), ..running(root.path()) };
        assert!(measured(&host, &nothing(), &[&container]).is_none(), "process 1 is not in the container");
        container.nofile_hard = Some(512);
        assert_eq!(measured(&host, &nothing(), &[&container]).unwrap().value(), Some(&Value::Int(512)));
        let other = Container { name: "redis-2".into(), nofile_hard: Some(100), ..container.clone() };
        let fact = measured(&host, &nothing(), &[&container, &other]).unwrap();
        assert_eq!(fact.note.as_deref(), Some("in redis-2, the lowest of 2 containers"));
    }

    #[test]
    fn default_ulimits_win_over_containerd_and_a_broken_file_is_unknown() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at_root(root.path());
        let daemon = Daemon { nofile_hard: Some(64_000), ..Daemon::default() };
        let fact = predicted(&context(&host), &Ok((daemon, "daemon.json".into())), "");
        assert_eq!(fact.value(), Some(&Value::Int(64_000)));
        let fact = predicted(&context(&host), &Err("daemon.json is not valid JSON".into()), "");
        assert!(matches!(fact.state, State::Unknown { .. }));
    }
}
