//! The typed value of a fact or a literal, and the units that people write.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::version::Version;

/// What a fact can be. The JSON form names the kind: `{"bytes": 4294967296}`, `{"text": "madvise"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// Yes or no.
    Bool(bool),
    /// A whole number without a unit: a count, a kernel setting.
    Int(i64),
    /// A share in whole percent, 0 to 100.
    Percent(u8),
    /// A size in bytes.
    Bytes(u64),
    /// A span of time, in microseconds.
    #[serde(rename = "duration_us")]
    Duration(
        #[serde(with = "micros")]
        #[schemars(with = "u64")]
        Duration,
    ),
    /// Text: one word such as `overlay2`, or a line such as `32768 60999`.
    Text(String),
    /// A version, kept as printed.
    Version(#[schemars(with = "String")] Version),
    /// A set of words; order and repetition mean nothing.
    Set(BTreeSet<String>),
}

/// The type of a fact, declared in the registry, so that `lint` can tell a literal of the wrong type or unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    Bool,
    Int,
    Percent,
    Bytes,
    Duration,
    Text,
    Version,
    Set,
    /// A kernel setting that nobody declared: a whole number when the text is one, text otherwise.
    Sysctl,
}

impl Kind {
    /// The word used in messages and in `preflight list facts`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "yes/no",
            Self::Int => "number",
            Self::Percent => "percentage",
            Self::Bytes => "size",
            Self::Duration => "duration",
            Self::Text => "text",
            Self::Version => "version",
            Self::Set => "set",
            Self::Sysctl => "number or text",
        }
    }

    /// How a literal of this kind is written, for hints.
    pub fn example(self) -> &'static str {
        match self {
            Self::Bool => "`true`",
            Self::Int => "`512`",
            Self::Percent => "`\"5 %\"`",
            Self::Bytes => "`\"4 GiB\"`",
            Self::Duration => "`\"5 s\"`",
            Self::Text => "`\"madvise\"`",
            Self::Version => "`\"20.10.0\"`",
            Self::Set => "`[\"a\", \"b\"]`",
            Self::Sysctl => "`1` or `\"text\"`",
        }
    }

    /// Reads text as a value of this kind: what `--set key=value` and string literals in TOML hold.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let wrong = || format!("`{text}` is not a {}: expected something like {}", self.name(), self.example());
        match self {
            Self::Bool => match text {
                "true" | "yes" | "on" => Ok(Value::Bool(true)),
                "false" | "no" | "off" => Ok(Value::Bool(false)),
                _ => Err(wrong()),
            },
            Self::Int => text.parse().map(Value::Int).map_err(|_| wrong()),
            Self::Percent => parse_percent(text).map(Value::Percent).ok_or_else(wrong),
            Self::Bytes => parse_bytes(text).map(Value::Bytes).ok_or_else(wrong),
            Self::Duration => parse_duration(text).map(Value::Duration).ok_or_else(wrong),
            Self::Text => Ok(Value::Text(text.to_owned())),
            Self::Version => Version::parse(text).map(Value::Version).map_err(|error| error.to_string()),
            Self::Set => {
                Ok(Value::Set(text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(Into::into).collect()))
            }
            Self::Sysctl => Ok(sysctl_value(text)),
        }
    }

    /// Whether a value is of this kind.
    pub fn admits(self, value: &Value) -> bool {
        value.kind() == self || (self == Self::Sysctl && matches!(value, Value::Int(_) | Value::Text(_)))
    }
}

impl Value {
    /// A percentage; what is outside 0 to 100 is moved to the nearer end.
    pub fn percent(number: i64) -> Self {
        Self::Percent(u8::try_from(number.clamp(0, 100)).unwrap_or(100))
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Bool(_) => Kind::Bool,
            Self::Int(_) => Kind::Int,
            Self::Percent(_) => Kind::Percent,
            Self::Bytes(_) => Kind::Bytes,
            Self::Duration(_) => Kind::Duration,
            Self::Text(_) => Kind::Text,
            Self::Version(_) => Kind::Version,
            Self::Set(_) => Kind::Set,
        }
    }
}

impl Value {
    /// The value as people read it, borrowed where it is text.
    pub fn words(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) if !text.is_empty() => Cow::Borrowed(text),
            Self::Bool(true) => Cow::Borrowed("yes"),
            Self::Bool(false) => Cow::Borrowed("no"),
            Self::Int(number) => Cow::Owned(number.to_string()),
            Self::Bytes(bytes) => Cow::Owned(human_bytes(*bytes)),
            _ => Cow::Owned(self.to_string()),
        }
    }
}

/// What the kernel prints for a setting: runs of blanks folded, a whole number as a number.
pub fn sysctl_value(text: &str) -> Value {
    let text = text.trim();
    let folded = if text.contains(char::is_whitespace) {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    } else {
        text.to_owned()
    };
    folded.parse().map_or(Value::Text(folded), Value::Int)
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(true) => f.write_str("yes"),
            Self::Bool(false) => f.write_str("no"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Percent(share) => write!(f, "{share} %"),
            Self::Bytes(bytes) => f.write_str(&human_bytes(*bytes)),
            Self::Duration(duration) => f.write_str(&human_duration(*duration)),
            Self::Text(text) if text.is_empty() => f.write_str("(empty)"),
            Self::Text(text) => f.write_str(text),
            Self::Version(version) => write!(f, "{version}"),
            Self::Set(words) if words.is_empty() => f.write_str("none"),
            Self::Set(words) => f.write_str(&words.iter().map(String::as_str).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// `4 GiB`, `512MiB`, `10 GB`, `100 B`. A unit is required: a bare number does not say what it counts. Fractions are
/// accepted (`1.5 GiB`), negative sizes are not. Binary units are powers of 1024, decimal ones of 1000.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    scaled(number, scale)
}

/// `250 ms`, `5 s`, `2min`, `1 h`, `3 d`, `100 us`. A unit is required.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let micros: u64 = match unit {
        "us" | "µs" => 1,
        "ms" => 1_000,
        "s" | "sec" => 1_000_000,
        "m" | "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    scaled(number, micros).map(Duration::from_micros)
}

/// `5 %` or `5%`, 0 to 100. The sign is required.
pub fn parse_percent(text: &str) -> Option<u8> {
    text.trim().strip_suffix('%')?.trim_end().parse().ok().filter(|share| *share <= 100)
}

fn split_unit(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    Some((&text[..end], text[end..].trim_start()))
}

/// `number × scale` in whole units, exactly; `None` when it does not fit or is no number.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    let mut result = u128::from(whole) * u128::from(scale);
    if number.contains('.') {
        if fraction.is_empty() || fraction.len() > 9 {
            return None;
        }
        let digits: u128 = fraction.parse().ok()?;
        result += digits * u128::from(scale) / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    }
    u64::try_from(result).ok()
}

/// Binary units with at most one decimal: `3.7 GiB`, `512 MiB`, `100 B`. Rounded down, so that a value just below a
/// limit is never shown as the limit.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, scale) in UNITS {
        if bytes >= scale {
            let tenths = u128::from(bytes) * 10 / u128::from(scale);
            return if tenths.is_multiple_of(10) {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} B")
}

/// The largest unit that keeps the number exact or to one decimal: `5 s`, `1.5 s`, `250 ms`, `40 us`.
pub fn human_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let units: [(&str, u128); 5] =
        [("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000)];
    for (unit, scale) in units {
        if micros >= scale && (micros.is_multiple_of(scale) || scale <= 1_000_000) {
            let tenths = micros * 10 / scale;
            return if tenths.is_multiple_of(10) {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{micros} us")
}

mod micros {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_need_a_unit_and_are_exact() {
        assert_eq!(parse_bytes("4 GiB"), Some(4 << 30));
        assert_eq!(parse_bytes("1.5GiB"), Some(3 << 29));
        assert_eq!(parse_bytes("512 mib"), Some(512 << 20));
        assert_eq!(parse_bytes("10 GB"), Some(10_000_000_000));
        for text in ["4", "GiB", "-1 GiB", "4 GiBs", "1..5 GiB", "99999999999 TiB", "", "1. GiB"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_rounded_down() {
        assert_eq!(human_bytes((4 << 30) - 1), "3.9 GiB");
        assert_eq!(human_bytes(4 << 30), "4 GiB");
        assert_eq!(human_bytes(1023), "1023 B");
    }

    #[test]
    fn durations_read_back() {
        for (text, millis) in [("5 s", 5_000), ("250ms", 250), ("2 min", 120_000), ("1.5 s", 1_500), ("1 h", 3_600_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse_duration("5"), None);
        assert_eq!(human_duration(Duration::from_millis(1_500)), "1.5 s");
        assert_eq!(human_duration(Duration::from_secs(90)), "90 s");
        assert_eq!(human_duration(Duration::from_mins(2)), "2 min");
    }

    #[test]
    fn kernel_text_is_folded() {
        assert_eq!(sysctl_value("32768\t60999\n"), Value::Text("32768 60999".into()));
        assert_eq!(sysctl_value("1\n"), Value::Int(1));
        assert_eq!(sysctl_value("18446744073709551615\n"), Value::Text("18446744073709551615".into()));
    }

    proptest! {
        #[test]
        fn json_round_trip(bytes in any::<u64>(), micros in any::<u64>(), text in ".{0,20}") {
            for value in [Value::Bytes(bytes), Value::Duration(Duration::from_micros(micros)), Value::Text(text), Value::Bool(true)] {
                let json = serde_json::to_string(&value).unwrap();
                prop_assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
            }
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,30}") {
            for kind in [Kind::Bool, Kind::Int, Kind::Bytes, Kind::Duration, Kind::Text, Kind::Version, Kind::Set, Kind::Sysctl] {
                if let Ok(value) = kind.parse(&text) {
                    prop_assert!(kind.admits(&value));
                }
            }
        }
    }
}
