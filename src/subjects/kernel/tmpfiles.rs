//! `w` lines of tmpfiles.d: what systemd-tmpfiles writes into existing files at boot.
//!
//! Unlike sysctl.d, the *first* line for a path wins; later ones are dropped as duplicates, but for `w+` after `w+`
//! (`parse_line()` in `src/tmpfiles/tmpfiles.c`; tried with systemd 252). Lines for the same file under different
//! patterns are all written, `f+` lines before `w` lines.

use super::sysctl::glob;
use crate::host::conf_dirs;
use crate::host::conf_dirs::Hidden;
use crate::host::{Host, ReadError};

/// A line that writes text into a file that exists, or that has a say in when and whether another does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: usize,
    /// May be a pattern.
    pub path: String,
    kind: Kind,
    /// What `w` and `f+` lines write.
    text: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `f+`, `F`: written before all others; knows no patterns.
    Truncate,
    /// `f`, `L`, …: nothing to do where the file exists, but a later `f+` is dropped.
    Create,
    /// `w`.
    Write,
    /// `w+`: does not drop others of its kind.
    Append,
    /// `e`, `x`, `r`, …: claims the path, so that a later `w` for it is dropped.
    Claim,
    /// `z`, `a`, `t`, …: changes other things; what is written by the same pattern is written in its place.
    Adjust,
}

/// A file that systemd-tmpfiles reads, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TmpfilesFile {
    pub path: String,
    pub lines: Vec<Line>,
}

/// What is written into a file last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub text: String,
    /// `/etc/tmpfiles.d/thp.conf:3`.
    pub at: String,
}

/// The tmpfiles.d files that say anything about /sys, in the order of reading, and the error of those that may not be read.
pub fn read(host: &Host) -> Result<(Vec<TmpfilesFile>, Vec<ReadError>), ReadError> {
    let mut files = Vec::new();
    let mut unreadable = Vec::new();
    for file in conf_dirs::read(host, &conf_dirs::directories(host, "tmpfiles.d"), Hidden::Skipped)? {
        match file.text {
            // Most files are about other folders, and need no parsing.
            Ok(text) if !text.contains("/sys/") => {}
            Ok(text) => files.push(TmpfilesFile { lines: parse(&text), path: file.path }),
            Err(error) => unreadable.push(error),
        }
    }
    Ok((files, unreadable))
}

/// Reads a file; types that neither write nor know patterns are skipped.
pub fn parse(text: &str) -> Vec<Line> {
    text.lines().enumerate().filter_map(|(index, line)| parse_line(index + 1, line)).collect()
}

/// `type path mode user group age argument`; the argument is the rest of the line.
fn parse_line(number: usize, line: &str) -> Option<Line> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let (kind, rest) = word(line)?;
    let (path, mut rest) = word(rest)?;
    for _ in 0..4 {
        rest = word(rest).map_or("", |(_, rest)| rest);
    }
    let text = unescaped(rest.trim());
    let mut characters = kind.chars();
    let letter = characters.next()?;
    // `!` only at boot, `-` errors do not matter, `=`, `~`, `^`, `$`: none keeps a line from being applied at boot.
    let plus = characters.clone().any(|c| c == '+');
    let known = characters.all(|c| "!-+=~^$?".contains(c));
    let kind = match letter {
        'F' => Kind::Truncate,
        'f' if plus => Kind::Truncate,
        'f' | 'd' | 'D' | 'v' | 'q' | 'Q' | 'p' | 'L' | 'c' | 'b' | 'C' => Kind::Create,
        'w' if plus => Kind::Append,
        'w' => Kind::Write,
        'e' | 'x' | 'X' | 'r' | 'R' => Kind::Claim,
        'm' | 'z' | 'Z' | 't' | 'T' | 'a' | 'A' | 'h' | 'H' => Kind::Adjust,
        _ => return None,
    };
    let text = (!text.is_empty() && text != "-").then_some(text);
    // `f+` without text empties the file, which means nothing in sysfs, but still claims the path.
    let needs_text = matches!(kind, Kind::Write | Kind::Append);
    let writes = needs_text || kind == Kind::Truncate;
    if !known || !path.starts_with('/') || (needs_text && text.is_none()) {
        return None;
    }
    let path = path.replace("%%", "%").trim_end_matches('/').to_owned();
    Some(Line { number, path, kind, text: text.filter(|_| writes) })
}

/// The next word, without its quotes and escapes, and what follows it.
fn word(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    let mut quote = None;
    let mut escaped = false;
    let mut raw = String::new();
    let mut end = text.len();
    for (at, c) in text.char_indices() {
        match (escaped, quote, c) {
            (true, _, c) => {
                raw.push('\\');
                raw.push(c);
                escaped = false;
            }
            (false, _, '\\') => escaped = true,
            (false, Some(open), c) if c == open => quote = None,
            (false, None, '"' | '\'') => quote = Some(c),
            (false, None, c) if c.is_whitespace() => {
                end = at;
                break;
            }
            (false, _, c) => raw.push(c),
        }
    }
    (!text.is_empty() && quote.is_none()).then(|| (unescaped(&raw), &text[end..]))
}

/// C escapes, as far as they stand for one byte: `\n`, `\t`, `\x41`, `\101`, `\\`.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let code = |digits: Option<&str>, base| digits.and_then(|digits| u8::from_str_radix(digits, base).ok());
        let octal = rest.bytes().take(3).filter(u8::is_ascii_digit).count() == 3;
        let (c, used) = match rest.chars().next() {
            Some('x') => match code(rest.get(1..3), 16) {
                Some(byte) => (char::from(byte), 3),
                None => ('\\', 0),
            },
            Some('0'..='7') if octal => match code(rest.get(..3), 8) {
                Some(byte) => (char::from(byte), 3),
                None => ('\\', 0),
            },
            Some('n') => ('\n', 1),
            Some('t') => ('\t', 1),
            Some('s') => (' ', 1),
            Some(c @ ('\\' | '"' | '\'')) => (c, 1),
            _ => ('\\', 0),
        };
        out.push(c);
        rest = &rest[used..];
    }
    out + rest
}

/// What the files write into `path` in the end.
pub fn written(files: &[TmpfilesFile], path: &str) -> Option<Written> {
    let lines = || files.iter().flat_map(|file| file.lines.iter().map(move |line| (file, line)));
    // One list per exact path or pattern, in the order of their first lines; `f+` and `w` are kept apart.
    let mut kept: Vec<(&TmpfilesFile, &Line)> = Vec::new();
    for (file, line) in lines().filter(|(_, line)| line.covers(path)) {
        let mut same = kept.iter().map(|(_, other)| *other).filter(|other| other.same_item(line));
        if same.all(|other| line.tolerates(other)) {
            kept.push((file, line));
        }
    }
    // A pattern's lines are applied together, where the pattern first stood.
    let first_of = |line: &Line| kept.iter().position(|(_, other)| other.same_item(line));
    let writing = kept.iter().enumerate().filter(|(_, (_, line))| line.text.is_some());
    let last = writing.max_by_key(|(at, (_, line))| (!line.is_plain(), first_of(line), *at));
    last.and_then(|(_, (file, line))| {
        Some(Written { text: line.text.clone()?, at: format!("{}:{}", file.path, line.number) })
    })
}

impl Line {
    fn covers(&self, path: &str) -> bool {
        self.path == path || (!self.is_plain() && glob::matches_path(&self.path, path))
    }

    fn same_item(&self, other: &Self) -> bool {
        self.path == other.path && self.is_plain() == other.is_plain()
    }

    /// Of the types whose path is no pattern; they come first.
    fn is_plain(&self) -> bool {
        matches!(self.kind, Kind::Truncate | Kind::Create)
    }

    /// Whether this line stays when `earlier` stands for the same path: `item_compatible()`.
    fn tolerates(&self, earlier: &Self) -> bool {
        self.kind == Kind::Adjust
            || earlier.kind == Kind::Adjust
            || (self.kind, earlier.kind) == (Kind::Append, Kind::Append)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATH: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

    fn last(texts: &[&str]) -> Option<String> {
        let file = |(index, text): (usize, &&str)| TmpfilesFile {
            path: format!("/{index}"),
            lines: parse(&text.replace('P', PATH)),
        };
        let files: Vec<TmpfilesFile> = texts.iter().enumerate().map(file).collect();
        written(&files, PATH).map(|written| format!("{} {}", written.at, written.text))
    }

    #[test]
    fn the_first_line_for_a_path_wins() {
        assert_eq!(last(&["w P - - - - never\n", "w P - - - - always\n"]).as_deref(), Some("/0:1 never"));
        assert_eq!(last(&["# c\n\nw! P - - - - never"]).as_deref(), Some("/0:3 never"));
        assert_eq!(last(&["d P - - - - never\nL P - - - - x\nw P - - - -\nw P - - - - -\nw\n"]), None);
    }

    #[test]
    fn what_was_seen_with_the_real_program() {
        let pattern = PATH.replace("enabled", "ena*");
        assert_eq!(last(&["w P - - - - a\nf+ P - - - - b\n"]).as_deref(), Some("/0:1 a"));
        assert_eq!(last(&["w P - - - - a\nw+ P - - - - b\nw+ P - - - - c"]).as_deref(), Some("/0:1 a"));
        assert_eq!(last(&["w+ P - - - - a\nw+ P - - - - b\nw P - - - - c\n"]).as_deref(), Some("/0:2 b"));
        assert_eq!(
            last(&["w P - - - - a\n", &format!("w {pattern} - - - - b\nw- \"P\" - - - - c\n")]).as_deref(),
            Some("/1:1 b")
        );
        assert_eq!(last(&["\tw P\t-\t-\t-\t-\tglob\\x41 two  \n"]).as_deref(), Some("/0:1 globA two"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed(text in "[wfF+!#/a* \\t\\n\"'\\\\x0-9é-]{0,80}") {
            let files = [TmpfilesFile { path: "/f".into(), lines: parse(&text) }];
            let _ = written(&files, "/a");
        }
    }
}
