//! os-release(5): which distribution this is. The file is shell assignments, so it is read as a shell would read it.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::facts::{Fact, Facts, Value, Version};
use crate::host::{Host, ReadError};
use crate::subjects::context::Want;

/// In the order of os-release(5): an administrator's file first, then the vendor's.
const PATHS: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// What os-release says about the distribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsRelease {
    /// `ID=`: `debian`. `linux` when the file does not set it, as os-release(5) asks.
    pub id: String,
    /// `ID_LIKE=`: the closest relatives, closest first.
    pub id_like: Vec<String>,
    /// `VERSION_ID=`; rolling distributions have none.
    pub version_id: Option<String>,
    /// `PRETTY_NAME=`, or `NAME=`, or the ID.
    pub pretty_name: String,
    /// The file that was read.
    pub path: &'static str,
}

/// Reads the first os-release file there is. [`ReadError::is_absent`] when there is none.
pub fn read(host: &Host) -> Result<OsRelease, ReadError> {
    let [first, second] = PATHS;
    match host.read_text(first) {
        Ok(text) => Ok(parse(&text, first)),
        Err(error) if error.is_absent() => host.read_text(second).map(|text| parse(&text, second)),
        Err(error) => Err(error),
    }
}

/// Takes the fields that matter out of the text of an os-release file.
pub fn parse(text: &str, path: &'static str) -> OsRelease {
    let mut fields = assignments(text);
    let mut take = |key: &str| fields.remove(key).filter(|value| !value.is_empty());
    let id = take("ID").unwrap_or_else(|| "linux".to_owned());
    let pretty_name = take("PRETTY_NAME").or_else(|| take("NAME")).unwrap_or_else(|| id.clone());
    let id_like = take("ID_LIKE").unwrap_or_default().split_whitespace().map(Into::into).collect();
    OsRelease { id, id_like, version_id: take("VERSION_ID"), pretty_name, path }
}

/// All assignments of a file in shell syntax; of several to one name the last wins. Lines that assign nothing are
/// skipped. Blanks inside an unquoted value are kept, as systemd keeps them, though a shell would not.
pub fn assignments(text: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return fields;
        }
        let line_end = rest.find('\n').unwrap_or(rest.len());
        match rest[..line_end].split_once('=') {
            Some((name, _)) if is_name(name) => {
                let (value, after) = value(&rest[name.len() + 1..]);
                fields.insert(name.to_owned(), value);
                rest = after;
            }
            _ => rest = &rest[line_end..],
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Reads one value up to the newline that ends it; returns it and what follows.
fn value(text: &str) -> (String, &str) {
    let mut value = String::new();
    // Up to here the value was quoted or not blank; blanks after it are trailing and dropped (a CR among them).
    let mut kept = 0;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        match (quote, c) {
            (None, '\n') => {
                value.truncate(kept);
                return (value, &text[index..]);
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                kept = value.len();
                continue;
            }
            (Some(open), c) if c == open => {
                quote = None;
                kept = value.len();
                continue;
            }
            (None | Some('"'), '\\') => match chars.next() {
                // A backslash before a newline joins the lines.
                Some((_, '\n')) | None => {}
                Some((_, escaped)) => {
                    if quote.is_some() && !matches!(escaped, '"' | '\\' | '$' | '`') {
                        value.push('\\');
                    }
                    value.push(escaped);
                }
            },
            _ => {
                value.push(c);
                if quote.is_none() && c.is_whitespace() {
                    continue;
                }
            }
        }
        kept = value.len();
    }
    value.truncate(kept);
    (value, "")
}

/// Inserts `os.id`, `os.like`, `os.name` and `os.version`.
///
/// Asked for before everything else: which OS profile the other probes are given depends on it.
pub fn probe(host: &Host, want: &Want, facts: &mut Facts) {
    if !want.any("os.") {
        return;
    }
    let started = Instant::now();
    let release = read(host);
    for (id, of) in
        [("os.id", id as fn(&OsRelease) -> Fact), ("os.like", like), ("os.name", name), ("os.version", version)]
    {
        if want.has(id) {
            let fact = match &release {
                Ok(release) => of(release),
                Err(error) => Fact::unreadable(error, "there is no os-release file"),
            };
            facts.live(id, fact.took(started.elapsed()));
        }
    }
}

fn id(release: &OsRelease) -> Fact {
    Fact::known(Value::Text(release.id.clone()), release.path)
}

fn like(release: &OsRelease) -> Fact {
    Fact::known(Value::Text(release.id_like.join(" ")), release.path)
}

fn name(release: &OsRelease) -> Fact {
    Fact::known(Value::Text(release.pretty_name.clone()), release.path)
}

fn version(release: &OsRelease) -> Fact {
    let Some(text) = &release.version_id else {
        return Fact::absent("a rolling release: VERSION_ID is not set", release.path);
    };
    match Version::parse(text) {
        Ok(version) => Fact::known(Value::Version(version), release.path),
        Err(_) => Fact::absent(format!("VERSION_ID=`{text}` is not a number"), release.path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::State;
    use proptest::prelude::*;

    fn field(text: &str, name: &str) -> Option<String> {
        assignments(text).remove(name)
    }

    #[test]
    fn values_are_read_as_a_shell_reads_them() {
        for (text, value) in [
            ("X=plain", "plain"),
            ("X=\"two words\"\n", "two words"),
            ("X='single $HOME \\n'\n", "single $HOME \\n"),
            ("X=\"a \\\"quoted\\\" \\$name \\\\ \\`\"\n", "a \"quoted\" $name \\ `"),
            ("X=\"kept \\n backslash\"\n", "kept \\n backslash"),
            ("X=a\\ b\n", "a b"),
            ("X=\"joined\\\nlines\"\n", "joinedlines"),
            ("X=12\r\nY=1\r\n", "12"),
            ("X=\"12\"\r\n", "12"),
            ("X=\"12 \"  \n", "12 "),
            ("X=\"1\"'2'3\n", "123"),
            ("X=\n", ""),
            ("X=first\nX=last\n", "last"),
            ("  X=indented\n", "indented"),
            ("# X=comment\nX=real\n#X=other", "real"),
            ("not an assignment\n=\n1X=no\nX=yes", "yes"),
            ("\u{feff}X=bom", "bom"),
            ("X=\"two\nlines\"\nY=1", "two\nlines"),
            ("X=it's # no comment'\n", "its # no comment"),
        ] {
            assert_eq!(field(text, "X").as_deref(), Some(value), "{text:?}");
        }
        assert_eq!(field("X=1\r\nY=2\r\n", "Y").as_deref(), Some("2"));
    }

    #[test]
    fn missing_fields_have_the_defaults_of_the_man_page() {
        let release = parse("", "/etc/os-release");
        assert_eq!((release.id.as_str(), release.pretty_name.as_str()), ("linux", "linux"));
        assert_eq!(release.version_id, None);
        assert!(matches!(version(&release).state, State::Absent(_)));
        let release = parse("ID=arch\nNAME=\"Arch Linux\"\nVERSION_ID=rolling\nID_LIKE=\"a b\"", "/etc/os-release");
        assert_eq!(release.pretty_name, "Arch Linux");
        assert_eq!(release.id_like, ["a", "b"]);
        assert!(matches!(version(&release).state, State::Absent(_)));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test builds the root it reads")]
    fn the_vendor_file_is_read_when_the_other_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at_root(root.path());
        assert!(read(&host).unwrap_err().is_absent());
        std::fs::create_dir_all(root.path().join("usr/lib")).unwrap();
        std::fs::write(root.path().join("usr/lib/os-release"), "ID=vendor").unwrap();
        assert_eq!(read(&host).unwrap().path, "/usr/lib/os-release");
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/os-release"), "ID=admin").unwrap();
        assert_eq!(read(&host).unwrap().id, "admin");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(ID|X|=|\"|'|\\\\|\n|\r|#| |\\PC){0,40}") {
            parse(&text, "/etc/os-release");
        }

        #[test]
        fn a_double_quoted_value_reads_back(value in "\\PC{0,30}") {
            let mut quoted = String::new();
            for c in value.chars() {
                if matches!(c, '"' | '\\' | '$' | '`') {
                    quoted.push('\\');
                }
                quoted.push(c);
            }
            prop_assert_eq!(field(&format!("A=1\nX=\"{quoted}\"\nB=2\n"), "X"), Some(value));
        }
    }
}
