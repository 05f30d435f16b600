//! A host with two outward interfaces and a container behind a bridge, and a client that is everybody: it has the
//! addresses of strangers and of those in `allow`, and reaches the host by either interface.

use crate::support::process::require_root;
use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrStorage, accept4, bind, connect,
    getsockname, getsockopt, listen, setsockopt, socket, sockopt,
};

/// Strangers and the allowed, for each family. What rules ask of a source tells these apart.
pub(crate) const STRANGERS: [[&str; 4]; 2] = [
    ["198.51.100.10", "198.51.100.200", "203.0.113.7", "10.1.2.3"],
    ["2001:db8:1::10", "2001:db8:1::200", "2001:db8:2::7", "fd77::3"],
];
pub(crate) const ALLOWED: [[&str; 2]; 2] = [["172.20.0.5", "172.20.9.9"], ["fd20::5", "fd20:9::9"]];
pub(crate) const ALLOW: &str = "172.20.0.0/16,fd20::/16";
/// The host's own, on each of its interfaces.
pub(crate) const HOST: [[&str; 3]; 2] = [["10.99.0.1", "10.98.0.1", "172.30.0.1"], ["fd99::1", "fd98::1", "fd30::1"]];
pub(crate) const OUTWARD: [&str; 2] = ["eth0", "ens7"];
/// A listener of the host, and a port that most layouts send on to the container.
pub(crate) const PORTS: [u16; 2] = [6379, 6380];

/// A first packet that is let through is answered at once; this is what the slowest is given.
const GRACE: Duration = Duration::from_millis(60);

const SETUP: &str = r#"
set -e
in_client() { nsenter --net=/proc/$CLIENT/ns/net "$@"; }
in_container() { nsenter --net=/proc/$CONTAINER/ns/net "$@"; }
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
in_client sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
ip link add eth0 address 02:00:00:00:00:a0 type veth peer name c0 address 02:00:00:00:00:c0 netns /proc/$CLIENT/ns/net
ip link add ens7 address 02:00:00:00:00:a1 type veth peer name c1 address 02:00:00:00:00:c1 netns /proc/$CLIENT/ns/net
ip link add br-0123456789ab address 02:00:00:00:00:b0 type bridge mcast_snooping 0
ip link add veth0123456 type veth peer name eth0 address 02:00:00:00:00:d0 netns /proc/$CONTAINER/ns/net
ip link set veth0123456 master br-0123456789ab
for name in eth0 ens7 br-0123456789ab veth0123456; do ip link set $name addrgenmode none up; done
for name in c0 c1; do in_client ip link set $name addrgenmode none up; done
in_container ip link set eth0 addrgenmode none up
ip link set lo up; in_client ip link set lo up; in_container ip link set lo up
ip addr add 10.99.0.1/24 dev eth0; ip addr add fd99::1/64 dev eth0 nodad
ip addr add 10.98.0.1/24 dev ens7; ip addr add fd98::1/64 dev ens7 nodad
ip addr add 172.30.0.1/24 dev br-0123456789ab; ip addr add fd30::1/64 dev br-0123456789ab nodad
in_container ip addr add 172.30.0.2/24 dev eth0; in_container ip addr add fd30::2/64 dev eth0 nodad
in_container ip route add default via 172.30.0.1; in_container ip route add default via fd30::1
for way in 0 1; do
  in_client ip addr add 10.9$((9 - way)).0.2/24 dev c$way
  in_client ip addr add fd9$((9 - way))::2/64 dev c$way nodad
  in_client ip route add default via 10.9$((9 - way)).0.1 dev c$way table $((way + 1))
  in_client ip route add default via fd9$((9 - way))::1 dev c$way table $((way + 1))
  in_client ip rule add fwmark $((way + 1)) lookup $((way + 1))
  in_client ip -6 rule add fwmark $((way + 1)) lookup $((way + 1))
done
# Rules may stop the questions for neighbours, which are packets of IPv6 too.
know() { ip -6 neigh replace $1 lladdr 02:00:00:00:00:$2 dev $3 nud permanent; }
know fd99::2 c0 eth0; know fd98::2 c1 ens7; know fd30::2 d0 br-0123456789ab
in_client ip -6 neigh replace fd99::1 lladdr 02:00:00:00:00:a0 dev c0 nud permanent
in_client ip -6 neigh replace fd98::1 lladdr 02:00:00:00:00:a1 dev c1 nud permanent
in_container ip -6 neigh replace fd30::1 lladdr 02:00:00:00:00:b0 dev eth0 nud permanent
for address in $SOURCES; do in_client ip addr add $address dev lo; done
"#;

#[derive(Debug)]
pub(crate) struct World {
    client: Child,
    host: Child,
    container: Child,
    listeners: Vec<OwnedFd>,
}

/// One connection that was tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Try {
    pub(crate) source: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination: IpAddr,
    pub(crate) port: u16,
    pub(crate) connected: bool,
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn namespace() -> Child {
    // It ends with its thread, also when the test is killed: nothing stays that holds what the test had open.
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--net", "sleep", "100000"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    // `unshare` becomes the sleep once it is in the new namespace.
    let name = format!("/proc/{}/comm", child.id());
    while std::fs::read_to_string(&name).unwrap().trim_end() != "sleep" {
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn enter(child: &Child) {
    let file = File::open(format!("/proc/{}/ns/net", child.id())).unwrap();
    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
}

fn storage(address: SocketAddr) -> SockaddrStorage {
    address.into()
}

fn stream(v6: bool) -> OwnedFd {
    let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None).unwrap()
}

impl World {
    /// Made for the thread that asks, which from now on moves between the namespaces.
    pub(crate) fn new() -> Self {
        require_root();
        let [client, host, container] = [namespace(), namespace(), namespace()];
        let sources: Vec<&str> = STRANGERS.iter().flatten().chain(ALLOWED.iter().flatten()).copied().collect();
        let status = Command::new("nsenter")
            .args([&format!("--net=/proc/{}/ns/net", host.id()), "bash", "-c", SETUP])
            .env("CLIENT", client.id().to_string())
            .env("CONTAINER", container.id().to_string())
            .env("SOURCES", sources.join(" "))
            .status()
            .unwrap();
        assert!(status.success(), "no world to test in");
        let mut world = Self { client, host, container, listeners: Vec::new() };
        for place in [&world.host, &world.container] {
            enter(place);
            for port in [6379, 6380, 6381] {
                for any in ["0.0.0.0", "::"] {
                    let listener = stream(any == "::");
                    setsockopt(&listener, sockopt::ReuseAddr, &true).unwrap();
                    if any == "::" {
                        setsockopt(&listener, sockopt::Ipv6V6Only, &true).unwrap();
                    }
                    bind(listener.as_raw_fd(), &storage(SocketAddr::new(address(any), port))).unwrap();
                    listen(&listener, Backlog::new(4000).unwrap()).unwrap();
                    world.listeners.push(listener);
                }
            }
        }
        world
    }

    pub(crate) fn enter_host(&self) {
        enter(&self.host);
    }

    /// A program of the host, with a text to read.
    pub(crate) fn run(&self, args: &[&str], input: &str) -> Output {
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", self.host.id()))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    pub(crate) fn must(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {errors}\n{input}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Answers of the host take the way that the questions came by.
    pub(crate) fn answer_by(&self, way: usize) {
        let (name, net) = (OUTWARD[way], 99 - way);
        self.must(&["ip", "route", "replace", "default", "via", &format!("10.{net}.0.2"), "dev", name], "");
        self.must(&["ip", "route", "replace", "default", "via", &format!("fd{net}::2"), "dev", name], "");
    }

    /// One more address for the client.
    pub(crate) fn also(&self, source: IpAddr) {
        let family = if source.is_ipv6() { "-6" } else { "-4" };
        let status = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", self.client.id()))
            .args(["ip", family, "addr", "replace", &source.to_string(), "dev", "lo"])
            .status()
            .unwrap();
        assert!(status.success(), "{source}");
    }

    /// Connects all at once by one interface, each from an address and a port, 0 for any, and says which of them were answered.
    pub(crate) fn connect(&self, way: usize, wanted: &[(IpAddr, u16, IpAddr, u16)], patience: Duration) -> Vec<Try> {
        enter(&self.client);
        let mut all: Vec<(OwnedFd, Try, bool)> = wanted
            .iter()
            .map(|&(source, from, destination, port)| {
                let one = stream(source.is_ipv6());
                setsockopt(&one, sockopt::Mark, &u32::try_from(way + 1).unwrap()).unwrap();
                bind(one.as_raw_fd(), &storage(SocketAddr::new(source, from))).unwrap();
                let name: SockaddrStorage = getsockname(one.as_raw_fd()).unwrap();
                let source_port = name
                    .as_sockaddr_in()
                    .map(SockaddrIn::port)
                    .or_else(|| name.as_sockaddr_in6().map(SockaddrIn6::port))
                    .unwrap();
                let done = match connect(one.as_raw_fd(), &storage(SocketAddr::new(destination, port))) {
                    Err(Errno::EINPROGRESS) => false,
                    other => panic!("{source} to {destination}: {other:?}"),
                };
                (one, Try { source, source_port, destination, port, connected: false }, done)
            })
            .collect();
        let end = Instant::now() + patience.max(GRACE);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut open: Vec<&mut (OwnedFd, Try, bool)> = all.iter_mut().filter(|(.., done)| !done).collect();
            if open.is_empty() || left.is_zero() {
                break;
            }
            let mut polled: Vec<PollFd<'_>> =
                open.iter().map(|(fd, ..)| PollFd::new(fd.as_fd(), PollFlags::POLLOUT)).collect();
            poll(&mut polled, PollTimeout::try_from(left).unwrap()).unwrap();
            let ready: Vec<bool> = polled.iter().map(|one| one.any().unwrap_or_default()).collect();
            for ((fd, tried, done), _) in open.iter_mut().map(|one| &mut **one).zip(ready).filter(|(_, ready)| *ready) {
                *done = true;
                tried.connected = getsockopt(fd, sockopt::SocketError).unwrap() == 0;
            }
        }
        let tried = all.iter().map(|(_, tried, _)| *tried).collect();
        // Closed with a reset, so that nothing of it stays.
        for (fd, ..) in &all {
            let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(fd, sockopt::Linger, &at_once).unwrap();
        }
        drop(all);
        self.drain();
        tried
    }

    fn drain(&self) {
        for listener in &self.listeners {
            while let Ok(fd) = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                nix::unistd::close(fd).unwrap();
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in [&mut self.client, &mut self.host, &mut self.container] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
