//! Whether the workload's ports are free on the exact addresses it will publish, and who holds them if not.
//!
//! The kernel is asked by a bind, the way dockerd asks, since reading listen tables gets families, `IPV6_V6ONLY` and
//! `SO_REUSEADDR` wrong. Tables are read only to name the holder of a port that was refused. What counts as free is
//! what dockerd would get: a port that another socket is bound to with `SO_REUSEADDR` and does not listen on is free,
//! for dockerd's bind *and* listen succeed there (`inet_csk_bind_conflict` in `net/ipv4/inet_connection_sock.c`).
//!
//! Where many ports are wanted, the kernel is first asked which ports any socket has at all, in whatever state, while
//! everything else is gathered: a port that none has is free, whatever a security policy would let this process bind, and a
//! socket made, bound and closed for each of a thousand is what such a run would spend most of its time on.
//!
//! [`start`] needs nobody's answer; [`conclude`] wants to know Docker's containers.

pub mod cgroup;
pub mod holder;
mod judge;
mod published;
pub mod table;
pub mod verdict;

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::catalog::parameters::{Port, Protocol};
use crate::facts::{Fact, Facts};
use crate::host::{sock_diag, socket};
use crate::probe::Context;
use crate::probe::containers::Containers;

use holder::{Holders, short};
use judge::Judge;
use published::PublishedPorts;
use table::{Ask, Table};

/// The starts of the ids: `port.state.6379`, `port.in-use.6379`.
const STATE: &str = "port.state.";
const IN_USE: &str = "port.in-use.";

/// What the kernel answered for one port, per address.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub port: Port,
    pub answers: Vec<(IpAddr, Answer)>,
    /// Of all binds of this port.
    pub took: Duration,
    /// No socket has this port: nothing was bound.
    pub is_unused: bool,
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

/// Gathers `port.state.*` and `port.in-use.*` in one go.
pub fn probe(cx: &Context<'_>, containers: &Containers, facts: &mut Facts) {
    conclude(cx, start(cx).finish(cx), containers, facts);
}

/// What was begun, to be finished when everything else is gathered.
#[derive(Debug)]
pub enum Pending {
    Done(Vec<Outcome>),
    /// A thread asks which ports are in use at all.
    Listing(JoinHandle<Option<HashSet<u16>>>),
}

/// Asks the kernel for every wanted port, or begins to. Waits for nobody.
pub fn start(cx: &Context<'_>) -> Pending {
    match start_list(cx) {
        Some(running) => Pending::Listing(running),
        None => Pending::Done(bind_all(cx, &|_| false)),
    }
}

/// Begins to ask which of the wanted ports are in use at all, where that pays.
fn start_list(cx: &Context<'_>) -> Option<JoinHandle<Option<HashSet<u16>>>> {
    if !cx.host.is_live() || !both_wildcards(&addresses(cx)) {
        return None;
    }
    let tcp = || wanted(cx).filter(|port| port.protocol == Protocol::Tcp).map(|port| port.port);
    tcp().nth(WORTH_A_LIST)?;
    let (first, last) = (tcp().min()?, tcp().max()?);
    // Where the kernel does not tell, each port is asked for, as where no thread is to be had.
    let list = move || sock_diag::used_ports(first, last).ok().flatten();
    thread::Builder::new().name("ports".into()).spawn(list).ok()
}

impl Pending {
    pub fn finish(self, cx: &Context<'_>) -> Vec<Outcome> {
        match self {
            Self::Done(outcomes) => outcomes,
            Self::Listing(running) => {
                let used = running.join().unwrap_or_else(|panic| resume_unwind(panic));
                // What not everybody may bind is asked for by a bind, which is the one to say so.
                let privileged = cx.host.read_of_kernel("/proc/sys/net/ipv4/ip_unprivileged_port_start");
                let first = privileged.ok().flatten().and_then(|text| text.trim().parse().ok()).unwrap_or(1024_u16);
                let is_unused = |port: &Port| {
                    let used = used.as_ref().filter(|_| port.protocol == Protocol::Tcp && port.port >= first);
                    used.is_some_and(|used| !used.contains(&port.port))
                };
                bind_all(cx, &is_unused)
            }
        }
    }
}

/// Those of the profile that somebody asks about.
fn wanted<'a>(cx: &Context<'a>) -> impl Iterator<Item = &'a Port> {
    let (want, all) = (cx.want, cx.want.has("port.state.*"));
    cx.parameters.ports().filter(move |port| {
        let instance = port.instance();
        all || [STATE, IN_USE].iter().any(|family| want.has(&[*family, &instance].concat()))
    })
}

fn both_wildcards(addresses: &[IpAddr]) -> bool {
    addresses.iter().all(IpAddr::is_unspecified) && addresses.iter().any(IpAddr::is_ipv6)
}

/// Asks the kernel for every wanted port by itself but for those that are known to be `unused`.
fn bind_all(cx: &Context<'_>, unused: &(dyn Fn(&Port) -> bool + Sync)) -> Vec<Outcome> {
    let addresses = addresses(cx);
    let both_wildcards = both_wildcards(&addresses);
    let ask = |port: &Port| {
        let started = Instant::now();
        let free = || addresses.iter().map(|address| (*address, Answer::Free)).collect();
        if unused(port) {
            return Outcome { port: port.clone(), answers: free(), took: started.elapsed(), is_unused: true };
        }
        let answers = if cx.host.is_live() && both_wildcards && socket::both_free(port.port, port.protocol) {
            // The usual answer, for half the system calls.
            free()
        } else if cx.host.is_live() {
            addresses.iter().map(|address| (*address, Answer::ask(*address, port.port, port.protocol))).collect()
        } else {
            Vec::new()
        };
        Outcome { port: port.clone(), answers, took: started.elapsed(), is_unused: false }
    };
    let ports: Vec<&Port> = wanted(cx).collect();
    let ask_all = |ports: &[&Port]| ports.iter().map(|port| ask(port)).collect::<Vec<_>>();
    if ports.iter().filter(|port| !unused(port)).count() < WORTH_A_THREAD {
        return ask_all(&ports);
    }
    // The kernel's part of it: a socket made, bound and closed for each.
    let (first, second) = ports.split_at(ports.len() / 2);
    let (second, mut outcomes) = beside(|| ask_all(second), || ask_all(first));
    outcomes.extend(second);
    outcomes
}

/// From how many TCP ports on it pays to ask first which ones are in use at all.
const WORTH_A_LIST: usize = 64;

/// From how many ports on half of them are asked on another thread: as many as take longer than starting it.
const WORTH_A_THREAD: usize = 32;

/// Runs `aside` on a thread of its own while `here` runs on this one; where no thread is to be had, one after the other.
fn beside<A: Send, B>(aside: impl Fn() -> A + Sync, here: impl FnOnce() -> B) -> (A, B) {
    let aside = &aside;
    thread::scope(|scope| match thread::Builder::new().name("ports".into()).spawn_scoped(scope, aside) {
        Ok(running) => {
            let done = here();
            (running.join().unwrap_or_else(|panic| resume_unwind(panic)), done)
        }
        Err(_) => (aside(), here()),
    })
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
            insert(&outcome, (Fact::not_running("bind(2)"), Fact::not_running("bind(2)")), facts);
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
    let judge =
        Judge { cx, holders: Holders::find(cx.host, &sockets), published: PublishedPorts::new(containers), table };
    let naming = started.elapsed();
    for outcome in outcomes {
        if let Some(text) = unreadable.first() {
            let error = format!("`publish_address` has `{}`, which is not an IP address", short(text));
            let unknown = Fact::unknown(error, Some("write an address such as `0.0.0.0` or `::`"), "bind(2)");
            insert(&outcome, (unknown.clone(), unknown), facts);
            continue;
        }
        let took = if refused_any(&outcome) { outcome.took + naming } else { outcome.took };
        let (state, in_use) = judge.facts(&outcome);
        insert(&outcome, (state.took(took), in_use.took(took)), facts);
    }
}

fn insert(outcome: &Outcome, (state, in_use): (Fact, Fact), facts: &mut Facts) {
    let instance = outcome.port.instance();
    facts.live([STATE, &instance].concat(), state);
    facts.live([IN_USE, &instance].concat(), in_use);
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

#[cfg(test)]
mod tests;
