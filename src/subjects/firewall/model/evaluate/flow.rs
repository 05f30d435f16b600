//! Packets that fared alike so far, on their way.

use super::super::packet::{Destination, Packet, Tracking};
use super::super::region::Region;
use super::super::rules::Target;

#[derive(Debug, Clone)]
pub(super) struct Flow {
    pub(super) packet: Packet,
    pub(super) region: Region,
    /// The last rule that said accept.
    pub(super) by: Option<String>,
    /// The rule that rewrote the destination.
    pub(super) rewritten_by: Option<String>,
}

/// What a chain, or one rule, leaves.
#[derive(Debug, Default)]
pub(super) struct ChainResult {
    pub(super) accepted: Vec<Flow>,
    /// On with the next rule; of a chain: its end.
    pub(super) next: Vec<Flow>,
    /// Back to the caller.
    pub(super) returned: Vec<Flow>,
}

pub(super) fn push(flows: &mut Vec<Flow>, flow: Flow) {
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

pub(super) fn push_all(flows: &mut Vec<Flow>, more: Vec<Flow>) {
    for flow in more {
        push(flows, flow);
    }
}

pub(super) fn track(flows: &mut [Flow]) {
    for flow in flows {
        if flow.packet.tracking == Tracking::Before {
            flow.packet.tracking = Tracking::New;
        }
    }
}

pub(super) fn rewrite(packet: &mut Packet, to: Target, port: Option<u16>, v6: bool) {
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
