//! Who gets through to the workload's ports, and by which rule.

mod context;
mod detours;
mod others;
mod verdict;

use std::time::Instant;

use self::context::ExposureContext;
use self::others::{JudgedWay, open_beside, others};
use self::verdict::{Judged, PortVerdict, worst};
use super::kernel::{PATIENCE, SOURCE, source};
use super::{entries, interfaces, listeners};
use crate::catalog::parameters::Port;
use crate::facts::{Fact, Facts, Value};
use crate::host::{describe, rtnetlink};
use crate::subjects::context::Context;
use crate::subjects::docker::containers::Containers;
use crate::subjects::firewall::derive_guard::NO_NETWORKS_HELP;
use crate::subjects::firewall::model::evaluate;
use crate::subjects::firewall::model::rules::Ruleset;

pub(crate) const EXPOSURE: &str = "firewall.exposure.";
pub(crate) const OTHERS: &str = "firewall.other-ports";
pub(crate) const PARITY: &str = "firewall.ipv6-parity";

pub(crate) fn conclude(cx: &Context<'_>, containers: &Containers, rules: &Result<Ruleset, String>, facts: &mut Facts) {
    let started = Instant::now();
    let ready = || {
        // First what needs no look at the host: without it the interfaces tell nothing.
        let intent = entries::intent(cx, facts).map_err(|why| (why, Some(NO_NETWORKS_HELP)))?;
        let links = rtnetlink::interfaces(PATIENCE);
        let links = links.map_err(|error| (format!("interfaces: {}", describe(&error)), None))?;
        let rules = rules.as_ref().map_err(|why| (why.clone(), None))?;
        Ok::<_, (String, _)>((interfaces::parse(&links), intent, rules))
    };
    let (links, intent, rules) = match ready() {
        Ok(ready) => ready,
        Err((why, help)) => {
            let fact = Fact::unknown(why, help, SOURCE).took(started.elapsed());
            for port in cx.want.family(EXPOSURE) {
                facts.live(format!("{EXPOSURE}{port}"), fact.clone());
            }
            for id in [PARITY, OTHERS].into_iter().filter(|id| cx.want.has(id)) {
                facts.live(id, fact.clone());
            }
            return;
        }
    };
    let forwards = |path: &str| cx.host.read_optional(path).ok().flatten().map(|text| text.trim() == "1");
    let context = ExposureContext {
        rules,
        interfaces: links.iter().map(|link| link.interface.clone()).collect(),
        outside: interfaces::outside(&links, &[]),
        intent,
        on_host_network: cx.parameters.text("topology") == Some("host"),
        listening: listeners::gather(),
        forwarding: [forwards("/proc/sys/net/ipv4/ip_forward"), forwards("/proc/sys/net/ipv6/conf/all/forwarding")],
        classes: rules.port_classes(),
        last: Default::default(),
    };
    let source = source(rules);
    let not_followed = evaluate::not_followed(rules, &context.outside).join("; ");
    let told = |judged: [Judged; 2]| {
        let mut fact = worst(["IPv4", "IPv6"].into_iter().zip(judged), &source);
        if !not_followed.is_empty() {
            let told = fact.note.take().map(|note| format!("{note}; ")).unwrap_or_default();
            fact = fact.note(format!("{told}not looked at: {not_followed}"));
        }
        fact
    };
    let mut more_open = None;
    let mut doubts = None;
    for port in cx.parameters.ports() {
        let [v4, v6] = [false, true].map(|v6| context.port(cx, containers, port, v6));
        match (&v4, &v6) {
            (Some((PortVerdict::Kept { .. }, _)), Some((PortVerdict::Open(by), _))) => {
                more_open.get_or_insert(format!("port {} is open over IPv6 only: {by}", port.instance()));
            }
            (Some((PortVerdict::Unknown(why), _)), _) | (_, Some((PortVerdict::Unknown(why), _))) => {
                doubts.get_or_insert(why.clone());
            }
            _ => {}
        }
        let id = format!("{EXPOSURE}{}", port.instance());
        if cx.want.has(&id) {
            facts.live(id, told([v4, v6]).took(started.elapsed()));
        }
    }
    if cx.want.has(PARITY) {
        let fact = match (more_open, doubts) {
            (Some(note), _) => Fact::known(Value::Bool(false), &*source).note(note),
            (None, Some(why)) => Fact::unknown(why, None, &*source),
            (None, None) => Fact::known(Value::Bool(true), &*source),
        };
        facts.live(PARITY, fact.took(started.elapsed()));
    }
    if cx.want.has(OTHERS) {
        let asked = |port: &Port| [false, true].map(|v6| context.port(cx, containers, port, v6));
        let fact = match containers {
            Containers::Unknown(why) => Fact::unknown(why.clone(), Some("docker ps"), "GET /containers/json"),
            Containers::Known(list) => {
                let others = others(cx, list);
                let mut ways: Vec<JudgedWay> = others.iter().map(|other| other.way(&asked)).collect();
                ways.extend(detours::ways(&context, cx, containers, &others));
                open_beside(ways, &source)
            }
        };
        facts.live(OTHERS, fact.took(started.elapsed()));
    }
}
