//! A host with an engine, a firewall manager and a workload, and a machine beside it that clients are on. All of it is in
//! network and mount namespaces that processes of this test hold open, and is gone with them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use preflight::subjects::firewall::model::iptables::Variant;
use preflight::subjects::firewall::model::writer::Writer;

use super::paths::CLUSTER_NETWORK;
use crate::support::docker::{Engine, Options, image};
use crate::support::process::{end, program, require_root, run};

pub(crate) const HOST4: &str = "10.77.0.1";
pub(crate) const HOST6: &str = "fd77::1";
pub(crate) const STRANGER: [&str; 2] = ["10.77.0.9", "fd77::9"];
pub(crate) const ALLOWED: [&str; 2] = ["10.77.0.50", "fd77::50"];

const HOST: &str = "
set -e
mkdir -p /run/user
mount -t tmpfs -o mode=755 lab /run
mkdir -p /run/lab/upper /run/lab/work /run/lock /run/dbus
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/lab/upper,workdir=/run/lab/work /etc
for at in /var/lib /var/log /root /usr/local; do mount -t tmpfs -o mode=755 lab $at; done
mkdir -p /usr/local/bin /run/sshd
# Without which nobody could look, on a host that has no nft.
cp /usr/sbin/nft /run/lab/nft
mkdir /run/lab/sbin /run/lab/sbin-work
mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=/run/lab/sbin,workdir=/run/lab/sbin-work /usr/sbin
ip link set lo up
echo ready
exec sleep 100000
";
const CLIENT: &str = "ip link set lo up && echo ready && exec sleep 100000";

/// A process that holds namespaces open.
#[derive(Debug)]
struct Holder {
    process: Child,
    _said: BufReader<ChildStdout>,
}

impl Holder {
    fn new(unshare: &[&str], script: &str) -> Self {
        let mut process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare"])
            .args(unshare)
            .args(["sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        if line != "ready\n" {
            let _ = said.read_to_string(&mut line);
            panic!("no namespace to test in: {line}");
        }
        Self { process, _said: said }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        end_all_in_the_network_of(self.process.id());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Ends, by their ids, the processes in a network namespace: what a daemon, a session or a watchdog left behind.
fn end_all_in_the_network_of(pid: u32) {
    let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let (Some(namespace), Some(own)) = (link(&pid.to_string()), link("self")) else { return };
    assert_ne!(namespace, own, "the holder has no namespace of its own");
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if u32::try_from(number) != Ok(pid) && link(&number.to_string()).is_some_and(|found| found == namespace) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(number), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manager {
    None,
    Ufw,
    Firewalld,
}

impl Manager {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "no manager",
            Self::Ufw => "ufw",
            Self::Firewalld => "firewalld",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) manager: Manager,
    /// What a guard can be written with here: nft, or, where that is missing, the variant that `iptables` stands for.
    pub(crate) guard: Writer,
    /// Debian 13's engine, out of a root of its own.
    pub(crate) trixie: bool,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let engine = if self.trixie { "26.1" } else { "20.10" };
        write!(f, "{}, Docker {engine}, guard by {}", self.manager.name(), self.guard.name())
    }
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) kind: Kind,
    // Dropped in this order: the engine before the host that it runs on.
    pub(crate) engine: Engine,
    /// How the addresses of the cluster's network begin.
    pub(crate) cluster: &'static str,
    daemons: Vec<Child>,
    client: Holder,
    host: Holder,
}

/// Its name, image and port inside, and the other words for `docker run`.
pub(crate) type Container<'a> = (&'a str, &'a str, &'a str, &'a str);

const CONTAINERS: [Container<'_>; 8] = [
    // 6379 one to one, 7379 as the control that no guard may touch.
    ("node-1", "redis:7", "6379", "--network cluster --ip 172.20.0.11 -p 6379:6379 -p 7379:6379"),
    ("node-2", "redis:7", "6380", "--network dual --ip 172.21.0.11 --ip6 fd00:21::11 -p 6380:6380"),
    // Not one to one, as in the usual guide.
    ("node-3", "redis:7", "6379", "--network cluster --ip 172.20.0.13 -p 6381:6379"),
    ("sentinel", "redis:7", "26379", "--network host"),
    // Controls: not of the workload.
    ("web-host", "web:1", "27379", "--network host"),
    ("web", "web:1", "6379", "--network other --ip 172.22.0.11 --ip6 fd00:22::11 -p 7380:6379"),
    // Members of the cluster that only ask.
    ("peer-4", "redis:7", "1", "--network cluster --ip 172.20.0.99"),
    ("peer-6", "redis:7", "1", "--network dual --ip 172.21.0.99 --ip6 fd00:21::99"),
];

/// A command in the namespaces of a process.
fn entered(holder: &Holder, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--net", "--mount", "--target", &holder.process.id().to_string(), "--", program]);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    command
}

impl World {
    /// A host as it is after its boot: the manager first, then Docker, then the workload.
    pub(crate) fn start(kind: Kind) -> Self {
        require_root();
        let host = Holder::new(&["--net", "--mount", "--propagation", "private"], HOST);
        let client = Holder::new(&["--net"], CLIENT);
        connect(&host, &client);
        shell(&host, &format!("cp {} /usr/local/bin/preflight", program()));
        if kind.guard != Writer::Nft {
            shell(&host, "rm /usr/sbin/nft");
        }
        if kind.guard == Writer::Iptables(Variant::Legacy) {
            // What Debian's alternatives choose.
            shell(
                &host,
                "for f in iptables ip6tables; do for t in '' -save -restore; do
                   ln -sfn /usr/sbin/$f-legacy$t /etc/alternatives/$f$t; done; done",
            );
        }
        let daemons = start_manager(&host, kind.manager);
        let options = Options {
            host: Some(host.process.id()),
            root: kind.trixie.then(|| image("trixie")),
            // Otherwise nobody filters what goes to a container's IPv6 address, and docker-proxy is the only way to it.
            arguments: ["--experimental", "--ip6tables"].map(str::to_owned).to_vec(),
            ..Options::default()
        };
        let engine = Engine::start(&options);
        let mut world = Self { kind, engine, cluster: CLUSTER_NETWORK, daemons, client, host };
        world.start_workload();
        world.settle();
        world
    }

    fn start_workload(&mut self) {
        self.engine.import_redis();
        self.engine.docker(&["tag", "lab/redis:7", "lab/web:1"]);
        self.create_network("cluster", &["172.20.0.0/16"]);
        self.create_network("dual", &["172.21.0.0/16", "fd00:21::/64"]);
        self.create_network("other", &["172.22.0.0/16", "fd00:22::/64"]);
        for container in &CONTAINERS {
            self.start_container(container);
        }
    }

    fn create_network(&self, name: &str, subnets: &[&str]) {
        let mut words = vec!["network", "create"];
        if subnets.len() > 1 {
            words.push("--ipv6");
        }
        for subnet in subnets {
            words.extend(["--subnet", subnet]);
        }
        words.push(name);
        self.engine.docker(&words);
    }

    pub(crate) fn start_container(&self, (name, image, port, more): &Container<'_>) {
        let image = format!("lab/{image}");
        let more = more.replacen(CLUSTER_NETWORK, self.cluster, 1);
        let head = ["run", "-d", "--restart", "always", "--name", name];
        let redis = [&image, "redis-server", "--protected-mode", "no", "--port", port];
        self.engine.docker(&[&head, &more.split(' ').collect::<Vec<_>>()[..], &redis].concat());
    }

    /// What `docker compose down` and `up` do: the network of the cluster with another bridge, and where the file names no
    /// subnet, with other addresses.
    pub(crate) fn make_network_anew(&mut self, begins: &'static str) {
        let of_cluster = || CONTAINERS.iter().filter(|(.., more)| more.contains("--network cluster"));
        for (name, ..) in of_cluster() {
            self.engine.docker(&["rm", "-f", name]);
        }
        self.engine.docker(&["network", "rm", "cluster"]);
        self.cluster = begins;
        self.create_network("cluster", &[&format!("{begins}0.0/16")]);
        of_cluster().for_each(|container| self.start_container(container));
        self.settle();
    }

    /// The process id of a container.
    pub(crate) fn pid_of(&self, container: &str) -> u32 {
        self.engine.docker(&["inspect", "--format", "{{.State.Pid}}", container]).parse().unwrap()
    }

    pub(crate) fn host_pid(&self) -> u32 {
        self.host.process.id()
    }

    pub(crate) fn client_pid(&self) -> u32 {
        self.client.process.id()
    }

    /// A program on the host.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = entered(&self.host, program);
        command.env("DOCKER_HOST", self.engine.endpoint());
        command
    }

    pub(crate) fn shell(&self, script: &str) -> String {
        shell(&self.host, script)
    }

    /// Debian 13's nft with Debian 13's engine. Not beside firewalld, which is Debian 12's here: its libnftables dies of what a
    /// newer nft wrote.
    pub(crate) fn take_newer_nft(&self) {
        let root = image("trixie").display().to_string();
        let lib = format!("{root}/usr/lib/x86_64-linux-gnu");
        let script =
            format!("#!/bin/sh\nexec {lib}/ld-linux-x86-64.so.2 --library-path {lib} {root}/usr/sbin/nft \"$@\"\n");
        self.shell(&format!("rm /usr/sbin/nft; cat > /usr/sbin/nft <<'END'\n{script}END\nchmod 755 /usr/sbin/nft"));
    }

    /// What has to be done when somebody took its table away: a reload only says that it is not there.
    pub(crate) fn restart_firewalld(&mut self) {
        end(&mut self.daemons[0]);
        self.daemons[0] = start_firewalld(&self.host);
    }

    /// All rules of the host, counters aside: a line each, with the table and the chain that it stands in. The order of
    /// tables, and tables that are there and hold nothing, are no rules.
    pub(crate) fn rules(&self) -> Vec<String> {
        // Asking iptables-legacy would make its tables.
        let text = self.shell(
            "/run/lab/nft -s list ruleset
             for f in ip ip6; do
               ! grep -qs . /proc/net/${f}_tables_names || ${f}tables-legacy-save | sed \"s/^\\*/table $f legacy /\"
             done",
        );
        let (mut table, mut chain, mut rules) = (String::new(), String::new(), Vec::new());
        for line in text.lines() {
            let words = line.trim();
            if line.starts_with("table ") {
                words.clone_into(&mut table);
            } else if words.starts_with("chain ") || words.starts_with("set ") {
                words.clone_into(&mut chain);
            } else if !matches!(words, "" | "}" | "COMMIT")
                && !words.starts_with('#')
                && !words.ends_with("policy accept;")
            {
                let counted =
                    words.split_once('[').filter(|_| words.starts_with(':')).map_or(words, |(start, _)| start);
                if !(words.starts_with(':') && counted.trim_end().ends_with("ACCEPT")) {
                    rules.push(format!("{table} {chain} {counted}"));
                }
            }
        }
        rules.sort_by(|a, b| a.split(" chain").next().cmp(&b.split(" chain").next()));
        rules
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            end(daemon);
        }
    }
}

fn shell(host: &Holder, script: &str) -> String {
    let output = entered(host, "bash").args(["-euc", script]).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (told, errors) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{script}: {told}\n{errors}");
    told
}

/// One wire between the two, with two addresses on the client's side and ways to the containers.
fn connect(host: &Holder, client: &Holder) {
    let (at_host, at_client) = (host.process.id().to_string(), client.process.id().to_string());
    run(&["ip", "link", "add", "up0", "netns", &at_host, "type", "veth", "peer", "name", "cl0", "netns", &at_client]);
    // The kernel answers what is rejected a number of times a second and no more: a probe beyond it would be taken for
    // one that nobody answers.
    let up = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
        ip addr add 10.77.0.1/24 dev up0; ip addr add fd77::1/64 dev up0 nodad; ip link set up0 up";
    shell(host, up);
    let script = "ip addr add 10.77.0.9/24 dev cl0; ip addr add 10.77.0.50/24 dev cl0
        ip addr add fd77::9/64 dev cl0 nodad; ip addr add fd77::50/64 dev cl0 nodad
        ip link set cl0 up
        ip route add 172.16.0.0/12 via 10.77.0.1; ip route add fd00::/16 via fd77::1";
    run(&["nsenter", "--net", "--target", &at_client, "bash", "-euc", script]);
}

/// A manager that denies, apart from the control ports: without those nobody would know that a probe works.
fn start_manager(host: &Holder, manager: Manager) -> Vec<Child> {
    match manager {
        Manager::None => Vec::new(),
        Manager::Ufw => {
            shell(
                host,
                "ufw default deny incoming; ufw allow 22/tcp; for p in 7379 7380 27379; do ufw allow $p/tcp; done
                 for p in 6379:6381 26379:26381; do ufw deny $p/tcp; done; ufw --force enable",
            );
            Vec::new()
        }
        Manager::Firewalld => {
            shell(host, "for at in etc run; do dbus-uuidgen --ensure=/$at/machine-id; done; mkdir -p /var/lib/dbus");
            let bus = start(host, "dbus-daemon", &["--system", "--nofork", "--nopidfile", "--nosyslog"]);
            shell(
                host,
                "for i in $(seq 200); do [ ! -S /run/dbus/system_bus_socket ] || exit 0; sleep 0.05; done; exit 1",
            );
            let firewalld = start_firewalld(host);
            shell(
                host,
                "# As a newer Docker sets them up by itself.
                 firewall-cmd -q --permanent --new-zone docker; firewall-cmd -q --permanent --zone docker --set-target ACCEPT
                 firewall-cmd -q --permanent --new-policy docker-forwarding
                 firewall-cmd -q --permanent --policy docker-forwarding --set-target ACCEPT
                 firewall-cmd -q --permanent --policy docker-forwarding --add-ingress-zone ANY
                 firewall-cmd -q --permanent --policy docker-forwarding --add-egress-zone docker
                 for p in 7379 7380 27379; do firewall-cmd -q --permanent --zone=public --add-port=$p/tcp; done
                 firewall-cmd -q --reload",
            );
            vec![firewalld, bus]
        }
    }
}

fn start(host: &Holder, program: &str, args: &[&str]) -> Child {
    let mut command = entered(host, "setpriv");
    command.args(["--pdeathsig", "TERM", program]).args(args);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn start_firewalld(host: &Holder) -> Child {
    let firewalld = start(host, "firewalld", &["--nofork"]);
    shell(host, "for i in $(seq 200); do ! firewall-cmd -q --state || exit 0; sleep 0.1; done; exit 1");
    firewalld
}
