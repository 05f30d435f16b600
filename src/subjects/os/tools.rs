//! Which programs are there: in the PATH and in the folders of system programs, which a user's PATH often lacks.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use crate::facts::{Fact, Facts, Value};
use crate::host::{Host, env};
use crate::subjects::context::Context;

/// Where system programs are, beyond the PATH of an ordinary user.
const SYSTEM_DIRS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// What execvp(3) searches in an environment without PATH (`env -i`, some service managers), and what every shell adds.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where programs of an image are looked for.
const IMAGE_DIRS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Inserts `tool.NAME` for each name asked for.
pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    for name in cx.want.family("tool.") {
        let started = Instant::now();
        let fact = if name.is_empty() || name.contains('/') {
            Fact::unknown(format!("`{name}` is not the name of a program"), None, "PATH")
        } else if cx.host.is_live() {
            in_path(name)
        } else {
            in_image(cx.host, name)
        };
        facts.live(format!("tool.{name}"), fact.took(started.elapsed()));
    }
}

fn in_path(name: &str) -> Fact {
    let dirs = search_path(env::var("PATH").as_deref());
    match which::which_in(name, Some(&dirs), "/") {
        Ok(path) => Fact::known(Value::Bool(true), path.display().to_string()),
        Err(_) => Fact::known(Value::Bool(false), format!("PATH and {SYSTEM_DIRS}")),
    }
}

/// The PATH of the environment, its relative entries dropped (they mean another folder in every shell), and the system
/// folders.
fn search_path(path: Option<&OsStr>) -> OsString {
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let given = std::env::split_paths(path).filter(|dir| dir.is_absolute());
    // A folder with a colon in its name cannot come out of `split_paths`, so joining does not fail.
    std::env::join_paths(given.chain(std::env::split_paths(SYSTEM_DIRS))).unwrap_or_else(|_| SYSTEM_DIRS.into())
}

fn in_image(host: &Host, name: &str) -> Fact {
    let program = |dir: &&&str| {
        host.metadata(format!("{dir}/{name}"))
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    match IMAGE_DIRS.iter().find(program) {
        Some(dir) => Fact::known(Value::Bool(true), format!("{dir}/{name}")),
        None => Fact::known(Value::Bool(false), IMAGE_DIRS.join(":")),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the roots they read")]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_program_of_the_live_host_is_found_with_its_path() {
        let there = in_path("sh");
        assert_eq!(there.value(), Some(&Value::Bool(true)));
        assert!(there.source.ends_with("/sh"), "{}", there.source);
        assert_eq!(in_path("no-such-program-as-this").value(), Some(&Value::Bool(false)));
    }

    #[test]
    fn relative_entries_of_the_path_are_not_searched() {
        assert_eq!(search_path(Some(OsStr::new(".:/a::b:/c"))), *format!("/a:/c:{SYSTEM_DIRS}"));
        assert_eq!(search_path(None), *format!("{DEFAULT_PATH}:{SYSTEM_DIRS}"));
    }

    #[test]
    fn only_an_executable_file_of_an_image_is_a_program() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at_root(root.path());
        fs::create_dir_all(root.path().join("usr/bin/curl")).unwrap();
        fs::write(root.path().join("usr/bin/git"), "").unwrap();
        fs::set_permissions(root.path().join("usr/bin/git"), fs::Permissions::from_mode(0o644)).unwrap();
        let has = |name| in_image(&host, name).value() == Some(&Value::Bool(true));
        assert!(!has("git") && !has("curl") && !has("wget"));
        fs::set_permissions(root.path().join("usr/bin/git"), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(has("git"));
    }
}
