//! Words for a shell.

use crate::report::escape;

/// A word for the shell: in single quotes, whatever is in it.
pub fn quote(text: &str) -> String {
    format!("'{}'", escape::text(text).replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen failing without the `replace`: the word ended where the text said.
    #[test]
    fn a_quote_does_not_end_the_word() {
        assert_eq!(quote("a'b"), r"'a'\''b'");
    }
}
