//! Processes by their names: which of them is dockerd.

use crate::host::Host;

/// dockerd's pid file, and the process name that proves it current.
pub(super) const PID_FILE: &str = "/run/docker.pid";

/// dockerd's process: the listener itself, or, when systemd listens for it, the one in the pid file.
pub(super) fn daemon_pid(host: &Host, listener: i32) -> Option<i32> {
    let is_daemon = |pid: &i32| process_name(host, *pid).as_deref() == Some("dockerd");
    let from_file = || host.read_text(PID_FILE).ok().and_then(|text| text.trim().parse().ok());
    Some(listener).filter(|pid| *pid > 1).filter(is_daemon).or_else(|| from_file().filter(is_daemon))
}

/// `/proc/PID/comm`.
pub(super) fn process_name(host: &Host, pid: i32) -> Option<String> {
    host.read_text(format!("/proc/{pid}/comm")).ok().map(|name| name.trim_end().to_owned())
}
