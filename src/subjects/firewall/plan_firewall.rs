//! The guard of the workload's ports: the table in the kernel now, and what loads it at boot.

use super::plan::{ALLOW_PEERS, ALLOW_SSHD, Asked};
use crate::change::planner::{Planner, kind};
use crate::change::target::Target;
use crate::change::{Change, Kind};
use crate::facts::network::{DOCKER_NETWORKS, Network};
use crate::facts::{Layer, State, Value};
use crate::judge::wish::{Standing, Wish};
use crate::subjects::firewall::derive_guard as firewall_guard;
use crate::subjects::firewall::knob::service;
use crate::subjects::firewall::model::boot;
use crate::subjects::firewall::model::boot::Origin;
use crate::subjects::firewall::model::guard::Guard;
use crate::subjects::firewall::model::intent::Intent;
use crate::subjects::firewall::model::writer::Writer;

impl Planner<'_> {
    pub(crate) fn firewall_guard(&mut self, wish: &Wish, asked: &Asked<'_>) {
        let guard = match firewall_guard::wanted(self.context.facts, self.context.parameters) {
            Ok(guard) => guard,
            Err(why) => {
                let text = "preflight tune --only 'firewall.*'   # once that is fixed";
                return self.manual(wish, &why, text.to_owned());
            }
        };
        if matches!(&wish.live, Standing::Accepted(Value::Text(word)) if word == "not needed") {
            return;
        }
        let writer = match self.writer() {
            Ok(writer) => writer,
            Err((why, text)) => return self.manual(wish, &why, text),
        };
        // What nobody could look at now is not loaded by the next boot either.
        if !self.context.is_live || self.guard_live(wish, asked, &guard, writer) {
            self.guard_boot(wish, asked, &guard, writer);
        }
        self.pin_networks(wish, &guard.intent);
        if let Some(reason) = firewall_guard::uncovered(self.context.facts) {
            let text =
                "put these containers on a bridge network, or keep strangers from them where their network begins";
            self.manual(wish, &reason, text.to_owned());
        }
    }

    /// What the guard is written with: the one that did it already, so that there are never two; else nft, and where that
    /// is missing, what the host's `iptables` stands for. An error has the words of a step that stays with a person.
    fn writer(&self) -> Result<Writer, (String, String)> {
        let again = |first: &str| format!("{first}\npreflight tune --apply --only 'firewall.*'");
        let Some(programs) = self.context.facts.get("firewall.programs", Layer::Live) else { return Ok(Writer::Nft) };
        let Some(Value::Set(programs)) = programs.value() else {
            let why = "it cannot be determined whether nft or iptables is on this host".to_owned();
            return Err((why, again("# once that is fixed")));
        };
        let has = |writer: &Writer| programs.contains(writer.name());
        let guard = |layer| match self.context.facts.get("firewall.guard", layer).and_then(|fact| fact.value()) {
            Some(Value::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        if guard(Layer::Live) == Some(firewall_guard::SEVERAL) {
            let why = "there is more than one guard, and each keeps out whom it does not know".to_owned();
            let ways = Writer::ALL.map(|writer| format!("# {}", writer.removal())).join("\n");
            return Err((why, again(&format!("# take all but one away:\n{ways}"))));
        }
        if let Some(writer) = [Layer::Live, Layer::Boot].into_iter().find_map(|layer| Writer::of(guard(layer)?)) {
            let why = || format!("the guard was written with {}, and that is not on this host any more", writer.name());
            return if has(&writer) {
                Ok(writer)
            } else {
                Err((why(), again(&format!("# install {} again, then", writer.program()))))
            };
        }
        let iptables = match self.context.facts.value("firewall.iptables") {
            Some(Value::Text(name)) => Writer::named(name),
            _ => None,
        };
        [Some(Writer::Nft), iptables].into_iter().flatten().find(has).ok_or_else(|| {
            let why = "neither nft nor an iptables that is known is on this host, and the guard needs one of them";
            (why.to_owned(), again("# install nftables, then"))
        })
    }

    /// Whether the guard is there, or planned.
    fn guard_live(&mut self, wish: &Wish, asked: &Asked<'_>, guard: &Guard, writer: Writer) -> bool {
        let text = writer.text(guard);
        let fact = self.context.facts.get("firewall.guard", Layer::Live);
        let before = match fact.map(|fact| &fact.state) {
            Some(State::Known(Value::Text(found))) if *found == text => return true,
            Some(State::Known(Value::Text(found))) if found == "none" => None,
            // What is there in words, where it is none of ours.
            Some(State::Known(Value::Text(found))) if *found == writer.changed() => {
                Some(fact.and_then(|fact| fact.note.clone()).unwrap_or_else(|| found.clone()))
            }
            Some(State::Known(Value::Text(found))) => Some(found.clone()),
            Some(State::Unknown { error, .. }) => {
                let reason = format!("the rules of the kernel cannot be read: {error}");
                self.manual(wish, &reason, "preflight tune --only 'firewall.*'   # as root".to_owned());
                return false;
            }
            _ => None,
        };
        if let Some(container) = self.inside_container() {
            let reason = format!("this runs inside a container ({container}); the firewall is the host's");
            self.manual(wish, &reason, "preflight tune --apply --only 'firewall.*'   # on the host".to_owned());
            return false;
        }
        self.guard_conflicts(asked, &guard.intent, &writer.target());
        let undo = match (&before, writer) {
            (Some(_), Writer::Nft) => "load the old table again: `nft -f`".to_owned(),
            (Some(_), Writer::Iptables(variant)) => format!("load the old chains again, with {}", variant.name()),
            (None, _) => writer.removal(),
        };
        self.live.push(Change {
            id: wish.finding.id.clone(),
            layer: Layer::Live,
            target: writer.target(),
            before,
            after: text,
            kind: kind(wish),
            undo,
            restarts: Vec::new(),
            connectivity_risk: true,
        });
        true
    }

    /// Whom the guard would shut out that is inside now.
    fn guard_conflicts(&mut self, asked: &Asked<'_>, intent: &Intent, target: &str) {
        let connected = (asked.connected)(intent);
        match connected.sshd {
            Ok(ports) if ports.is_empty() => {}
            Ok(ports) => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                let reason = format!(
                    "sshd listens on {}: the guard would keep out whom `allow` does not name",
                    ports.join(", ")
                );
                self.conflict(ALLOW_SSHD, target, &reason);
            }
            Err(why) => {
                let reason = format!("whether sshd listens on a guarded port cannot be determined: {why}");
                self.conflict(ALLOW_SSHD, target, &reason);
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
                self.conflict(ALLOW_PEERS, target, &reason);
            }
            Err(why) => {
                self.conflict(ALLOW_PEERS, target, &format!("who is connected now cannot be determined: {why}"));
            }
        }
    }

    fn guard_boot(&mut self, wish: &Wish, asked: &Asked<'_>, guard: &Guard, writer: Writer) {
        let (script, script_text, links) = boot::service(writer, self.is_openrc());
        let files = boot::files(writer, guard, &self.origin()).into_iter().chain([(script, script_text.clone())]);
        for (path, after) in files {
            if self.context.existing.text(path) != Some(after.as_str()) {
                let change = self.file(path, after, vec![(wish.finding.id.clone(), kind(wish))]);
                self.live.push(change);
            }
        }
        for link in links {
            // Read through the link: what stands there is the service itself.
            if self.context.existing.text(link) != Some(script_text.as_str()) {
                self.live.push(enabling(link, script, wish.finding.id.clone(), kind(wish)));
            }
        }
        if self.context.is_live && (asked.guard_service)() == Some(false) {
            self.live.push(Change {
                target: boot::SERVICE.to_owned(),
                after: service::STARTED.to_owned(),
                undo: format!("systemctl stop {}", boot::NAME),
                ..enabling(links[0], script, wish.finding.id.clone(), kind(wish))
            });
        }
    }

    /// What the guard is made of, for `verify` to look at again.
    fn origin(&self) -> Origin {
        let allow = self.context.parameters.list("allow").to_vec();
        let names_docker = allow.iter().any(|word| word == DOCKER_NETWORKS);
        let networks = firewall_guard::networks(self.context.facts).ok().filter(|_| names_docker);
        Origin { allow, networks: networks.unwrap_or_default() }
    }

    /// The networks that Docker chose itself may be others when they are made anew; then the guard shuts the cluster out.
    fn pin_networks(&mut self, wish: &Wish, intent: &Intent) {
        let Some(Value::Set(chosen)) = self.context.facts.value("docker.networks-auto") else { return };
        let names_docker = self.context.parameters.list("allow").iter().any(|word| word == DOCKER_NETWORKS);
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
        target: Target::Link(path).to_string(),
        before: None,
        after: leads_to.to_owned(),
        kind,
        undo: "remove the link".to_owned(),
        restarts: Vec::new(),
        connectivity_risk: false,
    }
}
