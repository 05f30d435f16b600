//! The files of `checks/` and `profiles/` that are part of the binary, in explicit order.
//!
//! Of checks and OS profiles the binary holds what `build.rs` read from the files, as postcard: reading all that TOML at
//! each start would cost as much as starting a process. A test compares it with the files. Of profiles it holds the text.

use std::borrow::Cow;
use std::sync::{LazyLock, OnceLock};

use serde::Deserialize;

use super::check::Check;
use super::diagnostic::Source;
use super::os::OsProfile;

/// A file inside the binary.
#[derive(Debug)]
pub struct File {
    /// The stem: `kernel`, `redis-sentinel`.
    pub name: &'static str,
    /// The path in the repository.
    pub path: &'static str,
    pub text: &'static str,
}

impl File {
    pub fn source(&self) -> Source {
        Source { path: self.path.to_owned(), text: Cow::Borrowed(self.text) }
    }
}

/// How the paths of embedded files begin. No file on a host is named so: theirs are taken with a folder.
pub const EMBEDDED: &str = "embedded:";

macro_rules! files {
    ($folder:literal: $($name:literal)*) => {
        &[$(File {
            name: $name,
            path: concat!("embedded:", $folder, "/", $name, ".toml"),
            text: include_str!(concat!("../../", $folder, "/", $name, ".toml")),
        }),*]
    };
}

/// The files of checks, in the order of the sections of a report, which is the order in which `build.rs` has read them.
pub const CHECKS: &[File] = files!("checks": "host" "docker" "ports" "firewall" "resources" "kernel" "limits" "time");

/// The profiles.
pub const PROFILES: &[File] = files!("profiles": "redis-sentinel" "docker-host");

/// The profile that is meant when none is named.
pub const DEFAULT_PROFILE: &str = "redis-sentinel";

/// The checks of each of [`CHECKS`]. Their places name the file by its index there.
pub fn checks() -> Vec<Vec<Check>> {
    read(include_bytes!(concat!(env!("OUT_DIR"), "/checks.postcard")))
}

/// An OS profile inside the binary, read when it is first asked for: a run needs one of them.
#[derive(Debug)]
pub struct OsFile {
    ids: Vec<&'static str>,
    bytes: &'static [u8],
    profile: OnceLock<OsProfile>,
}

impl OsFile {
    /// Whether it is the profile of an os-release ID.
    pub fn answers_for(&self, id: &str) -> bool {
        self.ids.contains(&id)
    }

    pub fn profile(&self) -> &OsProfile {
        self.profile.get_or_init(|| read(self.bytes))
    }
}

/// The OS profiles. `generic` is last: it answers when nothing else does.
pub fn os_files() -> &'static [OsFile] {
    // Gathering and judging both ask.
    static FILES: LazyLock<Vec<OsFile>> = LazyLock::new(|| {
        let files: Vec<(Vec<&str>, &[u8])> = read(include_bytes!(concat!(env!("OUT_DIR"), "/os_profiles.postcard")));
        files.into_iter().map(|(ids, bytes)| OsFile { ids, bytes, profile: OnceLock::new() }).collect()
    });
    &FILES
}

pub fn os_profiles() -> impl Iterator<Item = &'static OsProfile> {
    os_files().iter().map(OsFile::profile)
}

#[expect(clippy::expect_used, reason = "build.rs has written it from the same types")]
fn read<T: Deserialize<'static>>(bytes: &'static [u8]) -> T {
    postcard::from_bytes(bytes).expect("what build.rs embedded")
}
