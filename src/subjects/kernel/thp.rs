//! `thp.*`: transparent huge pages, now and after the next boot.
//!
//! At boot, in the order of time: the kernel's build default, `transparent_hugepage=` on its command line, tmpfiles.d,
//! tuned. tuned leaves `enabled` alone when the command line names it. Under OpenRC shell scripts may set it, which
//! nobody can tell without running them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use super::sysctl;
use super::tmpfiles::{self, TmpfilesFile};
use super::tuned::{Tune, Tuned};
use crate::catalog::os::SysctlLoader;
use crate::facts::{Fact, Facts, Layer, State, Value};
use crate::host::{Host, ReadError};
use crate::subjects::context::Context;
use crate::subjects::kernel::shared;
use crate::subjects::os::kernel;

const FOLDER: &str = "/sys/kernel/mm/transparent_hugepage";
const ENABLED: &str = "thp.enabled";
const DEFRAG: &str = "thp.defrag";
const SIZES: &str = "thp.always-sizes";
const PARAMETER: &str = "transparent_hugepage=";
const NO_THP: &str = "this kernel has no transparent huge pages";

pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    let wanted: Vec<&str> = [ENABLED, DEFRAG, SIZES].into_iter().filter(|id| cx.want.has(id)).collect();
    if wanted.is_empty() {
        return;
    }
    let started = Instant::now();
    let systemd = shared::loader(cx) == SysctlLoader::Systemd;
    let boot = Boot::read(cx, systemd);
    let reading = started.elapsed();
    let names = if wanted.contains(&SIZES) { cx.host.list(FOLDER) } else { Ok(Vec::new()) };
    for id in wanted {
        let started = Instant::now();
        let live = match id {
            ENABLED => selected(cx.host, &format!("{FOLDER}/enabled")),
            DEFRAG => selected(cx.host, &format!("{FOLDER}/defrag")),
            _ => always_sizes(cx.host, &names, |host, file| {
                host.read_text(file).map(|text| parse(&text).map(str::to_owned))
            }),
        };
        let took = started.elapsed();
        // A size of its own is newer than huge pages: the reason is the live one's.
        let gone = match &live.state {
            State::Absent(why) if cx.host.is_live() => Some(why.clone()),
            _ => None,
        };
        let later = match (gone, &boot, id) {
            (Some(why), _, _) => Fact::absent(why, FOLDER),
            (None, Err(fact), _) => (**fact).clone(),
            (None, Ok(boot), ENABLED) => boot.enabled(cx.host),
            (None, Ok(boot), DEFRAG) => boot.defrag(),
            (None, Ok(boot), _) => boot.sizes(cx.host, &names),
        };
        facts.insert(id, Layer::Boot, later.took(reading));
        facts.live(id, live.took(took));
    }
}

/// The word in brackets: `always [madvise] never`.
pub fn parse(text: &str) -> Option<&str> {
    let (_, after) = text.split_once('[')?;
    let (word, _) = after.split_once(']')?;
    (!word.is_empty()).then_some(word)
}

fn selected(host: &Host, file: &str) -> Fact {
    match host.read_text(file) {
        Ok(text) => match parse(&text) {
            Some(word) => Fact::known(Value::Text(word.to_owned()), file),
            None => Fact::unknown(format!("`{}` names no choice in brackets", text.trim()), None, file),
        },
        Err(error) => Fact::unreadable_of_kernel(host, &error, NO_THP),
    }
}

/// The names in [`FOLDER`].
type Names = Result<Vec<OsString>, ReadError>;

/// The sizes at `always`; `choice` tells what a size's file says.
fn always_sizes(host: &Host, names: &Names, choice: impl Fn(&Host, &str) -> Result<Option<String>, ReadError>) -> Fact {
    let source = format!("{FOLDER}/hugepages-*kB/enabled");
    let names = match names {
        Ok(names) => names,
        Err(error) => return Fact::unreadable(error, NO_THP),
    };
    let mut sizes = BTreeSet::new();
    let mut seen = false;
    for size in names.iter().filter_map(|name| name.to_str()?.strip_prefix("hugepages-")) {
        match choice(host, &format!("{FOLDER}/hugepages-{size}/enabled")) {
            Ok(word) => {
                seen = true;
                if word.as_deref() == Some("always") {
                    sizes.insert(size.to_owned());
                }
            }
            Err(error) if error.is_absent() => {}
            Err(error) => return Fact::unreadable(&error, NO_THP),
        }
    }
    match seen {
        true => Fact::known(Value::Set(sizes), source),
        false if host.unmounted(Path::new(FOLDER)).is_some() => {
            Fact::unknown("/sys is not there", Some("mount /proc and /sys"), source)
        }
        false if !host.is_live() && !host.exists(format!("{FOLDER}/enabled")) => Fact::not_running(source),
        false => Fact::absent("this kernel has no per-size huge pages", source),
    }
}

/// What has a say at boot.
struct Boot {
    command_line: String,
    files: Vec<TmpfilesFile>,
    tuned: Option<Tuned>,
    scripts: Scripts,
}

impl Boot {
    fn read(cx: &Context<'_>, systemd: bool) -> Result<Self, Box<Fact>> {
        let host = cx.host;
        let denied = |error: &ReadError| {
            Box::new(Fact::unknown(error.to_string(), Some("run as root"), error.path.display().to_string()))
        };
        // Without systemd, tmpfiles.d is applied only where one of the stand-alone programs is there.
        let programs = ["/usr/bin/systemd-tmpfiles", "/bin/systemd-tmpfiles", "/usr/bin/tmpfiles", "/bin/tmpfiles"];
        let (files, unreadable) = if systemd || programs.iter().any(|program| host.exists(program)) {
            tmpfiles::read(host).map_err(|error| denied(&error))?
        } else {
            (Vec::new(), Vec::new())
        };
        if let Some(error) = unreadable.first() {
            return Err(denied(error));
        }
        let tuned = shared::tuned(cx).0.as_ref().map_err(denied)?.clone();
        let command_line = shared::command_line(cx).0.clone();
        Ok(Self { command_line, files, tuned, scripts: Scripts::read(host, systemd) })
    }

    /// The last `transparent_hugepage=` that the kernel takes (`setup_transparent_hugepage` in mm/huge_memory.c).
    fn parameter(&self) -> Option<&str> {
        let mut words = self.command_line.split_ascii_whitespace().filter_map(|word| word.strip_prefix(PARAMETER));
        words.rfind(|value| ["always", "madvise", "never"].contains(value))
    }

    fn enabled(&self, host: &Host) -> Fact {
        if let Some((script, what)) = &self.scripts.runs {
            return Fact::unknown(*what, Some("see what the script does"), script.clone());
        }
        let by_tmpfiles = tmpfiles::written(&self.files, &format!("{FOLDER}/enabled"));
        let early = match (&by_tmpfiles, self.parameter()) {
            (Some(written), _) => Fact::known(Value::Text(written.text.clone()), written.at.clone()),
            (None, Some(value)) => {
                Fact::known(Value::Text(value.to_owned()), "/proc/cmdline").note("kernel command line")
            }
            (None, None) => build_default(host),
        };
        // `_set_transparent_hugepages` looks for the word anywhere but at the very start of the line.
        let left_alone = self.command_line.find(PARAMETER).is_some_and(|at| at > 0);
        let fact = match &self.tuned {
            Some(tuned) if !left_alone => by_tuned(tuned, &tuned.huge_pages, "transparent_hugepage", early),
            _ => early,
        };
        match &self.scripts.idle {
            Some(script) => fact.note(format!("{script} mentions it, but is not executable and never runs")),
            None => fact,
        }
    }

    fn defrag(&self) -> Fact {
        let early = match tmpfiles::written(&self.files, &format!("{FOLDER}/defrag")) {
            Some(written) => Fact::known(Value::Text(written.text), written.at),
            // `transparent_hugepage_flags` in mm/huge_memory.c: not a build option, and on no command line.
            None => Fact::known(Value::Text("madvise".into()), "kernel default").note("no file sets it"),
        };
        match &self.tuned {
            Some(tuned) => by_tuned(tuned, &tuned.defrag, "transparent_hugepage.defrag", early),
            None => early,
        }
    }

    /// By tmpfiles.d, else the kernel's default: no size at `always` but by `thp_anon=` (since 6.12).
    fn sizes(&self, host: &Host, names: &Names) -> Fact {
        if self.command_line.split_ascii_whitespace().any(|word| word.starts_with("thp_anon=")) {
            let help = Some("look at the per-size files after a boot");
            return Fact::unknown("`thp_anon=` of the kernel command line is not understood", help, "/proc/cmdline");
        }
        let written = |_: &Host, file: &str| Ok(tmpfiles::written(&self.files, file).map(|written| written.text));
        let fact = always_sizes(host, names, written);
        match fact.value() {
            Some(_) => Fact { source: "tmpfiles.d(5), kernel default".into(), ..fact },
            None => fact,
        }
    }
}

/// What tuned makes of a value: the last section that sets it decides.
fn by_tuned(tuned: &Tuned, tunes: &[Tune], name: &str, early: Fact) -> Fact {
    let unknown = |why: &str, source: &str| Fact::unknown(why, Some("tuned-adm active"), source);
    if let Some(problem) = tuned.problem.as_deref().filter(|_| tuned.might_set(name)) {
        return unknown(problem, "/etc/tuned/active_profile");
    }
    match tunes.last().map(|tune| (&tune.value, &tune.at)) {
        None => early,
        Some((Ok(value), at)) => Fact::known(Value::Text(value.clone()), at.clone())
            .note(format!("tuned's profile `{}` sets it after everything else", tuned.profile)),
        Some((Err(why), at)) => unknown(why, at),
    }
}

/// `CONFIG_TRANSPARENT_HUGEPAGE_*` of the kernel that boots.
fn build_default(host: &Host) -> Fact {
    let installed = || sysctl::kernel_version(host).map(|version| version.to_string());
    let release = kernel::running(host).or_else(installed).unwrap_or_default();
    let nowhere = Fact::absent("nothing sets it and the kernel's build default is not known", "/boot/config-*");
    if release.is_empty() {
        return nowhere;
    }
    for file in [format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")] {
        let Ok(Some(text)) = host.read_optional(&file) else { continue };
        if let Some(word) = parse_config(&text) {
            return Fact::known(Value::Text(word.into()), file).note("kernel default; nothing sets it");
        }
    }
    nowhere
}

/// The build default in a kernel's configuration.
pub fn parse_config(text: &str) -> Option<&'static str> {
    let choices = [("ALWAYS", "always"), ("MADVISE", "madvise"), ("NEVER", "never")];
    let prefix = "CONFIG_TRANSPARENT_HUGEPAGE_";
    let mut set = text.lines().filter_map(|line| line.trim_end().strip_prefix(prefix)?.strip_suffix("=y"));
    set.find_map(|name| choices.iter().find(|(choice, _)| *choice == name).map(|(_, word)| *word))
}

/// Start scripts that mention huge pages. `/etc/rc.local` runs only when it is executable
/// (systemd-rc-local-generator(8)), `/etc/local.d/*.start` too, and only by OpenRC's `local` service.
#[derive(Default)]
struct Scripts {
    /// One that runs, and what is known of it.
    runs: Option<(String, &'static str)>,
    /// One that never runs.
    idle: Option<String>,
}

impl Scripts {
    fn read(host: &Host, systemd: bool) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let locals = if systemd { Vec::new() } else { host.list("/etc/local.d").unwrap_or_default() };
        let names = locals.iter().filter_map(|name| name.to_str());
        let starts = names.filter(|name| name.strip_suffix(".start").is_some());
        let paths = ["/etc/rc.local".to_owned(), "/etc/rc.d/rc.local".to_owned()];
        let mut scripts = Self::default();
        for path in paths.into_iter().chain(starts.map(|name| format!("/etc/local.d/{name}"))) {
            let Ok(metadata) = host.metadata(&path) else { continue };
            let executable = metadata.permissions().mode() & 0o111 != 0;
            match host.read_text(&path) {
                Ok(text) if !mentions(&text) => {}
                Ok(_) if executable => scripts.runs = Some((path, "set by a script")),
                Ok(_) => scripts.idle = Some(path),
                Err(error) if executable && error.is_denied() => {
                    scripts.runs = Some((path, "may be set by a script that only root can read"));
                }
                Err(_) => {}
            }
        }
        scripts
    }
}

/// Whether a script says anything about huge pages outside its comments.
fn mentions(script: &str) -> bool {
    script.lines().any(|line| !line.trim_start().starts_with('#') && line.contains("transparent_hugepage"))
}

#[cfg(test)]
#[path = "thp_tests.rs"]
mod tests;
