//! From hook to hook: the way from the device to the host itself, or on to another address.

use std::net::IpAddr;

use super::super::packet::{Destination, Interface, Out, Packet, Tracking};
use super::super::region::{Dimension, Ranges};
use super::super::rules::{Base, Chain, Family, Hook, Table};
use super::flow::{Flow, push_all, track};
use super::order::called;
use super::trace::Arrival;
use super::walk::Walk;

/// `NF_IP_PRI_CONNTRACK` and the places of NAT, the same for both families (`netfilter_ipv4.h`). Chains of type nat are
/// called there, whatever priority they have (`nf_nat_register_fn`).
const CONNTRACK: i32 = -200;
const NAT_DESTINATION: i32 = -100;
const NAT_SOURCE: i32 = 100;

impl<'a> Walk<'a> {
    /// Chains that are bound to the device itself, before anything else sees the packet.
    pub(super) fn ingress(&mut self, flows: Vec<Flow>) -> Vec<Flow> {
        let chains = called(self.question.rules, &self.question.way, Hook::Ingress, self.ties);
        chains.into_iter().fold(flows, |flows, (table, name, chain, base)| self.base(table, name, chain, base, flows))
    }

    pub(super) fn prerouting(&mut self, mut flows: Vec<Flow>) -> Vec<Flow> {
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

    pub(super) fn route(&mut self, flows: Vec<Flow>) {
        let loopback = Ranges::new(if self.question.way.v6 { [(1, 1)] } else { [(0x7f00_0000, 0x7fff_ffff)] });
        for flow in flows {
            match flow.packet.destination {
                Destination::Original => {
                    let (martian, region) = flow.region.split(Dimension::Destination, &loopback);
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
        self.trace.delivered |= !flow.region.is_empty();
        let flows = self.hook(Hook::Input, vec![flow]);
        self.pass(flows);
    }

    fn forward(&mut self, mut flow: Flow, address: Option<IpAddr>) {
        self.trace.forwarded |= !flow.region.is_empty();
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
            if self.trace.passed_by.is_none() {
                self.trace.passed_by = flow.by;
            }
            self.trace.passed.add(flow.region.clone());
            let Packet { destination, port, .. } = flow.packet;
            self.trace.arrived.push(Arrival {
                region: flow.region,
                destination,
                port,
                rewritten_by: flow.rewritten_by,
            });
        }
    }
}
