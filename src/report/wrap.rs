//! Text in the width of a terminal.

use std::borrow::Cow;

use textwrap::{Options, WordSeparator, WordSplitter};

/// Ids and paths are copied and pasted: lines break at blanks only.
fn at_blanks(width: usize) -> Options<'static> {
    Options::new(width)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .break_words(false)
}

/// The lines of a text that is at most so many columns wide; a single word may be wider.
pub fn lines(text: &str, width: usize) -> Vec<Cow<'_, str>> {
    textwrap::wrap(text, at_blanks(width))
}

/// The lines of a cell, none of them wider: a word that is too long is cut.
pub fn cell(text: &str, width: usize) -> Vec<Cow<'_, str>> {
    textwrap::wrap(text, at_blanks(width.max(1)).break_words(true))
}

/// A text with what stands before its first and before its other lines.
pub fn filled(text: &str, first: &str, rest: &str, width: usize) -> String {
    let options = at_blanks(width).initial_indent(first).subsequent_indent(rest);
    textwrap::fill(text, options).trim_end().to_owned() + "\n"
}

/// How many columns a text takes.
pub fn columns(text: &str) -> usize {
    textwrap::core::display_width(text)
}

/// A text of at most so many columns; where something was left out it ends with `end`.
pub fn shortened<'t>(text: &'t str, width: usize, end: &str) -> Cow<'t, str> {
    if columns(text) <= width {
        return Cow::Borrowed(text);
    }
    let room = width.saturating_sub(columns(end));
    let mut kept = String::new();
    for c in text.chars() {
        kept.push(c);
        if columns(&kept) > room {
            kept.pop();
            break;
        }
    }
    Cow::Owned(kept.trim_end_matches([' ', ',']).to_owned() + end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_break_at_blanks_only() {
        assert_eq!(lines("see /etc/sysctl.d/99-x.conf now", 10), ["see", "/etc/sysctl.d/99-x.conf", "now"]);
        assert_eq!(filled("one two three", "- ", "  ", 9), "- one two\n  three\n");
    }

    proptest! {
        /// Seen failing with characters counted instead of columns.
        #[test]
        fn no_cell_is_wider_than_its_column(text in "([a-z/.日✅]{1,30}|-| ){0,40}", width in 4..90_usize) {
            for line in cell(&text, width) {
                prop_assert!(columns(&line) <= width, "{line}");
            }
            let short = shortened(&text, width, " …");
            prop_assert!(columns(&short) <= width, "{short}");
        }
    }
}
