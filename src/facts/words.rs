//! How a value reads in a report, where its plain form does not say enough: `not installed` rather than `no`.

use std::borrow::Cow;

use super::Value;

/// The words for `no` and for `yes`.
const SWITCHES: &[(&str, [&str; 2])] = &[
    ("tool.*", ["not installed", "installed"]),
    ("docker.memory-limit", ["not supported", "supported"]),
    ("docker.swap-limit", ["not supported", "supported"]),
    ("docker.log-bounded", ["not limited", "limited"]),
    ("docker.live-restore", ["off", "on"]),
    ("derived.docker.api-overlap", ["no common version", "compatible"]),
    ("firewall.ipv6-parity", ["weaker than IPv4", "as strict as IPv4"]),
    ("firewall.docker-user-dead", ["none ignored", "ignored"]),
    ("firewall.flush-risk", ["keeps other rules", "deletes all rules"]),
    ("disk.data.rotational", ["solid state", "rotating"]),
    ("time.synchronized", ["not in sync", "in sync"]),
];

/// What a fact's value is called in a report; a value without words of its own is written as it is.
pub fn words<'v>(fact: &str, value: &'v Value) -> Cow<'v, str> {
    match value {
        Value::Bool(is_so) => match SWITCHES.iter().find(|(known, _)| covers(known, fact)) {
            Some((_, words)) => Cow::Borrowed(words[usize::from(*is_so)]),
            None => value.words(),
        },
        Value::Bytes(0) => Cow::Borrowed("none"),
        // That the socket is missing is in the finding's note.
        Value::Text(text) if fact == "docker.state" && text == "absent" => Cow::Borrowed("not installed"),
        _ => value.words(),
    }
}

fn covers(known: &str, fact: &str) -> bool {
    known.strip_suffix('*').map_or(known == fact, |family| fact.starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Kind, registry};

    /// Seen failing with a fact of the table misspelt.
    #[test]
    fn only_switches_that_exist_have_words() {
        for (known, _) in SWITCHES {
            let spec = registry::FACTS.iter().find(|spec| spec.id == *known);
            assert_eq!(spec.map(|spec| spec.kind), Some(Kind::Bool), "{known}");
        }
    }

    #[test]
    fn words_replace_what_does_not_speak_for_itself() {
        assert_eq!(words("tool.git", &Value::Bool(false)), "not installed");
        assert_eq!(words("example.own", &Value::Bool(true)), "yes");
        assert_eq!(words("swap.total", &Value::Bytes(0)), "none");
        assert_eq!(words("swap.total", &Value::Bytes(1 << 30)), "1 GiB");
        assert_eq!(words("docker.state", &Value::Text("absent".into())), "not installed");
    }
}
