//! Whether preflight and the engine can talk, and whether the host forwards packets for the engine's networks.

use crate::facts::input::{input, version};
use crate::facts::{Fact, Facts, Layer, Value, Version};

const IP_FORWARD: &str = "sysctl.net.ipv4.ip_forward";

/// The oldest API whose `/info` and `/containers/json` have the fields that preflight reads: Engine 1.12.
const OLDEST_API: &str = "1.24";

/// The newest API that the Docker client library in use knows.
const NEWEST_API: &str = "1.53";

/// Requests carry no version, so the engine answers in its newest; what counts is that the ranges meet. An engine that
/// names no minimum is older than the field (API 1.24) and accepts every older API.
pub(crate) fn api_overlap(facts: &Facts) -> Result<Fact, Fact> {
    let source = "docker.api, docker.api-min";
    let newest = version(facts, "docker.api")?;
    let oldest = match version(facts, "docker.api-min") {
        Ok(version) => Some(version),
        Err(fact) if matches!(fact.state, crate::facts::State::Absent(_)) => None,
        Err(fact) => return Err(fact),
    };
    let ours = |text: &str| Version::parse(text).map_err(|error| Fact::unknown(error.to_string(), None, source));
    let overlap =
        *newest >= ours(OLDEST_API)? && oldest.is_none_or(|oldest| ours(NEWEST_API).is_ok_and(|ours| *oldest <= ours));
    let theirs = oldest.map_or_else(|| format!("up to {newest}"), |oldest| format!("{oldest} to {newest}"));
    Ok(Fact::known(Value::Bool(overlap), source)
        .note(format!("preflight speaks {OLDEST_API} to {NEWEST_API}, the engine {theirs}")))
}

/// What the next boot brings counts only with the nftables backend: with iptables dockerd sets it when it starts.
pub(crate) fn ip_forward(facts: &Facts) -> Result<Fact, Fact> {
    let is = |value: &Value, number| matches!(value, Value::Int(found) if *found == number);
    let now = input(facts, IP_FORWARD)?;
    let by_docker = matches!(input(facts, "docker.firewall-backend")?, Value::Text(backend) if backend == "iptables");
    let boot = facts.get(IP_FORWARD, Layer::Boot).filter(|_| !by_docker);
    let lasts = !boot.is_some_and(|fact| fact.value().is_some_and(|value| is(value, 0)));
    let word = match now {
        now if is(now, 0) => "off",
        now if is(now, 1) && lasts => "on",
        now if is(now, 1) => "on until the next boot",
        other => return Err(Fact::unknown(format!("{IP_FORWARD} is `{other}`"), None, IP_FORWARD)),
    };
    let fact = Fact::known(Value::Text(word.into()), "/proc/sys/net/ipv4/ip_forward");
    Ok(match boot {
        Some(boot) if !lasts => fact.note(format!("the next boot: 0 ({})", boot.source)),
        _ => fact,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::State;

    fn overlap(newest: &str, oldest: Option<&str>) -> Fact {
        let mut facts = Facts::default();
        let known = |text: &str| Fact::known(Value::Version(Version::parse(text).unwrap()), "GET /version");
        facts.live("docker.api", known(newest));
        facts.live("docker.api-min", oldest.map_or_else(|| Fact::absent("not sent", "GET /version"), known));
        api_overlap(&facts).unwrap_or_else(|fact| fact)
    }

    #[test]
    fn ranges_that_meet_overlap() {
        for (newest, oldest, expected) in [
            ("1.41", Some("1.12"), true),
            ("1.55", Some("1.44"), true),
            ("1.24", Some("1.24"), true),
            ("1.53", Some("1.53"), true),
            ("1.60", Some("1.54"), false),
            ("1.23", Some("1.12"), false),
            ("1.22", None, false),
            ("1.25", None, true),
        ] {
            assert_eq!(overlap(newest, oldest).value(), Some(&Value::Bool(expected)), "{newest} {oldest:?}");
        }
    }

    #[test]
    fn forwarding_must_last_only_where_docker_does_not_switch_it_on() {
        for (backend, live, boot, expected) in [
            ("iptables", 1, Some(0), "on"),
            ("iptables", 0, Some(1), "off"),
            ("nftables", 1, Some(1), "on"),
            ("nftables", 1, None, "on"),
            ("nftables", 1, Some(0), "on until the next boot"),
            ("nftables", 0, Some(1), "off"),
        ] {
            let mut facts = Facts::default();
            facts.live("docker.firewall-backend", Fact::known(Value::Text(backend.into()), "GET /info"));
            facts.live(IP_FORWARD, Fact::known(Value::Int(live), "/proc/sys"));
            if let Some(boot) = boot {
                facts.insert(IP_FORWARD, Layer::Boot, Fact::known(Value::Int(boot), "/etc/sysctl.d/x.conf:1"));
            }
            let fact = ip_forward(&facts).unwrap();
            assert_eq!(fact.value(), Some(&Value::Text(expected.into())), "{backend} {live} {boot:?}");
            assert_eq!(fact.note.is_some(), expected.contains("until"), "{fact:?}");
        }
        let mut facts = Facts::default();
        facts.live(IP_FORWARD, Fact::known(Value::Int(1), "/proc/sys"));
        assert!(ip_forward(&facts).is_err(), "judged without the backend");
    }

    #[test]
    fn no_engine_is_no_answer() {
        let mut facts = Facts::default();
        facts.live("docker.api", Fact::absent("Docker is not installed", "docker"));
        let Err(fact) = api_overlap(&facts) else { panic!("judged an engine that is not there") };
        assert_eq!(fact.state, State::Absent("no docker.api: Docker is not installed".into()));
    }
}
