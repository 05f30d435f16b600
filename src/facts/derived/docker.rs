//! Whether preflight and the engine can talk.

use super::{Fact, Facts, Value, Version, version};

/// The oldest API whose `/info` and `/containers/json` have the fields that preflight reads: Engine 1.12.
const OLDEST_API: &str = "1.24";

/// The newest API that the Docker client library in use knows.
const NEWEST_API: &str = "1.53";

/// Requests carry no version, so the engine answers in its newest; what counts is that the ranges meet. An engine that
/// names no minimum is older than the field (API 1.24) and accepts every older API.
pub(super) fn api_overlap(facts: &Facts) -> Result<Fact, Fact> {
    let source = "docker.api, docker.api-min";
    let newest = version(facts, "docker.api")?;
    let oldest = match version(facts, "docker.api-min") {
        Ok(version) => Some(version),
        Err(fact) if matches!(fact.state, super::State::Absent(_)) => None,
        Err(fact) => return Err(fact),
    };
    let ours = |text: &str| Version::parse(text).map_err(|error| Fact::unknown(error.to_string(), None, source));
    let overlap =
        *newest >= ours(OLDEST_API)? && oldest.is_none_or(|oldest| ours(NEWEST_API).is_ok_and(|ours| *oldest <= ours));
    let theirs = oldest.map_or_else(|| format!("up to {newest}"), |oldest| format!("{oldest} to {newest}"));
    Ok(Fact::known(Value::Bool(overlap), source)
        .note(format!("preflight speaks {OLDEST_API} to {NEWEST_API}, the engine {theirs}")))
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
    fn no_engine_is_no_answer() {
        let mut facts = Facts::default();
        facts.live("docker.api", Fact::absent("Docker is not installed", "docker"));
        let Err(fact) = api_overlap(&facts) else { panic!("judged an engine that is not there") };
        assert_eq!(fact.state, State::Absent("no docker.api: Docker is not installed".into()));
    }
}
