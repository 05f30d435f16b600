//! Kernel settings: sysctl, huge pages, what tuned makes of them, and what the next boot brings.

pub mod conntrack;
pub mod knob_sysctl;
pub mod knob_thp;
pub mod places;
pub mod plan;
pub mod plan_tuned;
pub mod script;
pub mod shared;
pub mod sysctl;
pub mod thp;
pub mod tmpfiles;
pub mod tuned;
pub mod tuned_profile;

use crate::subjects::context::Probe;

/// What is read of the host by itself, in no particular order.
pub const READERS: &[Probe] = &[conntrack::probe, sysctl::probe, thp::probe];
