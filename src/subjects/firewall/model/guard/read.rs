//! The guard read back from what the kernel has.

use std::sync::Arc;

use super::super::packet::LOCAL;
use super::super::region;
use super::super::rules::{Base, Chain, Condition, Field, Hook, Key, Rule, Step, Table, Test, Verdict, text};
use super::{Guard, Intent, PortSet, Routed};
use crate::facts::network::Network;

/// The priority of the chain: mangle, after conntrack has looked and before any address is rewritten.
const PRIORITY: i32 = -150;

impl Guard {
    /// The guard that the kernel has; `None` when the table is not exactly as one of ours.
    pub fn read(table: &Table) -> Option<Self> {
        let names: Vec<&str> = table.chains.keys().map(String::as_str).collect();
        if table.dormant || names != ["guard", "restrict"] {
            return None;
        }
        let (guard, restrict) = (table.chains.get("guard")?, table.chains.get("restrict")?);
        let Base { hook: Hook::Prerouting, priority: PRIORITY, nat: false, policy_drop: false, .. } =
            guard.base.as_ref()?
        else {
            return None;
        };
        let ports = |name: &str| -> Option<PortSet> {
            let Some(set) = table.sets.get(name) else { return Some(PortSet::default()) };
            let mut ports = Vec::new();
            for (first, last) in set.ranges().filter(|_| !set.incomplete)? {
                ports.extend(u16::try_from(first).ok()?..=u16::try_from(last).ok()?);
            }
            Some(ports.into_iter().collect())
        };
        let networks = |name: &str, v6: bool| -> Option<Vec<Network>> {
            let Some(set) = table.sets.get(name) else { return Some(Vec::new()) };
            let ranges = set.ranges().filter(|_| !set.incomplete)?;
            let spanning = |(first, last)| Network::spanning(region::address(first, v6), region::address(last, v6));
            Some(ranges.into_iter().flat_map(spanning).collect())
        };
        let (tcp, udp) = (ports("tcp_ports")?, ports("udp_ports")?);
        let (mut allow4, mut allow6) = (networks("allow4", false)?, networks("allow6", true)?);
        allow4.sort_unstable();
        allow6.sort_unstable();
        let intent = Intent { tcp, udp, allow4, allow6 };
        Self { routed: Self::read_guard(table, guard, &intent)?, intent }.with_restrict(table, restrict)
    }

    /// Whether a table has our name and nothing of ours.
    pub fn is_of_another(table: &Table) -> bool {
        !["guard", "restrict"].iter().any(|name| table.chains.contains_key(*name))
    }

    /// The chain on the hook: loopback, what is established, the sets of ports, and then what is routed.
    fn read_guard(table: &Table, guard: &Chain, intent: &Intent) -> Option<Vec<Routed>> {
        let mut rules = guard.rules.iter();
        let loopback = Condition::equals(Field::InName, text("lo"), false);
        // `established,related`: any of these bits.
        let known = Condition::masked(Key { field: Field::CtState, mask: 6 }, [(0, 0)], true);
        for asked in [loopback, known] {
            says(rules.next()?, &[asked], &Verdict::Accept)?;
        }
        let local = Condition::equals(Field::FibDestinationType, LOCAL, false);
        for (ports, set, number) in [(&intent.tcp, "tcp_ports", 6), (&intent.udp, "udp_ports", 17)] {
            if !ports.is_empty() {
                let protocol = Condition::equals(Field::L4Proto, number, false);
                let asked = [protocol, in_set(table, set, Field::DestinationPort)?, local.clone()];
                says(rules.next()?, &asked, &Verdict::Goto("restrict".into()))?;
            }
        }
        let mut routed: Vec<Routed> = Vec::new();
        while let Some(rule) = rules.next() {
            let one = Routed::read(rule, rules.next()?)?;
            match routed.last_mut() {
                Some(last) if last.network == one.network && last.udp.is_empty() => last.udp = one.udp,
                _ => routed.push(one),
            }
        }
        Some(routed)
    }

    /// The chain that lets in whom `allow` names and drops the rest.
    fn with_restrict(self, table: &Table, restrict: &Chain) -> Option<Self> {
        let Intent { allow4, allow6, .. } = &self.intent;
        let mut rules = restrict.rules.iter();
        for (networks, set, family) in [(allow4, "allow4", 2), (allow6, "allow6", 10)] {
            if !networks.is_empty() {
                let asked = [Condition::equals(Field::NfProto, family, false), in_set(table, set, Field::Source)?];
                says(rules.next()?, &asked, &Verdict::Accept)?;
            }
        }
        says(rules.next()?, &[], &Verdict::Drop)?;
        (restrict.base.is_none() && rules.next().is_none()).then_some(self)
    }
}

/// Whether a rule asks exactly this and then decides so; counters aside. A rule that asks about the same and for something
/// else lets others through.
fn says(rule: &Rule, asked: &[Condition], decided: &Verdict) -> Option<()> {
    let steps = rule.steps.iter().filter(|step| !matches!(step, Step::Count { .. })).cloned();
    let expected = asked.iter().cloned().map(Step::When).chain([Step::Verdict(decided.clone())]);
    steps.eq(expected).then_some(())
}

/// The question whether a field is in a set of the table.
fn in_set(table: &Table, name: &str, field: Field) -> Option<Condition> {
    let within = table.sets.get(name)?.ranges()?.into_iter().map(|range| Box::from([range])).collect();
    let set = Some(name.to_owned());
    Some(Condition::Test(Test { keys: vec![Key::whole(field)], within: Arc::new(within), negated: false, set }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::networks;
    use super::*;

    /// The guard as the kernel lists it: loopback, what is established, the set of ports; then whom `allow` names.
    fn listed() -> Table {
        use super::super::super::rules::{Backend, Element, Family, Set};
        let set = |elements: &[(&[u8], &[u8])]| Set {
            interval: true,
            elements: elements
                .iter()
                .map(|(from, to)| Element { from: (*from).into(), to: (*to).into(), verdict: None })
                .collect(),
            ..Set::default()
        };
        let sets = [
            ("tcp_ports".to_owned(), set(&[(&[24, 235], &[24, 237])])),
            ("allow4".to_owned(), set(&[(&[172, 20, 0, 0], &[172, 20, 255, 255])])),
        ];
        let mut table = Table {
            family: Family::Inet,
            name: "preflight".into(),
            backend: Backend::Nft,
            dormant: false,
            chains: std::collections::BTreeMap::default(),
            sets: sets.into(),
        };
        let rule = |asked: &[Condition], decided: Verdict| Rule {
            steps: asked.iter().cloned().map(Step::When).chain([Step::Verdict(decided)]).collect(),
            ..Rule::default()
        };
        let is = |field, value| Condition::equals(field, value, false);
        let ports = in_set(&table, "tcp_ports", Field::DestinationPort).unwrap();
        let allowed = in_set(&table, "allow4", Field::Source).unwrap();
        let known = Condition::masked(Key { field: Field::CtState, mask: 6 }, [(0, 0)], true);
        let restricted = [is(Field::L4Proto, 6), ports, is(Field::FibDestinationType, 2)];
        let guard = vec![
            rule(&[is(Field::InName, text("lo"))], Verdict::Accept),
            rule(&[known], Verdict::Accept),
            rule(&restricted, Verdict::Goto("restrict".into())),
        ];
        let restrict = vec![rule(&[is(Field::NfProto, 2), allowed], Verdict::Accept), rule(&[], Verdict::Drop)];
        let base =
            Base { hook: Hook::Prerouting, priority: PRIORITY, nat: false, policy_drop: false, devices: Vec::new() };
        table.chains.insert("guard".into(), Chain { base: Some(base), rules: guard });
        table.chains.insert("restrict".into(), Chain { base: None, rules: restrict });
        table
    }

    /// Each of these lets strangers in. Seen failing where a rule was known by the fields that it asks about alone: then
    /// all but the last two were read as the guard itself, so that `check` was content and `tune` changed nothing.
    #[test]
    fn a_guard_with_one_word_changed_is_none_of_ours() {
        let intent = Guard::read(&listed()).unwrap().intent;
        assert_eq!(intent.tcp.to_string(), "6379-6381");
        assert_eq!(intent.allow4, networks(&["172.20.0.0/16"]));
        let is = |field, value, negated| Step::When(Condition::equals(field, value, negated));
        let new = Condition::masked(Key { field: Field::CtState, mask: 10 }, [(0, 0)], true);
        let edits: [(&str, usize, usize, Step); 9] = [
            ("guard", 0, 0, is(Field::InName, text("eth0"), false)),
            ("guard", 0, 0, is(Field::InName, text("lo"), true)),
            ("guard", 1, 0, Step::When(new)),
            ("guard", 2, 0, is(Field::L4Proto, 17, false)),
            ("guard", 2, 2, is(Field::FibDestinationType, 1, false)),
            ("restrict", 0, 0, is(Field::Source, 0, true)),
            ("guard", 2, 3, Step::Verdict(Verdict::Jump("restrict".into()))),
            ("restrict", 1, 0, Step::Verdict(Verdict::Accept)),
            // This one lets nobody in, and is not what was planned all the same.
            ("restrict", 1, 0, Step::Verdict(Verdict::Reject)),
        ];
        for (chain, rule, step, edit) in edits {
            let mut table = listed();
            table.chains.get_mut(chain).unwrap().rules[rule].steps[step] = edit.clone();
            assert_eq!(Guard::read(&table), None, "{edit:?}");
        }
        let mut table = listed();
        table.chains.get_mut("guard").unwrap().rules[2].steps.insert(0, is(Field::NfProto, 10, false));
        assert_eq!(Guard::read(&table), None, "for IPv6 alone");
    }
}
