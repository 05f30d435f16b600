//! Whether the workload's ports are free on the exact addresses it will publish, and who holds them if not.
//!
//! The kernel is asked by a bind, the way dockerd asks, since reading listen tables gets families, `IPV6_V6ONLY` and
//! `SO_REUSEADDR` wrong. Tables are read only to name the holder of a port that was refused. What counts as free is
//! what dockerd would get: a port that another socket is bound to with `SO_REUSEADDR` and does not listen on is free,
//! for dockerd's bind *and* listen succeed there (`inet_csk_bind_conflict` in `net/ipv4/inet_connection_sock.c`).
//!
//! [`bind_all`] needs nobody's answer and costs microseconds; [`conclude`] wants to know Docker's containers.

pub mod cgroup;
pub mod holder;
mod published;
pub mod table;
pub mod verdict;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::catalog::parameters::{Port, Protocol};
use crate::facts::{Fact, Facts};
use crate::host::sock_diag::Entry;
use crate::host::{process, socket};
use crate::probe::Context;
use crate::probe::containers::Containers;

use holder::{Holder, Holders, short};
use published::PublishedPorts;
use table::{Ask, Table};
use verdict::Standing;

/// The start of the ids: `port.state.6379`.
const FAMILY: &str = "port.state.";

/// Processes that hold a port for a container: dockerd's and Podman's forwarders. `comm` is cut to 15 bytes.
const FORWARDERS: &[&str] = &[
    "docker-proxy",
    "dockerd",
    "rootlesskit",
    "rootlesskit-doc",
    "rootlessport",
    "containers-root",
    "conmon",
    "netavark",
    "slirp4netns",
    "pasta",
    "pasta.avx2",
    "passt",
    "passt.avx2",
];

/// What the kernel answered for one port, per address.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub port: Port,
    pub answers: Vec<(IpAddr, Answer)>,
    /// Of all binds of this port.
    pub took: Duration,
}

/// The kernel's answer to one bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Free,
    /// EADDRINUSE.
    InUse,
    /// EACCES, EPERM: a privileged port, or a security policy. Says nothing about the port.
    NotPermitted,
    /// EADDRNOTAVAIL: no interface has the address.
    NotOurAddress,
    /// EAFNOSUPPORT: the kernel has no such family (`ipv6.disable=1`).
    NoFamily,
    Failed(Errno),
}

impl Answer {
    fn ask(address: IpAddr, port: u16, protocol: Protocol) -> Self {
        match socket::try_bind(SocketAddr::new(address, port), protocol) {
            Ok(()) => Self::Free,
            Err(Errno::EADDRINUSE) => Self::InUse,
            Err(Errno::EACCES | Errno::EPERM) => Self::NotPermitted,
            Err(Errno::EADDRNOTAVAIL) => Self::NotOurAddress,
            Err(Errno::EAFNOSUPPORT) => Self::NoFamily,
            Err(errno) => Self::Failed(errno),
        }
    }
}

/// Gathers `port.state.*` in one go.
pub fn probe(cx: &Context<'_>, containers: &Containers, facts: &mut Facts) {
    conclude(cx, bind_all(cx), containers, facts);
}

/// Asks the kernel for every wanted port. Waits for nobody.
pub fn bind_all(cx: &Context<'_>) -> Vec<Outcome> {
    let addresses = addresses(cx);
    let ask = |port: &Port| {
        let started = Instant::now();
        let answers = if cx.host.is_live() {
            addresses.iter().map(|address| (*address, Answer::ask(*address, port.port, port.protocol))).collect()
        } else {
            Vec::new()
        };
        Outcome { port: port.clone(), answers, took: started.elapsed() }
    };
    let wanted = |port: &&Port| cx.want.has("port.state.*") || cx.want.has(&format!("{FAMILY}{}", port.instance()));
    cx.parameters.ports().filter(wanted).map(ask).collect()
}

/// `publish_address`; by default both wildcards. An IPv4 address written in IPv6's clothes is an IPv4 address.
fn addresses(cx: &Context<'_>) -> Vec<IpAddr> {
    if cx.parameters.get("publish_address").is_none() {
        return vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in cx.parameters.publish_addresses() {
        if !addresses.contains(&address.to_canonical()) {
            addresses.push(address.to_canonical());
        }
    }
    addresses
}

/// Turns the kernel's answers into facts: names the holders, and takes what containers publish into account.
pub fn conclude(cx: &Context<'_>, outcomes: Vec<Outcome>, containers: &Containers, facts: &mut Facts) {
    if !cx.host.is_live() {
        for outcome in outcomes {
            facts.live(format!("{FAMILY}{}", outcome.port.instance()), Fact::not_running("bind(2)"));
        }
        return;
    }
    let started = Instant::now();
    let unreadable: Vec<&String> =
        cx.parameters.list("publish_address").iter().filter(|text| text.parse::<IpAddr>().is_err()).collect();
    let refused: Vec<Ask> = outcomes.iter().flat_map(refused).collect();
    let table = Table::gather(cx.host, &refused);
    let sockets: BTreeSet<(u64, u32)> =
        refused.iter().flat_map(|ask| table.holders(*ask)).map(|entry| (entry.inode, entry.uid)).collect();
    let judge = Judge {
        cx,
        holders: Holders::find(cx.host, &sockets),
        published: PublishedPorts::new(containers),
        table,
        expected_free: cx.parameters.text("ports_expected") == Some("free"),
    };
    let naming = started.elapsed();
    for outcome in outcomes {
        let id = format!("{FAMILY}{}", outcome.port.instance());
        if let Some(text) = unreadable.first() {
            let error = format!("`publish_address` has `{}`, which is not an IP address", short(text));
            facts.live(id, Fact::unknown(error, Some("write an address such as `0.0.0.0` or `::`"), "bind(2)"));
            continue;
        }
        let took = if refused_any(&outcome) { outcome.took + naming } else { outcome.took };
        facts.live(id, judge.fact(&outcome).took(took));
    }
}

/// The asks whose holder must be looked for.
fn refused(outcome: &Outcome) -> impl Iterator<Item = Ask> {
    let wants_a_name = |answer: &Answer| matches!(answer, Answer::InUse | Answer::NotPermitted);
    let (protocol, port) = (outcome.port.protocol, outcome.port.port);
    outcome
        .answers
        .iter()
        .filter(move |(_, answer)| wants_a_name(answer))
        .map(move |(address, _)| (protocol, *address, port))
}

fn refused_any(outcome: &Outcome) -> bool {
    refused(outcome).next().is_some()
}

/// All evidence of one run.
struct Judge<'a> {
    cx: &'a Context<'a>,
    table: Table,
    holders: Holders,
    published: PublishedPorts<'a>,
    expected_free: bool,
}

impl Judge<'_> {
    fn fact(&self, outcome: &Outcome) -> Fact {
        let port = &outcome.port;
        let standings: Vec<(IpAddr, Standing)> = outcome
            .answers
            .iter()
            .map(|(address, answer)| (*address, self.standing((port.protocol, *address, port.port), *answer)))
            .collect();
        let mut source = "bind(2)".to_owned();
        if refused_any(outcome) {
            source = format!("bind(2), {}, /proc/PID/fd", self.table.source);
        }
        if self.published.has(port.protocol, port.port) {
            source.push_str(", GET /containers/json");
        }
        verdict::fact(port.port, &standings, self.expected_free, &source)
    }

    fn standing(&self, ask: Ask, answer: Answer) -> Standing {
        let (_, address, port) = ask;
        match answer {
            // With the userland proxy off, older engines publish by packet rules alone and bind nothing.
            Answer::Free => self.published_on(ask, None).unwrap_or(Standing::Free),
            Answer::InUse => self.held(ask),
            Answer::NotPermitted => self.not_permitted(ask),
            Answer::NoFamily if address.is_unspecified() => Standing::Skipped,
            Answer::NotOurAddress | Answer::NoFamily => Standing::NotOurs,
            Answer::Failed(errno) => {
                Standing::Unknown { what: format!("the kernel refused port {port} with {errno}"), help: None }
            }
        }
    }

    /// The kernel said "in use".
    fn held(&self, ask: Ask) -> Standing {
        let (protocol, address, port) = ask;
        let entries: Vec<&Entry> = self.table.holders(ask).collect();
        if entries.is_empty() {
            if let Some(standing) = self.published_on(ask, None) {
                return standing;
            }
            // The holder may have gone since.
            if Answer::ask(address, port, protocol) == Answer::Free {
                return Standing::Free;
            }
            return self.invisible("in use by a socket that is not visible".into());
        }
        self.worst(ask, entries)
    }

    /// The kernel did not say. Whoever listens there holds the port all the same; sockets that do not listen may or may
    /// not be in the way.
    fn not_permitted(&self, ask: Ask) -> Standing {
        let (protocol, _, port) = ask;
        let listening = |entry: &&Entry| entry.listening || protocol == Protocol::Udp;
        let entries: Vec<&Entry> = self.table.holders(ask).filter(listening).collect();
        if !entries.is_empty() {
            return self.worst(ask, entries);
        }
        self.published_on(ask, None).unwrap_or_else(|| Standing::Unknown {
            what: format!("not permitted to ask for port {port}"),
            help: Some(if process::is_root() {
                "a security policy (SELinux, AppArmor, seccomp) refuses the bind: look into its log"
            } else {
                "run as root"
            }),
        })
    }

    /// Several sockets may stand in the way of a wildcard; one of a stranger is enough.
    fn worst(&self, ask: Ask, entries: Vec<&Entry>) -> Standing {
        let standings = entries.into_iter().map(|entry| self.held_by_socket(ask, entry));
        standings.max_by_key(Standing::rank).unwrap_or(Standing::Free)
    }

    fn held_by_socket(&self, ask: Ask, entry: &Entry) -> Standing {
        if entry.time_wait {
            return Standing::Taken("held for up to 60 s by a closed connection (TIME_WAIT)".into());
        }
        match self.holders.get(entry.inode) {
            Some(holder) => self.held_by_process(ask, entry, holder),
            None if entry.inode == 0 && entry.listening => Standing::Taken("held by the kernel itself".into()),
            None if entry.inode == 0 => Standing::Taken("held by a connection that is closing".into()),
            None => self.published_on(ask, None).unwrap_or_else(|| {
                let user = self.holders.user(entry.uid);
                self.invisible(format!("held by a process of user {user} that is not visible"))
            }),
        }
    }

    fn held_by_process(&self, ask: Ask, entry: &Entry, holder: &Holder) -> Standing {
        let container = holder.belongs.container.as_deref();
        let text = format!("held by {}", self.describe(holder));
        if !entry.listening && ask.0 == Protocol::Tcp {
            // A client's connection that got this port by chance is in the way, whoever's it is.
            return Standing::Taken(format!("{text}, which does not listen"));
        }
        if FORWARDERS.contains(&holder.name.as_str()) {
            if let Some(standing) = self.published_on(ask, Some(holder)) {
                return standing;
            }
            return match self.published.unknown() {
                None => Standing::Taken(format!("{text}, though no running container publishes it")),
                Some(_) if self.expected_free => Standing::Taken(format!("{text} for a container")),
                Some(why) => Standing::Unknown {
                    what: format!("{text} for a container that is not known ({})", short(why)),
                    help: Some("run as root with Docker reachable"),
                },
            };
        }
        let ours = self.is_workload_process(&holder.name)
            || container.is_some_and(|id| self.published.is_workload(id, self.cx.parameters.list("workload_images")));
        if ours { Standing::Ours(text) } else { Standing::Taken(text) }
    }

    fn invisible(&self, what: String) -> Standing {
        if self.expected_free {
            return Standing::Taken(what);
        }
        let help = if process::is_root() && !self.holders.some_hidden {
            "its process is outside this PID namespace: run on the host itself"
        } else {
            "run as root to see whether it is the workload itself"
        };
        Standing::Unknown { what, help: Some(help) }
    }

    /// The container that publishes this port on an address in the way, through `forwarder` if one is known.
    fn published_on(&self, ask: Ask, forwarder: Option<&Holder>) -> Option<Standing> {
        let container = self.published.on(ask)?;
        let mut text = format!("published by container {} (image {}", short(&container.name), short(&container.image));
        if let Some(holder) = forwarder {
            text.push_str(&format!(", through {} pid {}", short(&holder.name), holder.pid));
        }
        text.push(')');
        let ours = container.is_workload(self.cx.parameters.list("workload_images"));
        Some(if ours { Standing::Ours(text) } else { Standing::Taken(text) })
    }

    /// By name, as far as the kernel keeps it (`TASK_COMM_LEN` is 16 with the final NUL).
    fn is_workload_process(&self, name: &str) -> bool {
        let wanted = self.cx.parameters.list("workload_processes");
        wanted.iter().any(|want| want == name || (name.len() == 15 && want.as_bytes().starts_with(name.as_bytes())))
    }

    /// `nginx (pid 812, user root, unit nginx.service)`.
    fn describe(&self, holder: &Holder) -> String {
        let name = if holder.name.is_empty() { "a process" } else { &holder.name };
        let mut text = format!("{} (pid {}", short(name), holder.pid);
        if !holder.user.is_empty() {
            text.push_str(&format!(", user {}", holder.user));
        }
        if let Some(id) = &holder.belongs.container {
            text.push_str(&format!(", container {}", self.published.name(id)));
        }
        if let Some(unit) = &holder.belongs.unit {
            text.push_str(&format!(", unit {}", short(unit)));
        }
        text.push(')');
        text
    }
}

#[cfg(test)]
mod tests;
