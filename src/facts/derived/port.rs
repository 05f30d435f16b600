//! Workload ports that the kernel may hand to any client first.

use std::ops::RangeInclusive;

use super::{Fact, Facts, State, Value, input};
use crate::catalog::parameters::{Parameters, Port};
use crate::facts::ranges;

const RANGE: &str = "sysctl.net.ipv4.ip_local_port_range";
const RESERVED: &str = "sysctl.net.ipv4.ip_local_reserved_ports";

/// The host's values count whatever the topology: published ports are bound in the host's network namespace.
pub(super) fn ephemeral_overlap(facts: &Facts, parameters: &Parameters) -> Result<Fact, Fact> {
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
