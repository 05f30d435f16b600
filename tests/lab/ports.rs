//! `port.state.*` against real holders: real sockets of real processes, each case in a network namespace of its own.
//!
//! Needs root (namespaces, other users), Debian's `redis-server`, `perl` and `ip`. Nothing outside the namespaces and a
//! temporary folder is touched; a namespace ends with the last process in it.
//!
//! Every verdict is also held against an oracle that shares no code with the probe: a Perl script that binds *and*
//! listens as dockerd does. "free" must mean that it succeeds, anything else that it fails.
//!
//! Each guarantee was seen to fail with its mechanism off; what was switched off stands at the test.

mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use nix::sched::{CloneFlags, unshare};
use preflight::catalog::library;
use preflight::catalog::parameters::{Parameters, Port, Protocol, Setting};
use preflight::facts::{Fact, Facts, State};
use preflight::host::Host;
use preflight::subjects::context::Context;
use preflight::subjects::context::Want;
use preflight::subjects::docker::containers::Containers;
use preflight::subjects::ports as port;

use support::*;

/// Every layout of one foreign listener, for every way to ask. With `IPV6_V6ONLY` left out of `try_bind`, "v4 any" asked
/// for `::` turns into a false "taken"; with dual-stack sockets left out of `table::conflicts`, "v6 dual-stack" asked for
/// IPv4 loses its holder.
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
        // What Go servers open since 1.24 where the kernel can; the table of TCP shows the inode of the outer socket.
        ("multipath TCP", Hold { kind: "mptcp", ..NGINX }, v6_any),
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

/// A client's connection without SO_REUSEADDR does hold its port until it has timed out, and dockerd would fail too. Fails
/// when `held_by_socket` does not tell TIME_WAIT from the kernel's other sockets.
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

/// The control is `what_may_not_be_seen_is_unknown`: the same holder in the same namespace is seen.
#[test]
fn another_network_namespace_is_another_host() {
    fresh_namespace();
    let _holder = Hold { other_namespace: true, ..NGINX }.start();
    assert_eq!(redis_port().verdict().0, "free");
}

/// Fails when UDP is asked with SO_REUSEADDR: the second round is then shared, a false "free".
#[test]
fn udp_ports_have_holders_too() {
    let question = Question { protocol: Protocol::Udp, ..redis_port() };
    for reuse in [false, true] {
        for (address, v6_only) in [("0.0.0.0", false), ("::", false), ("::", true), ("127.0.0.1", false)] {
            fresh_namespace();
            let holder = Hold { kind: "udp", name: "named", address, v6_only, reuse, listen: false, ..NGINX }.start();
            assert_eq!(redis_port().verdict().0, "free", "TCP is not UDP");
            let (verdict, note) = question.verdict();
            assert_eq!(verdict, "taken", "{address} {v6_only} {reuse}");
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

    let holder = NGINX.start();
    let (error, help) = unknown(&as_nobody(|| redis_port().fact()));
    assert_eq!(error, "held by a process of user root that is not visible on 0.0.0.0:6379");
    assert!(help.starts_with("run as root"), "{help}");
    let fact = as_nobody(|| Question { expected_free: true, ..redis_port() }.fact());
    assert_eq!(word(&fact), "taken");
    // Whom Docker tells explains the port without a look into foreign processes.
    let containers = container("redis-master", "redis:7.2", 6379);
    let fact = as_nobody(|| Question { containers, ..redis_port() }.fact());
    assert_eq!(word(&fact), "ours", "{fact:?}");
    drop(holder);
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

/// Fails when EADDRNOTAVAIL is taken for EADDRINUSE.
#[test]
fn an_address_of_another_host_is_neither_free_nor_taken() {
    fresh_namespace();
    for addresses in [&["192.0.2.1"][..], &["2001:db8::1"], &["127.0.0.1", "192.0.2.1"]] {
        let (verdict, note) = Question { addresses, ..redis_port() }.verdict();
        assert_eq!(verdict, "not-our-address");
        assert!(note.contains(addresses.last().unwrap()) && !note.contains("127.0.0.1"), "{note}");
    }
}

/// Real Redis, real Sentinel, and Redis under Valkey's name (a stand-in: Debian 12 has no Valkey). Fails when
/// `is_workload_process` compares nothing.
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
        let redis = Holder::new(child, folder);
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

/// A stand-in by name; the real docker-proxy is in the Docker suite. Fails with `FORWARDERS` empty.
#[test]
fn a_forwarder_stands_for_its_container() {
    fresh_namespace();
    let proxy = Hold { name: "docker-proxy", ..NGINX }.start();
    let ask = |containers| Question { containers, ..redis_port() };
    let (verdict, note) = ask(container("redis-master", "redis:7.2", 6379)).verdict();
    assert_eq!(verdict, "ours");
    assert_eq!(note, "published by container redis-master (image redis:7.2) on 0.0.0.0:6379 and [::]:6379");
    let (verdict, note) = ask(container("web", "nginx:1", 6379)).verdict();
    assert_eq!(verdict, "taken");
    assert!(note.contains("container web"), "{note}");
    let (verdict, note) = ask(container("web", "nginx:1", 8080)).verdict();
    assert_eq!(verdict, "taken");
    assert!(
        note.contains(&format!("docker-proxy ({}", proxy.pid())) && note.contains("serves no running container"),
        "{note}"
    );
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

/// A kernel without IPv6 (`ipv6.disable=1`) answers EAFNOSUPPORT; a seccomp filter makes this one do so. Fails when that
/// errno has no answer of its own.
#[test]
fn ipv6_that_does_not_exist_is_skipped_and_said() {
    if !with_family_refused("ports::ipv6_that_does_not_exist_is_skipped_and_said", nix::libc::AF_INET6, 97) {
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
    if !with_family_refused("ports::without_netlink_the_proc_tables_name_the_holder", nix::libc::AF_NETLINK, 1) {
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

/// One bind a port, nothing else. The median, with a generous bound (a debug build beside other work); the benchmark has
/// the real one.
#[test]
fn a_thousand_free_ports_cost_microseconds_each() {
    fresh_namespace();
    let ports = (10_000..11_000)
        .map(|port| Port { name: "many".into(), port, protocol: Protocol::Tcp, publish: true })
        .collect::<Vec<_>>();
    let want = Want::new(ports.iter().map(|port| format!("port.state.{}", port.instance())));
    let mut parameters = Parameters::default();
    parameters.insert("ports", Setting::Ports(ports));
    let os = library::os_profile("debian", &[]);
    let host = Host::live();
    let cx = Context::new(&host, &want, &parameters, os);
    let mut facts = Facts::default();
    port::probe(&cx, &Containers::Known(Vec::new()), &mut facts);
    let states: Vec<&Fact> = facts
        .iter()
        .filter(|(id, _)| id.starts_with("port.state."))
        .map(|(_, layers)| layers.live.as_ref().unwrap())
        .collect();
    assert_eq!(states.len(), 1000);
    assert!(states.iter().all(|fact| word(fact) == "free"));
    let mut took: Vec<u64> = states.iter().map(|fact| fact.took_us).collect();
    took.sort_unstable();
    assert!(took[500] < 200, "{} us a port", took[500]);
}
