//! Probes: the code that gathers facts, one file per source. Nothing else reads the host.
//!
//! A probe is asked for the facts it [wants](Want), never for more: a fact that no selected check uses costs nothing.
//! It never fails; what it cannot read it inserts as unknown.

pub mod cgroup;
pub mod cgroup_limits;
pub mod clocksource;
pub mod conf_dirs;
pub mod conntrack;
pub mod containers;
pub mod cpu;
pub mod deep;
pub mod disk;
pub mod docker;
pub mod docker_boot;
pub mod firewall;
pub mod gather;
pub mod host_container;
pub mod identity;
pub mod kernel;
pub mod main_process;
pub mod memory;
pub mod mounts;
pub mod os_release;
pub mod pam_limits;
pub mod port;
pub mod process_limits;
pub mod service;
pub mod sysctl;
pub mod thp;
pub mod time;
pub mod tmpfiles;
pub mod tools;
pub mod tuned;
pub mod tuned_profile;
pub mod units;

use std::cell::OnceCell;
use std::collections::BTreeSet;

use self::mounts::Mount;
use self::tuned::Tuned;
use crate::catalog::os::OsProfile;
use crate::catalog::parameters::Parameters;
use crate::facts::Facts;
use crate::host::{Host, ReadError};

/// The ids that the selected checks need.
#[derive(Debug, Clone, Default)]
pub struct Want(BTreeSet<String>);

impl Want {
    pub fn new(ids: impl IntoIterator<Item = String>) -> Self {
        Self(ids.into_iter().collect())
    }

    pub fn has(&self, id: &str) -> bool {
        self.0.contains(id)
    }

    /// The wanted ids of a family, without the prefix: `Want::family("sysctl.")`.
    pub fn family<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.range(prefix.to_owned()..).map_while(move |id| id.strip_prefix(prefix))
    }

    pub fn any(&self, prefix: &str) -> bool {
        self.family(prefix).next().is_some()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// What every probe is given.
#[derive(Debug)]
pub struct Context<'a> {
    pub host: &'a Host,
    pub want: &'a Want,
    pub parameters: &'a Parameters,
    pub os: &'a OsProfile,
    // What several probes look at, read when the first one asks: each run has a context of its own.
    mounts: OnceCell<Result<Vec<Mount>, ReadError>>,
    tuned: OnceCell<Result<Option<Tuned>, ReadError>>,
}

impl<'a> Context<'a> {
    pub fn new(host: &'a Host, want: &'a Want, parameters: &'a Parameters, os: &'a OsProfile) -> Self {
        Self { host, want, parameters, os, mounts: OnceCell::new(), tuned: OnceCell::new() }
    }

    /// The mount table of this process; empty without /proc.
    pub fn mounts(&self) -> Result<&[Mount], ReadError> {
        match self.mounts.get_or_init(|| mounts::read(self.host)) {
            Ok(mounts) => Ok(mounts),
            Err(error) => Err(error.clone()),
        }
    }

    /// What tuned does at boot; `None` when it is not there or does not start.
    pub fn tuned(&self) -> Result<Option<&Tuned>, ReadError> {
        match self.tuned.get_or_init(|| tuned::load(self.host)) {
            Ok(tuned) => Ok(tuned.as_ref()),
            Err(error) => Err(error.clone()),
        }
    }
}

/// A probe: inserts the wanted facts of its family.
pub type Probe = fn(&Context<'_>, &mut Facts);
