//! One rule set: what preflight says of it, and what connections find.

use crate::support::process::program;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use preflight::catalog::parameters::Protocol;
use preflight::host::{nfnetlink, rtnetlink};
use preflight::subjects::firewall::model::evaluate;
use preflight::subjects::firewall::model::evaluate::Question;
use preflight::subjects::firewall::model::evaluate::Trace;
use preflight::subjects::firewall::model::packet::Interface;
use preflight::subjects::firewall::model::packet::Way;
use preflight::subjects::firewall::model::region;
use preflight::subjects::firewall::model::region::Ranges;
use preflight::subjects::firewall::model::region::Region;
use preflight::subjects::firewall::model::rules::Ruleset;
use preflight::subjects::firewall::read::interfaces;
use preflight::subjects::firewall::read::nft;

use super::layouts::Layout;
use super::world::{ALLOW, ALLOWED, HOST, OUTWARD, PORTS, STRANGERS, Try, World};

const PATIENCE: Duration = Duration::from_secs(5);
/// What a connection that ought to be answered is given: a lost packet is sent again after a second.
const SECOND_LOOK: Duration = Duration::from_millis(2500);

#[derive(Debug, Default)]
pub(crate) struct Count {
    layouts: usize,
    connections: usize,
    open: usize,
    closed: usize,
    not_told: usize,
    /// Of the words of the binary.
    words: [usize; 4],
}

const WORDS: [&str; 4] = ["open", "allowed", "closed", "unknown"];

impl Count {
    pub(crate) fn add(&mut self, other: &Self) {
        self.layouts += other.layouts;
        self.connections += other.connections;
        self.open += other.open;
        self.closed += other.closed;
        self.not_told += other.not_told;
        for (own, other) in self.words.iter_mut().zip(other.words) {
            *own += other;
        }
    }

    /// All could be "not told" otherwise, and nothing would be wrong.
    pub(crate) fn assert_enough(&self) {
        assert!(self.layouts >= 150, "{self}");
        assert!(self.not_told * 10 < self.connections, "a tenth is not told: {self}");
        assert!(self.open * 5 > self.connections && self.closed * 5 > self.connections, "lopsided: {self}");
        let words: usize = self.words.iter().sum();
        assert!(self.words[3] * 4 < words, "a quarter is unknown: {self}");
        assert!(self.words[..3].iter().all(|word| word * 20 > words), "a word is rare: {self}");
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layouts, connections, open, closed, not_told, words } = self;
        write!(
            f,
            "{layouts} rule sets, {connections} connections: {open} told open, {closed} closed, {not_told} not told;"
        )?;
        WORDS.iter().zip(words).try_for_each(|(word, times)| write!(f, " {times} {word}"))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) count: Count,
    pub(crate) wrong: Vec<String>,
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn holds(region: &Region, tried: &Try) -> bool {
    region.blocks().iter().any(|block| {
        block.source.contains(region::number(tried.source))
            && block.destination.contains(region::number(tried.destination))
            && block.source_port.contains(tried.source_port.into())
    })
}

/// What preflight has read of the host.
struct Read {
    rules: Ruleset,
    interfaces: Vec<Interface>,
    forwards: bool,
}

impl Read {
    fn trace(&self, way: usize, v6: bool, port: u16, sources: Ranges) -> Trace {
        let interface = self.interfaces.iter().find(|interface| interface.name == OUTWARD[way]).unwrap();
        evaluate::evaluate(&Question {
            rules: &self.rules,
            way: Way { v6, protocol: Protocol::Tcp, port, interface, interfaces: &self.interfaces },
            destinations: evaluate::addresses(HOST[usize::from(v6)].map(address)),
            sources,
            prediction: None,
            forwarding: Some(self.forwards),
        })
    }
}

fn everybody(v6: bool) -> Ranges {
    Ranges::new([if v6 { (2, (0xff00_u128 << 112) - 1) } else { (0x0100_0000, 0xdfff_ffff) }])
}

fn allowed(v6: bool) -> Ranges {
    let first = region::number(address(if v6 { "fd20::" } else { "172.20.0.0" }));
    Ranges::new([(first, first | if v6 { u128::MAX >> 16 } else { 0xffff })])
}

pub(crate) fn look(world: &World, layout: &Layout) -> Result<Found, String> {
    world.must(&["nft", "flush", "ruleset"], "");
    for (loader, text) in &layout.parts {
        let args: &[&str] = match *loader {
            "nft" => &["nft", "-f", "-"],
            "iptables" => &["iptables-nft-restore", "--noflush"],
            _ => &["ip6tables-nft-restore", "--noflush"],
        };
        let output = world.run(args, text);
        if !output.status.success() {
            return Err(format!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    let forwards = u8::from(layout.forwards);
    world.must(
        &[
            "sysctl",
            "-qw",
            &format!("net.ipv4.ip_forward={forwards}"),
            &format!("net.ipv6.conf.all.forwarding={forwards}"),
        ],
        "",
    );
    // Changing that setting may take routes of IPv6 with it, so it comes first.
    let mut found = Found::default();
    found.count.layouts = 1;
    world.enter_host();
    let bytes = nfnetlink::ruleset(PATIENCE).unwrap().unwrap_or_default();
    let links = interfaces::parse(&rtnetlink::interfaces(PATIENCE).unwrap());
    let read = Read {
        rules: nft::parse(&bytes),
        interfaces: links.into_iter().map(|link| link.interface).collect(),
        forwards: layout.forwards,
    };
    let mut traces: Vec<(usize, bool, u16, Trace)> = Vec::new();
    let mut tried: Vec<Try> = Vec::new();
    for (way, outward) in OUTWARD.into_iter().enumerate() {
        world.answer_by(way);
        let mut wanted = Vec::new();
        for v6 in [false, true] {
            let of = usize::from(v6);
            for port in PORTS {
                traces.push((way, v6, port, read.trace(way, v6, port, everybody(v6))));
                for source in STRANGERS[of].iter().chain(&ALLOWED[of]) {
                    wanted.extend(HOST[of].iter().map(|own| (address(source), 0, address(own), port)));
                }
            }
        }
        let said = |one: &Try| {
            let key = (way, one.source.is_ipv6(), one.port);
            let found = traces.iter().find(|(at, v6, port, _)| (*at, *v6, *port) == key);
            let trace = &found.unwrap().3;
            (holds(&trace.passed, one), holds(&trace.certain(), one), trace)
        };
        let mut all = world.connect(way, &wanted, Duration::ZERO);
        let (late, mut done): (Vec<Try>, Vec<Try>) = all.drain(..).partition(|one| said(one).1 && !one.connected);
        if !late.is_empty() {
            let again: Vec<_> = late.iter().map(|one| (one.source, 0, one.destination, one.port)).collect();
            done.extend(world.connect(way, &again, SECOND_LOOK));
        }
        for one in done {
            let (may, must, trace) = said(&one);
            found.count.connections += 1;
            match (may, must, one.connected) {
                (_, true, _) => found.count.open += 1,
                (false, ..) => found.count.closed += 1,
                (true, false, _) => found.count.not_told += 1,
            }
            if (must && !one.connected) || (!may && one.connected) {
                let said = if must { "open" } else { "closed" };
                let by: Vec<&str> = trace.stopped.iter().map(|(_, by)| by.as_str()).collect();
                found.wrong.push(format!(
                    "said {said}: at {}, {one:?}, let through by {:?}, stopped by {by:?}",
                    outward, trace.passed_by
                ));
            }
            if may && !must && trace.doubts.is_empty() {
                found.wrong.push(format!("no reason for a doubt: {one:?}"));
            }
            tried.push(one);
        }
    }
    words(world, &read, &tried, &mut found);
    found.wrong.truncate(6);
    Ok(found)
}

/// What the program itself says of each port, over both families.
fn words(world: &World, read: &Read, tried: &[Try], found: &mut Found) {
    let allow = format!("allow={ALLOW}");
    let binary = program();
    let facts = world.must(&[binary, "facts", "--only", "firewall.exposure*", "--set", &allow], "");
    let facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
    for port in PORTS {
        let fact = &facts["facts"][format!("firewall.exposure.{port}")]["live"];
        let word = fact["state"]["known"]["text"].as_str().unwrap_or("unknown");
        let at = WORDS.iter().position(|one| *one == word).unwrap_or_else(|| panic!("{fact}"));
        found.count.words[at] += 1;
        let is_allowed = |one: &Try| ALLOWED.iter().flatten().any(|word| address(word) == one.source);
        let connected = |of: bool| tried.iter().any(|one| one.port == port && is_allowed(one) == of && one.connected);
        let (strangers, friends) = (connected(false), connected(true));
        let is_true = match word {
            "open" => strangers || somebody_else(world, read, port, false),
            "allowed" => !strangers && (friends || somebody_else(world, read, port, true)),
            "closed" => !strangers && !friends,
            _ => fact["state"]["unknown"]["error"].as_str().is_some_and(|why| !why.trim().ends_with("on")),
        };
        if !is_true {
            found.wrong.push(format!("said {word} of port {port}: strangers {strangers}, allowed {friends}: {fact}"));
        }
    }
}

/// Connects as one of those whom preflight says are let through, when none of the usual ones is among them.
fn somebody_else(world: &World, read: &Read, port: u16, is_allowed: bool) -> bool {
    for (way, v6) in [(0, false), (1, false), (0, true), (1, true)] {
        let sources = if is_allowed { allowed(v6) } else { everybody(v6).subtract(&allowed(v6)) };
        let certain = read.trace(way, v6, port, sources).certain();
        let Some(block) = certain.blocks().first() else { continue };
        let (Some((source, _)), Some((destination, _)), Some((_, from))) =
            (block.source.iter().last(), block.destination.iter().next(), block.source_port.iter().next())
        else {
            continue;
        };
        let (source, destination) = (region::address(source, v6), region::address(destination, v6));
        world.also(source);
        world.answer_by(way);
        let from = u16::try_from(from).unwrap();
        if world.connect(way, &[(source, from, destination, port)], SECOND_LOOK)[0].connected {
            return true;
        }
    }
    false
}
