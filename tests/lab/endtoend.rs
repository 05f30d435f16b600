//! The binary as a user runs it, on a host with a real engine: a fresh machine, a running workload, a stranger, a user
//! without permission, a port that becomes free in time. What each probe reads is proven in its own suite; here it is
//! what a person is told, and how the run ends.
//!
//! packages: docker.io docker-compose containerd runc iptables iproute2 mmdebstrap util-linux curl perl procps redis-server

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::docker::{Engine, Options, image};
use crate::support::process::{Ran, require_root, run};
use crate::support::report::{Report, preflight};

const PORTS: [u16; 6] = [6379, 6380, 6381, 26379, 26380, 26381];
const SOMAXCONN: &str = "kernel.somaxconn";

fn nobody() -> Vec<String> {
    ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"].map(str::to_owned).to_vec()
}

fn engine() -> Engine {
    Engine::start(&Options::default())
}

/// A run on the engine's host, as root.
fn on_host(engine: &Engine, args: &[&str]) -> Ran {
    preflight(engine.folder.path(), &engine.enter(), &[("DOCKER_HOST", &engine.endpoint())], args)
}

/// A check on the engine's host. Docker and Compose have two seconds for their answers, which a machine busy with other
/// tests may not give them; then the question is asked anew.
fn check(engine: &Engine, args: &[&str]) -> Report {
    for _ in 0..8 {
        let report = on_host(engine, &[&["check", "--format", "json"], args].concat()).report();
        let late = report.findings().iter().any(|finding| {
            let observed = finding["observed"].as_str().unwrap_or("");
            observed == "hanging" || observed.contains("did not answer") || observed.contains("no time was left")
        });
        if !late {
            return report;
        }
    }
    panic!("Docker did not answer in time, eight times in a row");
}

/// A container of the image with redis that publishes a port.
fn redis(engine: &Engine, port: u16, more: &[&str]) {
    let (name, publish, number) = (format!("redis-{port}"), format!("{port}:{port}"), port.to_string());
    let head = ["run", "-d", "--name", &name, "-p", &publish];
    let tail = ["lab/redis:7", "redis-server", "--protected-mode", "no", "--port", &number];
    engine.docker(&[&head, more, &tail].concat());
}

fn port_id(port: u16) -> String {
    format!("port.free.{port}")
}

/// Everything that a fresh Debian 12 with its own Docker is told, then the same with the workload running, then with a
/// stranger. Seen failing with the workload's containers taken for strangers (an empty `workload_images`).
#[test]
fn a_fresh_host_then_the_workload_then_a_stranger() {
    let engine = engine();
    let fresh = check(&engine, &[]);
    let info = engine.get("/info");
    assert_eq!(fresh.said("docker.reachable"), "pass running");
    assert_eq!(fresh.said("docker.kind"), "pass docker");
    assert_eq!(fresh.said("docker.engine"), format!("warn {}", engine.get("/version")["Version"].as_str().unwrap()));
    assert_eq!(fresh.result("docker.api"), "pass");
    let compose = run(&["/usr/bin/docker-compose", "version", "--short"]);
    assert_eq!(fresh.said("docker.compose"), format!("warn {}", compose.trim()));
    assert!(compose.starts_with("1.29.") && fresh.notes("docker.compose").contains("end of life"), "{compose}");
    let cgroup = info["CgroupVersion"].as_str().unwrap();
    assert_eq!(fresh.said("docker.cgroup"), format!("{} {cgroup}", if cgroup == "2" { "pass" } else { "warn" }));
    assert_eq!(fresh.said("docker.storage-driver"), format!("pass {}", info["Driver"].as_str().unwrap()));
    assert_eq!(fresh.said("docker.log-rotation"), "warn not limited");
    assert_eq!(fresh.said("docker.live-restore"), "warn off");
    let space = run(&["df", "--output=avail", "--block-size=1G", &engine.folder.path().display().to_string()]);
    let gigabytes: u64 = space.lines().nth(1).unwrap().trim().parse().unwrap();
    if gigabytes > 11 {
        assert_eq!(fresh.result("docker.root-space.docker"), "pass", "{gigabytes} GiB");
        assert_eq!(fresh.result("docker.root-space.containerd"), "pass", "{gigabytes} GiB");
    }
    for port in PORTS {
        assert_eq!(fresh.said(&port_id(port)), "pass free", "{}", fresh.value);
    }
    assert_eq!(fresh.with_result("unknown"), [""; 0], "root sees everything");
    assert!(fresh.finding("limits.container-nofile")["source"].as_str().is_some_and(|source| !source.is_empty()));

    // The cluster of the profile: three nodes and three more that stand for its Sentinels.
    engine.import_redis();
    for port in PORTS {
        redis(&engine, port, &[]);
    }
    let running = check(&engine, &[]);
    for port in PORTS {
        let id = port_id(port);
        assert_eq!(running.said(&id), "pass ours", "{}", running.finding(&id));
        assert!(running.notes(&id).contains(&format!("redis-{port}")), "{}", running.notes(&id));
    }
    // Memory, disk and load of this machine are its own affair; all else is as green as before, and no greener.
    let mine = |report: &Report| {
        let mut results = report.results();
        results.retain(|id, _| !id.starts_with("resource."));
        results
    };
    assert_eq!(mine(&running), mine(&fresh));
    // Before a first installation nothing may be there.
    let strict = check(&engine, &["--only", "port.free", "--set", "ports_expected=free"]);
    assert_eq!((strict.with_result("fail").len(), strict.code), (6, 1), "{}", strict.value);

    // A stranger in a container, and one without.
    engine.docker(&["rm", "-f", "redis-6380", "redis-26381"]);
    engine.docker(&["tag", "lab/redis:7", "lab/web:1"]);
    engine.docker(&["run", "-d", "--name", "web", "-p", "6380:6379", "lab/web:1", "sleep", "600"]);
    let pid = engine.pid().to_string();
    let _holder = Holder::start(&["nsenter", "--target", &pid, "--net", "--"], "squatter", 26381);
    let strangers = check(&engine, &["--only", "port.free"]);
    assert_eq!(strangers.with_result("fail"), ["port.free.26381", "port.free.6380"]);
    let told = |id: &str| format!("{} {}", strangers.notes(id), strangers.said(id));
    assert!(told("port.free.6380").contains("web"), "{}", strangers.finding("port.free.6380"));
    assert!(told("port.free.26381").contains("squatter"), "{}", strangers.finding("port.free.26381"));
    assert_eq!((strangers.verdict(), strangers.code), ("not_ready", 1));
    let text = on_host(&engine, &["check", "--only", "port.free"]);
    assert!(text.stdout.contains("[FAIL]") && text.stdout.contains("web") && text.stdout.contains("squatter"));
    assert!(text.stdout.contains("NOT READY") && text.code == 1, "{}", text.stdout);
}

/// Nobody is in no group. Seen failing (exit code 1) with the missing permission judged as Docker being absent.
#[test]
fn without_permission_it_is_unknown_and_said_once() {
    let engine = engine();
    let prefix: Vec<String> = engine.enter().into_iter().chain(nobody()).collect();
    let endpoint = engine.endpoint();
    let ask = |args: &[&str]| preflight(engine.folder.path(), &prefix, &[("DOCKER_HOST", &endpoint)], args);
    let only = ["--only", "docker.*", "--only", "port.*"];
    let report = ask(&[&["check", "--format", "json"][..], &only].concat()).report();
    assert_eq!(report.result("docker.reachable"), "unknown");
    assert_eq!((report.verdict(), report.code), ("cannot_tell", 3));
    let help = report.finding("docker.reachable")["help"].as_str().unwrap();
    assert!(help.contains("group `docker`"), "{help}");
    for id in report.with_result("unknown") {
        assert!(report.finding(&id)["help"].as_str().is_some(), "{id} does not say how to find out");
    }
    // What needs Docker is not applicable rather than unknown once more; ports need no Docker to be free.
    assert_eq!(report.result("docker.engine"), "not_applicable");
    assert_eq!(report.said("port.free.6379"), "pass free");

    let text = ask(&[&["check"][..], &only].concat());
    assert_eq!(text.code, 3, "{}", text.stdout);
    let (_, end) = text.stdout.split_once("\nUNKNOWN\n").unwrap_or_else(|| panic!("{}", text.stdout));
    for id in report.with_result("unknown") {
        let told = end.split([' ', ',', '\n', ':']).filter(|word| **word == *id).count();
        assert_eq!(told, 1, "{id} in {end}");
    }
    assert_eq!(end.matches("group `docker`").count(), 1, "{end}");

    // A held port whose holder nobody may see is never green, and never blamed on the wrong one.
    let pid = engine.pid().to_string();
    let _holder = Holder::start(&["nsenter", "--target", &pid, "--net", "--"], "redis-server", 6379);
    let held = ask(&["check", "--format", "json", "--only", "port.free"]).report();
    assert_eq!(held.result("port.free.6379"), "unknown", "{}", held.finding("port.free.6379"));
    assert_eq!(held.result("port.free.6380"), "pass");
}

/// The network settings that the workload really has decide: its own namespace under a bridge, the host's under
/// `topology=host`. Seen failing with `Scope::Network` deciding by the live layer.
#[test]
fn the_network_that_the_workload_uses_decides() {
    let engine = engine();
    let layer = |report: &Report, layer: &str| {
        let layer = &report.finding(SOMAXCONN)[layer];
        (layer["text"].as_str().unwrap_or("").to_owned(), layer["decides"].as_bool().unwrap_or(false))
    };
    // The host says 9, and no container runs: the kernel's default is predicted, which a new namespace shows here.
    let default = run(&["unshare", "-n", "cat", "/proc/sys/net/core/somaxconn"]).trim().to_owned();
    engine.in_network(&["sysctl", "-q", "-w", "net.core.somaxconn=9"]);
    let idle = check(&engine, &["--only", SOMAXCONN]);
    assert_eq!((layer(&idle, "container"), idle.result(SOMAXCONN)), ((default.clone(), true), "pass"));
    assert!(idle.notes(SOMAXCONN).contains("predicted"), "{}", idle.notes(SOMAXCONN));
    assert_eq!(layer(&idle, "live"), ("9".into(), false));

    engine.import_redis();
    redis(&engine, 6379, &[]);
    let plain = check(&engine, &["--only", SOMAXCONN]);
    assert_eq!((layer(&plain, "container"), plain.result(SOMAXCONN)), ((default, true), "pass"));
    assert!(plain.notes(SOMAXCONN).contains("in redis-6379"), "{}", plain.notes(SOMAXCONN));

    redis(&engine, 6380, &["--sysctl", "net.core.somaxconn=128"]);
    let low = check(&engine, &["--only", SOMAXCONN]);
    assert_eq!((layer(&low, "container"), low.said(SOMAXCONN)), (("128".into(), true), "warn 128".into()));
    assert!(low.notes(SOMAXCONN).contains("redis-6380"), "{}", low.notes(SOMAXCONN));

    let host = check(&engine, &["--only", SOMAXCONN, "--set", "topology=host"]);
    assert_eq!((layer(&host, "live"), host.said(SOMAXCONN)), (("9".into(), true), "warn 9".into()));
    engine.in_network(&["sysctl", "-q", "-w", "net.core.somaxconn=2000"]);
    let host = check(&engine, &["--only", SOMAXCONN, "--set", "topology=host"]);
    assert_eq!(layer(&host, "live"), ("2000".into(), true));
    assert_eq!(host.finding(SOMAXCONN)["live"]["result"], "pass");
}

/// The snapshot of a host with a running workload, judged where there is neither: as nobody, in another network, with
/// another environment. Seen failing with the container layer left out of snapshots.
#[test]
fn a_snapshot_tells_the_same_anywhere() {
    let engine = engine();
    engine.import_redis();
    redis(&engine, 6379, &["--sysctl", "net.core.somaxconn=128"]);
    let live = check(&engine, &["--set", "nodes_here=1"]);
    let facts = on_host(&engine, &["facts", "--set", "nodes_here=1"]);
    assert_eq!((facts.code, facts.stderr.as_str()), (0, ""));
    let file = engine.folder.path().join("snapshot.json");
    fs::write(&file, &facts.stdout).unwrap();
    let args = ["check", "--format", "json", "--snapshot", file.to_str().unwrap()];
    let here = on_host(&engine, &args).report();
    let elsewhere: Vec<String> = ["unshare", "-n", "--"].map(str::to_owned).into_iter().chain(nobody()).collect();
    let away = preflight(engine.folder.path(), &elsewhere, &[("HOME", "/nonexistent")], &args).report();
    assert_eq!(away.code, here.code);
    assert_eq!(away.with_result("pass"), here.with_result("pass"));
    assert_eq!(here.said("port.free.6379"), "pass ours");
    assert_eq!(here.said(SOMAXCONN), "warn 128");
    // Two looks at one host; only what is measured may have moved between them.
    let steady = |report: &Report| {
        let mut results = report.results();
        results.retain(|id, _| !id.starts_with("resource.") && !id.starts_with("docker."));
        results
    };
    assert_eq!(steady(&here), steady(&live));
    assert_eq!(away.timeless(), here.timeless());
}

/// Debian 13's engine and Compose plugin, seen from its own root.
#[test]
fn debian_13_with_its_own_engine() {
    let engine = Engine::start(&Options { root: Some(image("trixie")), ..Options::default() });
    engine.import_redis();
    redis(&engine, 6379, &[]);
    let report = check(&engine, &[]);
    assert_eq!(report.said("os.supported"), "pass supported");
    let system = report.value["host"]["os"].as_str().unwrap();
    assert!(system.starts_with("Debian GNU/Linux 13"), "{system}");
    let version = engine.get("/version")["Version"].as_str().unwrap().to_owned();
    assert!(version.starts_with("26.1."), "{version}");
    assert_eq!(report.said("docker.engine"), format!("warn {version}"));
    assert!(report.said("docker.compose").starts_with("pass 2.26."), "{}", report.said("docker.compose"));
    assert_eq!(report.said("port.free.6379"), "pass ours");
    assert!(report.notes("port.free.6379").contains("redis-6379"), "{}", report.notes("port.free.6379"));
    assert_eq!(report.said("port.free.6380"), "pass free");
    assert_eq!(report.with_result("unknown"), [""; 0]);
}

/// A process that listens on a port, under a name of its own.
struct Holder {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Holder {
    fn start(prefix: &[&str], name: &str, port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A link, so that the kernel names the process after it.
        let program = folder.path().join(name);
        std::os::unix::fs::symlink("/usr/bin/perl", &program).unwrap();
        let script = format!(
            "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => {port}, \
             Listen => 5, ReuseAddr => 1) or die $!; $| = 1; print \"ready\\n\"; sleep 600"
        );
        let program = program.display().to_string();
        let argv = [prefix, &["setpriv", "--pdeathsig", "KILL", &program, "-e", &script]].concat();
        let mut child =
            Command::new(argv[0]).args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        let holder = Self { child, _folder: folder };
        assert_eq!(line, "ready\n", "{name} could not listen on {port}");
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A network of the test's own, kept by a process that sleeps in it.
struct Network(Child);

impl Network {
    fn new() -> Self {
        require_root();
        let script = "ip link set lo up && echo ready && exec sleep 600";
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "-n", "sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn enter(&self) -> Vec<String> {
        ["nsenter", "--target", &self.0.id().to_string(), "--net", "--"].map(str::to_owned).to_vec()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Seen failing (still red after the port was freed) with `gather` called once, before the loop of `judge_host`.
#[test]
fn waiting_turns_green_when_the_port_is_freed_in_time_and_stays_red_otherwise() {
    let network = Network::new();
    let prefix = network.enter();
    let words: Vec<&str> = prefix.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let wait = |folder: &Path, how_long: &str| {
        let started = Instant::now();
        let args = ["check", "--format", "json", "--only", "port.free.6380", "--wait", how_long];
        let ran = preflight(folder, &prefix, &[("DOCKER_HOST", "unix:///nonexistent/docker.sock")], &args);
        (ran.report(), started.elapsed())
    };
    let holder = Holder::start(&words, "squatter", 6380);
    let (red, took) = wait(folder.path(), "2s");
    assert_eq!((red.result("port.free.6380"), red.code), ("fail", 1), "{}", red.value);
    assert!((2..7).contains(&took.as_secs()), "{took:?}");

    let freed = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        drop(holder);
    });
    let (green, took) = wait(folder.path(), "30s");
    freed.join().unwrap();
    assert_eq!((green.said("port.free.6380"), green.code), ("pass free".into(), 0));
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(15), "{took:?}");

    // Nothing to wait for: at once.
    let (_, took) = wait(folder.path(), "30s");
    assert!(took < Duration::from_secs(5), "{took:?}");
}
