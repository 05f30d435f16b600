//! What becomes of strangers, for one port and for both families.

use crate::facts::{Fact, Value};

/// What became of the strangers who try one port over one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PortVerdict {
    Open(String),
    Kept { allowed: bool, by: String },
    Unknown(String),
}

/// A verdict, and whether it is of a container that does not run yet; `None` where the port is not published over the family.
pub(crate) type Judged = Option<(PortVerdict, bool)>;

/// Both families in one word; a family that is not published does not count.
pub(crate) fn worst<'a>(families: impl IntoIterator<Item = (&'a str, Judged)>, source: &str) -> Fact {
    let mut notes: Vec<(String, String)> = Vec::new();
    let (mut open, mut unknown, mut allowed, mut any) = (false, None, false, false);
    let mut predicted = "";
    for (family, verdict) in families {
        let Some((verdict, is_predicted)) = verdict else { continue };
        any = true;
        if is_predicted {
            predicted = "not published yet; as Docker would, ";
        }
        let words = match verdict {
            PortVerdict::Open(by) => {
                open = true;
                format!("open: {by}")
            }
            PortVerdict::Kept { allowed: lets_in, by } => {
                allowed |= lets_in;
                let who = if lets_in { "for `allow` only" } else { "closed" };
                format!("{who}: {by}")
            }
            PortVerdict::Unknown(why) => {
                unknown.get_or_insert(format!("{family}: {why}"));
                why
            }
        };
        // Both families nearly always say the same.
        match notes.last_mut() {
            Some((families, same)) if *same == words => families.extend([" and ", family]),
            _ => notes.push((family.to_owned(), words)),
        }
    }
    let notes: Vec<String> = notes.into_iter().map(|(families, words)| format!("{families} {words}")).collect();
    let word = match (any, open, unknown) {
        (false, ..) => return Fact::absent("the port is published on no address of this host", source),
        (_, true, _) => "open",
        (_, false, Some(why)) => return Fact::unknown(why, Some("look at the rules that are named"), source),
        (_, false, None) if allowed => "allowed",
        _ => "closed",
    };
    Fact::known(Value::Text(word.into()), source).note(format!("{predicted}{}", notes.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::State;
    use crate::subjects::firewall::read::kernel::SOURCE;

    /// Seen failing with `allowed` in front of `unknown`, and with one family left out.
    #[test]
    fn both_families_come_to_the_worse_word() {
        let open = || Some((PortVerdict::Open("from everybody".into()), false));
        let kept = |allowed| Some((PortVerdict::Kept { allowed, by: "a rule".into() }, false));
        let unknown = || Some((PortVerdict::Unknown("it depends".into()), false));
        let word = |v4, v6| match worst([("IPv4", v4), ("IPv6", v6)], SOURCE).state {
            State::Known(Value::Text(word)) => word,
            State::Absent(_) => "absent".into(),
            State::Unknown { error, .. } => error,
            State::Known(_) => "no word".into(),
        };
        assert_eq!(word(kept(false), open()), "open");
        assert_eq!(word(unknown(), open()), "open");
        assert_eq!(word(kept(true), unknown()), "IPv6: it depends");
        assert_eq!(word(kept(true), kept(false)), "allowed");
        assert_eq!(word(kept(false), None), "closed");
        assert_eq!(word(None, None), "absent");
        let both = worst([("IPv4", kept(false)), ("IPv6", kept(false))], SOURCE);
        assert_eq!(both.note.as_deref(), Some("IPv4 and IPv6 closed: a rule"));
    }
}
