//! How a port of the workload stands to what is expected of it, and which ones the kernel may hand to any client first.

use std::ops::RangeInclusive;

use crate::catalog::parameters::{Parameters, Port};
use crate::facts::input::input;
use crate::facts::ranges;
use crate::facts::{Fact, Facts, Layer, State, Value};

const RANGE: &str = "sysctl.net.ipv4.ip_local_port_range";
const RESERVED: &str = "sysctl.net.ipv4.ip_local_reserved_ports";

/// The start of the ids: `derived.port.state.6379`.
pub(crate) const STATE: &str = "derived.port.state.";

pub(crate) fn state_inputs(instance: &str) -> [String; 2] {
    [format!("port.state.{instance}"), format!("port.in-use.{instance}")]
}

/// How the port was found, unless nothing at all may hold it: then whoever does is in the way, seen or not.
pub(crate) fn state(instance: &str, facts: &Facts, parameters: &Parameters) -> Result<Fact, Fact> {
    let [id, in_use] = state_inputs(instance);
    let Some(fact) = facts.get(&id, Layer::Live) else {
        return Err(Fact::unknown(format!("{id} was not gathered"), None, id));
    };
    if parameters.text("ports_expected") != Some("free") {
        return Ok(fact.clone());
    }
    let ours = matches!(fact.value(), Some(Value::Text(word)) if word == "ours");
    let held = facts.get(&in_use, Layer::Live).filter(|held| held.value() == Some(&Value::Bool(true)));
    let taken = |note: &str| Fact {
        state: State::Known(Value::Text("taken".into())),
        note: Some(note.to_owned()).filter(|note| !note.is_empty()),
        ..fact.clone()
    };
    Ok(match held {
        _ if ours => {
            let note = fact.note.as_deref().map(|note| format!("{note}; ")).unwrap_or_default();
            taken(&format!("{note}the workload itself holds it, but `ports_expected` says that nothing may"))
        }
        Some(held) if fact.value().is_none() => taken(held.note.as_deref().unwrap_or_default()),
        _ => fact.clone(),
    })
}

/// The host's values count whatever the topology: published ports are bound in the host's network namespace.
pub(crate) fn ephemeral_overlap(facts: &Facts, parameters: &Parameters) -> Result<Fact, Fact> {
    let text = input(facts, RANGE)?.to_string();
    let wrong = |id: &str, text: &str| Fact::unknown(format!("{id} is `{text}`"), None, id);
    let range = port_range(&text).ok_or_else(|| wrong(RANGE, &text))?;
    let reserved = match input(facts, RESERVED) {
        // An empty list is shown in words; a list of one port is a number.
        Ok(Value::Text(text)) => ranges::parse(text).ok_or_else(|| wrong(RESERVED, text))?,
        Ok(value) => ranges::parse(&value.to_string()).ok_or_else(|| wrong(RESERVED, &value.to_string()))?,
        Err(fact) if matches!(fact.state, State::Absent(_)) => Vec::new(),
        Err(fact) => return Err(fact),
    };
    let overlap = parameters
        .ports()
        .filter(|port| {
            let number = u32::from(port.port);
            range.contains(&number) && !reserved.iter().any(|range| range.contains(&number))
        })
        .map(Port::instance)
        .collect();
    Ok(Fact::known(Value::Set(overlap), format!("{RANGE}, {RESERVED}, ports")).note(format!(
        "clients are given ports {} to {}",
        range.start(),
        range.end()
    )))
}

/// `32768 60999`, blanks folded.
fn port_range(text: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = text.split_once(' ')?;
    Some(u32::from(first.parse::<u16>().ok()?)..=u32::from(last.parse::<u16>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::parameters::{Protocol, Setting};
    use crate::facts::value::sysctl_value;
    use proptest::prelude::*;

    fn overlap(range: &str, reserved: Option<&str>, ports: &[u16]) -> Result<Fact, Fact> {
        let mut facts = Facts::default();
        facts.live(RANGE, Fact::known(sysctl_value(range), "/proc/sys"));
        let reserved = match reserved {
            Some(text) => Fact::known(sysctl_value(text), "/proc/sys"),
            None => Fact::absent("not on this kernel", "/proc/sys"),
        };
        facts.live(RESERVED, reserved);
        let ports = ports
            .iter()
            .map(|port| Port { name: "redis".into(), port: *port, protocol: Protocol::Tcp, publish: true })
            .collect();
        let mut parameters = Parameters::default();
        parameters.insert("ports", Setting::Ports(ports));
        ephemeral_overlap(&facts, &parameters)
    }

    fn state_of(found: Fact, in_use: Option<bool>, expected: &str) -> Fact {
        let mut facts = Facts::default();
        facts.live("port.state.1", found);
        if let Some(in_use) = in_use {
            facts.live("port.in-use.1", Fact::known(Value::Bool(in_use), "bind(2)").note("held by somebody on [::]:1"));
        }
        let mut parameters = Parameters::default();
        parameters.insert("ports_expected", Setting::One(Value::Text(expected.into())));
        state("1", &facts, &parameters).unwrap()
    }

    #[test]
    fn what_holds_a_port_is_in_the_way_only_when_it_is_expected_to_be_free() {
        let known = |word: &str| Fact::known(Value::Text(word.into()), "bind(2)");
        let unknown = || Fact::unknown("held by a process that is not visible", Some("run as root"), "bind(2)");
        for (state, in_use, when_ours_may, when_free) in [
            (known("free"), Some(false), "free", "free"),
            (known("ours"), Some(true), "ours", "taken"),
            (known("taken"), Some(true), "taken", "taken"),
            (known("not-our-address"), Some(false), "not-our-address", "not-our-address"),
            (unknown(), Some(true), "unknown", "taken"),
            (unknown(), Some(false), "unknown", "unknown"),
            // A snapshot of a version that did not have the second fact.
            (unknown(), None, "unknown", "unknown"),
            (known("ours"), None, "ours", "taken"),
        ] {
            let word = |fact: &Fact| fact.value().map_or("unknown".to_owned(), ToString::to_string);
            assert_eq!(word(&state_of(state.clone(), in_use, "free_or_ours")), when_ours_may, "{state:?} {in_use:?}");
            assert_eq!(word(&state_of(state.clone(), in_use, "free")), when_free, "{state:?} {in_use:?}");
        }
        let hidden = state_of(unknown(), Some(true), "free");
        assert_eq!(hidden.note.as_deref(), Some("held by somebody on [::]:1"));
        let absent = state_of(Fact::not_running("bind(2)"), None, "free");
        assert!(matches!(absent.state, State::Absent(_)));
    }

    #[test]
    fn a_port_in_the_range_overlaps_unless_it_is_reserved() {
        let ports = [6379, 26379, 26380, 26381];
        for (range, reserved, expected) in [
            ("32768\t60999\n", Some("\n"), "none"),
            ("9000\t65499\n", Some("\n"), "26379, 26380, 26381"),
            ("9000\t65499\n", None, "26379, 26380, 26381"),
            ("9000 65499", Some("26379-26380\n"), "26381"),
            ("9000 65499", Some("26380\n"), "26379, 26381"),
            ("26381 26381", Some(""), "26381"),
            ("1024 6379", Some("1-6378"), "6379"),
        ] {
            let fact = overlap(range, reserved, &ports).unwrap();
            assert_eq!(fact.value().unwrap().to_string(), expected, "{range:?} {reserved:?}");
        }
    }

    #[test]
    fn text_that_is_no_range_is_unknown() {
        for (range, reserved) in [("many", ""), ("1 2 3", ""), ("5", ""), ("1 2", "some"), ("-1 2", "")] {
            assert!(overlap(range, Some(reserved), &[1]).is_err(), "{range} {reserved}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(range in "[0-9 a\\-]{0,12}", reserved in "[0-9,\\- x]{0,20}", port in any::<u16>()) {
            let _ = overlap(&range, Some(&reserved), &[port]);
        }
    }
}
