//! The name of a transaction: when it began, and a word that keeps two of one second apart.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::host::safe_file::random_word;

/// `20261122T101500Z-7f3a9c01`. It is a directory name, so only this exact form is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TxId(String);

const FORM: &str = "00000000T000000Z-xxxxxxxx";

/// A text that is not the name of a transaction.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a transaction id: expected something like `20261122T101500Z-7f3a9c01`")]
pub struct NotAnId(String);

impl TxId {
    /// A new id; `compact_utc` is `20261122T101500Z`.
    pub fn new(compact_utc: &str) -> Result<Self, NotAnId> {
        format!("{compact_utc}-{}", &random_word()[..8]).parse()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When it began: `20261122T101500Z`.
    pub fn second(&self) -> &str {
        &self.0[..FORM.len() - 9]
    }

    /// The part that nobody can guess, for the names of staged files.
    pub fn word(&self) -> &str {
        &self.0[FORM.len() - 8..]
    }
}

impl FromStr for TxId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let fits = text.len() == FORM.len()
            && text.bytes().zip(FORM.bytes()).all(|(byte, form)| match form {
                b'0' => byte.is_ascii_digit(),
                b'x' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
                literal => byte == literal,
            });
        if fits { Ok(Self(text.to_owned())) } else { Err(NotAnId(text.escape_default().to_string())) }
    }
}

impl TryFrom<String> for TxId {
    type Error = NotAnId;

    fn try_from(text: String) -> Result<Self, NotAnId> {
        text.parse()
    }
}

impl From<TxId> for String {
    fn from(id: TxId) -> Self {
        id.0
    }
}

impl fmt::Display for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_is_an_id() {
        let id = TxId::new("20261122T101500Z").unwrap();
        assert_eq!(id.as_str().parse::<TxId>().unwrap(), id);
        assert_eq!((id.word().len(), id.second()), (8, "20261122T101500Z"));
        for text in [
            "",
            "..",
            "../../etc",
            "20261122T101500Z-7f3a9c0",
            "20261122T101500Z-7F3A9C01",
            "20261122T101500Z/7f3a9c01",
        ] {
            assert!(text.parse::<TxId>().is_err(), "{text}");
        }
    }
}
