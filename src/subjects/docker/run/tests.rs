//! The whole probe against sockets in every state. The engines here are fakes (a listener that answers canned bytes);
//! real ones are met in `tests/lab/docker.rs`.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;

use super::super::{DEADLINE, Environment, start_with};
use super::*;
use crate::facts::State;

const IDS: [&str; 6] =
    ["docker.state", "docker.endpoint", "docker.version", "docker.api", "docker.api-min", "docker.log-driver"];

fn request(endpoint: &str) -> Request {
    Request {
        host: Host::live(),
        ids: IDS.iter().map(|id| (*id).to_owned()).collect(),
        containers: true,
        workload_images: vec!["redis".into()],
        environment: Environment { docker_host: Some(endpoint.to_owned()), ..Environment::default() },
        deadline: Duration::from_millis(400),
    }
}

fn at(socket: &Path) -> Request {
    request(&format!("unix://{}", socket.display()))
}

fn shown(docker: &Docker, id: &str) -> String {
    match &docker.facts.get(id, Layer::Live).unwrap().state {
        State::Known(value) => value.to_string(),
        State::Absent(why) => format!("absent: {why}"),
        State::Unknown { error, .. } => format!("unknown: {error}"),
    }
}

/// Answers each request with what `answer` says for its path; nothing keeps the caller waiting.
fn fake(folder: &Path, answer: fn(&str) -> Option<&'static str>) -> PathBuf {
    let socket = folder.join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                let read = stream.read(&mut buffer).unwrap_or_default();
                let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                match answer(text.split(' ').nth(1).unwrap_or_default()) {
                    Some(body) => {
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                        drop(stream.write_all((head + body).as_bytes()));
                    }
                    None => thread::sleep(Duration::from_secs(30)),
                }
            });
        }
    });
    socket
}

#[test]
fn no_socket_is_absent_and_starts_no_thread() {
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let handle = start_with(at(&folder.path().join("none.sock")));
    assert!(!handle.is_running(), "a thread was started for nobody");
    let docker = handle.finish();
    assert!(started.elapsed() < Duration::from_millis(100));
    assert_eq!(shown(&docker, "docker.state"), "absent");
    assert_eq!(shown(&docker, "docker.version"), "absent: there is no Docker on this host");
    assert!(shown(&docker, "docker.endpoint").starts_with("unix:///"));
    assert_eq!(docker.containers, Containers::Unknown("there is no Docker on this host".into()));
}

#[test]
fn a_socket_that_nobody_serves_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let handle = start_with(at(&socket));
    assert!(!handle.is_running());
    let docker = handle.finish();
    assert_eq!(shown(&docker, "docker.state"), "stopped");
    assert_eq!(shown(&docker, "docker.version"), "unknown: Docker is stopped");
}

#[test]
fn what_is_no_unix_socket_is_not_contacted() {
    // A listener that would notice a connection.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let docker = start_with(request(&endpoint)).finish();
    assert_eq!(shown(&docker, "docker.state"), format!("unknown: the endpoint is not a unix socket: {endpoint}"));
    assert_eq!(shown(&docker, "docker.endpoint"), endpoint);
    assert!(listener.accept().is_err(), "the endpoint was contacted");
}

/// Seen to take 1.6 s with a deadline per request in a row.
#[test]
fn a_hanging_engine_costs_the_deadline_once() {
    let folder = tempfile::tempdir().unwrap();
    let socket = fake(folder.path(), |_| None);
    let started = Instant::now();
    let docker = start_with(at(&socket)).finish();
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(1), "{took:?}");
    assert_eq!(shown(&docker, "docker.state"), "hanging");
    assert_eq!(shown(&docker, "docker.version"), "unknown: no answer within 400 ms");
    assert_eq!(docker.containers, Containers::Unknown("GET /containers/json: no answer within 400 ms".into()));
}

#[test]
fn an_engine_that_accepts_nothing_more_is_hanging_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    while !matches!(contact(&socket), Contact::Full) {}
    let started = Instant::now();
    let docker = start_with(at(&socket)).finish();
    assert_eq!(shown(&docker, "docker.state"), "hanging");
    assert!(started.elapsed() < DEADLINE, "a blocking connect waits for ever");
}

#[test]
fn an_engine_that_only_pings_is_running_and_the_rest_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let socket = fake(folder.path(), |path| (path == "/_ping").then_some("OK"));
    let docker = start_with(at(&socket)).finish();
    assert_eq!(shown(&docker, "docker.state"), "running");
    assert_eq!(shown(&docker, "docker.log-driver"), "unknown: no answer within 400 ms");
}

#[test]
fn old_and_new_interfaces_are_shown_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let old = fake(folder.path(), |path| {
        Some(if path == "/version" { r#"{"Version":"1.0.0","ApiVersion":"1.12"}"# } else { "OK" })
    });
    let docker = start_with(at(&old)).finish();
    assert_eq!((shown(&docker, "docker.api").as_str(), shown(&docker, "docker.version").as_str()), ("1.12", "1.0.0"));
    assert_eq!(shown(&docker, "docker.api-min"), "unknown: the answer has no usable MinAPIVersion");

    let folder = tempfile::tempdir().unwrap();
    let new = fake(folder.path(), |path| {
        let version = r#"{"Version":"99.0.0","ApiVersion":"9.99","MinAPIVersion":"9.9"}"#;
        Some(if path == "/version" { version } else { "OK" })
    });
    let docker = start_with(at(&new)).finish();
    assert_eq!((shown(&docker, "docker.api").as_str(), shown(&docker, "docker.api-min").as_str()), ("9.99", "9.9"));
    assert!(shown(&docker, "docker.log-driver").starts_with("unknown: the answer was not understood"));
}

#[test]
fn only_what_is_wanted_is_inserted() {
    let folder = tempfile::tempdir().unwrap();
    let socket = fake(folder.path(), |path| (path == "/_ping").then_some("OK"));
    let ids = vec!["docker.state".to_owned()];
    let started = Instant::now();
    let docker = start_with(Request { ids, containers: false, ..at(&socket) }).finish();
    assert_eq!(docker.facts.iter().map(|(id, _)| id).collect::<Vec<_>>(), ["docker.state"]);
    assert!(started.elapsed() < Duration::from_millis(300), "what nobody wants was waited for");
}

/// With a deadline of Compose's own, which starts when the engine answers, this takes 6 s at the least (seen). The engine
/// answers 2 s before the deadline, so that a busy machine does not decide.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test builds the plugin it runs")]
fn a_slow_engine_and_a_hanging_compose_cost_the_deadline_once() {
    use std::os::unix::fs::PermissionsExt as _;
    const DEADLINE: Duration = Duration::from_secs(4);
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("config/cli-plugins/docker-compose");
    std::fs::create_dir_all(plugin.parent().unwrap()).unwrap();
    std::fs::write(&plugin, "#!/bin/sh\nsleep 30\n").unwrap();
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = fake(folder.path(), |path| {
        (path == "/_ping").then(|| {
            thread::sleep(DEADLINE / 2);
            "OK"
        })
    });
    let ids = vec!["docker.compose".into()];
    let mut request = Request { ids, containers: false, deadline: DEADLINE, ..at(&socket) };
    request.environment.docker_config = Some(folder.path().join("config"));
    let started = Instant::now();
    let docker = start_with(request).finish();
    assert!(started.elapsed() < DEADLINE.mul_f64(1.45), "{:?}", started.elapsed());
    assert!(shown(&docker, "docker.compose").contains("did not answer"), "{}", shown(&docker, "docker.compose"));
}

/// The decision alone, on a fixture of /run, units and cgroups: a systemd that really starts dockerd needs a VM.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test builds the root it reads")]
fn a_connection_that_would_start_docker_is_not_made() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::at_root(root.path());
    let touch = |path: &str| {
        let path = root.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    };
    touch("/run/docker.sock");
    assert!(!would_be_started(&host), "without systemd nobody starts anything");
    touch("/run/systemd/system/x");
    assert!(!would_be_started(&host), "without docker.socket the socket is dockerd's own");
    touch("/usr/lib/systemd/system/docker.socket");
    assert!(would_be_started(&host));
    touch("/sys/fs/cgroup/system.slice/docker.service/cgroup.procs");
    assert!(!would_be_started(&host), "the service runs");
    std::fs::remove_dir_all(root.path().join("sys")).unwrap();
    touch("/run/docker.pid");
    assert!(!would_be_started(&host), "dockerd runs");
    assert!(is_systems_own(Path::new("/var/run/docker.sock")) && !is_systems_own(Path::new("/tmp/docker.sock")));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test builds the root it reads")]
fn under_a_root_only_daemon_json_speaks() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("etc/docker")).unwrap();
    let json = r#"{"default-ulimits":{"nofile":{"Hard":4096,"Soft":1024}}}"#;
    std::fs::write(root.path().join("etc/docker/daemon.json"), json).unwrap();
    let request = Request { host: Host::at_root(root.path()), ids: vec![NOFILE.into()], ..request("unix:///x") };
    let fact = start_with(request).finish().facts.get(NOFILE, Layer::Container).cloned().unwrap();
    assert_eq!(fact.value(), Some(&Value::Int(4096)));
    assert_eq!(fact.source, "/etc/docker/daemon.json default-ulimits");
}
