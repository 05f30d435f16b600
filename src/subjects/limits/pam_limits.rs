//! `limits.pam-nofile-above-nr-open`: lines of limits.conf that would lock people out.
//!
//! pam_limits refuses a login when setrlimit(2) fails, and that fails for a hard nofile above fs.nr_open. A soft value
//! alone does no harm: it is cut to the hard one first (`setup_limits()` in modules/pam_limits/pam_limits.c).
//!
//! Debian patches this: its pam_limits (tried: 1.5.2 of bookworm, 1.7.0 of trixie) writes the error to the log and lets
//! the user in with the limit unset. The note says so where that module is installed.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::facts::{Fact, Facts, Value};
use crate::host::conf_dirs;
use crate::host::conf_dirs::Hidden;
use crate::host::{Host, ReadError};
use crate::subjects::context::Context;

const ID: &str = "limits.pam-nofile-above-nr-open";
const NR_OPEN: &str = "/proc/sys/fs/nr_open";
const SOURCE: &str = "/etc/security/limits.conf, /etc/security/limits.d";

/// A hard limit on open files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HardNofile {
    /// Counted from 1.
    pub number: usize,
    /// As written.
    pub value: String,
    pub limit: Limit,
}

/// What the written value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Files(u64),
    /// `unlimited`, `infinity`, `-` or `-1`: fs.nr_open since Linux-PAM 1.5.2, refused by the kernel before.
    Unlimited,
}

pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    if !cx.want.has(ID) {
        return;
    }
    let started = Instant::now();
    let fact = read(cx.host).unwrap_or_else(|error| Fact::unreadable(&error, "not on this kernel"));
    facts.live(ID, fact.took(started.elapsed()));
}

fn read(host: &Host) -> Result<Fact, ReadError> {
    let mut files = Vec::new();
    // SUSE ships its own below /usr/etc; the administrator's file of the same name replaces it.
    for path in ["/etc/security/limits.conf", "/usr/etc/security/limits.conf"] {
        if let Some(text) = host.read_optional(path)? {
            files.push((path.to_owned(), text));
            break;
        }
    }
    let directories = ["/etc/security/limits.d", "/usr/etc/security/limits.d"].map(str::to_owned);
    for file in conf_dirs::read(host, &directories, Hidden::Skipped)? {
        files.push((file.path, file.text?));
    }
    let limits = files.iter().flat_map(|(path, text)| parse(text).into_iter().map(move |limit| (path, limit)));
    let limits: Vec<(&String, HardNofile)> = limits.collect();
    if limits.is_empty() {
        return Ok(Fact::known(Value::Set(BTreeSet::new()), SOURCE));
    }
    let nr_open = match host.read_text(NR_OPEN) {
        Ok(text) => text.trim().parse().ok(),
        Err(error) => return Ok(Fact::unreadable_of_kernel(host, &error, "not on this kernel")),
    };
    let Some(nr_open) = nr_open else {
        return Ok(Fact::unknown("fs.nr_open is no number", None, NR_OPEN));
    };
    let suspicious = |limit: Limit| !matches!(limit, Limit::Files(files) if files <= nr_open);
    let mut note = format!("fs.nr_open is {nr_open}");
    let mut above = BTreeSet::new();
    if limits.iter().any(|(_, nofile)| suspicious(nofile.limit)) {
        let module = Module::installed(host);
        let fails = limits.iter().filter(|(_, nofile)| match nofile.limit {
            Limit::Unlimited => !module.knows_nr_open,
            limit @ Limit::Files(_) => suspicious(limit),
        });
        above.extend(fails.map(|(path, nofile)| format!("{path}:{} {}", nofile.number, nofile.value)));
        if module.lets_in {
            note.push_str("; this host's pam_limits logs the error and lets the user in, without the limit");
        }
    }
    Ok(Fact::known(Value::Set(above), SOURCE).note(note))
}

/// What the installed pam_limits does, told by the texts in it. One that is not found counts as an upstream release of
/// the last years.
struct Module {
    /// It turns `unlimited` into fs.nr_open: then it holds that file's name.
    knows_nr_open: bool,
    /// Debian's, which does not refuse the login: it has a message of its own.
    lets_in: bool,
}

impl Module {
    fn installed(host: &Host) -> Self {
        let architecture = std::env::consts::ARCH;
        let folders = [
            format!("/usr/lib/{architecture}-linux-gnu/security"),
            format!("/lib/{architecture}-linux-gnu/security"),
            "/usr/lib64/security".into(),
            "/lib64/security".into(),
            "/usr/lib/security".into(),
            "/lib/security".into(),
        ];
        let Some(bytes) = folders.iter().find_map(|folder| host.read(format!("{folder}/pam_limits.so")).ok()) else {
            return Self { knows_nr_open: true, lets_in: false };
        };
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        Self { knows_nr_open: holds(NR_OPEN), lets_in: holds("%m; uid=%lu,euid=%lu") }
    }
}

/// The hard nofile limits of a file: `domain hard|- nofile value`, anything after `#` is a comment.
pub fn parse(text: &str) -> Vec<HardNofile> {
    text.lines().enumerate().filter_map(|(index, line)| parse_line(index + 1, line)).collect()
}

fn parse_line(number: usize, line: &str) -> Option<HardNofile> {
    let mut words = line.split('#').next()?.split_ascii_whitespace();
    let (domain, kind, item, value) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let is_hard = kind == "-" || kind.eq_ignore_ascii_case("hard");
    // `%group` counts logins only.
    if !is_hard || !item.eq_ignore_ascii_case("nofile") || domain.starts_with('%') {
        return None;
    }
    let limit = match value.to_ascii_lowercase().as_str() {
        "unlimited" | "infinity" | "-" | "-1" => Limit::Unlimited,
        text => leading_number(text)?,
    };
    Some(HardNofile { number, value: value.to_owned(), limit })
}

/// strtoull(3) with base 10: the digits at the start; a minus wraps around; what is too large is the largest.
fn leading_number(text: &str) -> Option<Limit> {
    let unsigned = text.trim_start_matches(['+', '-']);
    let sign = &text[..text.len() - unsigned.len()];
    let end = unsigned.find(|c: char| !c.is_ascii_digit()).unwrap_or(unsigned.len());
    if end == 0 || sign.len() > 1 {
        return None;
    }
    let number = unsigned[..end].parse().unwrap_or(u64::MAX);
    let number = if sign == "-" { 0_u64.wrapping_sub(number) } else { number };
    Some(if number == u64::MAX { Limit::Unlimited } else { Limit::Files(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_hard_limits_on_files_count() {
        let text = "# c\n* soft nofile 9999999\n*  hard\tnofile 65535 # ok\n@web - NOFILE unlimited\n* hard nproc 1\n%x hard nofile 5\nroot -\nbob Hard nofile -1\nbob hard nofile many\namy hard nofile 12x\n";
        let shown: Vec<_> = parse(text).into_iter().map(|nofile| (nofile.number, nofile.limit)).collect();
        assert_eq!(
            shown,
            [(3, Limit::Files(65535)), (4, Limit::Unlimited), (8, Limit::Unlimited), (10, Limit::Files(12))]
        );
    }

    #[test]
    fn numbers_as_strtoull_reads_them() {
        assert_eq!(leading_number("18446744073709551616"), Some(Limit::Unlimited));
        assert_eq!(leading_number("-2"), Some(Limit::Files(u64::MAX - 1)));
        assert_eq!((leading_number(""), leading_number("-"), leading_number("+-1")), (None, None, None));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test builds the root it reads")]
    fn lines_above_nr_open_are_named() {
        use std::fs;
        let root = tempfile::tempdir().unwrap();
        for directory in ["etc/security/limits.d", "proc/sys/fs", "usr/lib64/security"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        let above = |host: &Host| match read(host).unwrap().state {
            crate::facts::State::Known(Value::Set(lines)) => lines.into_iter().collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let host = Host::at_root(root.path());
        assert_eq!(above(&host), Vec::<String>::new());
        write("proc/sys/fs/nr_open", "1048576\n");
        write("etc/security/limits.conf", "* hard nofile 1048576\n* hard nofile 1048577\n");
        write("etc/security/limits.d/90-x.conf", "* - nofile unlimited\n");
        write("etc/security/limits.d/90-x.txt", "* - nofile 99999999\n");
        assert_eq!(above(&host), ["/etc/security/limits.conf:2 1048577"]);
        write("usr/lib64/security/pam_limits.so", "an old module");
        let both = ["/etc/security/limits.conf:2 1048577", "/etc/security/limits.d/90-x.conf:1 unlimited"];
        assert_eq!(above(&host), both);
        write("usr/lib64/security/pam_limits.so", "a module with /proc/sys/fs/nr_open in it");
        assert_eq!(above(&host).len(), 1);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed(text in "[-*@a-c0-9# \\t\\n]{0,40}(hard nofile )?\\PC{0,20}") {
            let _ = (parse(&text), leading_number(&text));
        }
    }
}
