//! Reads the embedded checks and OS profiles with the reader of the program itself, so that a mistake in them ends the
//! build with its place, and writes what it made of them as postcard, so that a run does not read TOML for them.

#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "a build script reads the files that it embeds")]

use std::path::Path;
use std::{env, fs};

use catalog::check::{self, Check};
use catalog::diagnostic::{Diagnostics, Source};
use catalog::os::{self, OsProfile};
use serde::Serialize;

// The program's own reader, as far as checks and OS profiles need it.
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the build script uses a part of it")]
#[path = "src"]
mod program {
    pub mod catalog {
        pub mod check;
        pub mod day;
        pub mod diagnostic;
        pub mod os;
        pub mod predicate;
        pub mod reader;
        pub mod tree;
    }
    pub mod facts {
        pub mod compare;
        pub mod registry;
        pub mod value;
        pub mod version;

        pub use value::{Kind, Value};
        pub use version::Version;
    }
}
use program::{catalog, facts};

/// In the order in which they are embedded: a place names its file by its index (`src/catalog/embedded.rs`).
const CHECKS: [&str; 8] = ["host", "docker", "ports", "firewall", "resources", "kernel", "limits", "time"];

/// The OS profile that answers when nothing else does: the last one.
const GENERIC: &str = "generic";

fn main() {
    let mut diagnostics = Diagnostics::default();
    let checks = read("checks", &CHECKS, &mut diagnostics, |source, tree, d| {
        let mut checks: Vec<Check> = Vec::new();
        check::read_file(source, tree, d, &mut checks);
        Some(checks)
    });
    let found = toml_files("profiles/os");
    let mut names: Vec<&str> = found.iter().filter_map(|name| name.strip_suffix(".toml")).collect();
    names.sort_by_key(|name| *name == GENERIC);
    let os_profiles: Vec<OsProfile> = read("profiles/os", &names, &mut diagnostics, os::read);
    let mistakes: Vec<String> = diagnostics.list.iter().map(|one| diagnostics.line(one)).collect();
    assert!(mistakes.is_empty(), "the embedded files have mistakes\n{}", mistakes.join("\n"));
    write("checks.postcard", &checks);
    // Each by itself, under the ids it answers for: a run reads one of them.
    let os_profiles: Vec<(&[String], Vec<u8>)> =
        os_profiles.iter().map(|profile| (&*profile.ids, postcard::to_allocvec(profile).expect("a profile"))).collect();
    write("os_profiles.postcard", &os_profiles);
}

/// What each of the files of a folder holds. Files that are not listed would be forgotten: there must be none.
fn read<T>(
    folder: &str,
    listed: &[&str],
    diagnostics: &mut Diagnostics,
    read: impl Fn(usize, &catalog::tree::Node, &mut Diagnostics) -> Option<T>,
) -> Vec<T> {
    let mut names: Vec<String> = listed.iter().map(|name| format!("{name}.toml")).collect();
    names.sort_unstable();
    assert_eq!(toml_files(folder), names, "the files of {folder}/ are not those that build.rs lists");
    listed
        .iter()
        .filter_map(|name| {
            let path = format!("{folder}/{name}.toml");
            let text = fs::read_to_string(&path).expect("an embedded file");
            let (source, tree) = diagnostics.open(Source::file(path, text));
            read(source, &tree, diagnostics)
        })
        .collect()
}

/// The names of the TOML files of a folder, sorted.
fn toml_files(folder: &str) -> Vec<String> {
    println!("cargo::rerun-if-changed={folder}");
    let entries = fs::read_dir(folder).expect("the folder of embedded files");
    let names = entries.filter_map(|entry| entry.expect("an entry").file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "toml")).collect();
    names.sort_unstable();
    names
}

fn write(name: &str, content: &impl Serialize) {
    let target = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let bytes = postcard::to_allocvec(content).expect("checks and OS profiles can be written");
    fs::write(Path::new(&target).join(name), bytes).expect("OUT_DIR can be written");
}
