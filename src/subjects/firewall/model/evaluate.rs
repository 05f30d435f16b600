//! A new connection from outside, taken through the rules as the kernel would: who gets through, who does not, and of
//! whom that cannot be said.
//!
//! Where a rule asks what is not known, both answers are followed. So what comes out as kept out is kept out on every
//! way, and what comes out as let through is let through on every way; the rest is unknown.

use std::net::IpAddr;

use super::packet::{Destination, Interface, Out, Packet, Tracking, Way};
use super::region::{Block, Ranges, Region, number};
use super::rules::{Backend, Base, Chain, Condition, Family, Hook, Map, Rule, Ruleset, Step, Table, Target, Verdict};

/// `NF_IP_PRI_CONNTRACK` and the places of NAT, the same for both families (`netfilter_ipv4.h`). Chains of type nat are
/// called there, whatever priority they have (`nf_nat_register_fn`).
const CONNTRACK: i32 = -200;
const NAT_DESTINATION: i32 = -100;
const NAT_SOURCE: i32 = 100;

/// The kernel allows 16 (`NFT_JUMP_STACK_SIZE`).
const MAX_DEPTH: usize = 17;

/// Rules looked at for one answer; a rule set of 100,000 rules is large. Where rules cut the packets into many pieces, each
/// counts for as many comparisons as it makes.
const MAX_RULES: usize = 400_000;

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

/// What became of the packets.
#[derive(Debug, Clone, Default)]
pub struct Passage {
    /// May get through.
    pub passed: Region,
    /// May be stopped, and by what.
    pub stopped: Vec<(Region, String)>,
    /// What let some of them through last: a rule or a policy.
    pub passed_by: Option<String>,
    /// Some went on to another address.
    pub forwarded: bool,
    /// Some were delivered to the host itself.
    pub delivered: bool,
    /// Where those ended that may get through.
    pub arrived: Vec<Arrival>,
    /// What could not be told.
    pub doubts: Vec<String>,
}

/// Packets that may get through, and where to.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub region: Region,
    pub destination: Destination,
    /// `None` when it is not known.
    pub port: Option<u16>,
    /// The rule that rewrote them, or may have done so.
    pub rewritten_by: Option<String>,
}

impl Passage {
    /// Those that certainly get through.
    pub fn certain(&self) -> Region {
        self.stopped.iter().fold(self.passed.clone(), |left, (region, _)| left.subtract(region))
    }

    /// Where a rule looks at what is not known of a packet, the rule itself is the reason.
    fn name_doubts(&mut self) {
        if self.doubts.is_empty() {
            let may_pass = |region: &Region| self.passed.clone().subtract(region) != self.passed;
            let names = self.stopped.iter().filter(|(region, _)| may_pass(region)).map(|(_, by)| by.clone());
            self.doubts = names.take(2).collect();
        }
    }
}

#[derive(Debug, Clone)]
struct Flow {
    packet: Packet,
    region: Region,
    /// The last rule that said accept.
    by: Option<String>,
    /// The rule that rewrote the destination.
    rewritten_by: Option<String>,
}

/// What a chain, or one rule, leaves.
#[derive(Debug, Default)]
struct Fate {
    accepted: Vec<Flow>,
    /// On with the next rule; of a chain: its end.
    next: Vec<Flow>,
    /// Back to the caller.
    returned: Vec<Flow>,
}

struct Walk<'a> {
    question: &'a Question<'a>,
    ties: Ties,
    passage: Passage,
    rules: usize,
}

/// Which of several base chains with the same priority is called first: the one that was registered first, and when that
/// was nobody tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ties {
    AsListed,
    Reversed,
}

fn push(flows: &mut Vec<Flow>, flow: Flow) {
    if flow.region.is_empty() {
        return;
    }
    match flows.iter_mut().find(|other| other.packet == flow.packet) {
        Some(other) => {
            other.region.add(flow.region);
            if other.by.is_none() {
                other.by = flow.by;
            }
        }
        None => flows.push(flow),
    }
}

fn push_all(flows: &mut Vec<Flow>, more: Vec<Flow>) {
    for flow in more {
        push(flows, flow);
    }
}

/// Takes the connections through the rules.
pub fn evaluate(question: &Question<'_>) -> Passage {
    let mut passage = walk(question, Ties::AsListed);
    if let Some(tie) = tie(question.rules, &question.way) {
        let other = walk(question, Ties::Reversed);
        if differ(&passage.passed, &other.passed) || differ(&passage.certain(), &other.certain()) {
            // What one order lets through and the other stops is unknown.
            passage.passed.add(other.passed);
            passage.stopped.extend(other.stopped);
            passage.arrived.extend(other.arrived);
            passage.doubts.insert(0, format!("which of {tie} comes first: both have the same priority"));
        }
    }
    passage.name_doubts();
    passage
}

fn differ(one: &Region, other: &Region) -> bool {
    !(one.clone().subtract(other).is_empty() && other.clone().subtract(one).is_empty())
}

fn walk(question: &Question<'_>, ties: Ties) -> Passage {
    let mut walk = Walk { question, ties, passage: Passage::default(), rules: 0 };
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
    walk.passage
}

/// The base chains of a hook that a way leads through, in the order in which they are called.
fn called<'a>(
    rules: &'a Ruleset,
    way: &Way<'_>,
    hook: Hook,
    ties: Ties,
) -> Vec<(&'a Table, &'a str, &'a Chain, &'a Base)> {
    let is_on_the_way = |table: &Table, base: &Base| match hook {
        // Whatever the family: of netdev and of inet.
        Hook::Ingress => base.is_bound_to(&way.interface.name),
        _ => table.family.sees(way.v6),
    };
    let mut chains: Vec<_> =
        rules.base_chains().filter(|(table, _, _, base)| base.hook == hook && is_on_the_way(table, base)).collect();
    if ties == Ties::Reversed {
        chains.reverse();
    }
    chains.sort_by_key(|(.., base)| base.priority);
    chains
}

/// Two chains whose order nobody tells, in words.
fn tie(rules: &Ruleset, way: &Way<'_>) -> Option<String> {
    const HOOKS: [Hook; 5] = [Hook::Ingress, Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Postrouting];
    let in_words = |(table, name, ..): &(&Table, &str, &Chain, &Base)| format!("{}, chain {name}", place(table));
    HOOKS.into_iter().find_map(|hook| {
        let chains = called(rules, way, hook, Ties::AsListed);
        let same = chains.windows(2).find(|pair| {
            let [(_, _, one, of_one), (_, _, other, of_other)] = pair else { return false };
            let decide = |chain: &Chain, base: &Base| base.policy_drop || !chain.rules.is_empty();
            of_one.priority == of_other.priority && decide(one, of_one) && decide(other, of_other)
        })?;
        Some(format!("{} and {}", in_words(&same[0]), in_words(&same[1])))
    })
}

/// Chains at the ingress of devices that are none of these, in words: a bond's or a bridge's member sees the packets before
/// the interface that has the address does, and which is whose is not followed.
pub fn not_followed(rules: &Ruleset, interfaces: &[&Interface]) -> Vec<String> {
    let chains = rules.base_chains().filter(|(_, _, chain, base)| {
        let does_something = base.policy_drop || !chain.rules.is_empty();
        base.hook == Hook::Ingress && does_something && !interfaces.iter().any(|one| base.is_bound_to(&one.name))
    });
    chains
        .map(|(table, name, _, base)| format!("{}, chain {name} at {}", place(table), base.devices.join(" ")))
        .collect()
}

impl<'a> Walk<'a> {
    fn stop(&mut self, flow: Flow, by: &str) {
        if flow.region.is_empty() {
            return;
        }
        match self.passage.stopped.iter_mut().find(|(_, known)| known == by) {
            Some((region, _)) => region.add(flow.region),
            None => self.passage.stopped.push((flow.region, by.to_owned())),
        }
    }

    fn doubt(&mut self, what: String) {
        const SHOWN: usize = 8;
        if self.passage.doubts.len() < SHOWN && !self.passage.doubts.contains(&what) {
            self.passage.doubts.push(what);
        }
    }

    /// Chains that are bound to the device itself, before anything else sees the packet.
    fn ingress(&mut self, flows: Vec<Flow>) -> Vec<Flow> {
        let chains = called(self.question.rules, &self.question.way, Hook::Ingress, self.ties);
        chains.into_iter().fold(flows, |flows, (table, name, chain, base)| self.base(table, name, chain, base, flows))
    }

    fn prerouting(&mut self, mut flows: Vec<Flow>) -> Vec<Flow> {
        let chains = called(self.question.rules, &self.question.way, Hook::Prerouting, self.ties);
        for flow in &mut flows {
            flow.packet.hook = Hook::Prerouting;
        }
        let (nat, filter): (Vec<_>, Vec<_>) = chains.into_iter().partition(|(.., base)| base.nat);
        let mut tracked = false;
        let mut rewritten = false;
        for (table, name, chain, base) in filter {
            if !tracked && base.priority > CONNTRACK {
                track(&mut flows);
                tracked = true;
            }
            if !rewritten && base.priority >= NAT_DESTINATION {
                flows = self.rewrite(&nat, flows);
                rewritten = true;
            }
            flows = self.base(table, name, chain, base, flows);
        }
        if !tracked {
            track(&mut flows);
        }
        if !rewritten {
            flows = self.rewrite(&nat, flows);
        }
        flows
    }

    /// The place of NAT: the first chain that rewrites a packet is the last that sees it.
    fn rewrite(&mut self, nat: &[(&'a Table, &'a str, &'a Chain, &'a Base)], flows: Vec<Flow>) -> Vec<Flow> {
        let mut flows = self.nat(nat, flows);
        if let Some(prediction) = &self.question.prediction {
            for flow in &mut flows {
                if flow.packet.destination == Destination::Original && flow.packet.tracking == Tracking::New {
                    flow.packet.destination = Destination::Address(prediction.address);
                    flow.packet.port = Some(prediction.port);
                    flow.packet.rewritten = true;
                }
            }
        }
        flows
    }

    fn nat(&mut self, nat: &[(&'a Table, &'a str, &'a Chain, &'a Base)], mut flows: Vec<Flow>) -> Vec<Flow> {
        for (table, name, chain, base) in nat {
            let (open, done): (Vec<Flow>, Vec<Flow>) = flows.into_iter().partition(|flow| {
                !(base.hook == Hook::Prerouting && flow.packet.rewritten) && flow.packet.tracking == Tracking::New
            });
            flows = done;
            push_all(&mut flows, self.base(table, name, chain, base, open));
        }
        flows
    }

    fn route(&mut self, flows: Vec<Flow>) {
        let loopback = Ranges::new(if self.question.way.v6 { [(1, 1)] } else { [(0x7f00_0000, 0x7fff_ffff)] });
        for flow in flows {
            match flow.packet.destination {
                Destination::Original => {
                    let (martian, region) = flow.region.split(super::region::Dimension::Destination, &loopback);
                    let stopped = Flow { packet: flow.packet.clone(), region: martian, by: None, rewritten_by: None };
                    self.stop(stopped, "the kernel: nothing from outside is for a loopback address");
                    self.input(Flow { region, ..flow });
                }
                Destination::Address(address) if address.is_loopback() => {
                    self.doubt(format!("the destination is rewritten to {address}"));
                    self.stop(flow.clone(), "the kernel, if route_localnet is off");
                    self.input(flow);
                }
                Destination::Address(address) if self.question.way.is_local(address) => self.input(flow),
                Destination::Host => self.input(flow),
                Destination::Address(address) => self.forward(flow, Some(address)),
                // It may be an address of the host as well.
                Destination::Unknown => {
                    self.doubt("where the destination is rewritten to".into());
                    self.input(flow.clone());
                    self.forward(flow, None);
                }
            }
        }
    }

    fn input(&mut self, mut flow: Flow) {
        flow.packet.hook = Hook::Input;
        self.passage.delivered |= !flow.region.is_empty();
        let flows = self.hook(Hook::Input, vec![flow]);
        self.pass(flows);
    }

    fn forward(&mut self, mut flow: Flow, address: Option<IpAddr>) {
        self.passage.forwarded |= !flow.region.is_empty();
        match self.question.forwarding {
            Some(true) => {}
            Some(false) => return self.stop(flow, "the kernel: it does not forward, as its settings say"),
            None => {
                self.doubt("whether the host forwards packets".into());
                self.stop(flow.clone(), "the kernel, if it does not forward");
            }
        }
        flow.packet.out = if let Some(address) = address {
            self.out(address)
        } else {
            self.stop(flow.clone(), "the host it is sent on to");
            Out::Unknown
        };
        let mut flows = vec![flow];
        for hook in [Hook::Forward, Hook::Postrouting] {
            for flow in &mut flows {
                flow.packet.hook = hook;
            }
            flows = self.hook(hook, flows);
        }
        // Frames that leave by a bridge pass its chains too; which, is not followed.
        let on_the_bridge = self.question.rules.base_chains().find(|(table, _, chain, base)| {
            let is_there = matches!(base.hook, Hook::Output | Hook::Postrouting | Hook::Egress);
            let does_something = base.policy_drop || !chain.rules.is_empty();
            matches!(table.family, Family::Bridge | Family::Netdev) && is_there && does_something
        });
        if let Some((table, name, ..)) = on_the_bridge {
            let place = format!("{} {}, chain {name}", table.family.name(), table.name);
            self.doubt(place.clone());
            for flow in flows.clone() {
                self.stop(flow, &place);
            }
        }
        self.pass(flows);
    }

    /// The interface that has the longest matching network of its own.
    fn out(&self, address: IpAddr) -> Out {
        if let Some(prediction) = &self.question.prediction
            && prediction.address == address
        {
            let index =
                self.question.way.interfaces.iter().find(|one| one.name == prediction.bridge).map(|one| one.index);
            return Out::Interface { name: prediction.bridge.clone(), index };
        }
        let fitting = self.question.way.interfaces.iter().flat_map(|interface| {
            interface
                .networks()
                .filter(|network| network.contains(address))
                .map(move |network| (network.prefix(), interface))
        });
        match fitting.max_by_key(|(prefix, _)| *prefix) {
            Some((_, Interface { name, index, .. })) => Out::Interface { name: name.clone(), index: Some(*index) },
            None => Out::Unknown,
        }
    }

    fn hook(&mut self, hook: Hook, mut flows: Vec<Flow>) -> Vec<Flow> {
        let chains = called(self.question.rules, &self.question.way, hook, self.ties);
        let (nat, filter): (Vec<_>, Vec<_>) = chains.into_iter().partition(|(.., base)| base.nat);
        let mut done = false;
        for (table, name, chain, base) in filter {
            if !done && base.priority >= NAT_SOURCE {
                flows = self.nat(&nat, flows);
                done = true;
            }
            flows = self.base(table, name, chain, base, flows);
        }
        if done { flows } else { self.nat(&nat, flows) }
    }

    fn pass(&mut self, flows: Vec<Flow>) {
        for flow in flows {
            if self.passage.passed_by.is_none() {
                self.passage.passed_by = flow.by;
            }
            self.passage.passed.add(flow.region.clone());
            let Packet { destination, port, .. } = flow.packet;
            self.passage.arrived.push(Arrival {
                region: flow.region,
                destination,
                port,
                rewritten_by: flow.rewritten_by,
            });
        }
    }

    fn base(
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
        let mut fate = self.chain(table, name, chain, flows, 0);
        push_all(&mut fate.next, fate.returned);
        if base.policy_drop {
            let by = format!("the policy of {}, chain {name}", place(table));
            for flow in fate.next {
                self.stop(flow, &by);
            }
        } else {
            push_all(&mut fate.accepted, fate.next);
        }
        fate.accepted
    }

    fn chain(&mut self, table: &'a Table, name: &str, chain: &'a Chain, flows: Vec<Flow>, depth: usize) -> Fate {
        let mut fate = Fate { next: flows, ..Fate::default() };
        if self.would_accept(table, name) {
            for flow in &mut fate.next {
                flow.by = Some("the rule that Docker would add".into());
            }
            return Fate { accepted: fate.next, ..Fate::default() };
        }
        for rule in &chain.rules {
            if fate.next.is_empty() {
                break;
            }
            let pieces: usize = fate.next.iter().map(|flow| flow.region.blocks().len()).sum();
            self.rules = self.rules.saturating_add(pieces.saturating_mul(pieces));
            if self.rules > MAX_RULES || depth > MAX_DEPTH {
                self.doubt("more rules than are followed".into());
                for flow in std::mem::take(&mut fate.next) {
                    self.stop(flow.clone(), "rules that were not followed");
                    push(&mut fate.accepted, flow);
                }
                break;
            }
            for flow in std::mem::take(&mut fate.next) {
                let one = self.rule(table, name, rule, flow, depth);
                push_all(&mut fate.accepted, one.accepted);
                push_all(&mut fate.returned, one.returned);
                push_all(&mut fate.next, one.next);
            }
        }
        fate
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

    fn rule(&mut self, table: &'a Table, chain: &str, rule: &'a Rule, flow: Flow, depth: usize) -> Fate {
        let mut fate = Fate::default();
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
                        push(&mut fate.next, Flow { region: no, ..flow.clone() });
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
                    here = self.apply(table, chain, rule, verdict, std::mem::take(&mut here), depth, &mut fate);
                }
                Step::Map(map) => {
                    self.map(table, chain, rule, map, std::mem::take(&mut here), depth, &mut fate);
                }
                Step::Dnat { to, port } => {
                    for mut flow in std::mem::take(&mut here) {
                        if flow.packet.hook == Hook::Prerouting {
                            rewrite(&mut flow.packet, *to, *port, self.question.way.v6);
                            flow.by = Some(reference(table, chain, rule));
                            flow.rewritten_by.clone_from(&flow.by);
                        }
                        push(&mut fate.accepted, flow);
                    }
                }
                Step::Snat => push_all(&mut fate.accepted, std::mem::take(&mut here)),
                Step::Unknown(what) => {
                    let by = reference(table, chain, rule);
                    self.doubt(format!("`{what}` in {by}"));
                    for flow in &here {
                        if matches!(flow.packet.hook, Hook::Ingress | Hook::Prerouting) {
                            // It may send them on to wherever it likes, as tproxy does.
                            self.passage.arrived.push(Arrival {
                                region: flow.region.clone(),
                                destination: Destination::Unknown,
                                port: None,
                                rewritten_by: Some(by.clone()),
                            });
                        }
                        self.stop(flow.clone(), &by);
                        push(&mut fate.accepted, flow.clone());
                        push(&mut fate.next, flow.clone());
                    }
                }
            }
        }
        push_all(&mut fate.next, here);
        fate
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
        fate: &mut Fate,
    ) -> Vec<Flow> {
        match verdict {
            Verdict::Continue => return flows,
            Verdict::Accept => {
                let by = reference(table, chain, rule);
                for flow in flows {
                    push(&mut fate.accepted, Flow { by: Some(by.clone()), ..flow });
                }
            }
            Verdict::Drop | Verdict::Reject => {
                let by = reference(table, chain, rule);
                for flow in flows {
                    self.stop(flow, &by);
                }
            }
            Verdict::Return => push_all(&mut fate.returned, flows),
            Verdict::Elsewhere(what) => {
                let by = reference(table, chain, rule);
                self.doubt(format!("{what} in {by}"));
                for flow in flows {
                    self.stop(flow.clone(), &by);
                    push(&mut fate.accepted, flow);
                }
            }
            Verdict::Jump(name) | Verdict::Goto(name) => {
                let Some(target) = table.chains.get(name) else {
                    self.doubt(format!("chain {name} of {}, which was not found", place(table)));
                    for flow in flows {
                        self.stop(flow.clone(), "a chain that was not found");
                        push(&mut fate.accepted, flow.clone());
                        push(&mut fate.next, flow);
                    }
                    return Vec::new();
                };
                let mut inner = self.chain(table, name, target, flows, depth + 1);
                push_all(&mut inner.next, inner.returned);
                push_all(&mut fate.accepted, inner.accepted);
                // From a goto there is no way back to this chain, only to its caller.
                let back = if matches!(verdict, Verdict::Jump(_)) { &mut fate.next } else { &mut fate.returned };
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
        fate: &mut Fate,
    ) {
        for flow in flows {
            if map.uncertain {
                self.doubt(format!("a verdict map in {}", reference(table, chain, rule)));
                for verdict in map.entries.iter().map(|(_, verdict)| verdict).chain(&map.otherwise) {
                    let left = self.apply(table, chain, rule, verdict, vec![flow.clone()], depth, fate);
                    push_all(&mut fate.next, left);
                }
                push(&mut fate.next, flow);
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
                    let left = self.apply(table, chain, rule, verdict, vec![flow], depth, fate);
                    push_all(&mut fate.next, left);
                }
                if rest.is_empty() {
                    break;
                }
            }
            let flow = Flow { packet, region: rest, by, rewritten_by };
            match &map.otherwise {
                Some(verdict) if !ended && !flow.region.is_empty() => {
                    let left = self.apply(table, chain, rule, verdict, vec![flow], depth, fate);
                    push_all(&mut fate.next, left);
                }
                _ => push(&mut fate.next, flow),
            }
        }
    }
}

fn track(flows: &mut [Flow]) {
    for flow in flows {
        if flow.packet.tracking == Tracking::Before {
            flow.packet.tracking = Tracking::New;
        }
    }
}

fn rewrite(packet: &mut Packet, to: Target, port: Option<u16>, v6: bool) {
    packet.rewritten = true;
    packet.destination = match to {
        // An address of the other family changes nothing here.
        Target::Address(address) if address.is_ipv6() != v6 => return,
        Target::Address(address) => Destination::Address(address),
        Target::Same => packet.destination,
        Target::Host => Destination::Host,
        Target::Unknown => Destination::Unknown,
    };
    if to == Target::Unknown {
        packet.port = None;
    }
    packet.port = port.or(packet.port);
}

fn place(table: &Table) -> String {
    let legacy = if table.backend == Backend::Legacy { "legacy " } else { "" };
    format!("{legacy}{} {}", table.family.name(), table.name)
}

/// A rule in words.
fn reference(table: &Table, chain: &str, rule: &Rule) -> String {
    let place = format!("{}, chain {chain}", place(table));
    match (rule.handle, &rule.text) {
        (Some(handle), None) => format!("{place}, handle {handle}"),
        (Some(handle), Some(text)) => format!("{place}, handle {handle} ({text})"),
        (None, Some(text)) => format!("{place}: {text}"),
        (None, None) => place,
    }
}

/// Addresses as a set of numbers.
pub fn addresses(list: impl IntoIterator<Item = IpAddr>) -> Ranges {
    Ranges::new(list.into_iter().map(|address| (number(address), number(address))))
}

#[cfg(test)]
mod tests {
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
        let passage = |tables: Vec<Table>| {
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
            let unknown = passage(tables);
            assert!(!unknown.passed.is_empty() && unknown.certain().is_empty(), "{unknown:?}");
            assert!(unknown.doubts[0].contains("marks, chain input"), "{unknown:?}");
        }
        let mut later = drops();
        later.chains.get_mut("input").unwrap().base.as_mut().unwrap().priority = 1;
        assert!(passage(vec![later, marks()]).passed.is_empty(), "the order is known");
        let same = passage(vec![drops(), other()]);
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
        let passage = |tables: Vec<Table>| {
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
        assert!(passage(vec![drop("edge", "eth0")]).passed.is_empty());
        assert!(passage(vec![drop("edge", "eth*")]).passed.is_empty(), "by the start of the name");
        let input = || filter("filter", vec![Rule { steps: vec![Step::Verdict(Verdict::Drop)], ..Rule::default() }]);
        let accept = || at("edge", "eth0", vec![Step::Verdict(Verdict::Accept)]);
        assert!(passage(vec![accept(), input()]).passed.is_empty(), "an accept means nothing later");
        assert!(!passage(vec![drop("edge", "eth1")]).certain().is_empty());
        let marks = || at("marks", "eth0", vec![Step::SetMark { keep: 0, set: Some(7) }]);
        let marked = || Step::When(Condition::equals(Field::Mark, 7, false));
        let drops = || at("drops", "eth0", vec![marked(), Step::Verdict(Verdict::Drop)]);
        for tables in [vec![marks(), drops()], vec![drops(), marks()]] {
            let unknown = passage(tables);
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
        let passage = evaluate(&Question {
            rules: &rules,
            way: Way { v6, protocol, port, interface, interfaces: &interfaces },
            destinations: addresses([own]),
            sources: Ranges::new([(0x0100_0000, 0x7eff_ffff)]),
            prediction: None,
            forwarding: Some(true),
        });
        assert!(!passage.passed.is_empty() && passage.certain().is_empty());
        assert_eq!(passage.doubts, ["more rules than are followed"]);
    }
}
