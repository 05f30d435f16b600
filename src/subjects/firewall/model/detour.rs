//! Ports of the host that rules may send on to the workload under another number. The guard and the check of exposure look
//! at the port that the client asked for, so such a way goes past both.
//!
//! Here is only which ports are worth asking about, in groups that no rule tells apart; what becomes of a connection to them
//! is for `evaluate`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::region::Ranges;
use super::rules::{Condition, Field, Hook, Key, Range, Rule, Ruleset, Step, Table, Target, Verdict};

/// Beyond so many groups it is not worth it: a rule for one port makes one.
const MAX_GROUPS: usize = 128;

/// Where the workload is reached, over one family and one protocol.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// At any address of the host.
    pub host: BTreeSet<u16>,
    pub own: BTreeSet<IpAddr>,
    /// In containers.
    pub containers: BTreeSet<(IpAddr, u16)>,
}

impl Ends {
    /// Whether this is the workload.
    pub fn holds(&self, address: Option<IpAddr>, port: u16) -> bool {
        match address {
            Some(address) if !address.is_loopback() && !self.own.contains(&address) => {
                self.containers.contains(&(address, port))
            }
            _ => self.host.contains(&port),
        }
    }

    /// The ports that a rule must see, to lead there; `None` where it does not.
    fn through(&self, to: Target, port: Option<u16>, seen: &Ranges) -> Option<Ranges> {
        let address = match to {
            Target::Unknown => return Some(seen.clone()),
            Target::Address(address) => Some(address),
            Target::Same | Target::Host => None,
        };
        if let Some(port) = port {
            return self.holds(address, port).then(|| seen.clone());
        }
        // The port stays as it is.
        let ports = self.host.iter().copied().chain(self.containers.iter().map(|(_, port)| *port));
        let ports = ports.filter(|port| self.holds(address, *port)).map(|port| (port.into(), port.into()));
        Some(seen.intersect(&Ranges::new(ports)))
    }
}

/// First and last port of each group that rules may send on to the workload; `but` is not asked about. An error: the groups
/// cannot be determined.
pub fn ports(rules: &Ruleset, v6: bool, ends: &Ends, but: &BTreeSet<u16>) -> Result<Vec<(u16, u16)>, String> {
    let tables = || rules.tables.iter().filter(|table| !table.dormant);
    let mut asked: Vec<(u128, u128)> = Vec::new();
    for table in tables() {
        for (chain, seen) in seen_by(table, v6) {
            let rules = table.chains.get(chain).map(|chain| &chain.rules);
            for rule in rules.into_iter().flatten() {
                walk(rule, seen.clone(), |step, seen| match step {
                    Step::Dnat { to, port } => {
                        asked.extend(ends.through(*to, *port, seen).iter().flat_map(Ranges::iter));
                    }
                    Step::Unknown(_) => asked.extend(seen.iter()),
                    _ => {}
                });
            }
        }
    }
    let but = Ranges::new(but.iter().map(|port| (u128::from(*port), u128::from(*port))));
    let asked = Ranges::new(asked).subtract(&but);
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let steps =
        tables().flat_map(|table| table.chains.values()).flat_map(|chain| &chain.rules).flat_map(|rule| &rule.steps);
    let mut cuts = BTreeSet::new();
    for step in steps {
        match step {
            Step::When(Condition::Test(test)) => {
                test.within.iter().try_for_each(|range| cut(&mut cuts, &test.keys, range))?;
            }
            Step::Map(map) => map.entries.iter().try_for_each(|(range, _)| cut(&mut cuts, &map.keys, range))?,
            _ => {}
        }
    }
    let mut groups = Vec::new();
    for (low, high) in asked.iter() {
        let mut from = low;
        for next in cuts.range(low..).copied().filter(|cut| *cut > low).take_while(|cut| *cut <= high).chain([high + 1])
        {
            let port = |number: u128| u16::try_from(number).unwrap_or(u16::MAX);
            groups.push((port(from), port(next - 1)));
            from = next;
        }
    }
    if groups.len() > MAX_GROUPS {
        return Err(format!("rules may send more than {MAX_GROUPS} groups of ports on to the workload"));
    }
    Ok(groups)
}

fn is_port(key: &Key) -> bool {
    matches!(key.field, Field::DestinationPort | Field::CtOriginalDestinationPort)
}

/// Where one condition begins or ends to hold.
fn cut(cuts: &mut BTreeSet<u128>, keys: &[Key], range: &Range) -> Result<(), String> {
    for (key, (low, high)) in keys.iter().zip(range.iter()).filter(|(key, _)| is_port(key)) {
        if key.mask != u128::MAX {
            return Err("a rule looks at some bits of a port".into());
        }
        cuts.extend([*low, high.saturating_add(1)]);
    }
    Ok(())
}

/// The ports that packets may have been sent to which come to a chain before their way is decided.
fn seen_by<'t>(table: &'t Table, v6: bool) -> BTreeMap<&'t str, Ranges> {
    let mut seen: BTreeMap<&'t str, Ranges> = BTreeMap::new();
    let mut open: Vec<&'t str> = Vec::new();
    for (name, chain) in &table.chains {
        let is_before = chain.base.as_ref().is_some_and(|base| match base.hook {
            Hook::Ingress => true,
            Hook::Prerouting => table.family.sees(v6),
            _ => false,
        });
        if is_before {
            seen.insert(name, Ranges::new([(1, 65535)]));
            open.push(name);
        }
    }
    while let Some(name) = open.pop() {
        let (Some(chain), Some(here)) = (table.chains.get(name), seen.get(name).cloned()) else { continue };
        for rule in &chain.rules {
            walk(rule, here.clone(), |step, ports| {
                let mut lead = |verdict: &'t Verdict| {
                    let (Verdict::Jump(to) | Verdict::Goto(to)) = verdict else { return };
                    let known = seen.entry(to).or_default();
                    if !ports.subtract(known).is_empty() {
                        *known = Ranges::new(known.iter().chain(ports.iter()));
                        open.push(to);
                    }
                };
                match step {
                    Step::Verdict(verdict) => lead(verdict),
                    Step::Map(map) => {
                        map.entries.iter().map(|(_, verdict)| verdict).chain(&map.otherwise).for_each(lead);
                    }
                    _ => {}
                }
            });
        }
    }
    seen
}

/// The steps of a rule, each with the ports of those that come to it.
fn walk<'a>(rule: &'a Rule, mut ports: Ranges, mut take: impl FnMut(&'a Step, &Ranges)) {
    for step in &rule.steps {
        if let Step::When(Condition::Test(test)) = step
            && let [key] = &test.keys[..]
            && is_port(key)
            && key.mask == u128::MAX
        {
            let within = Ranges::new(test.within.iter().filter_map(|range| range.first().copied()));
            ports = if test.negated { ports.subtract(&within) } else { ports.intersect(&within) };
        }
        take(step, &ports);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subjects::firewall::model::rules::{Backend, Base, Chain, Family};

    fn to_port(low: u128, high: u128) -> Step {
        Step::When(Condition::within(Field::DestinationPort, [(low, high)], false))
    }

    /// A name, the hook of a base chain, the steps of each rule.
    type Chains<'a> = [(&'a str, Option<Hook>, Vec<Vec<Step>>)];

    fn table(chains: &Chains<'_>) -> Ruleset {
        let chain = |hook: &Option<Hook>, rules: &[Vec<Step>]| Chain {
            base: hook.map(|hook| Base { hook, priority: 0, nat: true, policy_drop: false, devices: Vec::new() }),
            rules: rules.iter().map(|steps| Rule { steps: steps.clone(), ..Rule::default() }).collect(),
        };
        let chains = chains.iter().map(|(name, hook, rules)| ((*name).to_owned(), chain(hook, rules))).collect();
        let (family, backend, sets) = (Family::Ip, Backend::Nft, BTreeMap::default());
        Ruleset { tables: vec![Table { family, name: "nat".into(), backend, dormant: false, chains, sets }] }
    }

    /// Seen failing with what a rule asks left out, and with the cuts of other rules left out.
    #[test]
    fn ports_that_may_lead_to_the_workload_are_asked_in_groups() {
        let container: IpAddr = [172, 20, 0, 11].into();
        let ends =
            Ends { host: [6379].into(), own: [[192, 0, 2, 1].into()].into(), containers: [(container, 6379)].into() };
        let dnat = |to: Target, port| Step::Dnat { to, port };
        let of = |chains: &Chains<'_>, but: &[u16]| {
            ports(&table(chains), false, &ends, &but.iter().copied().collect()).unwrap()
        };
        let pre = |rules| [("PREROUTING", Some(Hook::Prerouting), rules)];
        let redirect = || vec![to_port(16379, 16379), dnat(Target::Host, Some(6379))];
        assert_eq!(of(&pre(vec![redirect()]), &[6379]), [(16379, 16379)]);
        assert_eq!(of(&pre(vec![redirect()]), &[6379, 16379]), []);
        let elsewhere = vec![to_port(80, 80), dnat(Target::Address([10, 0, 0, 5].into()), Some(6379))];
        let other_port = vec![to_port(81, 81), dnat(Target::Address(container), Some(80))];
        let docker = vec![to_port(6379, 6379), dnat(Target::Address(container), Some(6379))];
        assert_eq!(of(&pre(vec![elsewhere, other_port, docker]), &[6379]), []);
        // A rule between them, of whatever kind, makes two groups.
        let range = vec![to_port(16000, 16999), dnat(Target::Address(container), Some(6379))];
        let drop = vec![to_port(16000, 16010), Step::Verdict(Verdict::Drop)];
        assert_eq!(of(&pre(vec![drop, range]), &[]), [(16000, 16010), (16011, 16999)]);
        let jumps = [
            (
                "PREROUTING",
                Some(Hook::Prerouting),
                vec![vec![to_port(7, 9), Step::Verdict(Verdict::Jump("MINE".into()))]],
            ),
            ("MINE", None, vec![vec![dnat(Target::Unknown, None)]]),
            ("UNUSED", None, vec![vec![dnat(Target::Host, Some(6379))]]),
        ];
        assert_eq!(of(&jumps, &[]), [(7, 9)]);
        // What is local only is nobody's way in.
        assert_eq!(of(&[("OUTPUT", Some(Hook::Output), vec![redirect()])], &[]), []);
        let whole = of(&pre(vec![vec![dnat(Target::Host, Some(6379))]]), &[6379]);
        assert_eq!(whole, [(1, 6378), (6380, 65535)]);
        assert_eq!(of(&pre(vec![vec![Step::Unknown("tproxy".into())]]), &[]), [(1, 65535)]);
    }
}
