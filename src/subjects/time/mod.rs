//! The clock.

pub mod read;

use crate::subjects::context::Probe;

/// What is read of the host by itself, in no particular order.
pub const READERS: &[Probe] = &[read::probe];
