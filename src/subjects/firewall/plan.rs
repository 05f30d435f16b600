//! What is planned for the firewall: the guard, and entries of ufw and firewalld.

use super::model::intent::Intent;
use super::read::peers::Connected;
use crate::apply::recovery;
use crate::change::planner::Planner;
use crate::judge::wish::Wish;

/// The overrides of consent.
pub const ALLOW_SSHD: &str = "firewall.sshd-port";
pub const ALLOW_PEERS: &str = "firewall.cut-peers";

/// What a plan for the firewall asks the host, once it needs it.
pub struct Asked<'a> {
    /// Asked when a change outlives a power cut by itself: whether it would be taken back at the next boot.
    pub recovery: &'a dyn Fn() -> recovery::Standing,
    /// Asked when the guard is to close ports: whom it would shut out.
    pub connected: &'a dyn Fn(&Intent) -> Connected,
    /// Asked when the guard is to be loaded at boot: whether its service is started; `None` without a systemd that runs.
    pub guard_service: &'a dyn Fn() -> Option<bool>,
}

impl std::fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
}

/// The facts that are tuned here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunable {
    Guard,
    Entries,
}

impl Tunable {
    /// `None` for a fact of another subject.
    pub fn of(fact: &str) -> Option<Self> {
        match fact {
            "derived.firewall.guard" => Some(Self::Guard),
            "derived.firewall.entries" => Some(Self::Entries),
            _ => None,
        }
    }

    pub fn plan(self, planner: &mut Planner<'_>, wish: &Wish, asked: &Asked<'_>) {
        match self {
            Self::Guard => planner.firewall_guard(wish, asked),
            Self::Entries => planner.firewall_entries(wish, asked),
        }
    }
}
