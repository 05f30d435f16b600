//! The guard of the workload's ports: the table in the kernel now, and what loads it at boot.

use super::{Planner, kind};
use crate::apply::knob::service;
use crate::facts::derived::firewall_guard;
use crate::facts::network::{DOCKER_NETWORKS, Network};
use crate::facts::{Layer, State, Value};
use crate::firewall::boot::{self, Origin};
use crate::firewall::intent::Intent;
use crate::judge::wish::{Standing, Wish};
use crate::plan::model::{Change, Kind};

/// The overrides of consent.
pub const ALLOW_SSHD: &str = "firewall.sshd-port";
pub const ALLOW_PEERS: &str = "firewall.cut-peers";

/// The knob.
const TARGET: &str = "guard:nft";

impl Planner<'_> {
    pub(super) fn firewall_guard(&mut self, wish: &Wish) {
        let guard = match firewall_guard::wanted(self.ground.facts, self.ground.parameters) {
            Ok(guard) => guard,
            Err(why) => {
                let text = "preflight tune --only 'firewall.*'   # once that is mended";
                return self.manual(wish, &why, text.to_owned());
            }
        };
        if matches!(&wish.live, Standing::Accepted(Value::Text(word)) if word == "not needed") {
            return;
        }
        let text = guard.text();
        if self.ground.is_live {
            self.guard_live(wish, &guard.intent, &text);
        }
        self.guard_boot(wish, text);
        self.pin_networks(wish, &guard.intent);
        if let Some(reason) = firewall_guard::uncovered(self.ground.facts) {
            let text =
                "put these containers on a bridge network, or keep strangers from them where their network begins";
            self.manual(wish, &reason, text.to_owned());
        }
    }

    fn guard_live(&mut self, wish: &Wish, intent: &Intent, text: &str) {
        let before = match self.ground.facts.get("firewall.guard", Layer::Live).map(|fact| &fact.state) {
            Some(State::Known(Value::Text(found))) if found == text => return,
            Some(State::Known(Value::Text(found))) if found == "none" => None,
            Some(State::Known(Value::Text(found))) => Some(found.clone()),
            Some(State::Unknown { error, .. }) => {
                let reason = format!("the rules of the kernel cannot be read: {error}");
                return self.manual(wish, &reason, "preflight tune --only 'firewall.*'   # as root".to_owned());
            }
            _ => None,
        };
        if let Some(container) = self.inside_container() {
            let reason = format!("this runs inside a container ({container}); the firewall is the host's");
            return self.manual(wish, &reason, "preflight tune --apply --only 'firewall.*'   # on the host".to_owned());
        }
        self.guard_conflicts(intent);
        let undo = match before {
            Some(_) => "load the old table again: `nft -f`",
            None => "nft delete table inet preflight",
        };
        self.live.push(Change {
            id: wish.finding.id.clone(),
            layer: Layer::Live,
            target: TARGET.to_owned(),
            before,
            after: text.to_owned(),
            kind: kind(wish),
            undo: undo.to_owned(),
            restarts: Vec::new(),
            connectivity_risk: true,
        });
    }

    /// Whom the guard would shut out that is inside now.
    fn guard_conflicts(&mut self, intent: &Intent) {
        let connected = (self.ground.connected)(intent);
        match connected.sshd {
            Ok(ports) if ports.is_empty() => {}
            Ok(ports) => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                let reason = format!(
                    "sshd listens on {}: the guard would keep out whom `allow` does not name",
                    ports.join(", ")
                );
                self.conflict(ALLOW_SSHD, TARGET, &reason);
            }
            Err(why) => {
                let reason = format!("whether sshd listens on a guarded port cannot be told: {why}");
                self.conflict(ALLOW_SSHD, TARGET, &reason);
            }
        }
        match connected.peers {
            Ok(peers) if peers.is_empty() => {}
            Ok(peers) => {
                const SHOWN: usize = 20;
                let mut words: Vec<&str> = peers.iter().take(SHOWN).map(String::as_str).collect();
                let more = format!("{} more", peers.len().saturating_sub(SHOWN));
                words.extend((peers.len() > SHOWN).then_some(more.as_str()));
                let reason = format!(
                    "connected now, and not in `allow`: {}; what is open stays open, and cannot be opened anew",
                    words.join(", ")
                );
                self.conflict(ALLOW_PEERS, TARGET, &reason);
            }
            Err(why) => self.conflict(ALLOW_PEERS, TARGET, &format!("who is connected now cannot be told: {why}")),
        }
    }

    fn guard_boot(&mut self, wish: &Wish, text: String) {
        let (script, script_text, link) = if self.is_openrc() {
            (boot::OPENRC, boot::OPENRC_TEXT, boot::OPENRC_LINK)
        } else {
            (boot::UNIT, boot::UNIT_TEXT, boot::UNIT_LINK)
        };
        let file = boot::file_text(&text, &self.origin());
        for (path, after) in [(boot::FILE, file.as_str()), (script, script_text)] {
            if self.ground.existing.text(path) != Some(after) {
                let change = self.file(path, after.to_owned(), vec![(wish.finding.id.clone(), kind(wish))]);
                self.live.push(change);
            }
        }
        // Read through the link: what stands there is the service itself.
        if self.ground.existing.text(link) != Some(script_text) {
            self.live.push(enabling(link, script, wish.finding.id.clone(), kind(wish)));
        }
        if self.ground.is_live && (self.ground.guard_service)() == Some(false) {
            self.live.push(Change {
                target: boot::SERVICE.to_owned(),
                after: service::STARTED.to_owned(),
                undo: format!("systemctl stop {}", boot::NAME),
                ..enabling(link, script, wish.finding.id.clone(), kind(wish))
            });
        }
    }

    /// What the guard is made of, for `verify` to look at again.
    fn origin(&self) -> Origin {
        let allow = self.ground.parameters.list("allow").to_vec();
        let names_docker = allow.iter().any(|word| word == DOCKER_NETWORKS);
        let networks = firewall_guard::networks(self.ground.facts).ok().filter(|_| names_docker);
        Origin { allow, networks: networks.unwrap_or_default() }
    }

    /// The networks that Docker chose itself may be others when they are made anew; then the guard shuts the cluster out.
    fn pin_networks(&mut self, wish: &Wish, intent: &Intent) {
        let Some(Value::Set(chosen)) = self.ground.facts.value("docker.networks-auto") else { return };
        let names_docker = self.ground.parameters.list("allow").iter().any(|word| word == DOCKER_NETWORKS);
        let pinned: Vec<&String> = chosen
            .iter()
            .filter(|word| word.parse::<Network>().is_ok_and(|network| intent.allows(network.address())))
            .collect();
        if names_docker && !pinned.is_empty() {
            let words = pinned.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(", ");
            let reason = format!(
                "Docker chose {words} itself: a network that is made anew may get another, and is then shut out until the next `tune --apply`"
            );
            let text = format!("networks:\n  default:\n    ipam:\n      config:\n        - subnet: {}", pinned[0]);
            self.manual(wish, &reason, text);
        }
    }
}

/// A link by which an init system finds what it is to start.
fn enabling(path: &str, leads_to: &str, id: String, kind: Kind) -> Change {
    Change {
        id,
        layer: Layer::Boot,
        target: format!("link:{path}"),
        before: None,
        after: leads_to.to_owned(),
        kind,
        undo: "remove the link".to_owned(),
        restarts: Vec::new(),
        connectivity_risk: false,
    }
}
