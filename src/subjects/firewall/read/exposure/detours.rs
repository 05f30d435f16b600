//! Ways to the workload that no container publishes: rules that send another port on to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::context::ExposureContext;
use super::others::{JudgedWay, Other};
use super::verdict::{Judged, PortVerdict};
use crate::catalog::parameters::{Port, Protocol};
use crate::subjects::context::Context;
use crate::subjects::docker::containers::{Container, Containers};
use crate::subjects::firewall::model::detour;
use crate::subjects::firewall::model::detour::Ends;
use crate::subjects::firewall::model::evaluate::{Arrival, Trace};
use crate::subjects::firewall::model::packet::{Destination, Interface};
use crate::subjects::firewall::model::region;
use crate::subjects::firewall::model::region::{Ranges, Region};

/// All of them that strangers get through to, or may.
pub(crate) fn ways(
    context: &ExposureContext<'_>,
    cx: &Context<'_>,
    containers: &Containers,
    others: &[Other],
) -> Vec<JudgedWay> {
    let mut found: BTreeMap<String, [Judged; 2]> = BTreeMap::new();
    let mut keep = |words: String, v6: bool, verdict| {
        found.entry(words).or_default()[usize::from(v6)].get_or_insert((verdict, false));
    };
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let known: BTreeSet<u16> =
            cx.parameters.ports().filter(|it| it.protocol == protocol).map(|it| it.port).collect();
        let beside = others.iter().map(|other| &other.port).filter(|it| it.protocol == protocol).map(|it| it.port);
        let asked_already: BTreeSet<u16> = known.iter().copied().chain(beside).collect();
        let name = protocol.name();
        for v6 in if known.is_empty() { &[][..] } else { &[false, true] } {
            let ends = ends(context, cx, containers, protocol, *v6, &asked_already);
            match detour::ports(context.rules, *v6, &ends, &asked_already) {
                Ok(groups) => {
                    for (low, high) in groups {
                        let ports = if low == high { low.to_string() } else { format!("{low}-{high}") };
                        if let Some((words, verdict)) = judge(context, &ends, (low, protocol), *v6) {
                            keep(format!("{name}/{ports}, {words}"), *v6, verdict);
                        }
                    }
                }
                Err(why) => keep(format!("{name} ports that are sent on"), *v6, PortVerdict::Unknown(why)),
            }
        }
    }
    found.into_iter().map(|(words, judged)| JudgedWay { words, judged }).collect()
}

/// Where the workload answers: at ports of the host, and in containers.
fn ends(
    context: &ExposureContext<'_>,
    cx: &Context<'_>,
    containers: &Containers,
    protocol: Protocol,
    v6: bool,
    at_host: &BTreeSet<u16>,
) -> Ends {
    let own: BTreeSet<IpAddr> = context.own(v6).into_iter().collect();
    let is_reached = |port: u16| {
        let port = Port { name: "other".into(), port, protocol, publish: true };
        let (addresses, _) = context.addresses(cx, containers, &port, v6);
        addresses.iter().any(|address| !address.is_loopback())
    };
    let host = at_host.iter().copied().filter(|port| is_reached(*port)).collect();
    let mut inside = BTreeSet::new();
    let images = cx.parameters.list("workload_images");
    let known: BTreeSet<u16> = cx.parameters.ports().filter(|it| it.protocol == protocol).map(|it| it.port).collect();
    let list: &[Container] = if let Containers::Known(list) = containers { list } else { &[] };
    for container in list {
        let by_number = known.iter().copied().filter(|_| container.is_workload(images));
        let behind = container.published.iter().filter(|it| it.protocol == protocol);
        let behind = behind.filter(|it| known.contains(&it.port)).map(|it| it.inside);
        let ports: BTreeSet<u16> = by_number.chain(behind).collect();
        let addresses = container.addresses.iter().filter(|address| address.is_ipv6() == v6);
        inside.extend(addresses.flat_map(|address| ports.iter().map(|port| (*address, *port))));
    }
    Ends { host, own, containers: inside }
}

/// Whether strangers who ask for this port come to the workload; `None` where none does.
fn judge(
    context: &ExposureContext<'_>,
    ends: &Ends,
    (port, protocol): (u16, Protocol),
    v6: bool,
) -> Option<(String, PortVerdict)> {
    let strangers = context.strangers_of(v6);
    let name = protocol.name();
    let mut doubt = None;
    for interface in &context.outside {
        let trace = context.trace(interface, (port, protocol), v6, context.own(v6), &strangers, None);
        let Some((arrival, there)) = there(&trace, ends) else { continue };
        let by = arrival.rewritten_by.as_deref().unwrap_or("a rule");
        let words = match arrival.port {
            Some(port) => format!("sent on to {name}/{port} by {by}"),
            None => format!("sent on by {by}"),
        };
        if there.is_empty() {
            let doubts = if trace.doubts.is_empty() { by.to_owned() } else { trace.doubts.join(", ") };
            doubt.get_or_insert((words, PortVerdict::Unknown(format!("it depends on {doubts}"))));
        } else {
            return Some((words, PortVerdict::Open(open_words(&there, &strangers, interface, v6))));
        }
    }
    doubt
}

/// The first that may come to the workload, and all that certainly do.
fn there<'a>(trace: &'a Trace, ends: &Ends) -> Option<(&'a Arrival, Region)> {
    let leads_there = |arrival: &Arrival| match (arrival.destination, arrival.port) {
        (Destination::Unknown, _) | (_, None) => None,
        (Destination::Original | Destination::Host, Some(port)) => Some(ends.holds(None, port)),
        (Destination::Address(address), Some(port)) => Some(ends.holds(Some(address), port)),
    };
    let (mut there, mut first): (_, Option<&Arrival>) = (Region::default(), None);
    for arrival in trace.arrived.iter().filter(|arrival| !arrival.region.is_empty()) {
        match leads_there(arrival) {
            Some(true) => {
                // What is known is told before what is not.
                first = first.filter(|first| leads_there(first) == Some(true)).or(Some(arrival));
                there.add(arrival.region.clone());
            }
            None => first = first.or(Some(arrival)),
            Some(false) => {}
        }
    }
    let elsewhere = trace.arrived.iter().filter(|arrival| leads_there(arrival) != Some(true));
    let stopped = trace.stopped.iter().map(|(region, _)| region);
    let certain = elsewhere.map(|arrival| &arrival.region).chain(stopped).fold(there, Region::subtract);
    first.map(|first| (first, certain))
}

fn open_words(certain: &Region, strangers: &Ranges, interface: &Interface, v6: bool) -> String {
    let sources = certain.sources();
    let who =
        if strangers.subtract(&sources).is_empty() { "everybody".to_owned() } else { region::describe(&sources, v6) };
    format!("from {who} at {}", interface.name)
}

#[cfg(test)]
mod tests {
    use super::super::others::open_beside;
    use super::*;
    use crate::catalog::parameters::Setting;
    use crate::facts::State;
    use crate::host::Host;
    use crate::subjects::firewall::model::intent::Intent;
    use crate::subjects::firewall::model::rules::{Condition, Field, Hook, Ruleset, Step};
    use crate::subjects::firewall::read::kernel::SOURCE;
    use crate::subjects::firewall::read::kernel::samples::{base, rule, table};

    /// A rule of somebody's sends another port on to the workload's: by which rule is told, and what cannot be followed is
    /// unknown. Seen failing with arrivals at an unknown place left out of `detours::there`: no way was named.
    #[test]
    fn a_rule_that_sends_another_port_on_is_a_way_too() {
        use crate::subjects::firewall::model::rules::Target;
        let root = tempfile::tempdir().unwrap();
        let host = Host::at_root(root.path());
        let want = crate::subjects::context::Want::new(std::iter::empty());
        let mut parameters = crate::catalog::parameters::Parameters::default();
        let port = Port { name: "redis".into(), port: 6379, protocol: Protocol::Tcp, publish: true };
        parameters.insert("ports", Setting::Ports(vec![port]));
        parameters.insert("workload_images", Setting::List(vec!["redis".into()]));
        parameters.insert("publish_address", Setting::List(vec!["0.0.0.0".into()]));
        let cx = Context::new(&host, &want, &parameters, crate::catalog::library::os_profile("debian", &[]));
        let container: IpAddr = [172, 20, 0, 11].into();
        let containers = Containers::Known(vec![Container {
            image: "redis:7".into(),
            addresses: [container].into(),
            ..Container::default()
        }]);
        let said = |steps: Vec<Step>, input_drops: bool| {
            let mut before = base(Hook::Prerouting, false);
            (before.nat, before.priority) = (true, -100);
            let rules = Ruleset {
                tables: vec![
                    table("nat", &[("before", Some(before), vec![rule(steps)])]),
                    table("filter", &[("input", Some(base(Hook::Input, input_drops)), vec![])]),
                ],
            };
            let outward =
                Interface { name: "eth0".into(), index: 2, addresses: vec![("192.0.2.1".parse().unwrap(), 24)] };
            let context = ExposureContext {
                rules: &rules,
                interfaces: vec![outward.clone()],
                outside: vec![&outward],
                intent: Intent::default(),
                on_host_network: true,
                listening: None,
                forwarding: [Some(true), Some(true)],
                classes: rules.port_classes(),
                last: Default::default(),
            };
            match open_beside(ways(&context, &cx, &containers, &[]), SOURCE).state {
                State::Known(value) => value.to_string(),
                State::Unknown { error, .. } => format!("unknown: {error}"),
                State::Absent(why) => why.to_string(),
            }
        };
        let to = |low, high| Step::When(Condition::within(Field::DestinationPort, [(low, high)], false));
        let redirect = |port| Step::Dnat { to: Target::Host, port: Some(port) };
        let none = said(vec![to(80, 80), redirect(81)], false);
        assert_eq!(said(vec![to(16379, 16379), redirect(6379)], true), none, "the input drops it");
        let open = said(vec![to(16379, 16379), redirect(6379)], false);
        assert!(open.contains("tcp/16379, sent on to tcp/6379 by inet nat, chain before: IPv4 open: from"), "{open}");
        let to_container = Step::Dnat { to: Target::Address(container), port: Some(6379) };
        let open = said(vec![to(7000, 7999), to_container], true);
        assert!(open.contains("tcp/7000-7999, sent on to tcp/6379 by inet nat, chain before"), "{open}");
        let map = said(vec![to(80, 80), Step::Dnat { to: Target::Unknown, port: None }], false);
        assert!(map.starts_with("unknown: tcp/80, sent on by inet nat, chain before"), "{map}");
        let set = Step::When(Condition::Other("@moon, which changes by itself".into()));
        let set = said(vec![to(80, 80), set, redirect(6379)], false);
        assert!(set.starts_with("unknown: tcp/80, sent on to tcp/6379") && set.contains("@moon"), "{set}");
        let strange = said(vec![to(80, 80), Step::Unknown("tproxy".into())], false);
        assert!(strange.starts_with("unknown: tcp/80, sent on by") && strange.contains("tproxy"), "{strange}");
    }
}
