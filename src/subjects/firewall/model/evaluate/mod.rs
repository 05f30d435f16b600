//! A new connection from outside, taken through the rules as the kernel would: who gets through, who does not, and of
//! whom that cannot be said.
//!
//! Where a rule asks what is not known, both answers are followed. So what comes out as kept out is kept out on every
//! way, and what comes out as let through is let through on every way; the rest is unknown.

mod chains;
mod flow;
mod hooks;
mod order;
mod trace;
mod walk;
mod words;

use std::net::IpAddr;

use self::flow::{Flow, push};
pub use self::order::not_followed;
use self::order::{Ties, tie};
pub use self::trace::{Arrival, Trace};
use self::walk::Walk;
use super::packet::{Destination, Out, Packet, Tracking, Way};
use super::region::{Block, Ranges, Region, number};
use super::rules::{Hook, Ruleset};

/// A connection that is asked about.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    pub rules: &'a Ruleset,
    pub way: Way<'a>,
    /// What it may be sent to.
    pub destinations: Ranges,
    pub sources: Ranges,
    /// How Docker would publish the port, where it does not yet.
    pub prediction: Option<Prediction>,
    /// Whether the host forwards packets of this family; `None` when that is not known.
    pub forwarding: Option<bool>,
}

/// A container that does not run yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prediction {
    pub address: IpAddr,
    pub port: u16,
    pub bridge: String,
}

/// Takes the connections through the rules.
pub fn evaluate(question: &Question<'_>) -> Trace {
    let mut trace = walk(question, Ties::AsListed);
    if let Some(tie) = tie(question.rules, &question.way) {
        let other = walk(question, Ties::Reversed);
        if differ(&trace.passed, &other.passed) || differ(&trace.certain(), &other.certain()) {
            // What one order lets through and the other stops is unknown.
            trace.passed.add(other.passed);
            trace.stopped.extend(other.stopped);
            trace.arrived.extend(other.arrived);
            trace.doubts.insert(0, format!("which of {tie} comes first: both have the same priority"));
        }
    }
    trace.name_doubts();
    trace
}

fn differ(one: &Region, other: &Region) -> bool {
    !(one.clone().subtract(other).is_empty() && other.clone().subtract(one).is_empty())
}

fn walk(question: &Question<'_>, ties: Ties) -> Trace {
    let mut walk = Walk { question, ties, trace: Trace::default(), rules: 0 };
    let packet = Packet {
        hook: Hook::Ingress,
        destination: Destination::Original,
        port: Some(question.way.port),
        tracking: Tracking::Before,
        rewritten: false,
        mark: Some(0),
        connection_mark: Some(0),
        out: Out::None,
    };
    let region = Region::of(Block {
        source: question.sources.clone(),
        destination: question.destinations.clone(),
        source_port: Ranges::new([(1, 65535)]),
    });
    let mut flows = Vec::new();
    push(&mut flows, Flow { packet, region, by: None, rewritten_by: None });
    let flows = walk.ingress(flows);
    let flows = walk.prerouting(flows);
    walk.route(flows);
    walk.trace
}

/// Addresses as a set of numbers.
pub fn addresses(list: impl IntoIterator<Item = IpAddr>) -> Ranges {
    Ranges::new(list.into_iter().map(|address| (number(address), number(address))))
}

#[cfg(test)]
mod tests {
    use super::super::rules::{Backend, Base, Chain, Condition, Family, Rule, Step, Table, Verdict};
    use super::*;
    use crate::catalog::parameters::Protocol;
    use crate::subjects::firewall::model::packet::Interface;
    use crate::subjects::firewall::model::rules::Field;

    fn filter(name: &str, rules: Vec<Rule>) -> Table {
        let base = Base { hook: Hook::Input, priority: 0, nat: false, policy_drop: false, devices: Vec::new() };
        Table {
            family: Family::Inet,
            name: name.into(),
            backend: Backend::Nft,
            dormant: false,
            chains: [("input".into(), Chain { base: Some(base), rules })].into(),
            sets: std::collections::BTreeMap::default(),
        }
    }

    /// One chain marks the packets that another drops; they have the same priority. Seen failing with one order followed: a
    /// port was said to be open, or closed, by the order in which the kernel lists the tables.
    #[test]
    fn what_hangs_on_the_order_of_two_chains_is_not_known() {
        let own: IpAddr = [192, 0, 2, 1].into();
        let rule = |steps: Vec<Step>| Rule { steps, ..Rule::default() };
        let marks = || filter("marks", vec![rule(vec![Step::SetMark { keep: 0, set: Some(7) }])]);
        let marked = Step::When(Condition::equals(Field::Mark, 7, false));
        let drops = || filter("drops", vec![rule(vec![marked.clone(), Step::Verdict(Verdict::Drop)])]);
        let other = || filter("other", vec![rule(vec![Step::Verdict(Verdict::Accept)])]);
        let interfaces = [Interface { name: "eth0".into(), index: 2, addresses: vec![(own, 24)] }];
        let trace = |tables: Vec<Table>| {
            let (v6, protocol, port, interface) = (false, Protocol::Tcp, 6379, &interfaces[0]);
            evaluate(&Question {
                rules: &Ruleset { tables },
                way: Way { v6, protocol, port, interface, interfaces: &interfaces },
                destinations: addresses([own]),
                sources: Ranges::new([(0x0100_0000, 0x7eff_ffff)]),
                prediction: None,
                forwarding: Some(true),
            })
        };
        for tables in [vec![marks(), drops()], vec![drops(), marks()]] {
            let unknown = trace(tables);
            assert!(!unknown.passed.is_empty() && unknown.certain().is_empty(), "{unknown:?}");
            assert!(unknown.doubts[0].contains("marks, chain input"), "{unknown:?}");
        }
        let mut later = drops();
        later.chains.get_mut("input").unwrap().base.as_mut().unwrap().priority = 1;
        assert!(trace(vec![later, marks()]).passed.is_empty(), "the order is known");
        let same = trace(vec![drops(), other()]);
        assert!(!same.certain().is_empty() && same.doubts.is_empty(), "no order changes that: {same:?}");
    }

    /// At the ingress of a device, a drop closes, an accept only lets the packet on, and what hangs on the order of two chains
    /// is not known; another device's is named as not looked at. Seen failing without `Hook::Ingress` in `tie`.
    #[test]
    fn the_ingress_of_a_device_comes_before_everything() {
        let own: IpAddr = [192, 0, 2, 1].into();
        let interfaces = [Interface { name: "eth0".into(), index: 2, addresses: vec![(own, 24)] }];
        let at = |name: &str, device: &str, steps: Vec<Step>| {
            let mut table = filter(name, vec![Rule { steps, ..Rule::default() }]);
            table.family = Family::Netdev;
            let base = table.chains.get_mut("input").unwrap().base.as_mut().unwrap();
            (base.hook, base.devices) = (Hook::Ingress, vec![device.into()]);
            table
        };
        let drop = |name, device| at(name, device, vec![Step::Verdict(Verdict::Drop)]);
        let trace = |tables: Vec<Table>| {
            let (v6, protocol, port, interface) = (false, Protocol::Tcp, 6379, &interfaces[0]);
            evaluate(&Question {
                rules: &Ruleset { tables },
                way: Way { v6, protocol, port, interface, interfaces: &interfaces },
                destinations: addresses([own]),
                sources: Ranges::new([(0x0100_0000, 0x7eff_ffff)]),
                prediction: None,
                forwarding: Some(true),
            })
        };
        assert!(trace(vec![drop("edge", "eth0")]).passed.is_empty());
        assert!(trace(vec![drop("edge", "eth*")]).passed.is_empty(), "by the start of the name");
        let input = || filter("filter", vec![Rule { steps: vec![Step::Verdict(Verdict::Drop)], ..Rule::default() }]);
        let accept = || at("edge", "eth0", vec![Step::Verdict(Verdict::Accept)]);
        assert!(trace(vec![accept(), input()]).passed.is_empty(), "an accept means nothing later");
        assert!(!trace(vec![drop("edge", "eth1")]).certain().is_empty());
        let marks = || at("marks", "eth0", vec![Step::SetMark { keep: 0, set: Some(7) }]);
        let marked = || Step::When(Condition::equals(Field::Mark, 7, false));
        let drops = || at("drops", "eth0", vec![marked(), Step::Verdict(Verdict::Drop)]);
        for tables in [vec![marks(), drops()], vec![drops(), marks()]] {
            let unknown = trace(tables);
            assert!(!unknown.passed.is_empty() && unknown.certain().is_empty(), "{unknown:?}");
            assert!(unknown.doubts[0].contains("netdev marks, chain input"), "{unknown:?}");
        }
        let rules = Ruleset { tables: vec![drop("edge", "eth0"), drop("member", "eth1")] };
        assert_eq!(not_followed(&rules, &[&interfaces[0]]), ["netdev member, chain input at eth1"]);
    }

    /// Each rule cuts off another corner, and the work grows with the fourth power of their number. Seen failing where a
    /// rule counts as one, however many pieces it looks at.
    #[test]
    fn rules_that_cut_the_packets_to_pieces_are_given_up_in_time() {
        let own: IpAddr = [192, 0, 2, 1].into();
        let rule = |at: u128| {
            let source = Condition::within(Field::Source, [((0x0a00 + at) << 16, ((0x0a00 + at) << 16) + 9)], false);
            let port = Condition::within(Field::SourcePort, [(1000 + at, 1000 + 2 * at)], false);
            let steps = vec![Step::When(source), Step::When(port), Step::Verdict(Verdict::Drop)];
            Rule { steps, ..Rule::default() }
        };
        let rules = Ruleset { tables: vec![filter("filter", (0..150).map(rule).collect())] };
        let interfaces = [Interface { name: "eth0".into(), index: 2, addresses: vec![(own, 24)] }];
        let (v6, protocol, port, interface) = (false, Protocol::Tcp, 6379, &interfaces[0]);
        let trace = evaluate(&Question {
            rules: &rules,
            way: Way { v6, protocol, port, interface, interfaces: &interfaces },
            destinations: addresses([own]),
            sources: Ranges::new([(0x0100_0000, 0x7eff_ffff)]),
            prediction: None,
            forwarding: Some(true),
        });
        assert!(!trace.passed.is_empty() && trace.certain().is_empty());
        assert_eq!(trace.doubts, ["more rules than are followed"]);
    }
}
