//! The two programs that set transparent huge pages at boot, against the models of them: systemd-tmpfiles by generated
//! layouts in a root of their own, tuned by every profile that is installed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use preflight::host::{Host, env};
use preflight::subjects::kernel::tmpfiles;
use preflight::subjects::kernel::tuned;

const DIRECTORIES: [&str; 3] = ["etc/tmpfiles.d", "run/tmpfiles.d", "usr/lib/tmpfiles.d"];
const TARGET: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

fn below(state: &mut u64, bound: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state % bound as u64).unwrap()
}

/// A line that may write a word of its own into the target. No `w+`: on an ordinary file it appends, in sysfs it does not.
fn line(state: &mut u64, word: &str) -> String {
    let kind = ["w", "w!", "w-", "w!-", "f+", "F", "f", "z", "#w", "w"][below(state, 10)];
    let path = match below(state, 8) {
        0 => TARGET.replace("enabled", "ena*"),
        1 => TARGET.replace("enabled", "[d-f]nabled"),
        2 => TARGET.replace("enabled", "defrag"),
        3 => format!("\"{TARGET}\""),
        _ => TARGET.to_owned(),
    };
    match below(state, 6) {
        0 => format!("  {kind}\t{path}  - - -\t- {word}  \n"),
        1 => format!("{kind} {path}\n"),
        2 => format!("{kind} {path} - - - - -\n\n"),
        _ => format!("{kind} {path} - - - - {word}\n"),
    }
}

/// Seen to fail with duplicates kept in `tmpfiles::written`.
#[test]
fn huge_pages_are_what_systemd_tmpfiles_writes_last() {
    let mut state = env::text("PREFLIGHT_SEED").map_or_else(
        || u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap(),
        |text| text.parse().expect("PREFLIGHT_SEED is a number"),
    ) | 1;
    println!("PREFLIGHT_SEED={state}");
    let mut set = 0;
    let layouts = 120;
    for layout in 0..layouts {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        fs::create_dir_all(root.join("sys/kernel/mm/transparent_hugepage")).unwrap();
        fs::write(root.join(&TARGET[1..]), "-----\n").unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        let mut words = 0;
        let mut shown = String::new();
        for directory in DIRECTORIES {
            fs::create_dir_all(root.join(directory)).unwrap();
            for name in ["a.conf", "b.conf", "c.conf"] {
                let path = root.join(directory).join(name);
                match below(&mut state, 8) {
                    0 => symlink("/dev/null", path).unwrap(),
                    1..4 => {}
                    _ => {
                        let mut text = String::new();
                        for _ in 0..below(&mut state, 4) {
                            words += 1;
                            text += &line(&mut state, &format!("{:05}", 10_000 + words));
                        }
                        writeln!(shown, "{directory}/{name}: {text:?}").unwrap();
                        fs::write(path, text).unwrap();
                    }
                }
            }
        }
        let (files, unreadable) = tmpfiles::read(&Host::at_root(root)).unwrap();
        assert!(unreadable.is_empty());
        let predicted = tmpfiles::written(&files, TARGET).map_or_else(|| "-----".to_owned(), |written| written.text);
        let output =
            Command::new("systemd-tmpfiles").args(["--create", "--boot", "--root"]).arg(root).output().unwrap();
        let real = fs::read_to_string(root.join(&TARGET[1..])).unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        // `f+` without text empties an ordinary file; in sysfs it does nothing.
        let real = if real.is_empty() { "-----" } else { &real };
        assert_eq!(real.get(..5), Some(predicted.as_str()), "layout {layout}\n{shown}{log}");
        set += usize::from(predicted != "-----");
    }
    println!("{layouts} layouts, {set} of them set the file");
    assert!(set * 3 > layouts, "the layouts hardly set anything");
}

/// tuned's own loader, asked for the merged sections of every installed profile. Functions such as `${f:…}` are left
/// as they are; a profile that includes by one is left out.
const LOADER: &str = r#"
import json, os, sys
from tuned.profiles import locator, loader, factory, merger, variables
import tuned.consts as consts
class Verbatim(variables.Variables):
    def expand(self, value): return value
found = {}
directories = getattr(consts, "LOAD_DIRECTORIES", None) or consts.CFG_DEF_PROFILE_DIRS
for directory in directories:
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        if not os.path.isfile(os.path.join(directory, name, "tuned.conf")): continue
        load = loader.Loader(locator.Locator(directories), factory.Factory(), merger.Merger(), None, Verbatim())
        try: profile = load.load(name)
        except Exception as error: continue
        found[name] = {unit.name: {("vm." + key if key.startswith("dirty_") else key): value for key, value in unit.options.items()} for unit in profile.units.values()
                       if unit.type in ("sysctl", "vm") and unit.enabled and unit.uname_regex is None and unit.cpuinfo_regex is None}
json.dump(found, sys.stdout)
"#;

/// Seen to fail with sections that are not merged.
#[test]
fn every_installed_tuned_profile_is_read_as_tuned_reads_it() {
    let output = Command::new("/usr/bin/python3").args(["-c", LOADER]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the package tuned is needed: {errors}");
    let profiles: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>> =
        serde_json::from_slice(&output.stdout).unwrap();
    let host = Host::live();
    let mut compared = 0;
    for (name, units) in &profiles {
        let mine = tuned::resolve(name, &|path| host.read_optional(path)).unwrap();
        assert_eq!(mine.problem, None, "{name}");
        let tunes = mine.sysctls.iter().chain(&mine.huge_pages).chain(&mine.defrag);
        let mine: BTreeMap<&str, &str> =
            tunes.filter_map(|tune| Some((tune.key.as_str(), tune.value.as_deref().ok()?))).collect();
        let theirs: BTreeMap<&str, &str> = units
            .values()
            .flatten()
            .map(|(key, value)| (key.as_str(), value.trim_matches('"')))
            .filter(|(_, value)| !value.contains("${") && !value.ends_with('%'))
            .collect();
        assert_eq!(mine, theirs, "{name}");
        compared += theirs.len();
    }
    println!("{} profiles, {compared} settings compared", profiles.len());
    assert!(profiles.len() >= 20 && compared >= 100, "the package tuned brings more profiles than {}", profiles.len());
}
