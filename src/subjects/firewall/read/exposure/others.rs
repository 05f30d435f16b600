//! Other published ports that lead to the workload.

use std::collections::BTreeSet;

use super::verdict::{Judged, worst};
use crate::catalog::parameters::Port;
use crate::facts::{Fact, State, Value};
use crate::subjects::context::Context;
use crate::subjects::docker::containers::Container;

/// Another way to a port of the workload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Other {
    pub(crate) port: Port,
    container: String,
    inside: u16,
}

/// The same in words, with what becomes of strangers over IPv4 and IPv6.
#[derive(Debug)]
pub(crate) struct JudgedWay {
    pub(crate) words: String,
    pub(crate) judged: [Judged; 2],
}

impl Other {
    pub(super) fn way(&self, asked: &dyn Fn(&Port) -> [Judged; 2]) -> JudgedWay {
        let name = self.port.protocol.name();
        let words = format!("{name}/{} of {}, to {name}/{}", self.port.port, self.container, self.inside);
        JudgedWay { words, judged: asked(&self.port) }
    }
}

/// Published ports that are none of the profile's and lead to a container's port that one of these leads to too, or that is
/// the workload's by its number.
pub(super) fn others(cx: &Context<'_>, containers: &[Container]) -> Vec<Other> {
    let images = cx.parameters.list("workload_images");
    let is_known = |port, protocol| cx.parameters.ports().any(|it| (it.port, it.protocol) == (port, protocol));
    let mut found: Vec<Other> = Vec::new();
    for container in containers {
        let behind: BTreeSet<_> = container
            .published
            .iter()
            .filter(|it| is_known(it.port, it.protocol))
            .map(|it| (it.protocol, it.inside))
            .collect();
        let is_workload = container.is_workload(images);
        for it in container.published.iter().filter(|it| !is_known(it.port, it.protocol)) {
            let leads_there =
                behind.contains(&(it.protocol, it.inside)) || (is_workload && is_known(it.inside, it.protocol));
            let port = Port { name: "other".into(), port: it.port, protocol: it.protocol, publish: true };
            let other = Other { port, container: container.name.clone(), inside: it.inside };
            // Once for each address.
            if leads_there && !found.contains(&other) {
                found.push(other);
            }
        }
    }
    found
}

/// Those of them that strangers get through to.
pub(super) fn open_beside(ways: Vec<JudgedWay>, source: &str) -> Fact {
    let (mut open, mut unknown, mut kept) = (BTreeSet::new(), None, Vec::new());
    for JudgedWay { words, judged } in ways {
        let fact = worst(["IPv4", "IPv6"].into_iter().zip(judged), source);
        match &fact.state {
            State::Known(Value::Text(word)) if word == "open" => {
                open.insert(format!("{words}: {}", fact.note.unwrap_or_default()));
            }
            State::Unknown { error, .. } => {
                unknown.get_or_insert(format!("{words}: {error}"));
            }
            _ => kept.push(words),
        }
    }
    match unknown {
        Some(why) if open.is_empty() => Fact::unknown(why, Some("look at the rules that are named"), source),
        _ if open.is_empty() && !kept.is_empty() => {
            Fact::known(Value::Set(open), source).note(format!("strangers do not get through to {}", kept.join("; ")))
        }
        _ => Fact::known(Value::Set(open), source),
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::PortVerdict;
    use super::*;
    use crate::catalog::parameters::{Protocol, Setting};
    use crate::host::Host;
    use crate::subjects::firewall::read::kernel::SOURCE;

    /// Seen failing with every published port of a container taken.
    #[test]
    fn a_second_way_to_the_workload_is_named() {
        use crate::subjects::docker::containers::Published;
        let published = |port, inside| Published { address: None, port, protocol: Protocol::Tcp, inside };
        let container = |name: &str, image: &str, published: &[Published]| Container {
            name: name.into(),
            image: image.into(),
            published: published.to_vec(),
            ..Container::default()
        };
        let root = tempfile::tempdir().unwrap();
        let host = Host::at_root(root.path());
        let want = crate::subjects::context::Want::new(std::iter::empty());
        let mut parameters = crate::catalog::parameters::Parameters::default();
        let port = |port| Port { name: "redis".into(), port, protocol: Protocol::Tcp, publish: true };
        parameters.insert("ports", Setting::Ports(vec![port(6379), port(6380)]));
        parameters.insert("workload_images", Setting::List(vec!["redis".into()]));
        let os = crate::catalog::library::os_profile("debian", &[]);
        let cx = Context::new(&host, &want, &parameters, os);
        let found = others(
            &cx,
            &[
                container("one", "redis:7", &[published(6379, 6379), published(7379, 6379), published(7379, 6379)]),
                container("two", "redis:7", &[published(6380, 7000), published(7380, 7000), published(8080, 80)]),
                container("three", "mine:1", &[published(16379, 6379)]),
                container("four", "redis:7", &[published(16380, 6379)]),
            ],
        );
        let found: Vec<_> = found.iter().map(|it| (it.port.port, &*it.container, it.inside)).collect();
        assert_eq!(found, [(7379, "one", 6379), (7380, "two", 7000), (16380, "four", 6379)]);
    }

    /// What is not known is no pass. Seen failing with the unknown left out.
    #[test]
    fn a_second_way_counts_when_strangers_get_through() {
        let other = |port| Other {
            port: Port { name: "other".into(), port, protocol: Protocol::Tcp, publish: true },
            container: "one".into(),
            inside: 6379,
        };
        let asked = |port: &Port| {
            let verdict = match port.port {
                1 => PortVerdict::Open("from everybody".into()),
                2 => PortVerdict::Unknown("it depends".into()),
                _ => PortVerdict::Kept { allowed: true, by: "a rule".into() },
            };
            [Some((verdict, false)), None]
        };
        let say =
            |ports: &[u16]| open_beside(ports.iter().map(|port| other(*port).way(&asked)).collect(), SOURCE).state;
        let set = |words: &[&str]| State::Known(Value::Set(words.iter().map(|word| (*word).to_owned()).collect()));
        let open = "tcp/1 of one, to tcp/6379: IPv4 open: from everybody";
        assert_eq!(say(&[]), set(&[]));
        assert_eq!(say(&[3]), set(&[]));
        assert_eq!(say(&[1, 2, 3]), set(&[open]));
        assert!(matches!(say(&[2, 3]), State::Unknown { error, .. } if error.contains("tcp/2 of one")));
    }
}
