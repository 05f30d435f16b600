//! Through one chain: its rules, their steps, and the chains that they jump to.

use super::super::packet::{Destination, Tracking};
use super::super::rules::{Base, Chain, Condition, Family, Hook, Map, Rule, Step, Table, Verdict};
use super::flow::{ChainResult, Flow, push, push_all, rewrite};
use super::trace::Arrival;
use super::walk::Walk;
use super::words::{place, reference};

/// The kernel allows 16 (`NFT_JUMP_STACK_SIZE`).
const MAX_DEPTH: usize = 17;

/// Rules looked at for one answer; a rule set of 100,000 rules is large. Where rules cut the packets into many pieces, each
/// counts for as many comparisons as it makes.
const MAX_RULES: usize = 400_000;

impl<'a> Walk<'a> {
    pub(super) fn base(
        &mut self,
        table: &'a Table,
        name: &'a str,
        chain: &'a Chain,
        base: &'a Base,
        flows: Vec<Flow>,
    ) -> Vec<Flow> {
        if flows.is_empty() {
            return flows;
        }
        let mut result = self.chain(table, name, chain, flows, 0);
        push_all(&mut result.next, result.returned);
        if base.policy_drop {
            let by = format!("the policy of {}, chain {name}", place(table));
            for flow in result.next {
                self.stop(flow, &by);
            }
        } else {
            push_all(&mut result.accepted, result.next);
        }
        result.accepted
    }

    fn chain(&mut self, table: &'a Table, name: &str, chain: &'a Chain, flows: Vec<Flow>, depth: usize) -> ChainResult {
        let mut result = ChainResult { next: flows, ..ChainResult::default() };
        if self.would_accept(table, name) {
            for flow in &mut result.next {
                flow.by = Some("the rule that Docker would add".into());
            }
            return ChainResult { accepted: result.next, ..ChainResult::default() };
        }
        for rule in &chain.rules {
            if result.next.is_empty() {
                break;
            }
            let pieces: usize = result.next.iter().map(|flow| flow.region.blocks().len()).sum();
            self.rules = self.rules.saturating_add(pieces.saturating_mul(pieces));
            if self.rules > MAX_RULES || depth > MAX_DEPTH {
                self.doubt("more rules than are followed".into());
                for flow in std::mem::take(&mut result.next) {
                    self.stop(flow.clone(), "rules that were not followed");
                    push(&mut result.accepted, flow);
                }
                break;
            }
            for flow in std::mem::take(&mut result.next) {
                let one = self.rule(table, name, rule, flow, depth);
                push_all(&mut result.accepted, one.accepted);
                push_all(&mut result.returned, one.returned);
                push_all(&mut result.next, one.next);
            }
        }
        result
    }

    /// Whether a container that does not run yet would have a rule of Docker's at the top of this chain.
    fn would_accept(&self, table: &Table, chain: &str) -> bool {
        if self.question.prediction.is_none() || !matches!(table.family, Family::Ip | Family::Ip6) {
            return false;
        }
        let is_docker_there = || {
            let has = |other: &Table| {
                (other.family == table.family && other.name == "filter" && other.chains.contains_key("DOCKER"))
                    || other.name == "docker-bridges"
            };
            self.question.rules.tables.iter().any(has)
        };
        match (table.name.as_str(), chain) {
            ("filter", "DOCKER") => true,
            ("filter", "FORWARD") => !is_docker_there(),
            ("docker-bridges", chain) => chain.starts_with("filter-forward-in__"),
            _ => false,
        }
    }

    fn rule(&mut self, table: &'a Table, chain: &str, rule: &'a Rule, flow: Flow, depth: usize) -> ChainResult {
        let mut result = ChainResult::default();
        let mut here = vec![flow];
        for step in &rule.steps {
            if here.is_empty() {
                break;
            }
            match step {
                Step::Count { .. } => {}
                Step::When(condition) => {
                    let mut still = Vec::new();
                    for mut flow in here {
                        let region = std::mem::take(&mut flow.region);
                        let (yes, no) = self.question.way.test(condition, &flow.packet, region);
                        if let Condition::Other(what) = condition {
                            self.doubt(format!("`{what}` in {}", reference(table, chain, rule)));
                        }
                        push(&mut result.next, Flow { region: no, ..flow.clone() });
                        push(&mut still, Flow { region: yes, ..flow });
                    }
                    here = still;
                }
                Step::SetMark { keep, set } => {
                    for flow in &mut here {
                        flow.packet.mark = flow
                            .packet
                            .mark
                            .zip(*set)
                            .map(|(old, set)| (old & keep) ^ set)
                            .or(set.filter(|_| *keep == 0));
                    }
                }
                Step::SetConnectionMark { keep, set } => {
                    for flow in &mut here {
                        let old = flow.packet.connection_mark;
                        flow.packet.connection_mark =
                            old.zip(*set).map(|(old, set)| (old & keep) ^ set).or(set.filter(|_| *keep == 0));
                    }
                }
                Step::NoTrack => {
                    for flow in &mut here {
                        if flow.packet.tracking == Tracking::Before {
                            flow.packet.tracking = Tracking::Untracked;
                        }
                    }
                }
                Step::Verdict(verdict) => {
                    here = self.apply(table, chain, rule, verdict, std::mem::take(&mut here), depth, &mut result);
                }
                Step::Map(map) => {
                    self.map(table, chain, rule, map, std::mem::take(&mut here), depth, &mut result);
                }
                Step::Dnat { to, port } => {
                    for mut flow in std::mem::take(&mut here) {
                        if flow.packet.hook == Hook::Prerouting {
                            rewrite(&mut flow.packet, *to, *port, self.question.way.v6);
                            flow.by = Some(reference(table, chain, rule));
                            flow.rewritten_by.clone_from(&flow.by);
                        }
                        push(&mut result.accepted, flow);
                    }
                }
                Step::Snat => push_all(&mut result.accepted, std::mem::take(&mut here)),
                Step::Unknown(what) => {
                    let by = reference(table, chain, rule);
                    self.doubt(format!("`{what}` in {by}"));
                    for flow in &here {
                        if matches!(flow.packet.hook, Hook::Ingress | Hook::Prerouting) {
                            // It may send them on to wherever it likes, as tproxy does.
                            self.trace.arrived.push(Arrival {
                                region: flow.region.clone(),
                                destination: Destination::Unknown,
                                port: None,
                                rewritten_by: Some(by.clone()),
                            });
                        }
                        self.stop(flow.clone(), &by);
                        push(&mut result.accepted, flow.clone());
                        push(&mut result.next, flow.clone());
                    }
                }
            }
        }
        push_all(&mut result.next, here);
        result
    }

    /// Carries out a verdict; what is left goes on with the same rule.
    #[expect(clippy::too_many_arguments, reason = "the place of a rule")]
    fn apply(
        &mut self,
        table: &'a Table,
        chain: &str,
        rule: &'a Rule,
        verdict: &'a Verdict,
        flows: Vec<Flow>,
        depth: usize,
        result: &mut ChainResult,
    ) -> Vec<Flow> {
        match verdict {
            Verdict::Continue => return flows,
            Verdict::Accept => {
                let by = reference(table, chain, rule);
                for flow in flows {
                    push(&mut result.accepted, Flow { by: Some(by.clone()), ..flow });
                }
            }
            Verdict::Drop | Verdict::Reject => {
                let by = reference(table, chain, rule);
                for flow in flows {
                    self.stop(flow, &by);
                }
            }
            Verdict::Return => push_all(&mut result.returned, flows),
            Verdict::Elsewhere(what) => {
                let by = reference(table, chain, rule);
                self.doubt(format!("{what} in {by}"));
                for flow in flows {
                    self.stop(flow.clone(), &by);
                    push(&mut result.accepted, flow);
                }
            }
            Verdict::Jump(name) | Verdict::Goto(name) => {
                let Some(target) = table.chains.get(name) else {
                    self.doubt(format!("chain {name} of {}, which was not found", place(table)));
                    for flow in flows {
                        self.stop(flow.clone(), "a chain that was not found");
                        push(&mut result.accepted, flow.clone());
                        push(&mut result.next, flow);
                    }
                    return Vec::new();
                };
                let mut inner = self.chain(table, name, target, flows, depth + 1);
                push_all(&mut inner.next, inner.returned);
                push_all(&mut result.accepted, inner.accepted);
                // From a goto there is no way back to this chain, only to its caller.
                let back = if matches!(verdict, Verdict::Jump(_)) { &mut result.next } else { &mut result.returned };
                push_all(back, inner.next);
            }
        }
        Vec::new()
    }

    #[expect(clippy::too_many_arguments, reason = "the place of a rule")]
    fn map(
        &mut self,
        table: &'a Table,
        chain: &str,
        rule: &'a Rule,
        map: &'a Map,
        flows: Vec<Flow>,
        depth: usize,
        result: &mut ChainResult,
    ) {
        for flow in flows {
            if map.uncertain {
                self.doubt(format!("a verdict map in {}", reference(table, chain, rule)));
                for verdict in map.entries.iter().map(|(_, verdict)| verdict).chain(&map.otherwise) {
                    let left = self.apply(table, chain, rule, verdict, vec![flow.clone()], depth, result);
                    push_all(&mut result.next, left);
                }
                push(&mut result.next, flow);
                continue;
            }
            let Flow { packet, region, by, rewritten_by } = flow;
            let mut rest = region;
            let mut ended = false;
            for (within, verdict) in &map.entries {
                let Some((inside, outside)) =
                    self.question.way.boxes(&map.keys, std::slice::from_ref(within), &packet, rest.clone())
                else {
                    // What cannot be read ends the rule, also before `*`.
                    ended = true;
                    break;
                };
                rest = outside;
                if !inside.is_empty() {
                    let (packet, by, rewritten_by) = (packet.clone(), by.clone(), rewritten_by.clone());
                    let flow = Flow { packet, region: inside, by, rewritten_by };
                    let left = self.apply(table, chain, rule, verdict, vec![flow], depth, result);
                    push_all(&mut result.next, left);
                }
                if rest.is_empty() {
                    break;
                }
            }
            let flow = Flow { packet, region: rest, by, rewritten_by };
            match &map.otherwise {
                Some(verdict) if !ended && !flow.region.is_empty() => {
                    let left = self.apply(table, chain, rule, verdict, vec![flow], depth, result);
                    push_all(&mut result.next, left);
                }
                _ => push(&mut result.next, flow),
            }
        }
    }
}
