//! The CPUs that this process may run on.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// How many CPUs the affinity of this process allows: what taskset(1), a cpuset or a unit's `CPUAffinity=` left.
/// `EINVAL` on a machine with more CPUs than the 1024 that glibc's `cpu_set_t` holds.
pub fn allowed() -> io::Result<usize> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).count())
}
