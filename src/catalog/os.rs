//! OS profiles: how one OS family does things. Data only; matched by os-release ID, then ID_LIKE.

use std::collections::BTreeMap;

use crate::facts::Version;

/// What applies sysctl files at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SysctlLoader {
    /// `systemd-sysctl.service`: does not read /etc/sysctl.conf by itself.
    Systemd,
    /// `sysctl --system` of procps, as OpenRC runs it: reads /etc/sysctl.conf last.
    Procps,
}

/// A release with its end of life.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    pub version: Version,
    /// The last day of free support, `YYYY-MM-DD`.
    pub end_of_life: String,
}

/// How one OS family does things.
#[derive(Debug, Clone, PartialEq)]
pub struct OsProfile {
    /// The profile's name, its file's stem: `debian`.
    pub name: String,
    /// os-release IDs it answers for.
    pub ids: Vec<String>,
    /// The oldest supported release; `None` on rolling distributions.
    pub oldest: Option<Version>,
    pub releases: Vec<Release>,
    pub sysctl_loader: SysctlLoader,
    /// Exact commands by recipe name: `docker-start`, `install-git`.
    pub remedies: BTreeMap<String, Vec<String>>,
}
