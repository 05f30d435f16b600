//! The firewall: who reaches the ports of the workload, and how that is kept so.

pub mod derive_entries;
pub mod derive_guard;
pub mod drift;
pub mod knob;
pub mod model;
pub mod places;
pub mod plan;
pub mod plan_firewall;
pub mod plan_firewall_managers;
pub mod read;
pub mod script;

use crate::subjects::context::Probe;

/// What is read of the host by itself, in no particular order.
pub const READERS: &[Probe] = &[read::manager::probe, read::programs::probe];
