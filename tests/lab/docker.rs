//! The Docker probe against real engines: Debian 12's 20.10 with Compose 1.29, Debian 13's 26.1 with Compose 2.26, and
//! Podman. Each engine runs in its own network and mount namespace and is gone afterwards.
//!
//! packages: docker.io docker-compose containerd runc iptables iproute2 mmdebstrap podman util-linux curl procps
//!
//! What needs no engine (a stopped, hanging, lying or strange socket) is tested in `src/subjects/docker/run/tests.rs`,
//! with fakes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::docker::{self as lab, Engine, Options};
use crate::support::process::{end, require_root, run, try_run, unique};
use preflight::catalog::library;
use preflight::catalog::parameters::{Parameters, Setting};
use preflight::facts::{Fact, Facts, Layer, State, Value};
use preflight::host::Host;
use preflight::subjects::context::Context;
use preflight::subjects::context::Want;
use preflight::subjects::docker;
use preflight::subjects::docker::containers::Containers;
use serde_json::json;

const SOMAXCONN: &str = "sysctl.net.core.somaxconn";
const SYN_BACKLOG: &str = "sysctl.net.ipv4.tcp_max_syn_backlog";
const NOFILE: &str = "limits.container-nofile";

/// What a gathering process printed.
#[derive(Debug)]
struct Gathered {
    facts: Facts,
    /// Lines `NAME IMAGE ADDRESS:PORT/PROTOCOL…`, or `unknown: WHY`.
    containers: String,
    took: Duration,
}

impl Gathered {
    fn fact(&self, id: &str, layer: Layer) -> &Fact {
        self.facts.get(id, layer).unwrap_or_else(|| panic!("{id} was not gathered: {:?}", self.facts))
    }

    fn shown(&self, id: &str) -> String {
        match &self.fact(id, Layer::Live).state {
            State::Known(value) => value.to_string(),
            State::Absent(why) => format!("absent: {why}"),
            State::Unknown { error, .. } => format!("unknown: {error}"),
        }
    }

    fn container(&self, id: &str) -> (Option<&Value>, String) {
        let fact = self.fact(id, Layer::Container);
        (fact.value(), format!("{} ({})", fact.source, fact.note.clone().unwrap_or_default()))
    }
}

/// Every registered fact is answered, whatever the state of Docker here. With `GATHER_INTO` this is the process that the
/// other tests run as another user, or in another namespace or root: it writes what it gathered into that file.
#[test]
fn every_registered_fact_is_answered() {
    let ids =
        preflight::facts::registry::FACTS.iter().filter(|spec| spec.id.starts_with("docker.") && !spec.is_family());
    let families = ["docker.root-space.", "docker.root-inodes."]
        .map(|family| ["docker", "containerd"].map(|of| format!("{family}{of}")));
    let want = Want::new(
        ids.map(|spec| spec.id.to_owned())
            .chain(families.into_iter().flatten())
            .chain([NOFILE, SOMAXCONN, SYN_BACKLOG].map(str::to_owned)),
    );
    let mut parameters = Parameters::default();
    parameters.insert("workload_images", Setting::List(vec!["redis".into(), "valkey".into()]));
    let os = library::os_profile("debian", &[]);
    let host = Host::live();
    let cx = Context::new(&host, &want, &parameters, os);
    let started = Instant::now();
    let mut request = docker::Request::new(&cx, docker::Environment::current());
    // The truth of an answer is tested on machines that are busy with other tests; the default deadline has its own test.
    if std::env::var_os("GATHER_PATIENTLY").is_some_and(|value| value != "no") {
        request.deadline = Duration::from_secs(30);
    }
    let mut found = docker::start_with(request).finish();
    let took = started.elapsed();
    for id in want.iter().filter(|id| id.starts_with("docker.")) {
        let fact = found.facts.get(id, Layer::Live).unwrap_or_else(|| panic!("{id} was not answered"));
        assert!(!format!("{fact:?}").contains("does not know"), "{fact:?}");
    }
    let containers = match &found.containers {
        Containers::Unknown(why) => format!("unknown: {why}"),
        Containers::Known(containers) => {
            docker::container_layer(&cx, containers, &mut found.facts);
            let line = |container: &preflight::subjects::docker::containers::Container| {
                let ports = container.published.iter().map(|port| {
                    let address = port.address.map(|address| address.to_string()).unwrap_or_default();
                    format!(" {address}:{}/{}", port.port, port.protocol.name())
                });
                format!("{} {}{}\n", container.name, container.image, ports.collect::<String>())
            };
            containers.iter().map(line).collect()
        }
    };
    let text =
        json!({"facts": found.facts, "containers": containers, "took_us": u64::try_from(took.as_micros()).unwrap()});
    if let Some(file) = std::env::var_os("GATHER_INTO") {
        fs::write(file, text.to_string()).unwrap();
    }
}

/// Runs `every_registered_fact_is_answered` behind a prefix such as `setpriv …`, with nothing of this process's environment.
fn gather(folder: &Path, prefix: &[String], environment: &[(&str, &str)]) -> Gathered {
    let program = folder.join("gather");
    if !program.exists() {
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let into = folder.join("gathered.json");
    fs::write(&into, "").unwrap();
    fs::set_permissions(&into, fs::Permissions::from_mode(0o666)).unwrap();
    let argv: Vec<String> = prefix
        .iter()
        .cloned()
        .chain([program.display().to_string()])
        .chain(["docker::every_registered_fact_is_answered", "--exact", "--nocapture"].map(str::to_owned))
        .collect();
    let output = Command::new(&argv[0])
        .args(&argv[1..])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("GATHER_INTO", &into)
        .env("GATHER_PATIENTLY", "1")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{argv:?}\n{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(&into).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    Gathered {
        facts: serde_json::from_value(value["facts"].take()).unwrap(),
        containers: value["containers"].as_str().unwrap().to_owned(),
        took: Duration::from_micros(value["took_us"].as_u64().unwrap()),
    }
}

fn from(engine: &Engine, environment: &[(&str, &str)]) -> Gathered {
    let endpoint = engine.endpoint();
    gather(engine.folder.path(), &engine.enter(), &[&[("DOCKER_HOST", endpoint.as_str())], environment].concat())
}

fn nobody() -> Vec<String> {
    ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"].map(str::to_owned).to_vec()
}

/// Every fact against what curl, df and prlimit say. Seen to fail with `f_bfree` instead of `f_bavail`.
#[test]
fn a_running_engine_of_debian_12_is_read_as_it_is() {
    let engine = Engine::start(&Options { nofile: Some("5000:6000".into()), ..Options::default() });
    let found = from(&engine, &[]);
    let (version, info) = (engine.get("/version"), engine.get("/info"));
    assert_eq!(found.shown("docker.state"), "running");
    assert_eq!(found.shown("docker.endpoint"), engine.endpoint());
    assert_eq!(found.fact("docker.endpoint", Layer::Live).source, "DOCKER_HOST");
    assert_eq!(found.shown("docker.kind"), "docker");
    assert_eq!(found.shown("docker.version"), version["Version"].as_str().unwrap());
    assert!(found.shown("docker.version").starts_with("20.10."), "{}", found.shown("docker.version"));
    assert_eq!(found.shown("docker.api"), "1.41");
    assert_eq!(found.shown("docker.api-min"), "1.12");
    assert_eq!(found.shown("docker.cgroup"), info["CgroupVersion"].as_str().unwrap());
    let yes_no = |field: &str| if info[field].as_bool().unwrap() { "yes" } else { "no" };
    assert_eq!(found.shown("docker.memory-limit"), yes_no("MemoryLimit"));
    assert_eq!(found.shown("docker.swap-limit"), yes_no("SwapLimit"));
    assert_eq!(found.shown("docker.live-restore"), "no");
    assert_eq!(found.shown("docker.storage-driver"), info["Driver"].as_str().unwrap());
    assert_eq!(found.shown("docker.log-driver"), "json-file");
    assert_eq!(found.shown("docker.log-bounded"), "no");
    assert_eq!(found.shown("docker.firewall-backend"), "iptables");
    let warnings: Vec<String> =
        info["Warnings"].as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect();
    assert_eq!(found.facts.value("docker.warnings"), Some(&Value::Set(warnings.into_iter().collect())));
    assert_eq!(found.shown("docker.compose"), run(&["/usr/bin/docker-compose", "version", "--short"]).trim());
    assert!(found.shown("docker.compose").starts_with("1.29."));
    assert_eq!(found.shown("docker.compose-kind"), "standalone");
    assert_eq!(found.containers, "", "nothing runs yet");

    let data = engine.folder.path().join("data").display().to_string();
    let avail: u64 =
        run(&["df", "--output=avail", "--block-size=1", &data]).lines().nth(1).unwrap().trim().parse().unwrap();
    for instance in ["docker", "containerd"] {
        let id = format!("docker.root-space.{instance}");
        let Some(Value::Bytes(bytes)) = found.facts.value(&id) else { panic!("{}", found.shown(&id)) };
        // Others write to the same disk meanwhile; a wrong field (free, total) is off by gigabytes.
        assert!(bytes.abs_diff(avail) < 256 << 20, "{id} is {bytes}, df says {avail}");
        assert!(found.fact(&id, Layer::Live).note.as_ref().unwrap().contains(&data), "{instance} is not under {data}");
    }

    // Whoever owns the socket decides what it answers.
    assert_eq!(found.fact("docker.endpoint", Layer::Live).note, None);
    std::os::unix::fs::chown(&engine.socket, Some(65534), None).unwrap();
    let note = from(&engine, &[]).fact("docker.endpoint", Layer::Live).note.clone();
    assert_eq!(note.as_deref(), Some("the socket belongs to user 65534, who decides what it answers"));

    // No container runs: what one would get is predicted from the process that starts it.
    let (limit, source) = found.container(NOFILE);
    assert_eq!(limit, Some(&Value::Int(6000)), "{source}");
    assert!(source.contains("predicted"), "{source}");
    assert!(found.facts.get(SOMAXCONN, Layer::Container).is_none(), "nothing runs that could tell");
}

/// Seen to fail (the host's 4096 instead of 1024) without the setns(2) of `host::netns`.
#[test]
fn what_containers_really_get_is_shown() {
    let engine = Engine::start(&Options { nofile: Some("5000:6005".into()), ..Options::default() });
    engine.import_redis();
    // Nobody set a limit: it is the shim's.
    engine.docker(&["run", "-d", "--name", "defaulted", "lab/redis:7"]);
    let found = from(&engine, &[]);
    let (limit, source) = found.container(NOFILE);
    assert_eq!(limit, Some(&Value::Int(6005)), "{source}");
    assert!(source.contains("containerd-shim"), "{source}");
    engine.docker(&["rm", "-f", "defaulted"]);
    engine.docker(&[
        "run",
        "-d",
        "--name",
        "cache",
        "--ulimit",
        "nofile=2048:4096",
        "--sysctl",
        "net.core.somaxconn=1024",
        "-p",
        "127.0.0.1:6380:6379",
        "lab/redis:7",
        "redis-server",
        "--protected-mode",
        "no",
    ]);
    let found = from(&engine, &[]);
    assert_eq!(found.containers, "cache lab/redis:7 127.0.0.1:6380/tcp\n");
    let holders = engine.in_network(&["ss", "-Hltnp", "sport = :6380"]);
    assert!(holders.contains("docker-proxy") && holders.contains("127.0.0.1:6380"), "{holders}");

    let (limit, source) = found.container(NOFILE);
    assert_eq!(limit, Some(&Value::Int(4096)), "{source}");
    assert!(source.contains("Ulimits") && source.contains("in cache"), "{source}");
    assert_eq!(found.container(SOMAXCONN).0, Some(&Value::Int(1024)));
    // Not set by anybody: the namespace itself is asked. Changed inside to a value that no default has.
    let inside = engine.get("/containers/cache/json")["State"]["Pid"].to_string();
    run(&["nsenter", "--target", &inside, "--net", "sysctl", "-q", "-w", "net.ipv4.tcp_max_syn_backlog=777"]);
    let found = from(&engine, &[]);
    let (backlog, source) = found.container(SYN_BACKLOG);
    assert_eq!(backlog, Some(&Value::Int(777)), "{source}");

    // A user of the docker group sees what the container was created with, and no more.
    fs::set_permissions(&engine.socket, fs::Permissions::from_mode(0o666)).unwrap();
    let prefix: Vec<String> = engine.enter().into_iter().chain(nobody()).collect();
    let found = gather(engine.folder.path(), &prefix, &[("DOCKER_HOST", &engine.endpoint())]);
    assert_eq!(found.shown("docker.state"), "running");
    let (value, source) = found.container(SOMAXCONN);
    assert_eq!(value, Some(&Value::Int(1024)));
    assert!(source.contains("Sysctls"), "{source}");
    assert!(found.facts.get(SYN_BACKLOG, Layer::Container).is_none(), "nobody can know: {:?}", found.facts);
    assert_eq!(found.container(NOFILE).0, Some(&Value::Int(4096)), "/proc/PID/limits is for everybody");

    // A second container of the workload with less, a stranger with even less, one in the host's
    // network: the lowest of the workload's own counts, each where it applies.
    engine.docker(&["run", "-d", "--name", "plain", "--ulimit", "nofile=900:1000", "lab/redis:7"]);
    let plain = engine.get("/containers/plain/json")["State"]["Pid"].to_string();
    let hard = || run(&["prlimit", "--pid", &plain, "--nofile", "--output", "HARD", "--noheadings"]);
    let started = Instant::now();
    while hard().trim() != "992" && started.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(50));
    }
    engine.docker(&["tag", "lab/redis:7", "lab/other:1"]);
    engine.docker(&[
        "run",
        "-d",
        "--name",
        "other",
        "--ulimit",
        "nofile=90:100",
        "--sysctl",
        "net.core.somaxconn=5",
        "lab/other:1",
    ]);
    engine.docker(&[
        "run",
        "-d",
        "--name",
        "hostnet",
        "--network",
        "host",
        "lab/redis:7",
        "redis-server",
        "--port",
        "7000",
    ]);
    engine.in_network(&["sysctl", "-q", "-w", "net.core.somaxconn=9"]);
    let found = from(&engine, &[]);
    let (limit, source) = found.container(NOFILE);
    assert_eq!(limit, Some(&Value::Int(1000)), "{source}");
    assert!(source.contains("in plain, the lowest of 3 containers"), "{source}");
    // Redis needs 10032 descriptors, tries 16 less each time, and lowers its hard limit to what it gets.
    assert!(source.contains("its process now runs with 992"), "{source}");
    let (value, source) = found.container(SOMAXCONN);
    assert_eq!(value, Some(&Value::Int(1024)), "{source}");
    assert!(source.contains("the lowest of 2 containers"), "{source}");
}

#[test]
fn the_prediction_is_what_a_container_then_gets() {
    for (daemon_json, arguments, expected, from_file) in [
        (None, vec![], 6000, false),
        (Some(r#"{"default-ulimits":{"nofile":{"Name":"nofile","Hard":3000,"Soft":1000}}}"#), vec![], 3000, true),
        (None, vec!["--default-ulimit".to_owned(), "nofile=700:800".to_owned()], 800, true),
    ] {
        let engine = Engine::start(&Options {
            daemon_json: daemon_json.map(str::to_owned),
            nofile: Some("5000:6000".into()),
            arguments,
            ..Options::default()
        });
        let found = from(&engine, &[]);
        let (predicted, source) = found.container(NOFILE);
        assert_eq!(predicted, Some(&Value::Int(expected)), "{source}");
        assert!(source.contains("predicted") && source.contains("default-ulimits") == from_file, "{source}");
        engine.import_redis();
        let real = engine.docker(&["run", "--rm", "--network", "none", "lab/redis:7", "sh", "-c", "ulimit -Hn"]);
        assert_eq!(real, expected.to_string(), "the prediction was wrong");
    }
}

#[test]
fn daemon_json_is_read_where_the_engine_reads_it() {
    let json = r#"{"log-opts":{"max-size":"10m"},"iptables":false,"live-restore":true}"#;
    let mut engine = Engine::start(&Options { daemon_json: Some(json.into()), ..Options::default() });
    let found = from(&engine, &[]);
    assert_eq!(found.shown("docker.log-bounded"), "yes");
    assert_eq!(found.shown("docker.firewall-backend"), "none");
    assert_eq!(found.shown("docker.live-restore"), "yes");
    // Broken after the start: the engine runs on, what depends on the file is not known any more.
    let file = engine.folder.path().join("etc/docker/daemon.json");
    fs::write(file, "{\"log-opts\":").unwrap();
    let found = from(&engine, &[]);
    assert!(
        found.shown("docker.log-bounded").contains("daemon.json is not valid JSON"),
        "{}",
        found.shown("docker.log-bounded")
    );
    assert_eq!(found.shown("docker.log-driver"), "json-file");
    engine.stop();
}

#[test]
fn absent_stopped_and_not_permitted_are_three_answers() {
    let mut engine = Engine::start(&Options::default());
    let endpoint = engine.endpoint();
    // dockerd makes its socket 0660; nobody is in no group.
    let denied = gather(engine.folder.path(), &nobody(), &[("DOCKER_HOST", &endpoint)]);
    assert!(denied.shown("docker.state").starts_with("unknown: no permission"), "{}", denied.shown("docker.state"));
    let State::Unknown { help, .. } = &denied.fact("docker.version", Layer::Live).state else { panic!() };
    assert_eq!(help.as_deref(), Some("add the user to the group `docker`, or run as root"));
    assert!(denied.took < Duration::from_millis(200), "{:?}", denied.took);

    engine.stop();
    // The socket that a crashed engine leaves behind.
    fs::remove_file(&engine.socket).ok();
    drop(std::os::unix::net::UnixListener::bind(&engine.socket).unwrap());
    let stopped = gather(engine.folder.path(), &[], &[("DOCKER_HOST", &endpoint)]);
    assert_eq!(stopped.shown("docker.state"), "stopped");
    assert_eq!(stopped.shown("docker.compose"), "unknown: Docker is stopped");

    fs::remove_file(&engine.socket).unwrap();
    let absent = gather(engine.folder.path(), &[], &[("DOCKER_HOST", &endpoint)]);
    assert_eq!(absent.shown("docker.state"), "absent");
    // By default sockets: this machine has dockerd installed, so it is stopped rather than absent.
    let hidden =
        ["unshare", "-m", "--propagation", "private", "sh", "-c", "mount -t tmpfs tmpfs /run; exec \"$@\"", "sh"];
    let found = gather(engine.folder.path(), &hidden.map(str::to_owned), &[]);
    assert_eq!(found.shown("docker.state"), "stopped");
    let note = found.fact("docker.state", Layer::Live).note.clone();
    assert_eq!(note.as_deref(), Some("dockerd is installed, but there is no socket"));
    let bare = "mount -t tmpfs tmpfs /run; mount --bind /dev/null /usr/sbin/dockerd; mount -t tmpfs tmpfs /usr/sbin; exec \"$@\"";
    let hidden = ["unshare", "-m", "--propagation", "private", "sh", "-c", bare, "sh"];
    let found = gather(engine.folder.path(), &hidden.map(str::to_owned), &[]);
    assert_eq!(found.shown("docker.state"), "absent");
    assert_eq!(found.shown("docker.compose"), "absent: there is no Docker on this host");
}

/// A listener that never answers, with the default deadline. That the deadlines do not add up is seen to fail in
/// `src/subjects/docker/run/tests.rs`.
#[test]
fn a_hanging_socket_costs_the_deadline_once() {
    require_root();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let found = gather(
        folder.path(),
        &[],
        &[("GATHER_PATIENTLY", "no"), ("DOCKER_HOST", &format!("unix://{}", socket.display()))],
    );
    assert_eq!(found.shown("docker.state"), "hanging");
    let range = docker::DEADLINE..docker::DEADLINE + Duration::from_millis(500);
    assert!(range.contains(&found.took), "{:?}", found.took);
}

#[test]
fn an_engine_of_debian_13_and_its_compose_plugin_are_read() {
    let engine = Engine::start(&Options { root: Some(lab::image("trixie")), ..Options::default() });
    let found = from(&engine, &[]);
    assert_eq!(found.shown("docker.state"), "running");
    assert!(found.shown("docker.version").starts_with("26.1."), "{}", found.shown("docker.version"));
    assert_eq!(found.shown("docker.api"), "1.45");
    assert_eq!(found.shown("docker.api-min"), "1.24");
    assert_eq!(found.shown("docker.kind"), "docker");
    assert!(found.shown("docker.compose").starts_with("2.26."), "{}", found.shown("docker.compose"));
    assert_eq!(found.shown("docker.compose-kind"), "plugin");
    assert!(matches!(found.facts.value("docker.root-space.docker"), Some(Value::Bytes(_))));
    // A real `docker compose` must agree.
    let argv: Vec<String> =
        engine.enter().into_iter().chain(["docker", "compose", "version", "--short"].map(str::to_owned)).collect();
    let said = run(&argv.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(said.trim().trim_start_matches('v'), found.shown("docker.compose"));
    // What enters a container needs the engine's root to be that of its mount namespace. Seen failing with chroot instead of `PIVOT`.
    engine.import_redis();
    engine.docker(&["run", "-d", "--name", "workload", "--workdir", "/data", "lab/redis:7"]);
    assert_eq!(engine.docker(&["exec", "workload", "/bin/sh", "-c", "echo inside"]), "inside");
}

/// Docker made its network first; the other way came later, as a VPN does. Seen failing with the route of the bridge itself
/// counted, with one that leads nowhere counted, and with the answer left empty.
#[test]
fn a_subnet_that_the_host_reaches_another_way_is_named() {
    let engine = Engine::start(&Options::default());
    assert_eq!(from(&engine, &[]).shown("docker.subnet-clash"), "none");
    let networks = engine.get("/networks");
    let bridge = networks.as_array().unwrap().iter().find(|network| network["Name"] == "bridge").unwrap();
    let subnet = bridge["IPAM"]["Config"][0]["Subnet"].as_str().unwrap();
    let inside = subnet.replace(".0.0/16", ".9.0/24");
    assert_ne!(inside, subnet);
    let ip = |arguments: &str| {
        let argv: Vec<String> = engine
            .enter()
            .into_iter()
            .chain(["ip"].into_iter().chain(arguments.split(' ')).map(str::to_owned))
            .collect();
        run(&argv.iter().map(String::as_str).collect::<Vec<_>>());
    };
    ip("link add away type bridge");
    ip("link set away up");
    ip(&format!("route add {inside} dev away"));
    // What leads nowhere on purpose takes nothing from anybody.
    ip(&format!("route add unreachable {}", subnet.replace(".0.0/16", ".10.0/24")));
    assert_eq!(from(&engine, &[]).shown("docker.subnet-clash"), format!("{subnet} of bridge, and {inside} by away"));
}

/// Seen to run the planted plugin with the trust check taken out of `compose::ask`.
#[test]
fn a_plugin_that_others_can_write_is_reported_and_not_run_as_root() {
    let engine = Engine::start(&Options::default());
    let folder = engine.folder.path();
    let plugins = folder.join("config/cli-plugins");
    fs::create_dir_all(&plugins).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    let plugin = plugins.join("docker-compose");
    fs::write(&plugin, format!("#!/bin/sh\ntouch {}/was-run\necho 9.9.9\n", folder.display())).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
    let config = folder.join("config").display().to_string();
    let found = from(&engine, &[("DOCKER_CONFIG", &config)]);
    assert!(!folder.join("was-run").exists(), "a file that others can write was run as root");
    assert!(found.shown("docker.compose").starts_with("1.29."), "{}", found.shown("docker.compose"));
    let note = found.fact("docker.compose", Layer::Live).note.clone().unwrap();
    assert!(note.contains("is not run as root") && note.contains("cli-plugins/docker-compose"), "{note}");

    fs::set_permissions(&engine.socket, fs::Permissions::from_mode(0o666)).unwrap();
    let environment = [("DOCKER_CONFIG", config.as_str()), ("DOCKER_HOST", &engine.endpoint())];
    let found = gather(folder, &nobody(), &environment);
    assert_eq!(found.shown("docker.compose"), "9.9.9", "without privilege nothing is lost by running it");
    assert_eq!(found.shown("docker.compose-kind"), "plugin");
}

#[test]
fn a_context_chooses_the_endpoint() {
    let engine = Engine::start(&Options::default());
    let config = engine.folder.path().join("config").display().to_string();
    let docker = |arguments: &[&str]| run(&[&["/usr/bin/docker", "--config", &config], arguments].concat());
    docker(&["context", "create", "lab", "--docker", &format!("host={}", engine.endpoint())]);
    docker(&["context", "use", "lab"]);
    let found = gather(engine.folder.path(), &engine.enter(), &[("DOCKER_CONFIG", &config)]);
    assert_eq!(found.shown("docker.state"), "running");
    assert_eq!(found.shown("docker.endpoint"), engine.endpoint());
    let source = &found.fact("docker.endpoint", Layer::Live).source;
    assert_eq!(source, &format!("context `lab` of {config}/config.json"));
}

/// Podman's service, in a mount namespace of its own, with a container that runs.
struct Podman {
    child: std::process::Child,
    folder: tempfile::TempDir,
    cgroup: String,
}

impl Podman {
    fn start() -> Self {
        require_root();
        let folder = tempfile::Builder::new().prefix("pfd").tempdir().unwrap();
        let service = ["system", "service", "-t", "0", &format!("unix://{}/s", folder.path().display())].join(" ");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "unshare", "-m", "-n", "--propagation", "private", "sh", "-c"])
            // Podman keeps some state in fixed places; in here they are its own.
            .arg(format!(
                "mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/lib; exec {} {service}",
                Self::program(folder.path())
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let podman = Self { child, folder, cgroup: unique("pfd") };
        let socket = podman.folder.path().join("s").display().to_string();
        let started = Instant::now();
        while !try_run(&["curl", "-sf", "--unix-socket", &socket, "http://d/_ping"]).status.success() {
            assert!(started.elapsed() < Duration::from_secs(30), "podman's service did not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        podman
    }

    fn program(folder: &Path) -> String {
        let folder = folder.display();
        format!(
            "podman --root {folder}/root --runroot {folder}/runroot --tmpdir {folder}/tmp --runtime runc \
             --cgroup-manager cgroupfs --events-backend file"
        )
    }

    fn enter(&self) -> Vec<String> {
        let pid = self.child.id().to_string();
        ["nsenter", "--target", &pid, "--mount", "--net", "--"].map(str::to_owned).to_vec()
    }

    fn podman(&self, arguments: &str) -> String {
        let command = format!("exec {} {arguments}", Self::program(self.folder.path()));
        let argv: Vec<String> = self.enter().into_iter().chain(["sh".to_owned(), "-c".to_owned(), command]).collect();
        run(&argv.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Containers outlive the service: conmon holds them.
        let command = format!("exec {} rm --all --force --time 0", Self::program(self.folder.path()));
        let argv: Vec<String> = self.enter().into_iter().chain(["sh".to_owned(), "-c".to_owned(), command]).collect();
        drop(try_run(&argv.iter().map(String::as_str).collect::<Vec<_>>()));
        end(&mut self.child);
        lab::remove_cgroups(&self.cgroup);
    }
}

#[test]
fn podman_is_podman() {
    let podman = Podman::start();
    let endpoint = format!("unix://{}/s", podman.folder.path().display());
    podman.podman(&format!("import {} lab/redis:7", lab::image("mini").display()));
    // Its default for nproc is above what some machines allow.
    podman.podman(&format!(
        "run -d --cgroup-parent /{} --name cache --network none --ulimit nproc=1024:1024 \
         --ulimit nofile=1024:4096 --sysctl net.core.somaxconn=1024 lab/redis:7 redis-server",
        podman.cgroup
    ));
    let found = gather(podman.folder.path(), &podman.enter(), &[("DOCKER_HOST", &endpoint)]);
    assert_eq!(found.shown("docker.state"), "running");
    assert_eq!(found.shown("docker.kind"), "podman");
    let no_bridges = "absent: the bridges of podman are not known as devices of this host";
    assert_eq!(found.shown("docker.subnet-clash"), no_bridges);
    let version = run(&["podman", "--version"]);
    let number = version.trim().rsplit(' ').next().unwrap();
    assert_eq!(found.shown("docker.version"), format!("absent: the engine is Podman {number}, not Docker"));
    assert!(found.facts.value("docker.api").is_some(), "{}", found.shown("docker.api"));
    assert_eq!(found.shown("docker.root-space.containerd"), "absent: Podman has no containerd");
    let space = found.facts.value("docker.root-space.docker");
    assert!(matches!(space, Some(Value::Bytes(_))), "{}", found.shown("docker.root-space.docker"));
    assert_eq!(found.containers, "cache localhost/lab/redis:7\n");
    let (limit, source) = found.container(NOFILE);
    assert_eq!(limit, Some(&Value::Int(4096)), "{source}");
    assert_eq!(found.container(SOMAXCONN).0, Some(&Value::Int(1024)));
}
