//! Whether this release of the distribution is one that is supported, by the dated data of its OS profile.

use crate::catalog::os::{OsProfile, Release};
use crate::facts::input::{input, version};
use crate::facts::{Fact, Facts, State, Value, Version};

const SOURCE: &str = "os.id, os.version, profiles/os";

/// The profile that answers for every OS that no other one answers for.
const GENERIC: &str = "generic";

pub(crate) fn support(facts: &Facts, os: &OsProfile, today: &str) -> Result<Fact, Fact> {
    let known = |word: &str| Fact::known(Value::Text(word.to_owned()), SOURCE);
    let id = match input(facts, "os.id") {
        Ok(id) => id.to_string(),
        Err(fact) if matches!(fact.state, State::Absent(_)) => {
            return Ok(known("unknown-os").note("there is no os-release file"));
        }
        Err(fact) => return Err(fact),
    };
    if os.name == GENERIC {
        return Ok(known("unknown-os").note(format!("no OS profile answers for `{id}`")));
    }
    if !os.ids.contains(&id) {
        return Ok(
            known("unknown-release").note(format!("`{id}` is like {}, but numbers its releases by itself", os.name))
        );
    }
    if os.oldest.is_none() && os.releases.is_empty() {
        return Ok(known("supported").note("a rolling release"));
    }
    let release = match version(facts, "os.version") {
        Ok(version) => version,
        Err(fact) if matches!(fact.state, State::Absent(_)) => {
            return Ok(known("unknown-release").note("os-release names no version"));
        }
        Err(fact) => return Err(fact),
    };
    if let Some(oldest) = os.oldest.as_ref().filter(|oldest| release < *oldest) {
        return Ok(known("too-old").note(format!("{id} {release} is older than {oldest}")));
    }
    let day = today.get(..10).unwrap_or(today);
    let releases = of_member(&os.releases, &id);
    Ok(match listed(&releases, release) {
        Some(Release { version, end_of_life, .. }) if end_of_life.as_str() < day => {
            known("end-of-life").note(format!("the support of {id} {version} ended on {end_of_life}"))
        }
        Some(Release { version, end_of_life, .. }) => {
            known("supported").note(format!("{id} {version} is supported until {end_of_life}"))
        }
        None if releases.iter().all(|listed| listed.version < *release) => {
            known("supported").note(format!("{id} {release} is newer than this preflight knows"))
        }
        None => known("unknown-release").note(format!("{id} {release} is not a release that this preflight knows")),
    })
}

/// The releases of one member of the family: those under its own ID, or those that are for all.
fn of_member<'a>(releases: &'a [Release], id: &str) -> Vec<&'a Release> {
    let own: Vec<&Release> = releases.iter().filter(|release| release.id.as_deref() == Some(id)).collect();
    if own.is_empty() { releases.iter().filter(|release| release.id.is_none()).collect() } else { own }
}

/// The entry that a version belongs to: `9.4` to `9`, `20.04` to `20.04`; the closest where several fit.
fn listed<'a>(releases: &[&'a Release], version: &Version) -> Option<&'a Release> {
    let ours = fields(version);
    releases
        .iter()
        .copied()
        .filter(|release| ours.starts_with(&fields(&release.version)))
        .max_by_key(|release| fields(&release.version).len())
}

/// `20.04` → 20, 4.
fn fields(version: &Version) -> Vec<u64> {
    let text = version.to_string();
    let digits = |field: &str| field.find(|c: char| !c.is_ascii_digit()).map_or(field.len(), |end| end);
    text.split('.').map_while(|field| field[..digits(field)].parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    fn profile(name: &str, oldest: Option<&str>, releases: &[(&str, &str)]) -> OsProfile {
        OsProfile {
            oldest: oldest.map(parse),
            releases: releases
                .iter()
                .map(|(version, end)| Release { id: None, version: parse(version), end_of_life: (*end).into() })
                .collect(),
            ..OsProfile::blank(name)
        }
    }

    fn judged(os: &OsProfile, id: &str, release: Option<&str>, today: &str) -> String {
        let mut facts = Facts::default();
        facts.live("os.id", Fact::known(Value::Text(id.into()), "/etc/os-release"));
        let version = match release {
            Some(text) => Fact::known(Value::Version(parse(text)), "/etc/os-release"),
            None => Fact::absent("a rolling release", "/etc/os-release"),
        };
        facts.live("os.version", version);
        support(&facts, os, today).unwrap().value().unwrap().to_string()
    }

    #[test]
    fn releases_are_judged_by_their_leading_fields_and_the_day() {
        let ubuntu = profile(
            "ubuntu",
            Some("20.04"),
            &[("20.04", "2025-05-31"), ("22.04", "2027-06-01"), ("24.04", "2029-05-31")],
        );
        for (release, expected) in [
            ("18.04", "too-old"),
            ("20.04", "end-of-life"),
            ("22.04", "supported"),
            ("22.04.3", "supported"),
            ("23.10", "unknown-release"),
            ("26.04", "supported"),
        ] {
            assert_eq!(judged(&ubuntu, "ubuntu", Some(release), "2026-11-22"), expected, "{release}");
        }
        assert_eq!(judged(&ubuntu, "ubuntu", Some("22.04"), "2027-06-01"), "supported", "the last day counts");
        assert_eq!(judged(&ubuntu, "ubuntu", Some("22.04"), "2027-06-02T00:00:00Z"), "end-of-life");
        assert_eq!(judged(&ubuntu, "ubuntu", None, "2026-11-22"), "unknown-release");
        assert_eq!(judged(&ubuntu, "linuxmint", Some("22.1"), "2026-11-22"), "unknown-release");

        let rhel = profile("rhel", Some("8"), &[("8", "2029-05-31"), ("9", "2032-05-31"), ("10", "2035-05-31")]);
        for (release, expected) in
            [("7.9", "too-old"), ("8.10", "supported"), ("9.4", "supported"), ("11.0", "supported")]
        {
            assert_eq!(judged(&rhel, "rhel", Some(release), "2026-11-22"), expected, "{release}");
        }
    }

    #[test]
    fn rolling_and_unknown_systems_are_told_apart() {
        let arch = profile("arch", None, &[]);
        assert_eq!(judged(&arch, "arch", None, "2026-11-22"), "supported");
        assert_eq!(judged(&profile("generic", None, &[]), "nixos", Some("25.05"), "2026-11-22"), "unknown-os");
        let mut facts = Facts::default();
        facts.live("os.id", Fact::absent("there is no os-release file", "/usr/lib/os-release"));
        assert_eq!(support(&facts, &arch, "2026-11-22").unwrap().value().unwrap().to_string(), "unknown-os");
        facts.live("os.id", Fact::unknown("permission denied", Some("run as root"), "/etc/os-release"));
        assert!(support(&facts, &profile("generic", None, &[]), "2026-11-22").is_err());
    }

    proptest! {
        #[test]
        fn any_version_and_day_are_survived(text in "[0-9]{1,4}(\\.[0-9]{1,25}){0,4}\\PC{0,4}", day in "\\PC{0,12}") {
            if Version::parse(&text).is_ok() {
                let os = profile("x", Some("2"), &[("3", "2026-01-01"), ("3.1", "2027-01-01")]);
                judged(&os, "x", Some(&text), &day);
            }
        }
    }
}
