//! Whether the workload's ports are free on the exact addresses it will publish, and who holds them if not.
//!
//! The kernel is asked by a bind, the way dockerd asks, since reading listen tables gets families, `IPV6_V6ONLY` and
//! `SO_REUSEADDR` wrong. Tables are read only to name the holder of a port that was refused. What counts as free is
//! what dockerd would get: a port that another socket is bound to with `SO_REUSEADDR` and does not listen on is free,
//! for dockerd's bind *and* listen succeed there (`inet_csk_bind_conflict` in `net/ipv4/inet_connection_sock.c`).

pub mod cgroup;
pub mod derive;
pub mod holder;
mod judge;
pub mod knob;
pub mod plan;
mod published;
pub mod table;
pub mod verdict;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::catalog::parameters::{Port, Protocol};
use crate::facts::{Fact, Facts};
use crate::host::socket;
use crate::subjects::context::Context;
use crate::subjects::docker::containers::Containers;

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
    conclude(cx, bind_all(cx), containers, facts);
}

/// Asks the kernel for every wanted port.
pub fn bind_all(cx: &Context<'_>) -> Vec<Outcome> {
    let addresses = if cx.host.is_live() { addresses(cx) } else { Vec::new() };
    wanted(cx)
        .map(|port| {
            let started = Instant::now();
            let answers = answers(&addresses, port);
            Outcome { port: port.clone(), answers, took: started.elapsed() }
        })
        .collect()
}

/// Address by address, unless both wildcards are wanted and the kernel gives them to one socket: that is a yes for each, and
/// the usual answer. Whether 1,000 ports are free takes 15 ms with it and 22 ms without.
fn answers(addresses: &[IpAddr], port: &Port) -> Vec<(IpAddr, Answer)> {
    let both = addresses.len() == 2 && addresses.iter().all(IpAddr::is_unspecified);
    if both && socket::both_free(port.port, port.protocol) {
        return addresses.iter().map(|address| (*address, Answer::Free)).collect();
    }
    addresses.iter().map(|address| (*address, Answer::ask(*address, port.port, port.protocol))).collect()
}

/// Those of the profile that a check looks at.
fn wanted<'a>(cx: &Context<'a>) -> impl Iterator<Item = &'a Port> {
    let (want, all) = (cx.want, cx.want.has("port.state.*"));
    cx.parameters.ports().filter(move |port| {
        let instance = port.instance();
        all || [STATE, IN_USE].iter().any(|family| want.has(&format!("{family}{instance}")))
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
    facts.live(format!("{STATE}{instance}"), state);
    facts.live(format!("{IN_USE}{instance}"), in_use);
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
