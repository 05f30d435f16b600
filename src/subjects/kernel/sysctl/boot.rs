//! The value a setting will have after the next boot, and who gives it.
//!
//! In the order of time: the kernel's default, `sysctl.…=` on the kernel command line (since 5.8), the boot files, tuned,
//! and the files that tuned applies once more. The last value that the kernel takes stays.

use super::files::{path_of, simplified};
use super::kernel;
use super::winner::{Assignment, Outcome, SettingsFile, winner};
use crate::catalog::os::SysctlLoader;
use crate::facts::{Fact, Value, Version};
use crate::subjects::kernel::tuned::Tuned;

/// Everything that has a say, read once per run.
#[derive(Debug)]
pub struct Sources {
    pub loader: SysctlLoader,
    /// Why the boot files are not applied at all, if so.
    pub loader_off: Option<String>,
    /// In the order of reading.
    pub files: Vec<SettingsFile>,
    /// Files that may not be read: their place among `files` and the error.
    pub unreadable: Vec<(usize, String)>,
    /// `sysctl.net.core.somaxconn=…` of the kernel command line.
    pub command_line: String,
    /// tuned, when it starts; or why that is not known.
    pub tuned: Result<Option<Tuned>, String>,
    /// What tuned applies once more after its profile, when it does.
    pub reapplied: Vec<SettingsFile>,
    pub kernel: Option<Version>,
    /// The text of `net.ipv4.tcp_ehash_entries`.
    pub tcp_ehash_entries: Option<String>,
}

const RUN_AS_ROOT: Option<&str> = Some("run as root");

/// Settings with two names.
const ALIASES: &[[&str; 2]] = &[
    ["net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding"],
    ["net/netfilter/nf_conntrack_max", "net/nf_conntrack_max"],
];

/// Settings of modules, which exist only once the module is loaded.
const OF_MODULES: &[&str] = &["net.netfilter.", "net.bridge.", "net.nf_conntrack_max"];

/// A value on the way to the boot value, and who gave it.
struct Step {
    value: Value,
    source: String,
    notes: Vec<String>,
}

/// The boot layer of one setting. `live` is what it is now, from which follows how the kernel reads text.
pub fn decide(sources: &Sources, key: &str, live: Option<&Value>) -> Fact {
    let path = path_of(key);
    let path = simplified(&path);
    let paths: Vec<&str> = ALIASES
        .iter()
        .find(|names| names.contains(&path.as_str()))
        .map_or_else(|| vec![path.as_str()], |names| names.to_vec());
    let boot = Boot { sources, key, paths, shape: kernel::shape(key, live), live };
    match boot.steps() {
        Ok(Some(step)) => {
            let fact = Fact::known(step.value, step.source);
            if step.notes.is_empty() { fact } else { fact.note(step.notes.join("; ")) }
        }
        Ok(None) => Fact::absent("no file sets it and its default is not known", "sysctl.d(5)"),
        Err(fact) => *fact,
    }
}

/// The container layer while no container runs: what a new network namespace starts with. `None` when that is not known.
pub fn predicted_in_container(key: &str, kernel: Option<&Version>, tcp_ehash_entries: Option<&str>) -> Option<Fact> {
    if !kernel::is_default_in_containers(key) {
        return None;
    }
    let Some(value) = kernel::default(key, kernel, tcp_ehash_entries) else {
        let least = kernel::least(key)?;
        let note = "predicted: a new network namespace gets at least this, and more where there is more memory";
        return Some(Fact::known(least, "kernel default").note(note));
    };
    Some(Fact::known(value, "kernel default").note("predicted: a new network namespace gets the kernel's default"))
}

fn kernels(value: Value) -> Step {
    Step { value, source: "kernel default".into(), notes: vec!["no file sets it".into()] }
}

struct Boot<'a> {
    sources: &'a Sources,
    key: &'a str,
    paths: Vec<&'a str>,
    shape: kernel::Shape,
    live: Option<&'a Value>,
}

impl Boot<'_> {
    fn steps(&self) -> Result<Option<Step>, Box<Fact>> {
        let mut step = self.command_line().or_else(|| self.kernel_default());
        let outcome = self.files()?;
        if let Some(winner) = outcome.winner.clone() {
            let mut notes = Vec::new();
            if OF_MODULES.iter().any(|prefix| self.key.starts_with(prefix)) {
                notes.push("applied only if its module is loaded by then".to_owned());
            }
            notes.extend(overridden(&outcome.losers, &winner));
            step = Some(self.step(winner, notes));
        }
        if let (Some(step), Some(refused)) = (&mut step, outcome.refused.last()) {
            step.notes.push(format!("the kernel refuses `{}` in {}", refused.value, refused.at));
        }
        if let (Some(step), Some(why)) = (&mut step, &self.sources.loader_off) {
            step.notes.push(why.clone());
        }
        self.tuned(step)
    }

    fn step(&self, from: Assignment, notes: Vec<String>) -> Step {
        Step { value: kernel::value(&from.value, self.shape), source: from.at, notes }
    }

    fn is_mine(&self, path: &str) -> bool {
        self.paths.contains(&simplified(path).as_str())
    }

    fn kernel_default(&self) -> Option<Step> {
        let sources = self.sources;
        // systemd raises it to the highest value that works, unless its distribution turned that off (Debian did):
        // `bump_file_max_and_nr_open()` in src/core/main.c. What is there now tells which.
        if self.key == "fs.nr_open" && sources.loader == SysctlLoader::Systemd {
            return match self.live {
                Some(Value::Int(live)) if *live > i64::from(i32::MAX) / 2 - 64 => {
                    let source = "systemd's default".to_owned();
                    Some(Step { value: Value::Int(*live), source, notes: vec!["no file sets it".into()] })
                }
                Some(Value::Int(1_048_576)) => Some(kernels(Value::Int(1_048_576))),
                _ => None,
            };
        }
        kernel::default(self.key, sources.kernel.as_ref(), sources.tcp_ehash_entries.as_deref()).map(kernels)
    }

    fn command_line(&self) -> Option<Step> {
        const PREFIX: &str = "sysctl.";
        // Looked at for every setting, and nearly always without any.
        if !self.sources.command_line.contains(PREFIX) {
            return None;
        }
        let words = self.sources.command_line.split_ascii_whitespace();
        let settings = words.filter_map(|word| word.strip_prefix(PREFIX)?.split_once('='));
        let mut mine = settings.filter(|(name, _)| self.paths.contains(&name.replace('.', "/").as_str()));
        let (_, value) = mine.rfind(|(_, value)| kernel::accepts(self.key, value))?;
        let source = "/proc/cmdline".to_owned();
        Some(Step { value: kernel::value(value, self.shape), source, notes: vec!["kernel command line".into()] })
    }

    fn files(&self) -> Result<Outcome, Box<Fact>> {
        let sources = self.sources;
        if sources.loader_off.is_some() {
            return Ok(Outcome::default());
        }
        let accepts = |text: &str| kernel::accepts(self.key, text);
        let outcome = winner(&sources.files, sources.loader, &self.paths, &accepts);
        // A line without a wildcard that is read later beats whatever the unreadable file holds.
        let sure_from = outcome.winner.as_ref().filter(|winner| !winner.by_glob).map_or(0, |winner| winner.file);
        match sources.unreadable.iter().rfind(|(place, _)| *place >= sure_from) {
            Some((place, error)) => {
                let source = sources.files.get(*place).map_or("sysctl.d(5)", |file| file.path.as_str());
                Err(Box::new(Fact::unknown(error.clone(), RUN_AS_ROOT, source)))
            }
            None => Ok(outcome),
        }
    }

    /// What tuned makes of it, and what stays of that when it applies the files once more.
    fn tuned(&self, before: Option<Step>) -> Result<Option<Step>, Box<Fact>> {
        let unknown = |error: &str, source: &str| Box::new(Fact::unknown(error, Some("tuned-adm active"), source));
        let tuned = match &self.sources.tuned {
            Ok(Some(tuned)) => tuned,
            Ok(None) => return Ok(before),
            Err(error) => return Err(Box::new(Fact::unknown(error.clone(), RUN_AS_ROOT, "/etc/tuned"))),
        };
        if let Some(again) = self.reapplied() {
            // Whatever the profile says, this comes last.
            let same = before.as_ref().is_some_and(|before| before.source == again.source);
            return Ok(if same { before } else { Some(again) });
        }
        if let Some(problem) = tuned.problem.as_deref().filter(|_| tuned.might_set(self.key)) {
            return Err(unknown(problem, "/etc/tuned/active_profile"));
        }
        let mut step = before;
        for tune in tuned.sysctls.iter().filter(|tune| self.is_mine(&path_of(&tune.key))) {
            let value = tune.value.as_ref().map_err(|why| unknown(why, &tune.at))?;
            let Some(value) = at_least_or_most(value, step.as_ref().map(|step| &step.value)) else { continue };
            if kernel::accepts(self.key, &value) {
                let note = format!("tuned's profile `{}` sets it after the boot files", tuned.profile);
                let from = Assignment { value, at: tune.at.clone(), file: 0, by_glob: false };
                step = Some(self.step(from, vec![note]));
            }
        }
        Ok(step)
    }

    fn reapplied(&self) -> Option<Step> {
        let files = &self.sources.reapplied;
        let lines = files.iter().flat_map(|file| file.lines.iter().map(move |line| (file, line)));
        let mut mine = lines.filter(|(_, line)| self.is_mine(&line.path));
        let taken = |value: &String| kernel::accepts(self.key, value);
        let (file, line) = mine.rfind(|(_, line)| line.value.as_ref().is_some_and(taken))?;
        let at = format!("{}:{}", file.path, line.number);
        let from = Assignment { value: line.value.clone()?, at, file: 0, by_glob: false };
        Some(self.step(from, vec!["tuned applies this file once more after its profile".into()]))
    }
}

/// `>2048` and `<10`: `_process_assignment_modifiers` of tuned. `None` when the value stays as it is.
fn at_least_or_most(value: &str, current: Option<&Value>) -> Option<String> {
    let mut characters = value.chars();
    let (Some(operator @ ('>' | '<')), Some(_)) = (characters.next(), value.chars().nth(1)) else {
        return Some(value.to_owned());
    };
    let bound = characters.as_str();
    match (bound.trim().parse::<i64>(), current) {
        (Ok(bound), Some(Value::Int(current))) if (operator == '>') == (bound > *current) && bound != *current => {
            Some(bound.to_string())
        }
        (Ok(_), Some(Value::Int(_))) => None,
        _ => Some(bound.to_owned()),
    }
}

/// How many overridden lines are named; a host with more has them all in its files.
const SHOWN_LOSERS: usize = 3;

/// Lines that lost although they say something else.
fn overridden(losers: &[Assignment], winner: &Assignment) -> Option<String> {
    let others: Vec<&Assignment> = losers.iter().filter(|loser| loser.value != winner.value).collect();
    if others.is_empty() {
        return None;
    }
    let shown: Vec<String> =
        others.iter().rev().take(SHOWN_LOSERS).map(|loser| format!("`{}` of {}", loser.value, loser.at)).collect();
    let more = if others.len() > SHOWN_LOSERS { ", …" } else { "" };
    Some(format!("overrides {}{more}", shown.join(", ")))
}

#[cfg(test)]
#[path = "boot_tests.rs"]
mod tests;
