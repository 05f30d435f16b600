//! Why a fact does not exist on this host.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The reasons that decide something have a name; any other is only shown. JSON has the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum AbsentReason {
    /// Only a running host has it: it is never the absence that a check may take for good or bad.
    NotRunning,
    NotOnThisKernel,
    Other(String),
}

impl AbsentReason {
    const NAMED: [(Self, &str); 2] =
        [(Self::NotRunning, "not a running host"), (Self::NotOnThisKernel, "not on this kernel")];
}

impl fmt::Display for AbsentReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMED.iter().find(|(reason, _)| reason == self).map(|(_, text)| *text);
        match (named, self) {
            (_, Self::Other(text)) => f.write_str(text),
            (text, _) => f.write_str(text.unwrap_or_default()),
        }
    }
}

impl From<String> for AbsentReason {
    fn from(text: String) -> Self {
        match Self::NAMED.into_iter().find(|(_, named)| *named == text) {
            Some((reason, _)) => reason,
            None => Self::Other(text),
        }
    }
}

impl From<&str> for AbsentReason {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<AbsentReason> for String {
    fn from(reason: AbsentReason) -> Self {
        reason.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Old snapshots hold the texts.
    #[test]
    fn the_texts_are_those_of_old_snapshots() {
        for (text, reason) in [
            ("not a running host", AbsentReason::NotRunning),
            ("not on this kernel", AbsentReason::NotOnThisKernel),
            ("no file sets it", AbsentReason::Other("no file sets it".into())),
        ] {
            assert_eq!(AbsentReason::from(text), reason);
            assert_eq!(serde_json::to_value(&reason).unwrap(), serde_json::json!(text));
            assert_eq!(serde_json::from_value::<AbsentReason>(serde_json::json!(text)).unwrap(), reason);
        }
    }
}
