//! `preflight lint FILE…`: every mistake with its place, without looking at the host.

use std::io::Write as _;
use std::path::Path;

use super::args::LintArgs;
use super::{ExitCode, Stop, show};
use crate::catalog::diagnostic::{Diagnostics, Source};
use crate::catalog::library::Library;
use crate::catalog::{load, os, tree, waiver};
use crate::host::{self, Host};
use crate::subjects::planner;

pub(super) fn run(args: &LintArgs) -> Result<ExitCode, Stop> {
    let mut total = 0;
    let mut stderr = anstream::stderr();
    for path in &args.files {
        let diagnostics = lint(path)?;
        total += diagnostics.list.len();
        // Words go to stderr; losing them must not change the exit code.
        let _ = write!(stderr, "{}", diagnostics.render(true));
    }
    show::deliver(format!("{} in {}\n", count(total), files(args.files.len())).as_bytes())?;
    Ok(if total == 0 { ExitCode::Success } else { ExitCode::Refused })
}

/// `no mistakes`, `1 mistake`, `3 mistakes`.
pub(super) fn count(mistakes: usize) -> String {
    match mistakes {
        0 => "no mistakes".to_owned(),
        1 => "1 mistake".to_owned(),
        many => format!("{many} mistakes"),
    }
}

fn files(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

/// What a file is shows in its keys.
enum Role {
    Profile,
    Checks,
    Waivers,
    Os,
}

fn lint(path: &Path) -> Result<Diagnostics, Stop> {
    let text = host::input::read(path).map_err(Stop::usage)?;
    let name = path.display().to_string();
    let mut d = Diagnostics::default();
    match role(&text) {
        Role::Waivers => {
            let (source, tree) = d.open(Source::file(name, text));
            waiver::read_file(source, &tree, &mut d);
        }
        Role::Os => {
            let (source, tree) = d.open(Source::file(name, text));
            os::read(source, &tree, &mut d);
        }
        Role::Profile => {
            // Profiles extend each other by name: those in the same folder are known too.
            let mut library = siblings(path)?;
            // Found by its path, as asked for, and by its name, as others and itself may extend it.
            let source = Source::file(name.clone(), text);
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            library.profiles.extend([(stem, source.clone()), (name.clone(), source)]);
            d = load::load_for_lint(&library, &name, planner::tuning).1;
        }
        Role::Checks => {
            // `checks/kernel.toml` of the repository is the source of an embedded file, not an addition to it.
            let in_checks = path.parent().is_some_and(|folder| folder.ends_with("checks"));
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let replaced = stem.into_iter().filter(|_| in_checks).collect();
            let checks = vec![Source::file(name.clone(), text)];
            let library = Library { checks, replaced, ..Library::default() };
            d = load::load_for_lint(&library, crate::catalog::embedded::DEFAULT_PROFILE, planner::tuning).1;
        }
    }
    Ok(d)
}

/// A file that is no TOML at all is read as a file of checks, whose loader shows what is wrong.
fn role(text: &str) -> Role {
    let (tree, _) = tree::parse(text);
    let keys: Vec<&str> = tree.as_table().unwrap_or_default().iter().map(|entry| entry.key.as_ref()).collect();
    let has = |key: &str| keys.contains(&key);
    if has("waiver") {
        Role::Waivers
    } else if has("service_manager") || has("sysctl_loader") || has("remedy") {
        Role::Os
    } else if has("name") || has("extends") || has("parameter") || has("checks") {
        Role::Profile
    } else {
        Role::Checks
    }
}

fn siblings(path: &Path) -> Result<Library, Stop> {
    let host = Host::live();
    let mut library = Library::local(&host)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    for entry in host.list(folder).map_err(Stop::usage)? {
        let sibling = folder.join(&entry);
        let stem = sibling.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if sibling.extension().is_some_and(|extension| extension == "toml") && sibling != path {
            let Ok(text) = host.read_text(&sibling) else { continue };
            library.profiles.push((stem, Source::file(sibling.display().to_string(), text)));
        }
    }
    Ok(library)
}
