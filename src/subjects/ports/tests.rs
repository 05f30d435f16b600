//! What needs no privileges: real sockets of this very process. The matrix of foreign holders is in `tests/lab/ports.rs`.

use std::net::{TcpListener, UdpSocket};

use super::holder::Holder;
use super::verdict::Standing;
use super::*;
use crate::catalog::os::OsProfile;
use crate::catalog::parameters::{Parameters, Setting};
use crate::facts::{Layer, State, Value};
use crate::host::Host;
use crate::host::sock_diag::Entry;
use crate::subjects::context::Want;
use crate::subjects::docker::containers::{Container, Published};

fn os() -> OsProfile {
    OsProfile::blank("test")
}

fn words(words: &[&str]) -> Setting {
    Setting::List(words.iter().map(|word| (*word).to_owned()).collect())
}

fn parameters(port: u16, protocol: Protocol) -> Parameters {
    let mut parameters = Parameters::default();
    parameters.insert("ports", Setting::Ports(vec![Port { name: "redis".into(), port, protocol, publish: true }]));
    parameters.insert("publish_address", words(&["127.0.0.1"]));
    parameters.insert("workload_images", words(&["redis"]));
    parameters.insert("workload_processes", words(&["redis-server", "a-very-long-process-name"]));
    parameters
}

fn fact_at(host: &Host, parameters: &Parameters, containers: &Containers) -> Fact {
    let port = parameters.ports().next().unwrap();
    let id = format!("port.state.{}", port.instance());
    let want = Want::new([id.clone()]);
    let os = os();
    let cx = Context::new(host, &want, parameters, &os);
    let mut facts = Facts::default();
    probe(&cx, containers, &mut facts);
    assert_eq!(facts.len(), 2, "its state, and whether it is in use");
    facts.get(&id, Layer::Live).unwrap().clone()
}

fn fact_of(parameters: &Parameters, containers: &Containers) -> Fact {
    fact_at(&Host::live(), parameters, containers)
}

fn word(fact: &Fact) -> String {
    match &fact.state {
        State::Known(Value::Text(text)) => text.clone(),
        state => format!("{state:?}"),
    }
}

fn none() -> Containers {
    Containers::Known(Vec::new())
}

fn published(name: &str, image: &str, address: Option<&str>, port: u16, protocol: Protocol) -> Containers {
    Containers::Known(vec![Container {
        id: "ab".repeat(32),
        name: name.into(),
        image: image.into(),
        published: vec![Published { address: address.map(|text| text.parse().unwrap()), port, protocol, inside: port }],
        ..Container::default()
    }])
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_free_port_is_free_and_a_held_one_names_its_holder() {
    let port = free_port();
    let parameters = parameters(port, Protocol::Tcp);
    assert_eq!(word(&fact_of(&parameters, &none())), "free");

    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let fact = fact_of(&parameters, &none());
    assert_eq!(word(&fact), "taken");
    let note = fact.note.unwrap();
    assert!(note.contains(&format!("pid {}", std::process::id())), "{note}");
    assert!(note.ends_with(&format!("on 127.0.0.1:{port}")), "{note}");
    assert!(fact.source.contains("sock_diag(7)"), "{}", fact.source);

    // A connection that the listener's end closes stays in TIME_WAIT and must not count. Fails when `try_bind` leaves
    // SO_REUSEADDR out.
    let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    drop(listener.accept().unwrap());
    drop(listener);
    drop(client);
    assert_eq!(word(&fact_of(&parameters, &none())), "free");
}

/// With the asked address in place of the holder's own in `Judge::worst`, this names 0.0.0.0.
#[test]
fn a_holder_is_named_on_the_address_that_it_holds() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let mut parameters = parameters(port, Protocol::Tcp);
    parameters.insert("publish_address", Setting::List(vec!["0.0.0.0".into()]));
    let fact = fact_of(&parameters, &none());
    assert_eq!(word(&fact), "taken");
    let note = fact.note.unwrap();
    assert!(note.ends_with(&format!(" on 127.0.0.1:{port}")), "{note}");
}

#[test]
fn udp_is_asked_by_itself() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let fact = fact_of(&parameters(port, Protocol::Udp), &none());
    assert_eq!(word(&fact), "taken");
    assert!(fact.note.unwrap().contains(&format!("pid {}", std::process::id())));
    drop(socket);
    assert_eq!(word(&fact_of(&parameters(port, Protocol::Udp), &none())), "free");
}

#[test]
fn what_a_container_publishes_is_held_even_when_nothing_is_bound() {
    let port = free_port();
    let parameters = parameters(port, Protocol::Tcp);
    let fact = fact_of(&parameters, &published("redis-master", "redis:7.2", Some("0.0.0.0"), port, Protocol::Tcp));
    assert_eq!(word(&fact), "ours");
    assert_eq!(
        fact.note.as_deref(),
        Some(&*format!("published by container redis-master (image redis:7.2) on 127.0.0.1:{port}"))
    );
    let fact = fact_of(&parameters, &published("web", "nginx", None, port, Protocol::Tcp));
    assert_eq!(word(&fact), "taken");
    // Another address, family, protocol or port is not in the way.
    for containers in [
        published("web", "nginx", Some("127.0.0.2"), port, Protocol::Tcp),
        published("web", "nginx", Some("::"), port, Protocol::Tcp),
        published("web", "nginx", None, port, Protocol::Udp),
        published("web", "nginx", None, port.wrapping_add(1), Protocol::Tcp),
    ] {
        assert_eq!(word(&fact_of(&parameters, &containers)), "free", "{containers:?}");
    }
}

#[test]
fn a_process_of_ours_that_holds_the_port_is_ours() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut parameters = parameters(listener.local_addr().unwrap().port(), Protocol::Tcp);
    let own = Host::live().read_text("/proc/self/comm").unwrap();
    parameters.insert("workload_processes", words(&[own.trim_end()]));
    let fact = fact_of(&parameters, &none());
    assert_eq!(word(&fact), "ours");
    assert!(fact.note.unwrap().starts_with(&format!("held by {}", own.trim_end())));
}

/// Sentinel's ports lie in the ephemeral range of some hosts: a client of Redis itself can steal one. Fails when
/// `held_by_process` does not look at whether the socket listens.
#[test]
fn a_connection_of_ours_that_got_the_port_by_chance_is_in_the_way() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut parameters = parameters(client.local_addr().unwrap().port(), Protocol::Tcp);
    let own = Host::live().read_text("/proc/self/comm").unwrap();
    parameters.insert("workload_processes", words(&[own.trim_end()]));
    let fact = fact_of(&parameters, &none());
    assert_eq!(word(&fact), "taken");
    assert!(fact.note.unwrap().contains("which does not listen"));
}

#[test]
fn an_address_of_another_host_is_told_apart_from_a_port_in_use() {
    let mut parameters = parameters(free_port(), Protocol::Tcp);
    // TEST-NET-1 (RFC 5737).
    parameters.insert("publish_address", words(&["192.0.2.1"]));
    let fact = fact_of(&parameters, &none());
    assert_eq!(word(&fact), "not-our-address");
    assert!(fact.note.unwrap().contains("192.0.2.1"));
}

#[test]
fn an_address_that_is_none_is_not_silently_left_out() {
    let mut parameters = parameters(free_port(), Protocol::Tcp);
    parameters.insert("publish_address", words(&["127.0.0.1", "localhost"]));
    assert!(word(&fact_of(&parameters, &none())).contains("`localhost`, which is not an IP address"));
    parameters.insert("publish_address", words(&[]));
    assert!(word(&fact_of(&parameters, &none())).contains("no address to publish on"));
}

#[test]
fn a_directory_has_no_ports_and_unwanted_ports_are_not_asked() {
    let root = tempfile::tempdir().unwrap();
    let parameters = parameters(free_port(), Protocol::Tcp);
    let fact = fact_at(&Host::at_root(root.path()), &parameters, &none());
    assert_eq!(fact.state, State::Absent("not a running host".into()));

    let (host, want, os) = (Host::live(), Want::default(), os());
    let cx = Context::new(&host, &want, &parameters, &os);
    assert!(bind_all(&cx).is_empty());
}

/// Every answer of the kernel, without a kernel that gives it: IPv6 off needs a boot parameter or a seccomp filter (see
/// `tests/lab/ports.rs` for the latter).
#[test]
fn every_errno_has_its_own_standing() {
    let parameters = parameters(1, Protocol::Tcp);
    let (host, want, os) = (Host::live(), Want::default(), os());
    let cx = Context::new(&host, &want, &parameters, &os);
    let containers = none();
    let judge = Judge {
        cx: &cx,
        table: Table::default(),
        holders: Holders::default(),
        published: PublishedPorts::new(&containers),
    };
    let standing = |address: &str, answer| judge.standing((Protocol::Tcp, address.parse().unwrap(), 1), answer).1;
    assert_eq!(standing("::", Answer::Free), Standing::Free);
    assert_eq!(standing("::", Answer::NoFamily), Standing::Skipped);
    assert_eq!(standing("2001:db8::1", Answer::NoFamily), Standing::NotOurs);
    assert_eq!(standing("192.0.2.1", Answer::NotOurAddress), Standing::NotOurs);
    assert!(matches!(standing("::", Answer::NotPermitted), Standing::Unknown { help: Some(_), .. }));
    assert!(matches!(standing("::", Answer::Failed(Errno::EINVAL)), Standing::Unknown { .. }));

    assert!(judge.is_workload_process("redis-server") && judge.is_workload_process("a-very-long-pro"));
    assert!(!judge.is_workload_process("redis-serve") && !judge.is_workload_process("a-very-long"));
}

/// A forwarder is known by what it forwards for; when Docker cannot be asked, nobody knows.
#[test]
fn a_forwarder_without_docker_holds_the_port_for_nobody_knows_whom() {
    let parameters = parameters(6379, Protocol::Tcp);
    let (host, want, os) = (Host::live(), Want::default(), os());
    let cx = Context::new(&host, &want, &parameters, &os);
    let ask = (Protocol::Tcp, IpAddr::from(Ipv4Addr::UNSPECIFIED), 6379);
    let holder = Holder { pid: 8, name: "docker-proxy".into(), user: "root".into(), ..Holder::default() };
    let entry = Entry {
        address: ask.1,
        port: 6379,
        peer: None,
        inode: 1,
        uid: 0,
        v6_only: None,
        listening: true,
        time_wait: false,
    };
    let standing = |containers: &Containers| {
        let (table, holders, published) = (Table::default(), Holders::default(), PublishedPorts::new(containers));
        Judge { cx: &cx, table, holders, published }.held_by_process(ask, &entry, &holder)
    };
    let stopped = Containers::Unknown("docker is stopped".into());
    assert!(matches!(standing(&stopped), Standing::Held { what, .. } if what.contains("docker is stopped")));
    assert!(matches!(standing(&none()), Standing::Taken(text) if text.contains("serves no running container")));
    let ours = published("redis-1", "redis:7", Some("0.0.0.0"), 6379, Protocol::Tcp);
    assert_eq!(standing(&ours), Standing::Ours("published by container redis-1 (image redis:7)".into()));
    let theirs = published("web", "nginx", Some("0.0.0.0"), 6379, Protocol::Tcp);
    assert!(matches!(standing(&theirs), Standing::Taken(_)));
}
