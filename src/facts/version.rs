//! Versions as software really prints them: `v2.21.0-desktop.1`, `5:24.0.7-1~debian.12`, `26.1.5+dfsg1`, `4.18.0-553.el8`.
//!
//! Strict semver refuses or mis-orders most of these, so the numeric fields are read leniently and handed to
//! [`semver::Version`] for the comparison. What a distribution appends is kept for display and never compared; only a
//! real pre-release (`alpha`, `beta`, `rc`, `pre`, `dev`) sorts before its release.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A version: what was printed, and the part of it that is compared. Serialized as it was printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    raw: String,
    comparable: semver::Version,
}

/// Text that does not start like a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version: expected digits such as `20.10.0`")]
pub struct VersionError(String);

impl Version {
    /// Reads a version from text: an optional epoch (`5:`), an optional `v`, one to three numbers, and anything after.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let raw = text.trim();
        let fail = || VersionError(raw.to_owned());
        let body = match raw.split_once(':') {
            Some((epoch, rest)) if !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit()) => rest,
            _ => raw,
        };
        let body = body.strip_prefix(['v', 'V']).unwrap_or(body);
        let mut numbers = [0_u64; 3];
        let mut rest = body;
        for (index, slot) in numbers.iter_mut().enumerate() {
            let field = if index == 0 {
                rest
            } else {
                match rest.strip_prefix('.') {
                    Some(field) if field.starts_with(|c: char| c.is_ascii_digit()) => field,
                    _ => break,
                }
            };
            let end = field.find(|c: char| !c.is_ascii_digit()).unwrap_or(field.len());
            *slot = field[..end].parse().map_err(|_| fail())?;
            rest = &field[end..];
        }
        let [major, minor, patch] = numbers;
        let mut comparable = semver::Version::new(major, minor, patch);
        if let Some(pre) = pre_release(rest) {
            comparable.pre = semver::Prerelease::new(&pre).map_err(|_| fail())?;
        }
        Ok(Self { raw: raw.to_owned(), comparable })
    }

    /// Whether it is this release or a later one; a pre-release of it is earlier.
    pub fn is_at_least(&self, major: u64, minor: u64) -> bool {
        self.comparable >= semver::Version::new(major, minor, 0)
    }
}

/// `-rc.1+build` and `~beta2` are pre-releases; `-1~debian.12`, `-desktop.1` and `.el8` are not.
fn pre_release(rest: &str) -> Option<String> {
    let word = rest.trim_start_matches(['-', '~', '.', '_']);
    ["alpha", "beta", "rc", "pre", "dev"].into_iter().find(|marker| {
        word.strip_prefix(marker).is_some_and(|after| !after.starts_with(|c: char| c.is_ascii_alphabetic()))
    })?;
    let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(word.len());
    // Semver forbids empty fields and numeric fields with leading zeros; "rc.01" and "rc." are seen in the wild.
    let fields: Vec<String> = word[..end]
        .split('.')
        .filter(|field| !field.is_empty())
        .map(|field| {
            let stripped = field.trim_start_matches('0');
            let numeric = field.bytes().all(|byte| byte.is_ascii_digit());
            if numeric && stripped.is_empty() {
                "0".to_owned()
            } else if numeric {
                stripped.to_owned()
            } else {
                field.to_owned()
            }
        })
        .collect();
    Some(fields.join("."))
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.comparable.cmp(&other.comparable))
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        Self::parse(&text)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.raw
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn what_distributions_print_compares_by_its_numbers() {
        for (text, same) in [
            ("v2.21.0-desktop.1", "2.21.0"),
            ("19.03.15", "19.3.15"),
            ("17.06.0-ce", "17.6.0"),
            ("2.21", "2.21.0"),
            ("24.0.7-0ubuntu2~22.04.1", "24.0.7"),
            ("5:24.0.7-1~debian.12~bookworm", "24.0.7"),
            ("26.1.5+dfsg1-9+deb13u1", "26.1.5"),
            ("20.10.24+dfsg1", "20.10.24"),
            ("4.18.0-553.el8_10.x86_64", "4.18.0"),
            ("6.18.44-fc-v595", "6.18.44"),
            ("2.40.3+ds1-0ubuntu1", "2.40.3"),
        ] {
            assert_eq!(version(text).partial_cmp(&version(same)), Some(Ordering::Equal), "{text}");
            assert_eq!(version(text).to_string(), text);
        }
    }

    #[test]
    fn only_real_pre_releases_sort_before_their_release() {
        assert!(version("29.0.0-rc.1") < version("29.0.0"));
        assert!(version("2.0.0~beta2") < version("2.0.0"));
        assert!(version("6.10-rc3") < version("6.10"));
        assert!(version("29.0.0-rc.2") > version("29.0.0-rc.1"));
        assert!(version("2.21.0-desktop.1") >= version("2.20"));
        assert!(version("1.2.3-development-build") >= version("1.2.3"));
    }

    #[test]
    fn text_without_digits_is_refused() {
        for text in ["", "v", "docker", "-1", "5:", ".1.2"] {
            assert!(Version::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_parsed_text_is_kept(text in "\\PC{0,40}") {
            if let Ok(version) = Version::parse(&text) {
                prop_assert_eq!(version.to_string(), text.trim());
            }
        }

        #[test]
        fn numbers_order_versions(a in any::<[u16; 3]>(), b in any::<[u16; 3]>(), vendor in "(|-1|\\+ds1|~22\\.04)") {
            let of = |n: [u16; 3]| version(&format!("{}.{}.{}{vendor}", n[0], n[1], n[2]));
            prop_assert_eq!(of(a).partial_cmp(&of(b)), Some(a.cmp(&b)));
        }
    }
}
