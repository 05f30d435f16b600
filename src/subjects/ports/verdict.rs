//! From what was seen of one port to its fact. Pure: nothing here asks the host.

use std::net::{IpAddr, SocketAddr};

use crate::facts::{Fact, Value};

/// How one address of a port stands, from harmless to worst; the worst address decides the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The family does not exist on this host: nothing to hold, nothing to bind.
    Skipped,
    Free,
    /// Held by the workload itself; the text says by what.
    Ours(String),
    /// It is held; whether by the workload could not be seen.
    Held {
        what: String,
        help: Option<&'static str>,
    },
    /// Whether it is held could not be seen.
    Unknown {
        what: String,
        help: Option<&'static str>,
    },
    /// No interface has this address.
    NotOurs,
    /// Held by somebody else; the text says by whom.
    Taken(String),
}

/// How an address of a port stands; where another address is what holds it, that one is named.
pub type Address = (IpAddr, Standing);

impl Standing {
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Skipped => 0,
            Self::Free => 1,
            Self::Ours(_) => 2,
            Self::Held { .. } | Self::Unknown { .. } => 3,
            Self::NotOurs => 4,
            Self::Taken(_) => 5,
        }
    }

    fn in_use(&self) -> bool {
        matches!(self, Self::Ours(_) | Self::Held { .. } | Self::Taken(_))
    }
}

/// Whether anybody at all holds the port on any address; the note says who.
pub fn in_use(port: u16, standings: &[Address], source: &str) -> Fact {
    let held: Vec<&Address> = standings.iter().filter(|(_, standing)| standing.in_use()).collect();
    if !held.is_empty() {
        return Fact::known(Value::Bool(true), source).note(told(&held, port).join("; "));
    }
    let unseen = standings.iter().find_map(|(_, standing)| match standing {
        Standing::Unknown { what, help } => Some(Fact::unknown(what, *help, source)),
        _ => None,
    });
    unseen.unwrap_or_else(|| Fact::known(Value::Bool(false), source))
}

/// The fact of one port. `standings` holds each address with how it stands.
pub fn fact(port: u16, standings: &[Address], source: &str) -> Fact {
    let Some(worst) = standings.iter().map(|(_, standing)| standing.rank()).max() else {
        return Fact::unknown("no address to publish on", Some("set `publish_address`"), source);
    };
    let deciding: Vec<&Address> = standings.iter().filter(|(_, standing)| standing.rank() == worst).collect();
    let addresses = |of: &[&Address]| endpoints(of, port);
    let skipped: Vec<&Address> = standings.iter().filter(|(_, standing)| *standing == Standing::Skipped).collect();
    let mut notes: Vec<String> = Vec::new();
    let known = |word: &str| Fact::known(Value::Text(word.into()), source);
    let fact = match &deciding[0].1 {
        Standing::Skipped => return Fact::absent("this host has no IPv6, and no other address was asked for", source),
        Standing::Free => known("free"),
        Standing::NotOurs => {
            notes.push(format!("no interface of this host has the address of {}", addresses(&deciding)));
            known("not-our-address")
        }
        Standing::Ours(_) => {
            notes.extend(told(&deciding, port));
            known("ours")
        }
        Standing::Taken(_) => {
            notes.extend(told(&deciding, port));
            known("taken")
        }
        Standing::Held { help, .. } | Standing::Unknown { help, .. } => {
            Fact::unknown(told(&deciding, port).join("; "), *help, source)
        }
    };
    if !skipped.is_empty() {
        notes.push(format!("{} was not asked: this host has no IPv6", addresses(&skipped)));
    }
    if notes.is_empty() { fact } else { fact.note(notes.join("; ")) }
}

/// One text per holder, with every address it holds: `held by nginx (pid 812) on 0.0.0.0:80 and [::]:80`.
fn told(deciding: &[&Address], port: u16) -> Vec<String> {
    let mut texts: Vec<(&str, Vec<&Address>)> = Vec::new();
    for entry in deciding {
        let (Standing::Ours(text)
        | Standing::Taken(text)
        | Standing::Held { what: text, .. }
        | Standing::Unknown { what: text, .. }) = &entry.1
        else {
            continue;
        };
        match texts.iter_mut().find(|(known, _)| known == text) {
            Some((_, entries)) => entries.push(entry),
            None => texts.push((text, vec![entry])),
        }
    }
    texts.into_iter().map(|(text, entries)| format!("{text} on {}", endpoints(&entries, port))).collect()
}

/// `0.0.0.0:6379 and [::]:6379`.
fn endpoints(of: &[&Address], port: u16) -> String {
    let mut shown: Vec<String> = Vec::new();
    for (address, _) in of {
        let endpoint = SocketAddr::new(*address, port).to_string();
        // A socket of both families is in the way of either.
        if !shown.contains(&endpoint) {
            shown.push(endpoint);
        }
    }
    shown.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::State;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

    fn word(fact: &Fact) -> &str {
        match &fact.state {
            State::Known(Value::Text(text)) => text,
            State::Absent(_) => "absent",
            _ => "unknown",
        }
    }

    fn of(v4: Standing, v6: Standing) -> Fact {
        fact(6379, &[(V4, v4), (V6, v6)], "test")
    }

    #[test]
    fn the_worst_address_decides() {
        let ours = || Standing::Ours("held by redis".into());
        let taken = || Standing::Taken("held by nginx".into());
        let held = || Standing::Held { what: "in use".into(), help: None };
        let unknown = || Standing::Unknown { what: "not permitted to ask".into(), help: None };
        for (v4, v6, want) in [
            (Standing::Free, Standing::Free, "free"),
            (Standing::Free, Standing::Skipped, "free"),
            (Standing::Skipped, Standing::Skipped, "absent"),
            (Standing::Free, ours(), "ours"),
            (ours(), unknown(), "unknown"),
            (ours(), held(), "unknown"),
            (unknown(), Standing::NotOurs, "not-our-address"),
            (ours(), taken(), "taken"),
            (taken(), unknown(), "taken"),
            (Standing::NotOurs, taken(), "taken"),
        ] {
            assert_eq!(word(&of(v4.clone(), v6.clone())), want, "{v4:?} {v6:?}");
            assert_eq!(word(&of(v6, v4)), want);
        }
    }

    #[test]
    fn a_port_is_in_use_when_one_address_is_whoever_holds_it() {
        let of = |v4: Standing, v6: Standing| in_use(6379, &[(V4, v4), (V6, v6)], "test");
        let unknown = || Standing::Unknown { what: "not permitted to ask".into(), help: None };
        for held in [
            Standing::Ours("held by redis".into()),
            Standing::Taken("held by nginx".into()),
            Standing::Held { what: "held by somebody".into(), help: None },
        ] {
            let fact = of(unknown(), held);
            assert_eq!(fact.value(), Some(&Value::Bool(true)));
            assert!(fact.note.unwrap().ends_with(" on [::]:6379"));
        }
        for free in [Standing::Free, Standing::Skipped, Standing::NotOurs] {
            assert_eq!(of(Standing::Free, free.clone()).value(), Some(&Value::Bool(false)));
            assert_eq!(word(&of(free, unknown())), "unknown");
        }
    }

    #[test]
    fn one_holder_is_named_once_with_both_addresses() {
        let text = || "held by nginx (pid 8)".to_owned();
        let fact = of(Standing::Taken(text()), Standing::Taken(text()));
        assert_eq!(fact.note.as_deref(), Some("held by nginx (pid 8) on 0.0.0.0:6379 and [::]:6379"));
        let fact = of(Standing::Taken(text()), Standing::Taken("held by haproxy (pid 9)".into()));
        assert_eq!(
            fact.note.as_deref(),
            Some("held by nginx (pid 8) on 0.0.0.0:6379; held by haproxy (pid 9) on [::]:6379")
        );
    }

    #[test]
    fn a_family_that_was_not_asked_is_said() {
        let fact = of(Standing::Free, Standing::Skipped);
        assert_eq!(fact.note.as_deref(), Some("[::]:6379 was not asked: this host has no IPv6"));
        assert_eq!(of(Standing::Free, Standing::Free).note, None);
    }
}
