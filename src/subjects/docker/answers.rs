//! Answers into facts. Pure: what the engine said, and what its configuration says, in; facts out.

use std::time::Duration;

use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum, SystemVersion};

use super::client::{Answer, Answers, Failure};
use super::configuration::Configuration;
use crate::facts::{Fact, Facts, Value, Version};

/// The facts that `GET /info` answers, wholly or in part.
pub const FROM_INFO: &[&str] = &[
    "docker.kind",
    "docker.cgroup",
    "docker.memory-limit",
    "docker.swap-limit",
    "docker.storage-driver",
    "docker.log-driver",
    "docker.log-bounded",
    "docker.live-restore",
    "docker.firewall-backend",
    "docker.open-hosts",
    "docker.warnings",
];

/// Logging drivers that write to a file of Docker's own without any bound unless told.
const UNBOUNDED_DRIVERS: [&str; 2] = ["json-file", "k8s-file"];

/// The answers, with what follows from several of them.
#[derive(Debug)]
pub struct Engine<'a> {
    pub answers: &'a Answers,
}

impl<'a> Engine<'a> {
    pub fn new(answers: &'a Answers) -> Self {
        Self { answers }
    }

    pub fn version(&self) -> Option<&'a SystemVersion> {
        self.answers.version.result.as_ref().ok()
    }

    pub fn info(&self) -> Option<&'a SystemInfo> {
        self.answers.info.result.as_ref().ok()
    }

    /// Podman's compatible API reports Podman's own version where Docker reports the engine's; only the component's
    /// name gives it away.
    pub fn is_podman(&self) -> bool {
        let components = self.version().and_then(|version| version.components.as_deref()).unwrap_or_default();
        components.iter().any(|component| component.name.contains("Podman"))
    }

    /// `docker`, `podman`, `desktop` or `rootless`; `None` when an answer that would tell is missing.
    pub fn kind(&self) -> Option<&'static str> {
        self.version()?;
        if self.is_podman() {
            return Some("podman");
        }
        let info = self.info()?;
        let options = info.security_options.as_deref().unwrap_or_default();
        if info.operating_system.as_deref().is_some_and(|name| name.starts_with("Docker Desktop")) {
            Some("desktop")
        } else if options.iter().any(|option| option == "rootless" || option.starts_with("name=rootless")) {
            Some("rootless")
        } else {
            Some("docker")
        }
    }
}

/// An unknown fact for an answer that did not come.
pub fn failed(failure: &Failure, request: &str, took: Duration) -> Fact {
    let help = matches!(failure, Failure::Deadline(_)).then_some("see whether Docker is overloaded, or restart it");
    Fact::unknown(failure.to_string(), help, request).took(took)
}

/// All facts that come from the engine's answers alone, or with daemon.json.
pub fn insert(engine: &Engine<'_>, configuration: &Configuration, facts: &mut Facts) {
    facts.live("docker.state", state(&engine.answers.ping));
    facts.live("docker.kind", kind(engine));
    versions(engine, facts);
    let answer = &engine.answers.info;
    let mut from_info = |id: &str, missing: &str, read: &dyn Fn(&SystemInfo) -> Option<Value>| {
        facts.live(id, field(answer, "GET /info", missing, read));
    };
    from_info("docker.cgroup", "CgroupVersion", &|info| match info.cgroup_version? {
        SystemInfoCgroupVersionEnum::_1 => Some(Value::Int(1)),
        SystemInfoCgroupVersionEnum::_2 => Some(Value::Int(2)),
        SystemInfoCgroupVersionEnum::EMPTY => None,
    });
    from_info("docker.memory-limit", "MemoryLimit", &|info| info.memory_limit.map(Value::Bool));
    from_info("docker.swap-limit", "SwapLimit", &|info| info.swap_limit.map(Value::Bool));
    from_info("docker.storage-driver", "Driver", &|info| text(info.driver.as_ref()));
    from_info("docker.log-driver", "LoggingDriver", &|info| text(info.logging_driver.as_ref()));
    from_info("docker.live-restore", "LiveRestoreEnabled", &|info| info.live_restore_enabled.map(Value::Bool));
    // Engines leave the field out, or null, when there is nothing to warn of.
    from_info("docker.warnings", "Warnings", &|info| {
        Some(Value::Set(info.warnings.clone().unwrap_or_default().into_iter().collect()))
    });
    facts.live("docker.log-bounded", log_bounded(engine, configuration));
    facts.live("docker.firewall-backend", firewall_backend(engine, configuration));
    facts.live("docker.open-hosts", open_hosts(engine, configuration));
}

fn state(ping: &Answer<()>) -> Fact {
    let known = |state: &str| Fact::known(Value::Text(state.into()), "GET /_ping").took(ping.took);
    match &ping.result {
        Ok(()) => known("running"),
        Err(failure @ Failure::Deadline(_)) => known("hanging").note(failure.to_string()),
        Err(failure) => known("failing").note(failure.to_string()),
    }
}

fn kind(engine: &Engine<'_>) -> Fact {
    match engine.kind() {
        Some(kind) => Fact::known(Value::Text(kind.into()), "GET /version, /info").took(engine.answers.version.took),
        None => match (&engine.answers.version, &engine.answers.info) {
            (Answer { result: Err(failure), took }, _) => failed(failure, "GET /version", *took),
            (_, Answer { result: Err(failure), took }) => failed(failure, "GET /info", *took),
            _ => Fact::unknown("the engine does not say what it is", None, "GET /version, /info"),
        },
    }
}

fn versions(engine: &Engine<'_>, facts: &mut Facts) {
    let answer = &engine.answers.version;
    let version = |missing: &str, read: &dyn Fn(&SystemVersion) -> Option<&String>| {
        field(answer, "GET /version", missing, &|found: &SystemVersion| {
            Version::parse(read(found)?).ok().map(Value::Version)
        })
    };
    let fact = if engine.is_podman() {
        let number = engine.version().and_then(|version| version.version.clone()).unwrap_or_default();
        Fact::absent(format!("the engine is Podman {number}, not Docker"), "GET /version").took(answer.took)
    } else {
        version("Version", &|found| found.version.as_ref())
    };
    facts.live("docker.version", fact);
    facts.live("docker.api", version("ApiVersion", &|found| found.api_version.as_ref()));
    facts.live("docker.api-min", version("MinAPIVersion", &|found| found.min_api_version.as_ref()));
}

/// One field of an answer; unknown when the answer or the field is missing or is not what it should be.
fn field<T>(answer: &Answer<T>, source: &str, missing: &str, read: &dyn Fn(&T) -> Option<Value>) -> Fact {
    let fact = match &answer.result {
        Err(failure) => return failed(failure, source, answer.took),
        Ok(found) => read(found).map_or_else(
            || Fact::unknown(format!("the answer has no usable {missing}"), None, source),
            |value| Fact::known(value, source),
        ),
    };
    fact.took(answer.took)
}

fn text(field: Option<&String>) -> Option<Value> {
    field.filter(|text| !text.is_empty()).map(|text| Value::Text(text.clone()))
}

fn log_bounded(engine: &Engine<'_>, configuration: &Configuration) -> Fact {
    let answer = &engine.answers.info;
    let driver = match &answer.result {
        Err(failure) => return failed(failure, "GET /info", answer.took),
        Ok(info) => info.logging_driver.as_deref().filter(|driver| !driver.is_empty()),
    };
    let fact = match (driver, configuration) {
        (None, _) => Fact::unknown("the answer has no usable LoggingDriver", None, "GET /info"),
        (Some(driver), _) if !UNBOUNDED_DRIVERS.contains(&driver) => {
            Fact::known(Value::Bool(true), "GET /info LoggingDriver").note(format!("the driver is {driver}"))
        }
        (Some(driver), _) if engine.is_podman() => {
            let error = format!("Podman's {driver} logs are bounded by containers.conf, which is not read");
            Fact::unknown(error, None, "GET /info LoggingDriver")
        }
        (Some(_), Err(error)) => Fact::unknown(error.clone(), Some("run as root, or fix the file"), "daemon.json"),
        (Some(driver), Ok((daemon, source))) => {
            let size = daemon.log_max_size.as_deref().unwrap_or("not set");
            Fact::known(Value::Bool(daemon.logs_are_bounded()), format!("GET /info LoggingDriver, {source}"))
                .note(format!("the driver is {driver}, max-size is {size}"))
        }
    };
    fact.took(answer.took)
}

/// Where the engine itself lets anybody in. A reverse proxy or `podman system service tcp:` of somebody's own is not seen.
fn open_hosts(engine: &Engine<'_>, configuration: &Configuration) -> Fact {
    let answer = &engine.answers.info;
    if let Err(failure) = &answer.result {
        return failed(failure, "GET /info", answer.took);
    }
    if engine.is_podman() {
        return Fact::absent("Podman's service is not looked at", "GET /version");
    }
    match configuration {
        Err(error) => Fact::unknown(error.clone(), Some("run as root, or fix the file"), "daemon.json"),
        Ok((daemon, source)) => {
            Fact::known(Value::Set(daemon.open_hosts().map(str::to_owned).collect()), source.clone())
        }
    }
}

/// `iptables: false` turns either backend off. Engines before 28.2 (API 1.49) do not name a backend: it is iptables.
fn firewall_backend(engine: &Engine<'_>, configuration: &Configuration) -> Fact {
    let answer = &engine.answers.info;
    let info = match &answer.result {
        Err(failure) => return failed(failure, "GET /info", answer.took),
        Ok(info) => info,
    };
    let fact = if engine.is_podman() {
        Fact::absent("Podman's firewall is netavark's or CNI's", "GET /version")
    } else {
        match configuration {
            Err(error) => Fact::unknown(error.clone(), Some("run as root, or fix the file"), "daemon.json"),
            Ok((daemon, source)) if daemon.iptables == Some(false) => {
                Fact::known(Value::Text("none".into()), source.clone()).note("iptables is turned off")
            }
            Ok(_) => {
                let driver = info.firewall_backend.as_ref().and_then(|backend| backend.driver.as_deref());
                match driver.filter(|driver| !driver.is_empty()) {
                    // `nftables+firewalld`: the helper after the plus changes nothing about where rules live.
                    Some(driver) => {
                        let (backend, helper) = driver.split_once('+').unwrap_or((driver, ""));
                        Fact::known(Value::Text(backend.into()), "GET /info FirewallBackend")
                            .note_if(!helper.is_empty(), &format!("through {helper}"))
                    }
                    None => Fact::known(Value::Text("iptables".into()), "GET /info")
                        .note("the engine names no backend: one that old has only iptables"),
                }
            }
        }
    };
    fact.took(answer.took)
}

trait NoteIf {
    fn note_if(self, condition: bool, note: &str) -> Self;
}

impl NoteIf for Fact {
    fn note_if(self, condition: bool, note: &str) -> Self {
        if condition { self.note(note) } else { self }
    }
}

#[cfg(test)]
mod tests;
