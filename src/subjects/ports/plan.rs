//! The workload's ports are kept from client sockets.

use super::knob::Numbers;
use crate::change::Change;
use crate::change::planner::{Planner, kind, text};
use crate::change::target::Target;
use crate::facts::{Layer, Value};
use crate::judge::wish::{Standing, Wish};

/// The port set that keeps client sockets off the workload's ports.
const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";

/// The facts that are tuned here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunable {
    Overlap,
}

impl Tunable {
    /// `None` for a fact of another subject.
    pub fn of(fact: &str) -> Option<Self> {
        (fact == "derived.port.ephemeral-overlap").then_some(Self::Overlap)
    }

    pub fn plan(self, planner: &mut Planner<'_>, wish: &Wish) {
        match self {
            Self::Overlap => planner.reserved_ports(wish),
        }
    }
}

impl Planner<'_> {
    /// The workload's ports are added to the set that the kernel gives to nobody by itself.
    fn reserved_ports(&mut self, wish: &Wish) {
        let ports: Vec<String> = match &wish.live {
            Standing::Off(Value::Set(_)) => self.context.parameters.ports().map(|port| port.port.to_string()).collect(),
            _ => return,
        };
        let Some(ours) = Numbers::parse(&ports.join(",")) else { return };
        let id = format!("sysctl.{RESERVED}");
        let now = self.context.facts.value(&id).map(text).unwrap_or_default();
        let Some(known) = Numbers::parse(&now) else {
            let reason = format!("`{now}` is not understood as a set of ports");
            return self.manual(wish, &reason, format!("sysctl -w {RESERVED}={ours}"));
        };
        let after = known.union(&ours).to_string();
        if self.context.is_live && after != now {
            self.live.push(Change {
                id: wish.finding.id.clone(),
                layer: Layer::Live,
                target: Target::Sysctl(RESERVED).to_string(),
                undo: format!("take {ours} out of the set again"),
                before: Some(now),
                after: after.clone(),
                kind: kind(wish),
                restarts: Vec::new(),
                connectivity_risk: false,
            });
        }
        self.boot_line(wish, RESERVED, after);
    }
}
