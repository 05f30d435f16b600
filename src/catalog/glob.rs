//! Globs over ids: `*` stands for any run of characters, `?` for one.

/// Whether the pattern matches the whole text. Linear in practice: it remembers only the last `*`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == text[t]) && pattern[p] != b'*' {
            p += 1;
            t += 1;
        } else if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
            // Whatever is left.
            if p == pattern.len() {
                return true;
            }
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn globs_match_whole_ids() {
        for (pattern, text, expected) in [
            ("docker.*", "docker.engine", true),
            ("docker.*", "docker", false),
            ("*", "", true),
            ("port.free.63??", "port.free.6379", true),
            ("*.thp", "kernel.thp", true),
            ("*.thp", "kernel.thp-sizes", false),
            ("a*b*c", "axxbxxc", true),
            ("a*b*c", "axxbxx", false),
            ("kernel.overcommit", "kernel.overcommit", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
