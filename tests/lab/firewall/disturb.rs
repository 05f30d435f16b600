//! What happens to the rules of a host in its life: each manager and each engine rewrites its own, and one of them all.

use std::time::{Duration, Instant};

use super::world::{Manager, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// What nftables.service does at a restart and a reload: Debian's file begins with `flush ruleset`.
    NftablesService,
    Docker,
    UfwReload,
    FirewalldReload,
    /// The guard's own service, as systemd starts it again together with nftables.service and, where it loads a guard in
    /// iptables, with firewalld.
    GuardService,
    /// Another subnet for the cluster.
    NetworkAnew,
}

impl Disturbance {
    /// The one that takes everything along comes last.
    pub(crate) fn of(manager: Manager) -> Vec<Self> {
        let reload = match manager {
            Manager::None => None,
            Manager::Ufw => Some(Self::UfwReload),
            Manager::Firewalld => Some(Self::FirewalldReload),
        };
        [Self::Docker].into_iter().chain(reload).chain([Self::NftablesService]).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NftablesService => "nft -f /etc/nftables.conf",
            Self::Docker => "dockerd restart",
            Self::UfwReload => "ufw reload",
            Self::FirewalldReload => "firewall-cmd --reload",
            Self::GuardService => "the guard's service",
            Self::NetworkAnew => "a network made anew",
        }
    }
}

impl World {
    pub(crate) fn disturb(&mut self, disturbance: Disturbance) {
        match disturbance {
            Disturbance::NftablesService => {
                drop(self.shell("grep -q '^flush ruleset' /etc/nftables.conf; /run/lab/nft -f /etc/nftables.conf"));
            }
            Disturbance::Docker => self.engine.restart(),
            Disturbance::UfwReload => drop(self.shell("ufw reload")),
            Disturbance::FirewalldReload => drop(self.shell("firewall-cmd --reload")),
            Disturbance::GuardService => {
                let unit = "/etc/systemd/system/multi-user.target.wants/preflight-guard.service";
                let start = self.shell(&format!("sed -n s/^ExecStart=//p {unit}"));
                assert_ne!(start, "");
                drop(self.shell(&start));
            }
            Disturbance::NetworkAnew => self.make_network_anew("172.30."),
        }
        self.settle();
    }

    /// Waits until everything that is started answers to the host itself: containers come back one after the other.
    pub(crate) fn settle(&self) {
        let started = Instant::now();
        loop {
            let dead = self.not_answering();
            if dead.is_empty() {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "the host itself gets no answer: {dead:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Puts the rules of Docker and of the manager back after a flush, as services that are started again do.
    pub(crate) fn mend(&mut self) {
        match self.kind.manager {
            Manager::None => {}
            Manager::Ufw => drop(self.shell("ufw reload")),
            Manager::Firewalld => self.restart_firewalld(),
        }
        self.disturb(Disturbance::GuardService);
        self.disturb(Disturbance::Docker);
    }
}
