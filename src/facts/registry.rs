//! Every fact there is: its type, where its value counts, what it means and where it is read.
//!
//! The registry is what `lint` checks literals against, what `preflight list facts` prints, and what tells the judge
//! which layers of a fact decide. An id that ends in `.*` stands for a family.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::Kind;

/// Which layers of a fact decide a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One value now; there is no boot or container layer.
    Live,
    /// One value for the whole machine, and one after the next boot. Both count.
    Host,
    /// One value per network namespace: the topology says whether the host's or the container's counts.
    Network,
    /// Only a container of the workload has it.
    Container,
}

/// A registered fact.
#[derive(Debug)]
pub struct Spec {
    /// `memory.total`, or `sysctl.*` for a family.
    pub id: &'static str,
    pub kind: Kind,
    pub scope: Scope,
    /// What it means, with its unit.
    pub about: &'static str,
    /// Where it is read.
    pub source: &'static str,
}

macro_rules! facts {
    ($($id:literal $kind:ident $scope:ident $about:literal $source:literal;)*) => {
        &[$(Spec { id: $id, kind: Kind::$kind, scope: Scope::$scope, about: $about, source: $source }),*]
    };
}

/// In the order of the documentation; [`spec`] finds by id.
pub const FACTS: &[Spec] = facts! {
    "os.id" Text Live "the distribution, as in ID= of os-release" "os-release(5)";
    "os.name" Text Live "the distribution as people call it, PRETTY_NAME=" "os-release(5)";
    "os.like" Text Live "the distributions it descends from, ID_LIKE=, separated by blanks" "os-release(5)";
    "os.version" Version Live "the release, VERSION_ID=; absent on rolling distributions" "os-release(5)";
    "kernel.release" Text Live "the running kernel's release string" "uname(2), /proc/sys/kernel/osrelease";
    "kernel.version" Version Live "the running kernel's version, vendor suffix not compared" "uname(2), /proc/sys/kernel/osrelease";
    "host.container" Text Live "`none`, or the kind of container this process itself runs in; `other` when only its PID namespace tells" "/run/systemd/container, /proc/1/environ, /run/.containerenv, /.dockerenv, /proc/self/ns";
    "tool.*" Bool Live "whether a program of that name is in the PATH" "which(1)";

    "docker.state" Text Live "`running`, `stopped` (the socket or dockerd is there, but nobody listens), `absent` (no socket), `hanging` (no answer in time) or `failing` (answers with errors); unknown without permission" "GET /_ping";
    "boot.docker" Text Live "`enabled`: the service manager starts Docker at boot; `socket`: only once somebody asks it something; `disabled`" "systemd.unit(5), /etc/runlevels";
    "docker.endpoint" Text Live "the endpoint asked, and what chose it" "DOCKER_HOST, DOCKER_CONTEXT, config.json, default sockets";
    "docker.kind" Text Live "`docker`, `podman`, `desktop` or `rootless`" "GET /version, /info";
    "docker.version" Version Live "the engine's version" "GET /version";
    "docker.api" Version Live "the newest API version the engine speaks" "GET /version ApiVersion";
    "docker.api-min" Version Live "the oldest API version the engine accepts" "GET /version MinAPIVersion";
    "docker.compose" Version Live "the Compose in use: the plugin where there is one, else the standalone program" "docker-compose(1), cli-plugins";
    "docker.compose-kind" Text Live "`plugin` (docker compose) or `standalone` (docker-compose)" "cli-plugins, PATH";
    "docker.cgroup" Int Live "the cgroup version containers get, 1 or 2" "GET /info CgroupVersion";
    "docker.memory-limit" Bool Live "containers can be given a memory limit" "GET /info MemoryLimit";
    "docker.swap-limit" Bool Live "containers can be given a swap limit" "GET /info SwapLimit";
    "docker.storage-driver" Text Live "the storage driver or snapshotter" "GET /info Driver";
    "docker.log-driver" Text Live "the default logging driver" "GET /info LoggingDriver";
    "docker.log-bounded" Bool Live "container logs cannot fill the disk: another driver than json-file, or max-size set in daemon.json" "GET /info LoggingDriver, daemon.json log-opts";
    "docker.live-restore" Bool Live "containers keep running while the daemon restarts" "GET /info LiveRestoreEnabled";
    "docker.firewall-backend" Text Live "`iptables`, `nftables`, or `none` when daemon.json turns iptables off" "GET /info FirewallBackend, daemon.json";
    "docker.open-hosts" Set Live "TCP addresses on which dockerd lets in anybody who reaches them: no `tlsverify`" "dockerd(8) hosts and tlsverify, in daemon.json or on the command line";
    "docker.warnings" Set Live "what the engine itself warns of, verbatim" "GET /info Warnings";
    "docker.networks" Set Live "subnets of Docker's bridge networks on this host" "GET /networks";
    "docker.networks-auto" Set Live "those of them that Docker took from its own pools, as far as it tells: made anew, a network may get another" "GET /networks IPAM";
    "docker.subnet-clash" Set Live "`SUBNET of NETWORK, and ROUTE by DEVICE`: subnets of Docker's bridge networks that the main routing table of this host also leads elsewhere; the default route does not count" "GET /networks, /proc/net/route, /proc/net/ipv6_route";
    "docker.workload-outside" Set Live "`CONTAINER on NETWORK (macvlan)`: containers of the workload with an address of their own in the outer network, whose packets no rule of the host sees" "GET /networks, /containers/json";
    "docker.workload-routes" Set Live "`SUBNET tcp/PORT`: ports of the workload's containers that a packet routed to the container's own address reaches past every published port; none from engine 28 on, which drops that" "GET /version, /networks, /containers/json";
    "docker.root-space.*" Bytes Live "what an unprivileged writer has left under the root of the instance: `docker` (DockerRootDir) or `containerd`" "statvfs(3)";
    "docker.root-inodes.*" Percent Live "percent of inodes free under the same roots; absent where the file system does not count them" "statvfs(3)";

    "port.state.*" Text Live "`free`, `ours` (held by the workload itself), `taken`, `not-our-address`; the note names the holder" "bind(2), sock_diag(7), /proc/PID/fd, GET /containers/json";
    "port.in-use.*" Bool Live "whether anybody holds the port, the workload or somebody who cannot be seen included; the note says who" "bind(2), sock_diag(7), /proc/PID/fd, GET /containers/json";

    "firewall.exposure.*" Text Live "who gets through to a port of the workload, over both families and from every interface that leads outside: `open` (strangers do), `allowed` (only those in `allow`), `closed`; where no container publishes it yet, as Docker would" "nf_tables (nfnetlink), x_tables (getsockopt), rtnetlink(7), GET /containers/json";
    "firewall.other-ports" Set Live "`tcp/7379 of NAME, to tcp/6379: WHY`: ports that Docker publishes, that are none of the profile's and lead to where one of these leads, and that strangers get through to; `tcp/16379, sent on to tcp/6379 by RULE: WHY`: the same by a rule, at the host's own addresses" "GET /containers/json, nf_tables (nfnetlink), x_tables (getsockopt), rtnetlink(7)";
    "firewall.ipv6-parity" Bool Live "no port of the workload is open over IPv6 that is kept closed over IPv4" "nf_tables (nfnetlink), x_tables (getsockopt)";
    "firewall.guard" Text Live "what of preflight keeps strangers from the workload's ports, as text: a table of nftables, or chains of iptables; `none`, `changed` when somebody edited it, `several` when more than one program left one" "nf_tables (nfnetlink), x_tables (getsockopt), /etc/preflight/guard.nft, guard.v4, guard.v6";
    "firewall.guard-dropped" Int Live "packets that the guard dropped since it was loaded" "nf_tables (nfnetlink), x_tables (getsockopt)";
    "firewall.programs" Set Live "what the guard can be written with: `nft`, `iptables-nft`, `iptables-legacy`" "/usr/sbin, /usr/bin, /sbin, /bin";
    "firewall.iptables" Text Live "what the host's iptables and ip6tables stand for: `iptables-nft` or `iptables-legacy`" "where the links of iptables and ip6tables lead";
    "firewall.docker-user-dead" Bool Live "rules in DOCKER-USER that no chain leads to: they do nothing" "nf_tables (nfnetlink), x_tables (getsockopt)";
    "firewall.backends" Text Live "whose rules the kernel has: `none`, `nft` (nftables, iptables over it), `legacy` (the old iptables), or `mixed`" "nf_tables (nfnetlink), /proc/net/ip_tables_names";
    "firewall.managers" Set Live "who manages the firewall and is active: `ufw`, `firewalld`, `nftables`, `netfilter-persistent`, `docker`" "ufw.conf, /run/systemd/units, /run/openrc/started, PID files";
    "firewall.firewalld-strict" Text Live "whether firewalld holds published ports closed that it was not told to open, StrictForwardPorts: `yes` or `no`; absent before firewalld 2.3" "firewalld.conf(5)";
    "firewall.flush-risk" Bool Live "nftables.service is enabled, and a start, a reload or a stop of it throws everybody's rules away: `flush ruleset`" "nftables.service, the files it loads";
    "firewall.ufw-entries" Set Live "allow entries of the profile that an active ufw does not have" "/etc/ufw/user.rules, user6.rules";
    "firewall.firewalld-entries" Set Live "allow entries of the profile that a running firewalld does not have permanently, by the zone that the network is bound to, or else that of an outside interface" "firewalld.zone(5)";

    "memory.total" Bytes Live "memory this host or the tightest cgroup around this process grants" "/proc/meminfo MemTotal, cgroup memory.max";
    "memory.available" Bytes Live "memory that can be had now without swapping, within the tightest cgroup" "/proc/meminfo MemAvailable, cgroup memory.current";
    "memory.hugepages" Bytes Live "memory reserved for huge pages, unusable for others" "/proc/meminfo HugePages_Total × Hugepagesize";
    "swap.total" Bytes Live "swap space" "/proc/meminfo SwapTotal";
    "cpu.count" Int Live "whole CPUs this process may use: the least of online, affinity and the tightest cgroup quota" "sched_getaffinity(2), cgroup cpu.max";
    "disk.data.available" Bytes Live "what an unprivileged writer has left for the data directory, on the real mount" "statvfs(3) f_bavail";
    "disk.data.inodes" Percent Live "percent of inodes free for the data directory; absent where the file system does not count them" "statvfs(3)";
    "disk.data.filesystem" Text Live "the file system of the data directory" "/proc/self/mountinfo";
    "disk.data.rotational" Bool Live "whether the disk under the data directory spins" "/sys/dev/block/MAJ:MIN/queue/rotational";

    "sysctl.*" Sysctl Host "a kernel setting by its dotted name; `net.*` settings of a network namespace have the container layer too" "/proc/sys";
    "thp.enabled" Text Host "transparent huge pages: `always`, `madvise` or `never`; absent when the kernel has none" "/sys/kernel/mm/transparent_hugepage/enabled";
    "thp.always-sizes" Set Host "per-size huge pages at `always`, which ignore the setting above" "/sys/kernel/mm/transparent_hugepage/hugepages-*kB/enabled";
    "thp.defrag" Text Host "when the kernel compacts memory for huge pages" "/sys/kernel/mm/transparent_hugepage/defrag";
    "limits.container-nofile" Int Container "the hard limit on open files that a container gets" "running containers, daemon.json default-ulimits, /proc/PID/limits of containerd";
    "limits.service-nofile.*" Int Host "the hard limit on open files of a systemd service: of its process, and as its unit file and drop-ins set it at the next start" "/proc/PID/limits, systemd.unit(5), systemd-system.conf(5)";
    "limits.pam-nofile-above-nr-open" Set Live "lines that set a nofile above fs.nr_open, which makes pam_limits refuse logins" "/etc/security/limits.conf, limits.d";
    "conntrack.used" Percent Live "percent of the connection tracking table in use; absent without the module" "/proc/sys/net/netfilter/nf_conntrack_{count,max}";

    "time.synchronized" Bool Live "the clock follows a reference: maxerror below 16 s" "adjtimex(2)";
    "time.max-error" Duration Live "the kernel's bound on the clock error" "adjtimex(2) maxerror";
    "clocksource.current" Text Live "the clock source in use" "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    "deep.clocksource-system-time" Percent Live "percent of CPU time a clock_gettime loop spends in the kernel; slow clock sources are above 10 (with --deep)" "clock_gettime(2), getrusage(2)";
    "deep.data-fsync" Duration Live "how long 99 of 100 writes of 4 KiB take until they are on the disk of the data directory, each waited for (with --deep)" "open(2) O_TMPFILE, fdatasync(2)";
    "deep.cpu-steal" Percent Live "percent of CPU time the hypervisor took within one second (with --deep)" "/proc/stat steal";

    "derived.os.support" Text Live "`supported`, `end-of-life`, `too-old`, `unknown-release` or `unknown-os`, by the OS profile and the day of the snapshot" "os.id, os.version, profiles/os";
    "derived.docker.api-overlap" Bool Live "preflight and the engine share an API version" "docker.api, docker.api-min";
    "derived.docker.ip-forward" Text Live "`on`, `off`, or `on until the next boot` where Docker's backend does not switch it on by itself" "sysctl.net.ipv4.ip_forward, docker.firewall-backend";
    "derived.memory.needed" Bytes Live "nodes_here × 2 × maxmemory + 1 GiB: room for a fork that copies every page" "maxmemory, nodes_here";
    "derived.memory.tight" Bytes Live "nodes_here × 1.5 × maxmemory + 512 MiB: room for a fork under moderate writes" "maxmemory, nodes_here";
    "derived.disk.needed" Bytes Live "nodes_here × 3 × maxmemory: snapshot, append-only file and its rewrite" "maxmemory, nodes_here";
    "derived.nofile.needed" Int Live "maxclients + 32: what Redis asks for" "maxclients";
    "derived.port.state.*" Text Live "`port.state`, but `taken` for whatever is in use when `ports_expected` is `free`" "port.state.*, port.in-use.*, ports_expected";
    "derived.firewall.guard" Text Live "the guard of the workload's ports: `as planned`, `differs` from what the profile wants now, `missing`, or `not needed` where nothing is published beyond loopback" "firewall.guard, docker.networks, docker.networks-auto, docker.workload-routes, docker.workload-outside, firewall.programs, firewall.iptables, ports, allow";
    "derived.firewall.persistence" Text Live "whether the guard that is there comes back at boot: `kept`, `lost`, `differs`; absent without a guard" "firewall.guard";
    "derived.firewall.entries" Set Live "allow entries of the profile that are missing in an active ufw or a running firewalld" "firewall.ufw-entries, firewall.firewalld-entries, docker.networks";
    "derived.port.ephemeral-overlap" Set Live "workload ports inside ip_local_port_range that ip_local_reserved_ports does not keep free" "sysctl.net.ipv4.ip_local_port_range, sysctl.net.ipv4.ip_local_reserved_ports, ports";
};

/// The registered fact for an id: the exact entry, or the family it falls into.
pub fn spec(id: &str) -> Option<&'static Spec> {
    BY_ID.get(id).copied().or_else(|| FACTS.iter().find(|spec| spec.is_family() && spec.covers(id)))
}

/// Thousands of checks ask: a walk through all facts for each would show.
static BY_ID: LazyLock<BTreeMap<&str, &Spec>> = LazyLock::new(|| FACTS.iter().map(|spec| (spec.id, spec)).collect());

impl Spec {
    fn covers(&self, id: &str) -> bool {
        match self.id.strip_suffix('*') {
            Some(family) => id.len() > family.len() && id.starts_with(family),
            None => id == self.id,
        }
    }

    /// Whether this entry stands for a family of facts.
    pub fn is_family(&self) -> bool {
        self.id.ends_with('*')
    }
}

/// Which layers decide for this fact; a kernel setting's depends on its name.
pub fn scope(id: &str) -> Scope {
    match id.strip_prefix("sysctl.") {
        Some(name) => sysctl_scope(name),
        None => spec(id).map_or(Scope::Live, |spec| spec.scope),
    }
}

/// `net.*` settings are per network namespace, except those that the kernel registers for the initial namespace only
/// (`net/core/sysctl_net_core.c` `net_core_table`, `net/ipv4/sysctl_net_ipv4.c` `ipv4_table`; read at 6.12).
fn sysctl_scope(name: &str) -> Scope {
    const HOST_WIDE: &[&str] = &[
        "net.core.bpf_",
        "net.core.busy_",
        "net.core.default_qdisc",
        "net.core.dev_weight",
        "net.core.devconf_inherit_init_net",
        "net.core.fb_tunnels_only_for_init_net",
        "net.core.flow_limit_",
        "net.core.gro_normal_batch",
        "net.core.high_order_alloc_disable",
        "net.core.max_skb_frags",
        "net.core.message_",
        "net.core.netdev_",
        "net.core.rmem_",
        "net.core.rps_",
        "net.core.skb_defer_max",
        "net.core.tstamp_allow_data",
        "net.core.warnings",
        "net.core.wmem_",
        "net.ipv4.cipso_",
        "net.ipv4.inet_peer_",
        "net.ipv4.tcp_allowed_congestion_control",
        "net.ipv4.tcp_available_",
        "net.ipv4.tcp_low_latency",
        "net.ipv4.tcp_max_orphans",
        "net.ipv4.tcp_mem",
        "net.ipv4.udp_mem",
        "net.netfilter.nf_conntrack_max",
        "net.netfilter.nf_conntrack_buckets",
        "net.nf_conntrack_max",
    ];
    // Of the network namespaces, the one that routes is the host's.
    const ROUTING: &[&str] = &["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.bridge."];
    if ROUTING.iter().any(|known| name.starts_with(known)) {
        return Scope::Host;
    }
    if !name.starts_with("net.") || HOST_WIDE.iter().any(|known| name.starts_with(known)) {
        Scope::Host
    } else {
        Scope::Network
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_described() {
        for (index, spec) in FACTS.iter().enumerate() {
            assert!(FACTS[..index].iter().all(|other| other.id != spec.id), "{} is registered twice", spec.id);
            assert!(!spec.about.is_empty() && !spec.source.is_empty(), "{} lacks a description", spec.id);
            let charset = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-*".contains(c);
            assert!(spec.id.chars().all(charset), "{}", spec.id);
        }
    }

    #[test]
    fn every_fact_is_found_by_its_id() {
        for fact in FACTS {
            assert_eq!(spec(fact.id).map(|found| found.id), Some(fact.id));
        }
    }

    #[test]
    fn settings_know_where_they_live() {
        assert_eq!(scope("sysctl.vm.overcommit_memory"), Scope::Host);
        assert_eq!(scope("sysctl.net.core.somaxconn"), Scope::Network);
        assert_eq!(scope("sysctl.net.core.rmem_max"), Scope::Host);
        assert_eq!(scope("sysctl.net.ipv4.tcp_max_syn_backlog"), Scope::Network);
        assert_eq!(scope("memory.total"), Scope::Live);
        assert_eq!(scope("limits.container-nofile"), Scope::Container);
        assert!(spec("sysctl.").is_none() && spec("nonsense").is_none());
    }
}
