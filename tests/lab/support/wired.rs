//! A host of its own for each test: a network namespace with an overlay on `/etc` and memory for `/run` and `/var/lib`, and a
//! second namespace beside it for its clients. Who speaks from an allowed network and who is a stranger is decided by the
//! address that is called: the client has one in each network.

use super::process::{Ran, eventually, require_root};
use crate::support::process::program;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

pub(crate) const ALLOWED: &str = "172.20.0.1";
pub(crate) const ALLOWED6: &str = "fd20::1";
pub(crate) const STRANGER: &str = "203.0.113.1";
pub(crate) const STRANGER6: &str = "2001:db8::1";

/// Where the program is installed inside.
pub(crate) const PROGRAM: &str = "/usr/local/sbin/preflight";

pub(crate) const TUNE: [&str; 7] =
    ["tune", "--only", "firewall.entries", "--set", "allow=172.20.0.0/16,fd20::/16", "--color", "never"];

const SETUP: &str = r#"
set -e
exec 9<"/proc/$CLIENT/ns/net"
mkdir -p /run/user
mount -t tmpfs lab /run
mkdir -p /run/lock /run/lab/upper /run/lab/work /run/lab/bin /run/dbus
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/lab/upper,workdir=/run/lab/work /etc
mount -t tmpfs lab /var/lib
cp "$BINARY" /run/lab/bin/preflight
mount --bind /run/lab/bin /usr/local/sbin
cp /usr/sbin/nft /run/lab/nft
rm -f /etc/systemd/system/preflight-* /etc/systemd/system/*.wants/preflight-*
ip link set lo up
ip link add outside type veth peer name inside
ip link set inside netns "/proc/$CLIENT/ns/net"
ip link set outside up
nsenter --net=/proc/self/fd/9 sh -c 'ip link set lo up; ip link set inside up'
host() { ip addr add "$1" dev outside $2; }
client() { nsenter --net=/proc/self/fd/9 ip addr add "$1" dev inside $2; }
host 172.20.0.1/16; client 172.20.0.9/16
host 203.0.113.1/24; client 203.0.113.9/24
host fd20::1/64 nodad; client fd20::9/64 nodad
host 2001:db8::1/64 nodad; client 2001:db8::9/64 nodad
python3 -c '
import socket, time
held = []
for port in (6379, 26381, 7000):
    one = socket.socket(socket.AF_INET6); one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    one.bind(("::", port)); one.listen(64); held.append(one)
print("ready", flush=True)
time.sleep(100000)
'
"#;

#[derive(Debug)]
pub(crate) struct Place {
    client: Child,
    host: Child,
    _said: BufReader<ChildStdout>,
    services: Vec<Child>,
}

impl Place {
    pub(crate) fn new() -> Self {
        require_root();
        let client = Command::new("unshare").args(["--net", "sleep", "100000"]).stdin(Stdio::null()).spawn().unwrap();
        // `unshare` becomes the sleep once it is in the new namespace.
        let name = format!("/proc/{}/comm", client.id());
        while std::fs::read_to_string(&name).unwrap().trim_end() != "sleep" {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let mut host = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "bash", "-c", SETUP])
            .env("CLIENT", client.id().to_string())
            .env("BINARY", program())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(host.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let place = Self { client, host, _said: said, services: Vec::new() };
        assert_eq!(line, "ready\n", "no place to test in");
        place
    }

    /// A host of one variant of iptables, where nft is not installed. To look, it is kept in `/run/lab`.
    pub(crate) fn without_nft(variant: &str) -> Self {
        let place = Self::new();
        place.shell(&format!(
            "mkdir /run/lab/sbin /run/lab/sbin-work
             mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=/run/lab/sbin,workdir=/run/lab/sbin-work /usr/sbin
             rm /usr/sbin/nft; {}",
            stands_for(variant)
        ));
        place
    }

    /// With ufw enabled: everything denied but 7000, and a rule of the administrator.
    pub(crate) fn with_ufw() -> Self {
        Self::with_ufw_of("nft")
    }

    /// The same over one variant of iptables.
    pub(crate) fn with_ufw_of(variant: &str) -> Self {
        let place = Self::new();
        place.shell(&stands_for(variant));
        place.shell(
            "ufw default deny incoming && ufw allow 7000/tcp && ufw allow proto tcp from 10.0.0.0/8 to any port 22",
        );
        place.shell("ufw --force enable");
        place
    }

    /// With firewalld running on a message bus of its own, and 7000 open.
    pub(crate) fn with_firewalld() -> Self {
        let mut place = Self::new();
        place.shell("dbus-uuidgen --ensure");
        place.start("dbus-daemon", &["--system", "--nofork", "--nopidfile", "--nosyslog"]);
        place.eventually("the message bus listens", "test -S /run/dbus/system_bus_socket");
        place.start("firewalld", &["--nofork"]);
        place.eventually("firewalld answers", "firewall-cmd --state");
        place.shell("firewall-cmd --permanent --zone=public --add-port=7000/tcp && firewall-cmd --reload");
        place
    }

    pub(crate) fn start(&mut self, program: &str, args: &[&str]) {
        let mut command = self.command(program);
        self.services.push(command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    /// Ends what was started last, and waits for it.
    pub(crate) fn stop(&mut self) {
        let mut last = self.services.pop().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(last.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        last.wait().unwrap();
    }

    /// Waits until a command of the host succeeds.
    pub(crate) fn eventually(&self, what: &str, script: &str) {
        let succeeds = || self.command("sh").args(["-c", script]).output().unwrap().status.success();
        eventually(what, Duration::from_secs(30), succeeds);
    }

    /// A program inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--target", &self.host.id().to_string(), "--", program]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(PROGRAM).args(args).output().unwrap())
    }

    pub(crate) fn tune(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(PROGRAM).args(TUNE).args(args).output().unwrap())
    }

    pub(crate) fn apply(&self, args: &[&str]) -> Ran {
        self.tune(&[&["--apply", "--settle", "0", "--format", "json"], args].concat())
    }

    pub(crate) fn targets(&self) -> Vec<String> {
        let plan = self.tune(&["--format", "json"]).json();
        plan["changes"].as_array().unwrap().iter().map(|it| it["target"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn shell(&self, script: &str) -> String {
        let output = self.command("sh").args(["-c", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A program on the clients' side of the wire.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.client.id())).arg(program).stdin(Stdio::null());
        command
    }

    /// Whether a client that comes from the network of that address gets a connection.
    pub(crate) fn reaches(&self, address: &str, port: u16) -> bool {
        let mut command = self.client("timeout");
        command.args(["1", "bash", "-c", &format!("exec 3<>/dev/tcp/{address}/{port}")]);
        command.stderr(Stdio::null()).status().unwrap().success()
    }

    /// The workload's ports are open to the allowed networks and to nobody else; a port that is open to all shows that
    /// the strangers' way is no dead end.
    pub(crate) fn assert_open_to_the_allowed(&self, is_open: bool, when: &str) {
        for address in [ALLOWED, ALLOWED6, STRANGER, STRANGER6] {
            assert!(self.reaches(address, 7000), "{when}: the control is closed for {address}");
        }
        for port in [6379, 26381] {
            for address in [ALLOWED, ALLOWED6] {
                assert_eq!(self.reaches(address, port), is_open, "{when}: {address} {port}");
            }
        }
        for address in [STRANGER, STRANGER6] {
            assert!(!self.reaches(address, 6379), "{when}: a stranger got in by {address}");
        }
    }

    /// ufw's rules in its files and in the kernel, and the services of preflight.
    pub(crate) fn rules(&self) -> String {
        self.shell(
            "grep -h '### tuple' /etc/ufw/user.rules /etc/ufw/user6.rules; iptables -S; ip6tables -S
             find /etc/systemd/system -name 'preflight-*' | sort",
        )
    }

    /// firewalld's, running and kept.
    pub(crate) fn zones(&self) -> String {
        self.shell("firewall-cmd --list-all; firewall-cmd --permanent --list-all; firewall-cmd --permanent --list-all-zones | sort | sha256sum")
    }
}

/// What `update-alternatives --set` makes of iptables.
pub(crate) fn stands_for(variant: &str) -> String {
    format!(
        "for f in iptables ip6tables; do for t in '' -save -restore; do
           ln -sfn /usr/sbin/$f-{variant}$t /etc/alternatives/$f$t; done; done"
    )
}

impl Drop for Place {
    fn drop(&mut self) {
        let host = self.host.id();
        // The shell of the host waits for the listener, which would outlive it.
        let listeners = std::fs::read_to_string(format!("/proc/{host}/task/{host}/children")).unwrap_or_default();
        for pid in listeners.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        for child in self.services.iter_mut().rev().chain([&mut self.host, &mut self.client]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
