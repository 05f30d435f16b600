//! What system this is: distribution, kernel of the process, container, tools.

pub mod derive;
pub mod host_container;
pub mod identity;
pub mod kernel;
pub mod os_release;
pub mod tools;

use crate::subjects::context::Probe;

/// What is read of the host by itself, in no particular order.
pub const READERS: &[Probe] = &[host_container::probe, kernel::probe, tools::probe];
