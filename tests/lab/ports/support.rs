//! What the cases are made of: namespaces, holders, questions, and the oracle.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setegid, seteuid, setgroups};
use preflight::catalog::library;
use preflight::catalog::parameters::{Parameters, Port, Protocol, Setting};
use preflight::facts::Fact;
use preflight::facts::Facts;
use preflight::facts::State;
use preflight::facts::Value;
use preflight::host::Host;
use preflight::subjects::context::Context;
use preflight::subjects::context::Want;
use preflight::subjects::derive as derived;
use preflight::subjects::docker::containers::Container;
use preflight::subjects::docker::containers::Containers;
use preflight::subjects::docker::containers::Published;
use preflight::subjects::ports as port;

pub(crate) const NOBODY: u32 = 65534;

/// Binds, listens if told to, says "ready" and waits.
pub(crate) const HOLD: &str = include_str!("hold.pl");

/// Ends with 0 when every address can be bound and listened on at once, the way dockerd does.
pub(crate) const ORACLE: &str = include_str!("oracle.pl");

/// Refuses one address family to everything it starts: `socket(2)` fails with the errno given. seccomp(2).
pub(crate) const REFUSE_FAMILY: &str = include_str!("refuse_family.pl");

/// Moves this thread, and all it starts, into an empty network namespace with a working loopback.
pub(crate) fn fresh_namespace() {
    assert!(Uid::effective().is_root(), "this suite needs root");
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET)");
    ip(&["link", "set", "lo", "up"]);
}

pub(crate) fn ip(args: &[&str]) {
    assert!(Command::new("ip").args(args).status().expect("ip(8)").success(), "ip {args:?}");
}

/// A process that is ended with its test.
pub(crate) struct Holder {
    pub(crate) child: Child,
    /// Lives as long as the process that was started from it.
    _folder: tempfile::TempDir,
}

impl Holder {
    pub(crate) fn new(child: Child, folder: tempfile::TempDir) -> Self {
        Self { child, _folder: folder }
    }

    pub(crate) fn pid(&self) -> String {
        format!("pid {}", self.child.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One socket to hold.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a socket option or its like, and all combine")]
pub(crate) struct Hold<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) address: &'a str,
    pub(crate) port: u16,
    pub(crate) reuse: bool,
    pub(crate) v6_only: bool,
    pub(crate) listen: bool,
    pub(crate) user: u32,
    /// Drops to this user after the bind, as nginx's workers and Redis under an init script do.
    pub(crate) later_user: Option<u32>,
    pub(crate) other_namespace: bool,
}

pub(crate) const NGINX: Hold<'_> = Hold {
    name: "nginx",
    kind: "tcp",
    address: "0.0.0.0",
    port: 6379,
    reuse: true,
    v6_only: false,
    listen: true,
    user: 0,
    later_user: None,
    other_namespace: false,
};

impl Hold<'_> {
    /// Starts a process of that name (a link to perl, so that the kernel names it so) and waits for its socket.
    pub(crate) fn start(self) -> Holder {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(self.name);
        symlink("/usr/bin/perl", &program).unwrap();
        // The other user must be able to get there.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = if self.other_namespace {
            let mut command = Command::new("unshare");
            command.args(["-n", "--"]).arg(&program);
            command
        } else {
            Command::new(&program)
        };
        let flag = |on: bool| if on { "1" } else { "0" };
        command.args(["-e", HOLD, self.kind, self.address, &self.port.to_string()]);
        command.args([flag(self.reuse), flag(self.v6_only), flag(self.listen)]);
        command.uid(self.user).gid(self.user).stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(user) = self.later_user {
            command.env("LATER_USER", user.to_string());
        }
        let mut child = command.spawn().expect("perl");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let holder = Holder::new(child, folder);
        assert_eq!(line, "ready\n", "{} could not hold {}:{}", self.name, self.address, self.port);
        holder
    }
}

pub(crate) fn words(words: &[&str]) -> Setting {
    Setting::List(words.iter().map(|word| (*word).to_owned()).collect())
}

/// One question: a port on some addresses, with the containers that Docker is taken to run.
#[derive(Clone)]
pub(crate) struct Question<'a> {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) addresses: &'a [&'a str],
    pub(crate) containers: Containers,
    pub(crate) expected_free: bool,
}

pub(crate) const BOTH: &[&str] = &["0.0.0.0", "::"];

pub(crate) fn redis_port() -> Question<'static> {
    Question {
        port: 6379,
        protocol: Protocol::Tcp,
        addresses: BOTH,
        containers: Containers::Known(Vec::new()),
        expected_free: false,
    }
}

impl Question<'_> {
    pub(crate) fn fact(&self) -> Fact {
        let port = Port { name: "redis".into(), port: self.port, protocol: self.protocol, publish: true };
        let id = format!("derived.port.state.{}", port.instance());
        let mut parameters = Parameters::default();
        parameters.insert("ports", Setting::Ports(vec![port]));
        parameters.insert("publish_address", words(self.addresses));
        parameters.insert("workload_images", words(&["redis", "valkey"]));
        parameters.insert("workload_processes", words(&["redis-server", "redis-sentinel", "valkey-server"]));
        let expected = if self.expected_free { "free" } else { "free_or_ours" };
        parameters.insert("ports_expected", Setting::One(Value::Text(expected.into())));
        let os = library::os_profile("debian", &[]);
        let (host, want) = (Host::live(), Want::new(derived::inputs(&id)));
        let cx = Context::new(&host, &want, &parameters, os);
        let mut facts = Facts::default();
        port::probe(&cx, &self.containers, &mut facts);
        derived::derive(&id, &facts, &parameters, os, "2026-11-22")
    }

    /// Whether dockerd would get the port.
    pub(crate) fn oracle(&self) -> bool {
        let mut command = Command::new("/usr/bin/perl");
        command.args(["-e", ORACLE, self.protocol.name(), &self.port.to_string()]).args(self.addresses);
        command.status().expect("perl").success()
    }

    /// The fact's word, after it was held against the oracle.
    pub(crate) fn verdict(&self) -> (String, String) {
        let fact = self.fact();
        let verdict = word(&fact);
        if verdict != "unknown" {
            assert_eq!(verdict == "free", self.oracle(), "{verdict} is not what dockerd would find: {fact:?}");
        }
        (verdict, fact.note.unwrap_or_default())
    }
}

pub(crate) fn word(fact: &Fact) -> String {
    match &fact.state {
        State::Known(Value::Text(text)) => text.clone(),
        State::Unknown { .. } => "unknown".into(),
        state => panic!("{state:?}"),
    }
}

pub(crate) fn unknown(fact: &Fact) -> (String, String) {
    match &fact.state {
        State::Unknown { error, help } => (error.clone(), help.clone().unwrap_or_default()),
        state => panic!("expected unknown: {state:?}"),
    }
}

pub(crate) fn container(name: &str, image: &str, port: u16) -> Containers {
    let addresses = BOTH.iter().map(|address| address.parse().unwrap());
    let published = addresses
        .map(|address| Published { address: Some(address), port, protocol: Protocol::Tcp, inside: port })
        .collect();
    Containers::Known(vec![Container {
        id: "ab".repeat(32),
        name: name.into(),
        image: image.into(),
        published,
        ..Container::default()
    }])
}

/// Runs something without root's rights, in this very thread and namespace.
pub(crate) fn as_nobody<T>(what: impl FnOnce() -> T) -> T {
    setgroups(&[]).unwrap();
    setegid(Gid::from_raw(NOBODY)).unwrap();
    seteuid(Uid::from_raw(NOBODY)).unwrap();
    let result = what();
    seteuid(Uid::from_raw(0)).unwrap();
    setegid(Gid::from_raw(0)).unwrap();
    result
}

pub(crate) fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what} did not come up");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs this test once more with one address family refused to it; true in that inner run.
pub(crate) fn with_family_refused(test: &str, family: i32, errno: i32) -> bool {
    const INNER: &str = "PREFLIGHT_LAB_INNER";
    if std::env::var_os(INNER).is_some() {
        return true;
    }
    let own = std::env::current_exe().unwrap();
    let mut command = Command::new("/usr/bin/perl");
    command.args(["-e", REFUSE_FAMILY, &family.to_string(), &errno.to_string()]).arg(own);
    let output = command.args(["--exact", test, "--nocapture"]).env(INNER, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "the inner run failed:\n{text}");
    false
}

/// Starts the real thing under a name and waits until it answers.
pub(crate) fn start_redis(name: &str, folder: &Path, args: &[&str], port: u16) -> Child {
    let program = folder.join(name);
    symlink("/usr/bin/redis-server", &program).unwrap();
    let mut command = Command::new(&program);
    command.args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.spawn().expect("redis-server");
    // It listens on its addresses one after the other.
    wait_for(name, || ["127.0.0.1", "::1"].iter().all(|address| TcpStream::connect((*address, port)).is_ok()));
    child
}
