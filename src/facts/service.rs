//! Names of systemd's services.

/// Whether a text can be a service's name (`VALID_CHARS` in systemd's src/basic/unit-name.c), with or without the suffix.
/// It becomes part of a path, so it never begins with a dot or holds a slash.
pub fn is_name(text: &str) -> bool {
    text.len() <= 200
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.@".contains(&byte))
        && !text.ends_with('.')
}

/// The unit: `redis-server` and `redis-server.service` are the same service.
pub fn unit(name: &str) -> String {
    if name.ends_with(".service") { name.to_owned() } else { format!("{name}.service") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_data() {
        for name in ["redis-server", "redis@6380.service", "a.b:c_d", "9p"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-x", ".x", "a/b", "a b", "../x", "x\n", "x.", "\u{e4}"] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
