//! From the socket to the facts: look who listens, talk if somebody does, put the answers together.

use std::path::Path;
use std::time::{Duration, Instant};

use super::answers::{self, Engine};
use super::clash::CLASH;
use super::client::{self, Answer, Answers, Failure, Questions};
use super::compose::{self, Compose};
use super::configuration::{configuration, read_file};
use super::daemon;
use super::endpoint::{self, Choice, Endpoint};
use super::nofile::{self, NofileContext};
use super::process::{PID_FILE, daemon_pid};
use super::{Docker, Handle, NETWORKS, NOFILE, OUTSIDE, ROUTES, Request, networks, store};
use crate::facts::{Fact, Facts, Layer, Value};
use crate::host::Host;
use crate::host::unix::{Contact, contact};
use crate::subjects::docker::containers::Containers;

/// Where packages put the daemon.
const DAEMONS: [&str; 3] = ["/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd"];

/// What shows that systemd would start dockerd for the first connection, and what shows that it runs already.
const SYSTEMD: &str = "/run/systemd/system";
const SOCKET_UNITS: [&str; 3] =
    ["/etc/systemd/system/docker.socket", "/usr/lib/systemd/system/docker.socket", "/lib/systemd/system/docker.socket"];
const SERVICE_CGROUPS: [&str; 3] = [
    "/sys/fs/cgroup/system.slice/docker.service",
    "/sys/fs/cgroup/unified/system.slice/docker.service",
    "/sys/fs/cgroup/systemd/system.slice/docker.service",
];

/// What the first connect said, when it was not "yes".
#[derive(Debug)]
enum Silence {
    /// No socket, and no daemon installed that could make one.
    Absent {
        endpoint: Option<Endpoint>,
    },
    Stopped {
        endpoint: Endpoint,
        note: &'static str,
    },
    Denied {
        endpoint: Endpoint,
    },
    Hanging {
        endpoint: Endpoint,
    },
    Failed {
        endpoint: Endpoint,
        error: String,
    },
    Unusable {
        endpoint: String,
        chosen_by: String,
        why: String,
    },
}

/// Somebody listens.
#[derive(Debug)]
struct Listener {
    endpoint: Endpoint,
    pid: i32,
    uid: u32,
}

pub(crate) fn begin(request: Request) -> Handle {
    let started = Instant::now();
    match find(&request) {
        Ok(listener) => Handle::spawn(request, move |request| converse(&request, &listener)),
        Err(silence) => {
            let (facts, reason) = unanswered(&request, &silence, started);
            Handle::done(facts, &reason)
        }
    }
}

/// Under `--root` only daemon.json can be read; what the engine would say is not there.
pub(crate) fn not_live(request: &Request) -> Handle {
    let mut facts = request.all(|| Fact::not_running("Docker"));
    if request.wants(NOFILE)
        && let Ok((daemon, source)) = read_file(&request.host, Path::new(daemon::DEFAULT_FILE))
        && let Some(limit) = daemon.nofile_hard
    {
        facts.insert(NOFILE, Layer::Container, nofile::from_daemon(limit, &source));
    }
    Handle::done(facts, "not a running host")
}

/// The first socket that exists, and whether anybody listens there.
fn find(request: &Request) -> Result<Listener, Silence> {
    let (candidates, chosen) = match endpoint::resolve(&request.host, &request.environment) {
        Choice::Chosen(endpoint) => (vec![endpoint], true),
        Choice::Defaults(endpoints) => (endpoints, false),
        Choice::Unusable { endpoint, chosen_by, why } => return Err(Silence::Unusable { endpoint, chosen_by, why }),
    };
    let first = candidates.first().cloned();
    for endpoint in candidates {
        if is_systems_own(&endpoint.socket) && would_be_started(&request.host) {
            let note = "systemd would start it with the first connection, which preflight does not make";
            return Err(Silence::Stopped { endpoint, note });
        }
        return match contact(&endpoint.socket) {
            Contact::Absent => continue,
            Contact::Open { pid, uid } => Ok(Listener { endpoint, pid, uid }),
            Contact::Refused => Err(Silence::Stopped { endpoint, note: "the socket is there, but nobody listens" }),
            Contact::Denied => Err(Silence::Denied { endpoint }),
            Contact::Full => Err(Silence::Hanging { endpoint }),
            Contact::Failed(error) => Err(Silence::Failed { endpoint, error: crate::host::describe(&error) }),
        };
    }
    match first {
        // dockerd removes its socket when it ends: without a socket, only the program tells "stopped" from "absent".
        Some(endpoint) if !chosen && DAEMONS.iter().any(|path| request.host.exists(path)) => {
            Err(Silence::Stopped { endpoint, note: "dockerd is installed, but there is no socket" })
        }
        endpoint => Err(Silence::Absent { endpoint: endpoint.filter(|_| chosen) }),
    }
}

fn is_systems_own(socket: &Path) -> bool {
    [Path::new(endpoint::DEFAULT_SOCKET), Path::new("/run/docker.sock")].contains(&socket)
}

/// Whether a connection would start a stopped dockerd: looking must change nothing. With docker.socket the first
/// connection, even one that is closed at once, starts docker.service (systemd.socket(5)). A dockerd that runs has its
/// pid file, and its unit has a cgroup.
fn would_be_started(host: &Host) -> bool {
    let any = |paths: &[&str]| paths.iter().any(|path| host.exists(path));
    any(&[SYSTEMD]) && any(&SOCKET_UNITS) && !any(&[PID_FILE]) && !any(&SERVICE_CGROUPS) && any(&["/run/docker.sock"])
}

/// All facts when nobody answers, and the reason in a few words.
fn unanswered(request: &Request, silence: &Silence, started: Instant) -> (Facts, String) {
    let took = started.elapsed();
    let at = |endpoint: &Endpoint| format!("connect(2) to {}", endpoint.socket.display());
    let known = |state: &str, source: String| Fact::known(Value::Text(state.into()), source).took(took);
    let (reason, source, help, state) = match silence {
        Silence::Absent { endpoint } => {
            let source = endpoint.as_ref().map_or_else(|| "connect(2) to the default sockets".to_owned(), at);
            ("there is no Docker on this host".to_owned(), source.clone(), None, Some(known("absent", source)))
        }
        Silence::Stopped { endpoint, note } => {
            let state = known("stopped", at(endpoint)).note(*note);
            ("Docker is stopped".to_owned(), at(endpoint), Some("start Docker"), Some(state))
        }
        Silence::Denied { endpoint } => {
            let reason = format!("no permission to connect to {}", endpoint.socket.display());
            (reason, at(endpoint), Some("add the user to the group `docker`, or run as root"), None)
        }
        Silence::Hanging { endpoint } => {
            let state = known("hanging", at(endpoint)).note("the queue of waiting connections is full");
            ("Docker accepts no connections".to_owned(), at(endpoint), Some("restart Docker"), Some(state))
        }
        Silence::Failed { endpoint, error } => {
            (format!("cannot connect to {}: {error}", endpoint.socket.display()), at(endpoint), None, None)
        }
        Silence::Unusable { endpoint, chosen_by, why } => {
            let help = "preflight asks a Docker on this host over its unix socket; unset it, or choose that socket";
            (format!("{why}: {endpoint}"), chosen_by.clone(), Some(help), None)
        }
    };
    let absent = matches!(silence, Silence::Absent { .. });
    let mut facts = request.all(|| {
        let fact = if absent {
            Fact::absent(reason.clone(), source.clone())
        } else {
            Fact::unknown(reason.clone(), help, source.clone())
        };
        fact.took(took)
    });
    let mut replace = |id: &str, layer, fact| {
        if request.wants(id) {
            facts.insert(id, layer, fact);
        }
    };
    if let Some(state) = state {
        replace("docker.state", Layer::Live, state);
    }
    match silence {
        Silence::Absent { endpoint: Some(endpoint) }
        | Silence::Stopped { endpoint, .. }
        | Silence::Denied { endpoint }
        | Silence::Hanging { endpoint }
        | Silence::Failed { endpoint, .. } => {
            replace("docker.endpoint", Layer::Live, endpoint_fact(endpoint, None, request).took(took));
        }
        Silence::Unusable { endpoint, chosen_by, why } => {
            let fact = Fact::known(Value::Text(endpoint.clone()), chosen_by.clone()).note(format!("not asked: {why}"));
            replace("docker.endpoint", Layer::Live, fact.took(took));
        }
        Silence::Absent { endpoint: None } => {}
    }
    if matches!(silence, Silence::Stopped { .. } | Silence::Denied { .. }) && request.wants(NOFILE) {
        let configuration = configuration(request, None, None);
        let context = NofileContext { host: &request.host, answered: false, kind: None, listener: None };
        replace(NOFILE, Layer::Container, nofile::predicted(&context, &configuration, &reason).took(took));
    }
    (facts, reason)
}

/// The endpoint, what chose it, and whose it is when it is neither root's nor ours: then its answers are that user's.
fn endpoint_fact(endpoint: &Endpoint, listener_uid: Option<u32>, request: &Request) -> Fact {
    use std::os::unix::fs::MetadataExt as _;
    let value = Value::Text(format!("unix://{}", endpoint.socket.display()));
    let fact = Fact::known(value, endpoint.chosen_by.clone());
    let file_uid = request.host.metadata(&endpoint.socket).ok().map(|found| found.uid());
    let stranger = |uid: &u32| *uid != 0 && *uid != request.environment.uid;
    match listener_uid.into_iter().chain(file_uid).find(stranger) {
        Some(uid) => fact.note(format!("the socket belongs to user {uid}, who decides what it answers")),
        None => fact,
    }
}

fn converse(request: &Request, listener: &Listener) -> Docker {
    let wants = |ids: &[&str]| ids.iter().any(|id| request.wants(id));
    let roots = request.ids.iter().any(|id| id.starts_with("docker.root-"));
    let configured = wants(&["docker.log-bounded", "docker.firewall-backend", "docker.open-hosts", NOFILE]);
    let questions = Questions {
        version: wants(&["docker.version", "docker.api", "docker.api-min", "docker.kind", ROUTES])
            || configured
            || roots,
        info: configured || roots || wants(answers::FROM_INFO),
        containers: request.containers,
        networks: wants(&[NETWORKS, networks::AUTO, ROUTES, OUTSIDE, CLASH]),
        workload_images: request.workload_images.clone(),
    };
    let started = Instant::now();
    let mut composing = None;
    let compose_wanted = wants(&["docker.compose", "docker.compose-kind"]);
    let answered = || {
        if compose_wanted {
            let (host, environment) = (request.host.clone(), request.environment.clone());
            // The same clock: a slow engine and a slow Compose must not add up.
            let left = request.deadline.saturating_sub(started.elapsed());
            let thread = std::thread::Builder::new().name("compose".into());
            composing = thread.spawn(move || compose::look(&host, &environment, left)).ok();
        }
    };
    let answers = client::ask(&listener.endpoint.socket, request.deadline, &questions, answered)
        .unwrap_or_else(|error| nothing(&crate::host::describe(&error)));
    let compose = composing.and_then(|thread| thread.join().ok());
    assemble(request, listener, &answers, compose.as_ref(), started.elapsed())
}

/// All requests failed before they were made.
fn nothing(error: &str) -> Answers {
    let failure = Failure::Answer(error.to_owned());
    Answers {
        ping: Answer::failed(failure.clone()),
        version: Answer::failed(failure.clone()),
        info: Answer::failed(failure.clone()),
        containers: Answer::failed(failure.clone()),
        networks: Answer::failed(failure),
    }
}

fn assemble(
    request: &Request,
    listener: &Listener,
    answers: &Answers,
    compose: Option<&Compose>,
    took: Duration,
) -> Docker {
    let engine = Engine::new(answers);
    let kind = engine.kind();
    let pid = daemon_pid(&request.host, listener.pid);
    let configuration = configuration(request, kind, pid);

    let mut facts = Facts::default();
    facts.live("docker.endpoint", endpoint_fact(&listener.endpoint, Some(listener.uid), request));
    answers::insert(&engine, &configuration, &mut facts);
    networks::insert(answers, &engine, request, &mut facts);
    store::insert(request, &engine, &configuration, &mut facts);
    if request.wants(NOFILE) {
        let context = NofileContext { host: &request.host, answered: answers.ping.result.is_ok(), kind, listener: pid };
        facts.insert(NOFILE, Layer::Container, nofile::fact(&context, &configuration, answers, request).took(took));
    }
    match compose {
        Some(compose) => compose::insert(compose, &mut facts),
        None => {
            for id in ["docker.compose", "docker.compose-kind"] {
                let help = Some("Compose is looked for when Docker answers");
                facts.live(id, Fact::unknown("not looked for: Docker does not answer", help, "cli-plugins, PATH"));
            }
        }
    }

    let mut wanted = Facts::default();
    for (id, layers) in facts.iter().filter(|(id, _)| request.wants(id)) {
        for layer in Layer::ALL {
            if let Some(fact) = layers.get(layer) {
                wanted.insert(id, layer, fact.clone());
            }
        }
    }
    for id in &request.ids {
        if wanted.layers(id).is_none() {
            let fact = Fact::unknown("the Docker probe does not know this fact", None, "preflight");
            wanted.insert(id, super::layer(id), fact);
        }
    }
    let containers = match &answers.containers.result {
        Ok(containers) => Containers::Known(containers.clone()),
        Err(failure) => Containers::Unknown(format!("GET /containers/json: {failure}")),
    };
    Docker { facts: wanted, containers }
}

#[cfg(test)]
mod tests;
