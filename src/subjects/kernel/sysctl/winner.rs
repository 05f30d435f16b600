//! Which line of which file decides a setting, when all files are applied in order.

use super::files::{self, Line, is_glob, simplified};
use super::glob;
use crate::catalog::os::SysctlLoader;

/// A file as the loader reads it, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsFile {
    pub path: String,
    pub lines: Vec<Line>,
}

impl SettingsFile {
    pub fn parse(path: impl Into<String>, text: &str, loader: SysctlLoader) -> Self {
        Self { path: path.into(), lines: files::parse(text, loader) }
    }
}

/// A value and the line that sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub value: String,
    /// `/etc/sysctl.d/99-x.conf:3`.
    pub at: String,
    /// Which of the files asked about, counted from 0; what is read later has a higher number.
    pub file: usize,
    /// By a pattern such as `net.ipv4.conf.*.rp_filter`.
    pub by_glob: bool,
}

/// What the files do to a setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The line whose value the setting has in the end; `None` when no file sets it.
    pub winner: Option<Assignment>,
    /// Every other line that names it, in the order of reading.
    pub losers: Vec<Assignment>,
    /// Lines that the kernel would refuse.
    pub refused: Vec<Assignment>,
}

/// One line that touches the setting, with its place.
struct Entry<'a> {
    file: usize,
    at: String,
    line: &'a Line,
}

impl Entry<'_> {
    fn assignment(&self) -> Option<Assignment> {
        let value = self.line.value.clone()?;
        Some(Assignment { value, at: self.at.clone(), file: self.file, by_glob: self.line.is_glob() })
    }

    /// The paths of the setting that this line writes when nothing speaks against it.
    fn touches(&self, path: &str) -> bool {
        touches(self.line, path)
    }
}

fn touches(line: &Line, path: &str) -> bool {
    let mine = simplified(&line.path);
    if is_glob(&mine) { glob::matches_path(&mine, path) } else { mine == path }
}

/// The winner among `files`, given in the order of reading, for a setting that may have several names in /proc/sys
/// (`paths`, slashes). `accepts` says whether the kernel takes a value: what it refuses changes nothing.
pub fn winner(files: &[SettingsFile], loader: SysctlLoader, paths: &[&str], accepts: &dyn Fn(&str) -> bool) -> Outcome {
    let entries: Vec<Entry<'_>> = files
        .iter()
        .enumerate()
        .flat_map(|(file, SettingsFile { path, lines })| {
            let mine = lines.iter().filter(|line| paths.iter().any(|path| touches(line, path)));
            mine.map(move |line| Entry { file, at: format!("{path}:{}", line.number), line })
        })
        .collect();
    let writes = match loader {
        SysctlLoader::Systemd => systemd(&entries, paths),
        SysctlLoader::Procps => procps(&entries, paths),
    };
    let mut outcome = Outcome::default();
    for write in writes.into_iter().filter_map(Entry::assignment) {
        if accepts(&write.value) {
            outcome.winner = Some(write);
        } else if !outcome.refused.contains(&write) {
            outcome.refused.push(write);
        }
    }
    outcome.losers = entries.iter().filter_map(Entry::assignment).collect();
    outcome.losers.retain(|loser| Some(loser) != outcome.winner.as_ref() && !outcome.refused.contains(loser));
    outcome
}

/// `parse_file()` and `apply_all()`: one entry per key; a new value moves it to the end, the same value does not. Keys
/// that stand there without a wildcard, exclusions too, are never set by a glob. An exclusion also takes away an
/// earlier assignment of the same key.
fn systemd<'a, 'b>(entries: &'b [Entry<'a>], paths: &[&str]) -> Vec<&'b Entry<'a>> {
    let mut options: Vec<&Entry<'a>> = Vec::new();
    for entry in entries {
        if let Some(index) = options.iter().position(|option| option.line.path == entry.line.path) {
            if options[index].line.value == entry.line.value {
                continue;
            }
            options.remove(index);
        }
        options.push(entry);
    }
    let mut writes = Vec::new();
    for option in options.iter().filter(|option| option.line.value.is_some()) {
        for path in paths.iter().filter(|path| option.touches(path)) {
            if !option.line.is_glob() || !options.iter().any(|other| other.line.path == **path) {
                writes.push(*option);
            }
        }
    }
    writes
}

/// `write_setting_list()`: every line in order; a glob skips what any line names, or excludes, in exactly the same words.
/// An exclusion does nothing to an assignment without a wildcard. (procps 4.0.2 to 4.0.4; later releases also match
/// exclusions as patterns.)
fn procps<'a, 'b>(entries: &'b [Entry<'a>], paths: &[&str]) -> Vec<&'b Entry<'a>> {
    let mut writes = Vec::new();
    for entry in entries.iter().filter(|entry| entry.line.value.is_some()) {
        for path in paths.iter().filter(|path| entry.touches(path)) {
            let found = expansion(&entry.line.path, path);
            if !entry.line.is_glob() || !entries.iter().any(|other| other.line.path == found) {
                writes.push(entry);
            }
        }
    }
    writes
}

/// What glob(3) returns for a path that a pattern finds: needless slashes of the pattern stay.
fn expansion(pattern: &str, path: &str) -> String {
    let mut found = path.split('/');
    let parts = pattern.split('/').map(|part| match part {
        "" | "." => part,
        _ => found.next().unwrap_or_default(),
    });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn files(texts: &[&str], loader: SysctlLoader) -> Vec<SettingsFile> {
        texts.iter().enumerate().map(|(index, text)| SettingsFile::parse(format!("/{index}"), text, loader)).collect()
    }

    fn won(texts: &[&str], loader: SysctlLoader) -> Option<String> {
        let outcome = winner(&files(texts, loader), loader, &["net/ipv4/conf/lo/rp_filter"], &|_| true);
        outcome.winner.map(|winner| format!("{} {}", winner.at, winner.value))
    }

    const KEY: &str = "net.ipv4.conf.lo.rp_filter=1\n";
    const GLOB: &str = "net.ipv4.conf.*.rp_filter=2\n";
    const EXCLUDE: &str = "-net.ipv4.conf.lo.rp_filter\n";

    #[test]
    fn the_last_file_wins_but_never_a_glob_over_a_name() {
        for loader in [SysctlLoader::Systemd, SysctlLoader::Procps] {
            assert_eq!(won(&[KEY, "net/ipv4/conf/lo/rp_filter = 0"], loader).as_deref(), Some("/1:1 0"));
            assert_eq!(won(&[KEY, GLOB], loader).as_deref(), Some("/0:1 1"));
            assert_eq!(won(&[GLOB], loader).as_deref(), Some("/0:1 2"));
            assert_eq!(won(&[GLOB, EXCLUDE], loader), None);
            assert_eq!(won(&["vm.swappiness=1"], loader), None);
        }
    }

    #[test]
    fn an_exclusion_takes_an_assignment_away_only_with_systemd() {
        assert_eq!(won(&[KEY, EXCLUDE], SysctlLoader::Systemd), None);
        assert_eq!(won(&[KEY, EXCLUDE], SysctlLoader::Procps).as_deref(), Some("/0:1 1"));
        assert_eq!(won(&[EXCLUDE, KEY], SysctlLoader::Systemd).as_deref(), Some("/1:1 1"));
    }

    #[test]
    fn the_same_value_again_keeps_its_early_place_with_systemd() {
        let texts = [GLOB, "net.ipv4.conf.l*.rp_filter=0\n", GLOB];
        assert_eq!(won(&texts, SysctlLoader::Systemd).as_deref(), Some("/1:1 0"));
        assert_eq!(won(&texts, SysctlLoader::Procps).as_deref(), Some("/2:1 2"));
    }

    #[test]
    fn losers_and_refused_lines_are_named() {
        let loader = SysctlLoader::Procps;
        let texts = ["a.b=1\n", "a.b=2\n", "a.b=many\n"];
        let outcome = winner(&files(&texts, loader), loader, &["a/b"], &|value| value.parse::<u8>().is_ok());
        assert_eq!(outcome.winner.unwrap().at, "/1:1");
        assert_eq!(outcome.losers.iter().map(|loser| loser.at.as_str()).collect::<Vec<_>>(), ["/0:1"]);
        assert_eq!(outcome.refused[0].at, "/2:1");
        // systemd writes only the last value of a key: the refused one leaves the kernel's own.
        let loader = SysctlLoader::Systemd;
        let outcome = winner(&files(&texts, loader), loader, &["a/b"], &|value| value.parse::<u8>().is_ok());
        assert_eq!(outcome.winner, None);
    }

    #[test]
    fn two_names_of_one_setting_are_one() {
        let loader = SysctlLoader::Systemd;
        let texts = ["net.ipv4.ip_forward=1\n", "net.ipv4.conf.all.forwarding=0\n"];
        let paths = ["net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding"];
        let outcome = winner(&files(&texts, loader), loader, &paths, &|_| true);
        assert_eq!(outcome.winner.unwrap().at, "/1:1");
    }

    proptest! {
        #[test]
        fn any_layout_is_answered(texts in prop::collection::vec("(-?[ab*]\\.[ab*?]( ?= ?[0-3])?\n){0,6}", 0..4)) {
            for loader in [SysctlLoader::Systemd, SysctlLoader::Procps] {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let outcome = winner(&files(&texts, loader), loader, &["a/b"], &|value| value != "0");
                prop_assert!(outcome.winner.is_none_or(|winner| winner.value != "0"));
            }
        }
    }
}
