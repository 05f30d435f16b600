//! Limits on open files: of services, of logins, of containers.

pub mod pam_limits;
pub mod places;
pub mod plan;
pub mod service;

use crate::subjects::context::Probe;

/// What is read of the host by itself, in no particular order.
pub const READERS: &[Probe] = &[pam_limits::probe, service::probe];
