//! One file of sysctl.d, as `systemd-sysctl` and as `sysctl --system` of procps read it.
//!
//! They differ in corners that the lab compares with the real programs (systemd 252, procps 4.0.2):
//! - systemd ends a line at CR and NUL too, procps only at LF;
//! - systemd swallows blanks between `-` and the key, for procps they belong to the key (which then does not exist);
//! - systemd drops needless slashes and a leading one from a name, procps keeps them.
//!
//! Not modelled: `systemd-sysctl` before 246 knew neither globs nor exclusions, and reads `sysctl.extra` credentials.

use crate::catalog::os::SysctlLoader;

/// One assignment or exclusion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: usize,
    /// Below /proc/sys, with slashes as the loader has them: `net/core/somaxconn`. May be a glob.
    pub path: String,
    /// `None` for `-key`, which takes a key out of the globs.
    pub value: Option<String>,
}

impl Line {
    pub fn is_glob(&self) -> bool {
        is_glob(&self.path)
    }
}

/// Whether glob(7) would expand it (`string_is_glob`, the same three characters in both loaders).
pub fn is_glob(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// The path below /proc/sys of a name in either notation. The first separator decides: after a dot, dots and slashes
/// change places (`net.ipv4.conf.eth0/100.forwarding`); after a slash, the name is a path already.
pub fn path_of(name: &str) -> String {
    if name.find(['/', '.']).is_none_or(|first| name.as_bytes().get(first) == Some(&b'/')) {
        return name.to_owned();
    }
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

/// Without empty and `.` components (`path_simplify` in systemd; what the kernel does with procps' paths).
pub fn simplified(path: &str) -> String {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

/// Reads a file. Lines that are neither comments, assignments nor exclusions are skipped, as both loaders do.
pub fn parse(text: &str, loader: SysctlLoader) -> Vec<Line> {
    match loader {
        SysctlLoader::Systemd => lines_of_systemd(text).filter_map(|(number, line)| systemd(number, line)).collect(),
        SysctlLoader::Procps => {
            text.split('\n').enumerate().filter_map(|(index, line)| procps(index + 1, line)).collect()
        }
    }
}

/// Reads a file as tuned does when it applies it once more (`_apply_sysctl_config_line` in
/// `tuned/plugins/plugin_sysctl.py`): no globs, no exclusions, Python's ends of lines. Up to 2.20 every dot of a name is
/// a slash; releases that `swap` change dots and slashes in any name, so that one with slashes is nothing to them.
pub fn parse_as_tuned(text: &str, swap: bool) -> Vec<Line> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let parse = |(index, line): (usize, &str)| {
        let line = line.trim();
        let (key, value) = line.split_once('=').filter(|_| !line.starts_with(['#', ';']))?;
        let change = |c| match c {
            '.' => '/',
            '/' if swap => '.',
            other => other,
        };
        let path = simplified(&key.trim().chars().map(change).collect::<String>());
        let value = value.trim();
        // Writing nothing changes nothing.
        (!is_glob(&path) && !value.is_empty()).then(|| Line { number: index + 1, path, value: Some(value.to_owned()) })
    };
    text.split('\n').enumerate().filter_map(parse).collect()
}

/// `strstrip()` of systemd.
const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// `read_line()` of systemd: CR, LF and NUL end a line, and one of each kind in a row is one end.
fn lines_of_systemd(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = Some(text);
    let mut number = 0;
    std::iter::from_fn(move || {
        let current = rest.take()?;
        number += 1;
        let is_end = |c: char| matches!(c, '\n' | '\r' | '\0');
        let Some(end) = current.bytes().position(|byte| is_end(byte.into())) else { return Some((number, current)) };
        let mut after = end;
        for c in current[end..].chars() {
            if !is_end(c) || current[end..after].contains(c) {
                break;
            }
            after += 1;
        }
        rest = Some(&current[after..]);
        Some((number, &current[..end]))
    })
}

/// `parse_file()` in `src/sysctl/sysctl.c` of systemd.
fn systemd(number: usize, line: &str) -> Option<Line> {
    let line = line.trim_matches(BLANKS);
    if line.is_empty() || line.starts_with(['#', ';']) {
        return None;
    }
    let (key, value) = match line.split_once('=') {
        Some((key, value)) => (key.strip_prefix('-').unwrap_or(key), Some(value.trim_matches(BLANKS).to_owned())),
        None => (line.strip_prefix('-')?, None),
    };
    Some(Line { number, path: simplified(&path_of(key.trim_matches(BLANKS))), value })
}

/// `parse_setting_line()` in `src/sysctl.c` of procps 4.
fn procps(number: usize, line: &str) -> Option<Line> {
    // isspace(3) in the C locale.
    let blank = |c: char| c.is_ascii_whitespace() || c == '\x0b';
    let line = line.split('\0').next()?.trim_start_matches(blank);
    // getline(3) keeps the line feed, and procps wants two characters.
    if line.is_empty() || line.starts_with(['#', ';']) {
        return None;
    }
    let (key, value) = match line.split_once('=') {
        Some((key, value)) => (key.strip_prefix('-').unwrap_or(key), Some(value.trim_matches(blank).to_owned())),
        None => (line.strip_prefix('-')?, None),
    };
    let key = key.trim_end_matches(blank);
    // procps strips one more dash when it makes the path.
    Some(Line { number, path: path_of(key.strip_prefix('-').unwrap_or(key)), value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: [SysctlLoader; 2] = [SysctlLoader::Systemd, SysctlLoader::Procps];

    #[test]
    fn comments_spacing_and_numbers() {
        let text = "# one\n; two\n\n  net.core.somaxconn\t= 1 2\t3 \n-vm.swappiness=10\nnonsense\n-net.ipv4.conf.lo.rp_filter\nvm.x =\n";
        for loader in BOTH {
            let shown: Vec<_> =
                parse(text, loader).into_iter().map(|line| (line.number, line.path, line.value)).collect();
            assert_eq!(
                shown,
                [
                    (4, "net/core/somaxconn".to_owned(), Some("1 2\t3".to_owned())),
                    (5, "vm/swappiness".to_owned(), Some("10".to_owned())),
                    (7, "net/ipv4/conf/lo/rp_filter".to_owned(), None),
                    (8, "vm/x".to_owned(), Some(String::new())),
                ],
                "{loader:?}"
            );
        }
    }

    #[test]
    fn the_first_separator_decides_the_notation() {
        assert_eq!(path_of("net.ipv4.conf.eth0/100.forwarding"), "net/ipv4/conf/eth0.100/forwarding");
        assert_eq!(path_of("net/ipv4/conf/eth0.100/forwarding"), "net/ipv4/conf/eth0.100/forwarding");
        assert_eq!(path_of("hostname"), "hostname");
        assert_eq!(simplified("/net//ipv4/./conf/"), "net/ipv4/conf");
    }

    #[test]
    fn where_the_loaders_differ() {
        let of = |text: &str, loader| parse(text, loader).into_iter().map(|line| line.path).collect::<Vec<_>>();
        assert_eq!(of("a.b=1\rc.d=2\n", SysctlLoader::Systemd), ["a/b", "c/d"]);
        assert_eq!(of("a.b=1\rc.d=2\n", SysctlLoader::Procps), ["a/b"]);
        assert_eq!(of("- a.b=1\n", SysctlLoader::Systemd), ["a/b"]);
        assert_eq!(of("- a.b=1\n", SysctlLoader::Procps), [" a/b"]);
        assert_eq!(parse("\r\n\n\r\na.b=1\r\n", SysctlLoader::Systemd)[0].number, 4);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[-a-c./=#;* \\t\\r\\n\\x00é]{0,60}") {
            for loader in BOTH {
                let lines = parse(&text, loader);
                let _ = (parse_as_tuned(&text, true), parse_as_tuned(&text, false));
                prop_assert!(lines.windows(2).all(|pair| pair[0].number < pair[1].number));
            }
        }

        #[test]
        fn swapping_twice_is_nothing(name in "[a-z]{1,3}(\\.[a-z0-9/]{1,4}){1,3}") {
            let path = path_of(&name);
            prop_assert_eq!(path_of(&path.chars().map(|c| match c { '.' => '/', '/' => '.', c => c }).collect::<String>()), path);
        }
    }
}
