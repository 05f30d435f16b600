//! glob(7) patterns, as far as sysctl names need them.

/// Whether glob(3) finds `path` by `pattern`: component by component, so that no wildcard matches a slash, and none a
/// leading dot.
pub fn matches_path(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) => {
                if part.starts_with('.') && !pattern.starts_with('.') || !matches(pattern, part) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

/// `fnmatch(pattern, text, 0)`: wildcards match anything, slashes and dots too.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the text after the last `*` does not fit: one star is enough to remember.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some('*') => {
                retry = Some((p, t + 1));
                p += 1;
                continue;
            }
            None if t == text.len() => return true,
            None => None,
            Some(_) => text.get(t).and_then(|&c| one(&pattern[p..], c)),
        };
        match (step, retry) {
            (Some(used), _) => (p, t) = (p + used, t + 1),
            (None, Some((star, from))) if from <= text.len() => {
                (p, t) = (star + 1, from);
                retry = Some((star, from + 1));
            }
            (None, _) => return false,
        }
    }
}

/// How many pattern characters match one character of text, if they do.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['[', rest @ ..] => match bracket(rest, c) {
            Some((true, used)) => Some(used + 1),
            Some((false, _)) => None,
            // Without its `]` the bracket is an ordinary character.
            None => (c == '[').then_some(1),
        },
        ['\\', next, ..] => (*next == c).then_some(2),
        [literal, ..] => (*literal == c).then_some(1),
        [] => None,
    }
}

/// A bracket expression after its `[`: whether it holds `c`, and its length with the `]`. `None` when it never ends.
fn bracket(expression: &[char], c: char) -> Option<(bool, usize)> {
    let negated = matches!(expression.first(), Some('!' | '^'));
    let mut at = usize::from(negated);
    let first = at;
    let mut held = false;
    loop {
        match &expression[at.min(expression.len())..] {
            [] => return None,
            [']', ..] if at > first => return Some((held != negated, at + 1)),
            ['[', ':', class @ ..] if class.windows(2).any(|pair| pair == [':', ']']) => {
                let end = class.windows(2).position(|pair| pair == [':', ']'])?;
                held |= in_class(&class[..end].iter().collect::<String>(), c);
                at += end + 4;
            }
            [low, '-', high, ..] if *high != ']' => {
                held |= (*low..=*high).contains(&c);
                at += 3;
            }
            ['\\', literal, ..] => {
                held |= *literal == c;
                at += 2;
            }
            [literal, ..] => {
                held |= *literal == c;
                at += 1;
            }
        }
    }
}

fn in_class(name: &str, c: char) -> bool {
    match name {
        "alpha" => c.is_ascii_alphabetic(),
        "digit" => c.is_ascii_digit(),
        "alnum" => c.is_ascii_alphanumeric(),
        "lower" => c.is_ascii_lowercase(),
        "upper" => c.is_ascii_uppercase(),
        "xdigit" => c.is_ascii_hexdigit(),
        "punct" => c.is_ascii_punctuation(),
        "space" => c.is_ascii_whitespace(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wildcards_stay_in_their_component() {
        assert!(matches_path("net/ipv4/conf/*/rp_filter", "net/ipv4/conf/lo/rp_filter"));
        assert!(!matches_path("net/*/rp_filter", "net/ipv4/conf/lo/rp_filter"));
        assert!(matches("net/*/rp_filter", "net/ipv4/conf/lo/rp_filter"));
        assert!(!matches_path("net/*", "net/.hidden") && matches_path("net/.*", "net/.hidden"));
    }

    #[test]
    fn brackets() {
        for (pattern, text, expected) in [
            ("eth[0-9]", "eth5", true),
            ("eth[!0-9]", "eth5", false),
            ("eth[^0-9]", "ethx", true),
            ("[]a]", "]", true),
            ("[[:digit:]x]y", "7y", true),
            ("[abc", "[abc", true),
            ("[abc", "a", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("l?", "lo", true),
            ("*o*", "lo", true),
            ("*a*b", "xaxaxb", true),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_is_answered(pattern in "[-*?\\[\\]!^:a-c\\\\]{0,12}", text in "[a-c\\[\\]-]{0,12}") {
            let _ = matches(&pattern, &text);
        }

        #[test]
        fn text_matches_itself_and_a_star(text in "[a-z/_.]{0,12}") {
            prop_assert!(matches(&text, &text) && matches("*", &text));
        }
    }
}
