//! `port.state.*` against real holders: real sockets of real processes, each case in a network namespace of its own.
//!
//! Needs root (namespaces, other users), Debian's `redis-server`, `perl` and `ip`. Nothing outside the namespaces and a
//! temporary folder is touched; a namespace ends with the last process in it.
//!
//! Every verdict is also held against an oracle that shares no code with the probe: a Perl script that binds *and*
//! listens as dockerd does. "free" must mean that it succeeds, anything else that it fails.
//!
//! Each guarantee was seen to fail with its mechanism off; what was switched off stands at the test.
#![expect(clippy::disallowed_methods, reason = "a lab test arranges the machine that it then looks at")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setegid, seteuid, setgroups};
use preflight::catalog::os::{OsProfile, SysctlLoader};
use preflight::catalog::parameters::{Parameters, Port, Protocol, Setting};
use preflight::facts::{Fact, Facts, Layer, State, Value};
use preflight::host::Host;
use preflight::probe::containers::{Container, Containers, Published};
use preflight::probe::{Context, Want, port};

const NOBODY: u32 = 65534;

/// Binds, listens if told to, says "ready" and waits.
const HOLD: &str = r#"
use Socket qw(:all); $| = 1;
my ($type, $address, $port, $reuse, $only, $listen) = @ARGV;
my $six = $address =~ /:/;
socket(my $s, $six ? AF_INET6 : AF_INET, $type eq 'udp' ? SOCK_DGRAM : SOCK_STREAM, 0) or die "socket: $!";
setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1) if $reuse;
if ($six) { setsockopt($s, IPPROTO_IPV6, IPV6_V6ONLY, $only + 0) or die "V6ONLY: $!" }
my $to = $six ? pack_sockaddr_in6($port, inet_pton(AF_INET6, $address)) : pack_sockaddr_in($port, inet_aton($address));
bind($s, $to) or die "bind: $!";
if ($listen) { listen($s, 8) or die "listen: $!" }
if ($ENV{LATER_USER}) { $( = $) = $ENV{LATER_USER}; $< = $> = $ENV{LATER_USER} }
print "ready\n"; sleep 300;
"#;

/// Ends with 0 when every address can be bound and listened on at once, the way dockerd does.
const ORACLE: &str = r#"
use Socket qw(:all);
my ($type, $port, @addresses) = @ARGV; my @keep;
for my $address (@addresses) {
    my $six = $address =~ /:/;
    socket(my $s, $six ? AF_INET6 : AF_INET, $type eq 'udp' ? SOCK_DGRAM : SOCK_STREAM, 0) or exit 1;
    setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1) if $type eq 'tcp';
    setsockopt($s, IPPROTO_IPV6, IPV6_V6ONLY, 1) if $six;
    my $to = $six ? pack_sockaddr_in6($port, inet_pton(AF_INET6, $address)) : pack_sockaddr_in($port, inet_aton($address));
    bind($s, $to) or exit 1;
    if ($type eq 'tcp') { listen($s, 8) or exit 1 }
    push @keep, $s;
}
exit 0;
"#;

/// Refuses one address family to everything it starts: `socket(2)` fails with the errno given. seccomp(2).
const REFUSE_FAMILY: &str = r#"
my ($family, $errno, @command) = @ARGV;
my ($arm) = grep { /aarch64/ } `uname -m`;
my ($seccomp, $socket) = $arm ? (277, 198) : (317, 41);
my $filter = join '', map { pack 'SCCL', @$_ } (
    [0x20, 0, 0, 0], [0x15, 0, 3, $socket], [0x20, 0, 0, 16], [0x15, 0, 1, $family],
    [0x06, 0, 0, 0x00050000 | $errno], [0x06, 0, 0, 0x7fff0000]);
my $program = pack 'SxxxxxxP', 6, $filter;
syscall($seccomp, 1, 0, $program) == 0 or die "seccomp: $!";
exec @command or die "exec: $!";
"#;

/// Moves this thread, and all it starts, into an empty network namespace with a working loopback.
fn fresh_namespace() {
    assert!(Uid::effective().is_root(), "this suite needs root");
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET)");
    ip(&["link", "set", "lo", "up"]);
}

fn ip(args: &[&str]) {
    assert!(Command::new("ip").args(args).status().expect("ip(8)").success(), "ip {args:?}");
}

/// A process that is ended with its test.
struct Holder {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Holder {
    fn pid(&self) -> String {
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
struct Hold<'a> {
    name: &'a str,
    kind: &'a str,
    address: &'a str,
    port: u16,
    reuse: bool,
    v6_only: bool,
    listen: bool,
    user: u32,
    /// Drops to this user after the bind, as nginx's workers and Redis under an init script do.
    later_user: Option<u32>,
    other_namespace: bool,
}

const NGINX: Hold<'_> = Hold {
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
    fn start(self) -> Holder {
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
        let holder = Holder { child, _folder: folder };
        assert_eq!(line, "ready\n", "{} could not hold {}:{}", self.name, self.address, self.port);
        holder
    }
}

fn words(words: &[&str]) -> Setting {
    Setting::List(words.iter().map(|word| (*word).to_owned()).collect())
}

/// One question: a port on some addresses, with the containers that Docker is taken to run.
#[derive(Clone)]
struct Question<'a> {
    port: u16,
    protocol: Protocol,
    addresses: &'a [&'a str],
    containers: Containers,
    expected_free: bool,
}

const BOTH: &[&str] = &["0.0.0.0", "::"];

fn redis_port() -> Question<'static> {
    Question {
        port: 6379,
        protocol: Protocol::Tcp,
        addresses: BOTH,
        containers: Containers::Known(Vec::new()),
        expected_free: false,
    }
}

impl Question<'_> {
    fn fact(&self) -> Fact {
        let asked = Port { name: "redis".into(), port: self.port, protocol: self.protocol, publish: true };
        let id = format!("port.state.{}", asked.instance());
        let mut parameters = Parameters::default();
        parameters.insert("ports", Setting::Ports(vec![asked]));
        parameters.insert("publish_address", words(self.addresses));
        parameters.insert("workload_images", words(&["redis", "valkey"]));
        parameters.insert("workload_processes", words(&["redis-server", "redis-sentinel", "valkey-server"]));
        let expected = if self.expected_free { "free" } else { "free_or_ours" };
        parameters.insert("ports_expected", Setting::One(Value::Text(expected.into())));
        let os = OsProfile {
            name: "lab".into(),
            ids: Vec::new(),
            oldest: None,
            releases: Vec::new(),
            sysctl_loader: SysctlLoader::Systemd,
            remedies: BTreeMap::new(),
        };
        let (host, want) = (Host::live(), Want::new([id.clone()]));
        let cx = Context { host: &host, want: &want, parameters: &parameters, os: &os };
        let mut facts = Facts::default();
        port::probe(&cx, &self.containers, &mut facts);
        facts.get(&id, Layer::Live).expect("a fact for the port").clone()
    }

    /// Whether dockerd would get the port.
    fn oracle(&self) -> bool {
        let mut command = Command::new("/usr/bin/perl");
        command.args(["-e", ORACLE, self.protocol.name(), &self.port.to_string()]).args(self.addresses);
        command.status().expect("perl").success()
    }

    /// The fact's word, after it was held against the oracle.
    fn verdict(&self) -> (String, String) {
        let fact = self.fact();
        let verdict = word(&fact);
        if verdict != "unknown" {
            assert_eq!(verdict == "free", self.oracle(), "{verdict} is not what dockerd would find: {fact:?}");
        }
        (verdict, fact.note.unwrap_or_default())
    }
}

fn word(fact: &Fact) -> String {
    match &fact.state {
        State::Known(Value::Text(text)) => text.clone(),
        State::Unknown { .. } => "unknown".into(),
        state => panic!("{state:?}"),
    }
}

fn unknown(fact: &Fact) -> (String, String) {
    match &fact.state {
        State::Unknown { error, help } => (error.clone(), help.clone().unwrap_or_default()),
        state => panic!("expected unknown: {state:?}"),
    }
}

fn container(name: &str, image: &str, port: u16) -> Containers {
    let addresses = BOTH.iter().map(|address| address.parse().unwrap());
    let published =
        addresses.map(|address| Published { address: Some(address), port, protocol: Protocol::Tcp }).collect();
    Containers::Known(vec![Container {
        id: "ab".repeat(32),
        name: name.into(),
        image: image.into(),
        published,
        ..Container::default()
    }])
}

/// Runs something without root's rights, in this very thread and namespace.
fn as_nobody<T>(what: impl FnOnce() -> T) -> T {
    setgroups(&[]).unwrap();
    setegid(Gid::from_raw(NOBODY)).unwrap();
    seteuid(Uid::from_raw(NOBODY)).unwrap();
    let result = what();
    seteuid(Uid::from_raw(0)).unwrap();
    setegid(Gid::from_raw(0)).unwrap();
    result
}

fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what} did not come up");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every layout of one foreign listener, for every way to ask. With `IPV6_V6ONLY` left out of `try_bind` "v6 only, asked
/// for v6" still passes but "v4 any, asked for v6" turns into a false "taken"; with the IPv6 ask left out "v6 only" turns
/// into a false "free".
#[test]
fn listeners_are_seen_on_exactly_the_addresses_they_hold() {
    let v6 = |address, v6_only| Hold { address, v6_only, ..NGINX };
    let any: &[&str] = &["0.0.0.0", "127.0.0.1", "10.99.0.1"];
    let v6_any: &[&str] = &["::", "::1"];
    // The layout, and the single addresses that stay free beside it.
    let layouts = [
        ("v4 any", NGINX, v6_any),
        ("v4 loopback", Hold { address: "127.0.0.1", ..NGINX }, &["::", "::1", "10.99.0.1"]),
        ("v4 one address", Hold { address: "10.99.0.1", ..NGINX }, &["::", "::1", "127.0.0.1"]),
        ("v6 dual-stack", v6("::", false), &[]),
        ("v6 only", v6("::", true), any),
        ("v6 loopback", v6("::1", true), any),
        ("v4 mapped", v6("::ffff:127.0.0.1", false), &["::", "::1", "10.99.0.1"]),
        ("without SO_REUSEADDR", Hold { reuse: false, ..NGINX }, v6_any),
    ];
    let asks: [&[&str]; 6] = [BOTH, &["0.0.0.0"], &["::"], &["127.0.0.1"], &["10.99.0.1"], &["::1"]];
    for (layout, hold, free) in layouts {
        fresh_namespace();
        ip(&["address", "add", "10.99.0.1/32", "dev", "lo"]);
        let holder = hold.start();
        for addresses in asks {
            let (verdict, note) = Question { addresses, ..redis_port() }.verdict();
            let want = if addresses.iter().all(|address| free.contains(address)) { "free" } else { "taken" };
            assert_eq!(verdict, want, "{layout} asked for {addresses:?}: {note}");
            let named = note.starts_with(&format!("held by nginx ({}, user root", holder.pid()));
            assert!(named || verdict == "free", "{layout} asked for {addresses:?}: {note}");
        }
        assert_eq!(Question { port: 6380, ..redis_port() }.verdict().0, "free", "{layout}: another port");
        let udp = Question { protocol: Protocol::Udp, ..redis_port() };
        assert_eq!(udp.verdict().0, "free", "{layout}: another protocol");
        drop(holder);
        assert_eq!(redis_port().verdict().0, "free", "{layout}: after its end");
    }
}

/// Fails when bound sockets are not asked for (`BOUND_INACTIVE` 0 in `sock_diag`): the port is then held by nobody.
#[test]
fn a_bound_socket_that_does_not_listen_holds_its_port_unless_it_shares() {
    fresh_namespace();
    let holder = Hold { reuse: false, listen: false, ..NGINX }.start();
    let (verdict, note) = redis_port().verdict();
    assert_eq!(verdict, "taken");
    assert!(note.contains(&holder.pid()) && note.contains("which does not listen"), "{note}");
    drop(holder);

    // dockerd's bind and listen succeed beside it: the oracle in `verdict` proves it.
    let _holder = Hold { reuse: true, listen: false, ..NGINX }.start();
    assert_eq!(redis_port().verdict().0, "free");
}

/// Fails when `try_bind` leaves SO_REUSEADDR out.
#[test]
fn connections_that_time_out_do_not_hold_a_server_port() {
    fresh_namespace();
    let listener = TcpListener::bind("0.0.0.0:6379").unwrap();
    let mut client = TcpStream::connect("127.0.0.1:6379").unwrap();
    drop(listener.accept().unwrap());
    drop(listener);
    std::io::Read::read_to_end(&mut client, &mut Vec::new()).unwrap();
    drop(client);
    let waiting = || fs::read_to_string("/proc/thread-self/net/tcp").unwrap().contains("0100007F:18EB 0100007F");
    wait_for("TIME_WAIT", waiting);
    assert_eq!(redis_port().verdict().0, "free");
    assert!(waiting(), "the connection was gone too early: nothing was tested");
}

/// A client's connection without SO_REUSEADDR does hold its port until it has timed out, and dockerd would fail too.
#[test]
fn a_client_connection_in_time_wait_is_named_as_what_it_is() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    fresh_namespace();
    let listener = TcpListener::bind("127.0.0.1:7000").unwrap();
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 6379)).unwrap();
    connect(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 7000)).unwrap();
    let (server, _) = listener.accept().unwrap();
    let (verdict, note) = redis_port().verdict();
    assert_eq!(verdict, "taken");
    assert!(note.contains(&format!("pid {}", std::process::id())) && note.contains("does not listen"), "{note}");
    drop(fd);
    drop(server);
    let (verdict, note) = redis_port().verdict();
    assert_eq!(verdict, "taken");
    assert!(note.contains("TIME_WAIT") && note.contains("60 s"), "{note}");
}

/// Fails when the bind is replaced by a look into the tables of PID 1's namespace.
#[test]
fn another_network_namespace_is_another_host() {
    fresh_namespace();
    let _holder = Hold { other_namespace: true, ..NGINX }.start();
    assert_eq!(redis_port().verdict().0, "free");
}

#[test]
fn udp_ports_have_holders_too() {
    let question = Question { protocol: Protocol::Udp, ..redis_port() };
    // With SO_REUSEADDR in the ask, the second case is a false "free": both would share the port.
    for reuse in [false, true] {
        for (address, v6_only) in [("0.0.0.0", false), ("::", false), ("::", true), ("127.0.0.1", false)] {
            fresh_namespace();
            let holder = Hold { kind: "udp", name: "named", address, v6_only, reuse, listen: false, ..NGINX }.start();
            assert_eq!(redis_port().verdict().0, "free", "TCP is not UDP");
            let fact = question.fact();
            assert_eq!(word(&fact), "taken", "{address} {v6_only} {reuse}");
            let note = fact.note.unwrap();
            assert!(note.starts_with(&format!("held by named ({}", holder.pid())), "{note}");
        }
    }
}

/// As root every holder is named; as nobody a stranger's holder is unknown, never a verdict, unless the port must be
/// free. Fails when `invisible` judges.
#[test]
fn what_may_not_be_seen_is_unknown() {
    fresh_namespace();
    let holder = Hold { user: NOBODY, ..NGINX }.start();
    let (verdict, note) = redis_port().verdict();
    assert_eq!(verdict, "taken");
    assert!(note.contains(&format!("{}, user nobody", holder.pid())), "{note}");
    // One's own process is seen without root.
    let fact = as_nobody(|| redis_port().fact());
    assert_eq!(word(&fact), "taken", "{fact:?}");
    drop(holder);

    let _holder = NGINX.start();
    let (error, help) = unknown(&as_nobody(|| redis_port().fact()));
    assert_eq!(error, "held by a process of user root that is not visible on 0.0.0.0:6379");
    assert!(help.starts_with("run as root"), "{help}");
    let fact = as_nobody(|| Question { expected_free: true, ..redis_port() }.fact());
    assert_eq!(word(&fact), "taken");
    // Whom Docker tells explains the port without a look into foreign processes.
    let containers = container("redis-master", "redis:7.2", 6379);
    let fact = as_nobody(|| Question { containers, ..redis_port() }.fact());
    assert_eq!(word(&fact), "ours", "{fact:?}");
    drop(_holder);
    assert_eq!(as_nobody(|| redis_port().verdict().0), "free");
}

/// The socket's user is not its holder's: the process was root when it made it. Fails when only processes of the
/// socket's user are searched.
#[test]
fn a_holder_that_dropped_its_rights_is_named_by_what_it_is_now() {
    fresh_namespace();
    let holder = Hold { later_user: Some(NOBODY), ..NGINX }.start();
    let (_, note) = redis_port().verdict();
    assert!(note.starts_with(&format!("held by nginx ({}, user nobody", holder.pid())), "{note}");
}

#[test]
fn a_privileged_port_is_not_in_use_just_because_it_may_not_be_asked() {
    fresh_namespace();
    let port80 = Question { port: 80, ..redis_port() };
    assert_eq!(port80.verdict().0, "free");
    // Fails when EACCES is taken for EADDRINUSE.
    let (error, help) = unknown(&as_nobody(|| port80.fact()));
    assert!(error.starts_with("not permitted to ask for port 80"), "{error}");
    assert_eq!(help, "run as root");
    // The listen table knows more than the refused bind. Fails when `not_permitted` does not look there.
    let _holder = Hold { port: 80, later_user: Some(NOBODY), ..NGINX }.start();
    let (error, _) = unknown(&as_nobody(|| port80.fact()));
    assert!(error.contains("held by a process of user root that is not visible on 0.0.0.0:80"), "{error}");
    let fact = as_nobody(|| Question { expected_free: true, addresses: &["0.0.0.0"], ..port80.clone() }.fact());
    assert_eq!(word(&fact), "taken");
}

#[test]
fn an_address_of_another_host_is_neither_free_nor_taken() {
    fresh_namespace();
    for addresses in [&["192.0.2.1"][..], &["2001:db8::1"], &["127.0.0.1", "192.0.2.1"]] {
        let (verdict, note) = Question { addresses, ..redis_port() }.verdict();
        assert_eq!(verdict, "not-our-address");
        assert!(note.contains(addresses.last().unwrap()) && !note.contains("127.0.0.1"), "{note}");
    }
}

/// Starts the real thing under a name and waits until it answers.
fn start_redis(name: &str, folder: &Path, args: &[&str], port: u16) -> Child {
    let program = folder.join(name);
    symlink("/usr/bin/redis-server", &program).unwrap();
    let mut command = Command::new(&program);
    command.args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.spawn().expect("redis-server");
    wait_for(name, || TcpStream::connect(("127.0.0.1", port)).is_ok());
    child
}

/// Real Redis, real Sentinel, and Redis under Valkey's name (a stand-in: Debian 12 has no Valkey).
#[test]
fn the_workload_itself_is_ours() {
    for (name, port) in [("redis-server", 6379), ("valkey-server", 6380), ("redis-sentinel", 26379)] {
        fresh_namespace();
        let folder = tempfile::tempdir().unwrap();
        let port_text = port.to_string();
        let sentinel = format!("port {port}\nbind 0.0.0.0 ::\nsentinel monitor mymaster 127.0.0.1 6379 2\n");
        fs::write(folder.path().join("sentinel.conf"), sentinel).unwrap();
        let args: &[&str] = if name == "redis-sentinel" {
            &["sentinel.conf"]
        } else {
            &["--port", &port_text, "--bind", "0.0.0.0", "::", "--save", "", "--protected-mode", "no"]
        };
        let child = start_redis(name, folder.path(), args, port);
        let pid = child.id();
        let redis = Holder { child, _folder: folder };
        let question = Question { port, ..redis_port() };
        let (verdict, note) = question.verdict();
        assert_eq!(verdict, "ours", "{note}");
        assert!(note.starts_with(&format!("held by {name} (pid {pid}, user root")), "{note}");
        assert!(note.ends_with(&format!(" on 0.0.0.0:{port} and [::]:{port}")), "{note}");
        // Without root it may be anybody's.
        assert_eq!(word(&as_nobody(|| question.fact())), "unknown");
        drop(redis);
        assert_eq!(question.verdict().0, "free");
    }
}

/// One stranger on one address is enough. Fails when the first holder found decides.
#[test]
fn beside_a_stranger_the_workload_is_not_enough() {
    fresh_namespace();
    ip(&["address", "add", "10.99.0.1/32", "dev", "lo"]);
    let ours = |address| Hold { name: "redis-server", address, ..NGINX };
    let _redis = ours("127.0.0.1").start();
    assert_eq!(redis_port().verdict().0, "ours");
    let stranger = Hold { address: "10.99.0.1", ..NGINX }.start();
    let (verdict, note) = redis_port().verdict();
    assert_eq!(verdict, "taken");
    assert!(note.contains(&stranger.pid()), "{note}");
    assert_eq!(Question { addresses: &["127.0.0.1"], ..redis_port() }.verdict().0, "ours");
}

/// A stand-in by name; the real docker-proxy is in the Docker suite.
#[test]
fn a_forwarder_stands_for_its_container() {
    fresh_namespace();
    let proxy = Hold { name: "docker-proxy", ..NGINX }.start();
    let ask = |containers| Question { containers, ..redis_port() };
    let (verdict, note) = ask(container("redis-master", "redis:7.2", 6379)).verdict();
    assert_eq!(verdict, "ours");
    assert!(note.contains("container redis-master (image redis:7.2") && note.contains(&proxy.pid()), "{note}");
    let (verdict, note) = ask(container("web", "nginx:1", 6379)).verdict();
    assert_eq!(verdict, "taken");
    assert!(note.contains("container web"), "{note}");
    let (verdict, note) = ask(container("web", "nginx:1", 8080)).verdict();
    assert_eq!(verdict, "taken");
    assert!(note.contains("docker-proxy") && note.contains("no running container publishes it"), "{note}");
    let (error, _) = unknown(&ask(Containers::Unknown("docker is stopped".into())).fact());
    assert!(error.contains("docker-proxy") && error.contains("docker is stopped"), "{error}");

    // A stranger that is seen is named, whatever containers publish.
    drop(proxy);
    let _nginx = NGINX.start();
    let (verdict, note) = Question { addresses: &["0.0.0.0"], ..ask(container("redis-1", "redis", 6379)) }.verdict();
    assert_eq!(verdict, "taken");
    assert!(note.contains("held by nginx"), "{note}");
}

/// `net.ipv6.conf.all.disable_ipv6`: the wildcard can still be bound, no address is left.
#[test]
fn ipv6_switched_off_by_sysctl() {
    fresh_namespace();
    for scope in ["all", "default", "lo"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").unwrap();
    }
    assert_eq!(redis_port().verdict().0, "free");
    assert_eq!(Question { addresses: &["::1"], ..redis_port() }.verdict().0, "not-our-address");
    let _holder = NGINX.start();
    assert_eq!(redis_port().verdict().0, "taken");
}

/// Runs this test once more with one address family refused to it; true in that inner run.
fn with_family_refused(test: &str, family: i32, errno: i32) -> bool {
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

/// A kernel without IPv6 (`ipv6.disable=1`) answers EAFNOSUPPORT; a seccomp filter makes this one do so.
#[test]
fn ipv6_that_does_not_exist_is_skipped_and_said() {
    if !with_family_refused("ipv6_that_does_not_exist_is_skipped_and_said", nix::libc::AF_INET6, 97) {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let fact = redis_port().fact();
    assert_eq!(word(&fact), "free");
    assert_eq!(fact.note.unwrap(), "[::]:6379 was not asked: this host has no IPv6");
    let fact = Question { addresses: &["::"], ..redis_port() }.fact();
    assert!(matches!(fact.state, State::Absent(_)), "{fact:?}");
    assert_eq!(word(&Question { addresses: &["2001:db8::1"], ..redis_port() }.fact()), "not-our-address");
    let _holder = NGINX.start();
    let fact = redis_port().fact();
    assert_eq!(word(&fact), "taken");
    assert!(fact.note.unwrap().ends_with("[::]:6379 was not asked: this host has no IPv6"));
}

/// Where netlink is refused (container runtimes, SELinux), `/proc/net` names the holder. Fails when `Table::gather` has
/// no second way.
#[test]
fn without_netlink_the_proc_tables_name_the_holder() {
    if !with_family_refused("without_netlink_the_proc_tables_name_the_holder", nix::libc::AF_NETLINK, 1) {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for hold in [NGINX, Hold { address: "::", ..NGINX }, Hold { kind: "udp", listen: false, ..NGINX }] {
        let holder = hold.start();
        let protocol = if hold.kind == "udp" { Protocol::Udp } else { Protocol::Tcp };
        let fact = Question { protocol, ..redis_port() }.fact();
        assert_eq!(word(&fact), "taken");
        assert!(fact.note.as_ref().unwrap().contains(&holder.pid()), "{fact:?}");
        assert!(fact.source.contains("/proc/net"), "{}", fact.source);
    }
    // A bound socket that does not listen is in no such table: unknown, not free and not somebody's.
    let _holder = Hold { reuse: false, listen: false, ..NGINX }.start();
    let (error, _) = unknown(&redis_port().fact());
    assert!(error.contains("in use by a socket that is not visible"), "{error}");
}

/// Two binds a port, nothing else. A generous bound (a debug build beside other work); the benchmark has the real one.
#[test]
fn a_thousand_free_ports_cost_microseconds_each() {
    fresh_namespace();
    let ports = (10_000..11_000)
        .map(|port| Port { name: "many".into(), port, protocol: Protocol::Tcp, publish: true })
        .collect::<Vec<_>>();
    let want = Want::new(ports.iter().map(|port| format!("port.state.{}", port.instance())));
    let mut parameters = Parameters::default();
    parameters.insert("ports", Setting::Ports(ports));
    let os = OsProfile {
        name: "lab".into(),
        ids: Vec::new(),
        oldest: None,
        releases: Vec::new(),
        sysctl_loader: SysctlLoader::Systemd,
        remedies: BTreeMap::new(),
    };
    let host = Host::live();
    let cx = Context { host: &host, want: &want, parameters: &parameters, os: &os };
    let mut facts = Facts::default();
    let started = Instant::now();
    port::probe(&cx, &Containers::Known(Vec::new()), &mut facts);
    let each = started.elapsed() / 1000;
    assert_eq!(facts.len(), 1000);
    assert!(facts.iter().all(|(_, layers)| word(layers.live.as_ref().unwrap()) == "free"));
    assert!(each < Duration::from_micros(200), "{each:?} a port");
}
