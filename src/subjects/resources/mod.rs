//! Memory, processors, disks, and what control groups leave of them.

pub mod cgroup;
pub mod cgroup_limits;
pub mod clocksource;
pub mod cpu;
pub mod deep;
pub mod derive;
pub mod disk;
pub mod memory;

use crate::subjects::context::Probe;

/// What is read of the host by itself, in no particular order.
pub const READERS: &[Probe] = &[clocksource::probe, cpu::probe, disk::probe, memory::probe];
