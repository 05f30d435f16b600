//! What dockerd was told: its command line and its daemon.json.

use std::path::{Path, PathBuf};

use super::daemon::{self, Daemon};
use super::process::daemon_pid;
use super::{Request, endpoint};
use crate::host::Host;

/// What dockerd was told, with where that stands; the error names the file.
pub(crate) type Configuration = Result<(Daemon, String), String>;

/// The command line of dockerd and its daemon.json together.
pub(super) fn configuration(request: &Request, kind: Option<&str>, pid: Option<i32>) -> Configuration {
    let host = &request.host;
    let pid = pid.or_else(|| daemon_pid(host, 0));
    let flags = pid
        .and_then(|pid| host.read_text(format!("/proc/{pid}/cmdline")).ok())
        .map(|line| daemon::parse_command_line(&line))
        .unwrap_or_default();
    let home = request.environment.home.as_deref();
    let file = match (kind, home) {
        _ if flags.config_file.is_some() => flags.config_file.clone().unwrap_or_default(),
        (Some("rootless"), Some(home)) => home.join(".config/docker/daemon.json"),
        (Some("desktop"), Some(home)) => home.join(".docker/daemon.json"),
        _ => PathBuf::from(daemon::DEFAULT_FILE),
    };
    let has_flags = flags != Daemon::default();
    let (from_file, source) = read_file(host, &file)?;
    let source = if has_flags { format!("{source}, dockerd's command line") } else { source };
    Ok((flags.or(from_file), source))
}

/// A daemon.json with its path; a missing one says nothing.
pub(super) fn read_file(host: &Host, file: &Path) -> Configuration {
    let source = file.display().to_string();
    let text = endpoint::read_small(host, file).map_err(|why| format!("{source}: {why}"))?;
    let daemon = text.map_or(Ok(Daemon::default()), |text| daemon::parse(&text));
    daemon.map(|daemon| (daemon, source.clone())).map_err(|why| format!("{source} {why}"))
}
