//! Names that other people chose (processes, containers, files) must never reach a terminal raw.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Characters that steer a terminal or reorder a line: C0 and C1 controls, DEL, bidirectional marks and overrides,
/// zero-width and line-separating characters.
fn is_hostile(c: char) -> bool {
    // Nearly every character.
    if matches!(c, ' '..='~') {
        return false;
    }
    c.is_control()
        || matches!(
            c,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// Text for one line: every hostile character is shown as its code, `\x1b`, `\u{202e}`. A line break too.
pub fn text(raw: &str) -> Cow<'_, str> {
    escape(raw, is_hostile)
}

/// Text of several lines: tabs and line breaks stay.
pub fn lines(raw: &str) -> Cow<'_, str> {
    escape(raw, |c| is_hostile(c) && c != '\n' && c != '\t')
}

/// Finished JSON: hostile characters, which only occur inside its strings, become `\\u` escapes. A reader gets the same
/// text, a terminal gets nothing that steers it.
pub fn json(raw: &str) -> Cow<'_, str> {
    let hostile = |c: char| is_hostile(c) && c != '\n';
    if !raw.chars().any(hostile) {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len() + 32);
    for c in raw.chars() {
        if hostile(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}"); // a String takes all
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The signs that preflight writes in ASCII, for a terminal that may not know them.
pub fn plain(text: Cow<'_, str>, unicode: bool) -> Cow<'_, str> {
    const SIGNS: [(char, &str); 7] =
        [('→', "->"), ('×', "x"), ('…', "..."), ('·', "-"), ('≤', "<="), ('≥', ">="), ('–', "-")];
    if unicode || text.is_ascii() {
        return text;
    }
    let sign = |c: char| SIGNS.iter().find(|(sign, _)| *sign == c).map(|(_, words)| *words);
    if !text.chars().any(|c| !c.is_ascii() && sign(c).is_some()) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match sign(c) {
            Some(words) => out.push_str(words),
            None => out.push(c),
        }
    }
    Cow::Owned(out)
}

fn escape(raw: &str, hostile: impl Fn(char) -> bool) -> Cow<'_, str> {
    let printable = |byte: u8| (b' '..=b'~').contains(&byte);
    if raw.bytes().all(printable) || !raw.chars().any(&hostile) {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len() + 8);
    for c in raw.chars() {
        if !hostile(c) {
            out.push(c);
            continue;
        }
        let code = u32::from(c);
        // Writing to a String cannot fail.
        let _ = if code < 0x100 { write!(out, "\\x{code:02x}") } else { write!(out, "\\u{{{code:x}}}") };
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_and_bidi_are_shown_as_codes() {
        assert_eq!(text("redis\u{1b}]52;c;cm0=\u{7}"), "redis\\x1b]52;c;cm0=\\x07");
        assert_eq!(text("a\u{202e}b\u{9b}c\nd"), "a\\u{202e}b\\x9bc\\x0ad");
        assert_eq!(text("naïve ✅ 日本"), "naïve ✅ 日本");
        assert_eq!(lines("a\n\tb\r"), "a\n\tb\\x0d");
    }

    #[test]
    fn signs_of_our_own_have_a_plain_form() {
        let text = "4096 → 65535, 3 × 2 GiB … naïve";
        assert_eq!(plain(text.into(), false), "4096 -> 65535, 3 x 2 GiB ... naïve");
        assert_eq!(plain(text.into(), true), text);
        assert!(matches!(plain("plain".into(), false), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn nothing_hostile_is_left(raw in any::<String>()) {
            prop_assert!(!text(&raw).chars().any(is_hostile));
        }

        #[test]
        fn json_reads_back_and_holds_nothing_hostile(raw in any::<String>()) {
            let written = serde_json::to_string_pretty(&vec![&raw]).unwrap();
            let safe = json(&written);
            prop_assert!(!safe.chars().any(|c| is_hostile(c) && c != '\n'));
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&safe).unwrap(), vec![raw]);
        }
    }
}
