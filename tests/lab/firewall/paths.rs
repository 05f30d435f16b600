//! Every way to a port of the workload, who goes it, and the control beside it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::probe::{Answer, Try, ask_all};
use super::world::{ALLOWED, HOST4, HOST6, STRANGER, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Stranger,
    Allowed,
    /// Another container of the cluster.
    Cluster,
    /// The host itself.
    Local,
}

impl Who {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Allowed => "allowed",
            Self::Cluster => "cluster",
            Self::Local => "host",
        }
    }
}

/// A way from outside: what it is called, where it goes, and the same way to a port that is not the workload's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    pub(crate) name: &'static str,
    to: (&'static str, u16),
    control: (&'static str, u16),
}

impl Path {
    pub(crate) fn to(&self) -> SocketAddr {
        address(self.to)
    }
}

/// The ports of the workload that something answers at, and one that nobody has until a test starts a container.
pub(crate) const PORTS: [u16; 5] = [6379, 6380, 6381, 26379, FREE];
pub(crate) const FREE: u16 = 26380;

/// Where the network of the cluster begins, until it is made anew.
pub(crate) const CLUSTER_NETWORK: &str = "172.20.";
const NODE_1: &str = "172.20.0.11";
const NODE_2: &str = "fd00:21::11";

/// From another machine.
pub(crate) const OUTSIDE: [Path; 8] = [
    Path { name: "published", to: (HOST4, 6379), control: (HOST4, 7379) },
    Path { name: "published, remapped", to: (HOST4, 6381), control: (HOST4, 7379) },
    Path { name: "published, IPv6", to: (HOST6, 6380), control: (HOST6, 7380) },
    Path { name: "docker-proxy, IPv6", to: (HOST6, 6379), control: (HOST6, 7379) },
    Path { name: "host network", to: (HOST4, 26379), control: (HOST4, 27379) },
    Path { name: "host network, IPv6", to: (HOST6, 26379), control: (HOST6, 27379) },
    Path { name: "routed to the container", to: (NODE_1, 6379), control: ("172.22.0.11", 6379) },
    Path { name: "routed to the container, IPv6", to: (NODE_2, 6380), control: ("fd00:22::11", 6379) },
];

/// From a container of the cluster, with the container it starts from.
pub(crate) const CLUSTER: [(&str, Path); 6] = [
    ("peer-4", Path { name: "bridge", to: (NODE_1, 6379), control: (NODE_1, 6379) }),
    ("peer-6", Path { name: "bridge, IPv6", to: (NODE_2, 6380), control: (NODE_2, 6380) }),
    ("peer-4", Path { name: "docker-proxy", to: (HOST4, 6379), control: (HOST4, 7379) }),
    ("peer-6", Path { name: "docker-proxy, IPv6", to: (HOST6, 6380), control: (HOST6, 7379) }),
    ("peer-4", Path { name: "host network", to: (HOST4, 26379), control: (HOST4, 27379) }),
    ("peer-6", Path { name: "host network, IPv6", to: (HOST6, 26379), control: (HOST6, 27379) }),
];

/// From the host itself.
const LOCAL: [Path; 2] = [
    Path { name: "loopback", to: ("127.0.0.1", 6379), control: ("127.0.0.1", 7379) },
    Path { name: "own address", to: (HOST4, 6379), control: (HOST4, 7379) },
];

fn address(at: (&str, u16)) -> SocketAddr {
    SocketAddr::new(at.0.parse().unwrap(), at.1)
}

/// What every way answers to everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) answers: BTreeMap<(Who, &'static str), Answer>,
    pub(crate) controls: BTreeMap<(Who, &'static str), Answer>,
    /// What a port of the host answers from outside, over IPv4 and IPv6.
    pub(crate) ports: BTreeMap<(Who, u16), [Answer; 2]>,
}

impl Seen {
    pub(crate) fn get(&self, who: Who, path: &'static str) -> Answer {
        self.answers[&(who, path)]
    }

    /// What differs from another look, in words.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let differ = |kind: &str,
                      a: &BTreeMap<(Who, &'static str), Answer>,
                      b: &BTreeMap<(Who, &'static str), Answer>| {
            let found = a.iter().filter(|(key, answer)| b[*key] != **answer);
            found
                .map(|((who, path), answer)| format!("{kind}{} {path}: {} -> {answer}", who.name(), b[&(*who, *path)]))
                .collect::<Vec<_>>()
        };
        [differ("", &self.answers, &other.answers), differ("control ", &self.controls, &other.controls)].concat()
    }
}

impl World {
    /// Servers that do not answer the host itself, over loopback or at their own address.
    pub(crate) fn not_answering(&self) -> Vec<SocketAddr> {
        let at = [
            ("127.0.0.1", 6379),
            ("127.0.0.1", 6380),
            ("127.0.0.1", 6381),
            ("127.0.0.1", 26379),
            ("127.0.0.1", 27379),
            (NODE_1, 6379),
            (NODE_2, 6380),
            ("172.22.0.11", 6379),
            ("fd00:22::11", 6379),
        ];
        let namespace = self.host_pid();
        let tries: Vec<_> = at.iter().map(|at| Try { namespace, source: None, to: self.address(*at) }).collect();
        let answers = ask_all(&tries);
        tries.iter().zip(answers).filter(|(_, answer)| *answer != Answer::Open).map(|(it, _)| it.to).collect()
    }

    /// Containers of the cluster are where their network is now.
    fn address(&self, (at, port): (&str, u16)) -> SocketAddr {
        address((&at.replacen(CLUSTER_NETWORK, self.cluster, 1), port))
    }

    /// Tries every way for everybody, and every control beside it.
    pub(crate) fn look(&self) -> Seen {
        let mut keys = Vec::new();
        let mut tries = Vec::new();
        let mut add = |who, path: &Path, namespace, source: Option<IpAddr>| {
            for (is_control, to) in [(false, path.to), (true, path.control)] {
                keys.push((is_control, who, path.name));
                tries.push(Try { namespace, source, to: self.address(to) });
            }
        };
        for path in &OUTSIDE {
            for (who, sources) in [(Who::Stranger, STRANGER), (Who::Allowed, ALLOWED)] {
                let source = sources[usize::from(address(path.to).is_ipv6())];
                add(who, path, self.client_pid(), Some(source.parse().unwrap()));
            }
        }
        let pids: BTreeMap<&str, u32> = ["peer-4", "peer-6"].map(|name| (name, self.pid_of(name))).into();
        for (container, path) in &CLUSTER {
            add(Who::Cluster, path, pids[container], None);
        }
        for path in &LOCAL {
            add(Who::Local, path, self.host_pid(), None);
        }
        let by_port = PORTS.iter().flat_map(|port| [(Who::Stranger, STRANGER, *port), (Who::Allowed, ALLOWED, *port)]);
        for (_, sources, port) in by_port.clone() {
            tries.extend([HOST4, HOST6].into_iter().zip(sources).map(|(host, source)| Try {
                namespace: self.client_pid(),
                source: Some(source.parse().unwrap()),
                to: address((host, port)),
            }));
        }
        let answers = ask_all(&tries);
        let (ways, ports) = answers.split_at(keys.len());
        let ports = by_port.zip(ports.chunks(2)).map(|((who, _, port), both)| ((who, port), [both[0], both[1]]));
        let mut seen = Seen { answers: BTreeMap::new(), controls: BTreeMap::new(), ports: ports.collect() };
        for ((is_control, who, name), answer) in keys.into_iter().zip(ways) {
            let into = if is_control { &mut seen.controls } else { &mut seen.answers };
            into.insert((who, name), *answer);
        }
        seen
    }
}
