//! Which Compose there is: the CLI plugin (`docker compose`) or the standalone program (`docker-compose`).
//!
//! The version is the one thing that only running the program tells. As root nothing is run that somebody else can
//! write: a plugin in a home is reported instead.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Environment;
use super::endpoint::read_small;
use crate::facts::{Fact, Facts, Value, Version};
use crate::host::command::Runner;
use crate::host::{Host, trust};

/// Where the CLI looks after the user's own folder (docker/cli `cli-plugins/manager/manager_unix.go`).
const SYSTEM_FOLDERS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// How a found Compose is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComposeKind {
    Plugin,
    Standalone,
}

impl ComposeKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Standalone => "standalone",
        }
    }
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    pub kind: ComposeKind,
    pub version: Version,
    /// The program and its arguments, or the file that states the version.
    pub source: String,
}

/// The answer, with what was passed over and why.
#[derive(Debug)]
pub struct Compose {
    pub found: Option<Found>,
    /// One sentence for each program that was found and not used, or cannot be used as it is.
    pub passed_over: Vec<String>,
    pub took: Duration,
}

/// Looks for the plugin first, since `docker compose` is what today's guides write, then for the standalone program.
/// All together may take as long as the deadline.
pub fn look(host: &Host, env: &Environment, deadline: Duration) -> Compose {
    let started = Instant::now();
    let mut passed_over = Vec::new();
    let mut found = None;
    for (kind, path) in candidates(host, env) {
        match ask(host, &path, env.is_root, deadline.saturating_sub(started.elapsed())) {
            Ok((version, source)) => {
                found = Some(Found { kind, version, source });
                break;
            }
            Err(why) => passed_over.push(why),
        }
    }
    if found.as_ref().is_some_and(|found| found.kind == ComposeKind::Plugin) && in_path("docker", env).is_none() {
        passed_over.push("there is no `docker` command in the PATH to call it with".to_owned());
    }
    if let Some(path) = plugin_of_invoking_user(host, env)
        && found.as_ref().is_none_or(|found: &Found| found.kind == ComposeKind::Standalone)
    {
        passed_over.push(format!("{} is in the invoking user's home and is not run as root", path.display()));
    }
    Compose { found, passed_over, took: started.elapsed() }
}

fn candidates(host: &Host, env: &Environment) -> Vec<(ComposeKind, PathBuf)> {
    let own = env.config_folder().map(|folder| folder.join("cli-plugins"));
    let folders = own.into_iter().chain(SYSTEM_FOLDERS.iter().map(PathBuf::from));
    let plugins = folders.map(|folder| (ComposeKind::Plugin, folder.join("docker-compose")));
    let mut candidates: Vec<_> =
        plugins.filter(|(_, path)| host.metadata(path).is_ok_and(|found| found.is_file())).collect();
    candidates.extend(in_path("docker-compose", env).map(|path| (ComposeKind::Standalone, path)));
    candidates
}

fn in_path(name: &str, env: &Environment) -> Option<PathBuf> {
    which::which_in_global(name, env.path.as_ref()).ok()?.next()
}

/// With sudo the plugin of the person at the keyboard is out of reach: `$HOME` is root's.
fn plugin_of_invoking_user(host: &Host, env: &Environment) -> Option<PathBuf> {
    let uid = env.sudo_uid.as_deref().filter(|_| env.is_root)?;
    let passwd = host.read_text("/etc/passwd").ok()?;
    let path = Path::new(home_of(&passwd, uid)?).join(".docker/cli-plugins/docker-compose");
    host.exists(&path).then_some(path)
}

/// The home of a user id in passwd(5) text.
pub fn home_of<'a>(passwd: &'a str, uid: &str) -> Option<&'a str> {
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&uid))?
        .get(5)
        .copied()
}

/// Runs `PROGRAM version --short`, which the plugin, too, understands without the docker CLI. A Python script that names
/// its version is only read: it would take half a second to say the same.
fn ask(host: &Host, path: &Path, is_root: bool, deadline: Duration) -> Result<(Version, String), String> {
    if !path.is_absolute() {
        return Err(format!("{} is found by a relative PATH entry and is not run", path.display()));
    }
    if is_root && let Err(untrusted) = trust::only_root_writes(path) {
        return Err(format!("{} is not run as root: {untrusted}", path.display()));
    }
    if let Ok(Some(script)) = read_small(host, path)
        && let Some(version) = pinned_version(&script)
    {
        return Ok((version, path.display().to_string()));
    }
    // Python would otherwise write its byte code beside its modules: a check changes nothing.
    let runner = Runner::new(path, deadline).args(["version", "--short"]).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = runner.run_checked().map_err(|error| error.to_string())?;
    let version = parse_version(&output.stdout).ok_or_else(|| format!("{} printed no version", path.display()))?;
    Ok((version, format!("{} version --short", path.display())))
}

/// The version that an entry script of setuptools insists on (`__requires__ = 'docker-compose==1.29.2'`, as in Debian's
/// package): with any other version installed it would not start.
pub fn pinned_version(script: &str) -> Option<Version> {
    let first = script.lines().next()?;
    if !first.starts_with("#!") || !first.contains("python") {
        return None;
    }
    script.lines().find_map(|line| {
        let (_, pinned) = line.trim_start().strip_prefix("__requires__")?.split_once("docker-compose==")?;
        parse_version(pinned)
    })
}

/// The first `1.2.3`, with whatever is glued to it (`-desktop.1`, `+ds1`): `docker-compose version 1.29.2, build x`,
/// `v2.26.1-4`, `5.0.0`.
pub fn parse_version(text: &str) -> Option<Version> {
    // No version is longer; a megabyte of digits is not one.
    const MAX_BYTES: usize = 64;
    text.split(|c: char| !(c.is_ascii_alphanumeric() || ".+~-_".contains(c))).find_map(|word| {
        let word = word.trim_start_matches('v');
        let mut fields = word.splitn(3, '.');
        let number = |field: Option<&str>| {
            field.is_some_and(|field| !field.is_empty() && field.bytes().all(|b| b.is_ascii_digit()))
        };
        let is_version = number(fields.next())
            && number(fields.next())
            && fields.next().is_some_and(|patch| patch.starts_with(|c: char| c.is_ascii_digit()));
        (is_version && word.len() <= MAX_BYTES).then(|| Version::parse(word).ok()).flatten()
    })
}

/// `docker.compose` and `docker.compose-kind`.
pub fn insert(compose: &Compose, facts: &mut Facts) {
    let skipped = (!compose.passed_over.is_empty()).then(|| compose.passed_over.join("; "));
    let both = if let Some(found) = &compose.found {
        let source = found.source.clone();
        let facts = [
            Fact::known(Value::Version(found.version.clone()), source.clone()),
            Fact::known(Value::Text(found.kind.name().to_owned()), source),
        ];
        match skipped {
            Some(note) => facts.map(|fact| fact.note(note.clone())),
            None => facts,
        }
    } else {
        let source = "cli-plugins, PATH";
        let help = Some("run preflight as the user who runs Compose");
        let fact = match skipped {
            Some(error) => Fact::unknown(error, help, source),
            None => Fact::absent("no Compose plugin and no docker-compose", source),
        };
        [fact.clone(), fact]
    };
    let [version, kind] = both;
    facts.live("docker.compose", version.took(compose.took));
    facts.live("docker.compose-kind", kind.took(compose.took));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_a_version_is_read() {
        for (text, expected) in [
            ("1.29.2\n", "1.29.2"),
            ("v2.26.1-4\n", "2.26.1-4"),
            ("2.21.0-desktop.1", "2.21.0-desktop.1"),
            ("docker-compose version 1.25.0, build unknown", "1.25.0"),
            ("Docker Compose version v2.40.3+ds1-0ubuntu1", "2.40.3+ds1-0ubuntu1"),
            ("warning: python 3.9 is old\n5.0.0", "5.0.0"),
        ] {
            assert_eq!(parse_version(text).map(|version| version.to_string()).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "2", "2.26", "unknown", "..", "1..2", "a.b.c"] {
            assert_eq!(parse_version(text), None, "{text}");
        }
    }

    #[test]
    fn a_script_that_insists_on_a_version_states_it() {
        let script = "#!/usr/bin/python3\n# docker-compose==9.9.9\n__requires__ = 'docker-compose==1.29.2'\n";
        assert_eq!(pinned_version(script).unwrap().to_string(), "1.29.2");
        assert_eq!(pinned_version("#!/bin/sh\n__requires__ = 'docker-compose==1.29.2'\n"), None);
        assert_eq!(pinned_version("#!/usr/bin/python3\nimport compose\n"), None);
    }

    #[test]
    fn homes_are_found_by_user_id() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nu:x:1000:1000:,,,:/home/u:/bin/sh\n";
        assert_eq!(home_of(passwd, "1000"), Some("/home/u"));
        assert_eq!(home_of(passwd, "7"), None);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test builds the root it reads")]
    fn a_plugin_in_the_home_behind_sudo_is_reported() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("etc/passwd", "u:x:1000:1000::/home/u:/bin/sh\n");
        write("home/u/.docker/cli-plugins/docker-compose", "#!/bin/sh\n");
        let env = Environment {
            is_root: true,
            sudo_uid: Some("1000".into()),
            path: Some("/nonexistent".into()),
            ..Environment::default()
        };
        let compose = look(&Host::at_root(root.path()), &env, Duration::from_secs(1));
        assert!(compose.found.is_none());
        let expected =
            "/home/u/.docker/cli-plugins/docker-compose is in the invoking user's home and is not run as root";
        assert_eq!(compose.passed_over, [expected]);
    }

    #[test]
    fn nothing_found_is_absent_and_nothing_usable_is_unknown() {
        let mut facts = Facts::default();
        insert(&Compose { found: None, passed_over: vec![], took: Duration::ZERO }, &mut facts);
        assert!(matches!(
            facts.get("docker.compose", crate::facts::Layer::Live).unwrap().state,
            crate::facts::State::Absent(_)
        ));
        insert(&Compose { found: None, passed_over: vec!["x is not run".into()], took: Duration::ZERO }, &mut facts);
        assert!(matches!(
            facts.get("docker.compose-kind", crate::facts::Layer::Live).unwrap().state,
            crate::facts::State::Unknown { .. }
        ));
    }

    proptest! {
        #[test]
        fn any_output_is_read_or_refused(text in "[\\PC\n]{0,200}") {
            let _ = parse_version(&text);
            let _ = pinned_version(&format!("#!python\n__requires__ = {text}"));
            let _ = home_of(&text, "0");
        }

        #[test]
        fn any_numbers_are_found_in_any_words(a in 0u16.., b in 0u16.., c in 0u16.., before in "[a-z ]{0,10} ", after in "(|,.*)") {
            let text = format!("{before}{a}.{b}.{c}{after}");
            prop_assert_eq!(parse_version(&text).unwrap().to_string(), format!("{a}.{b}.{c}"));
        }
    }
}
