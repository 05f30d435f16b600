//! The files of `checks/` and `profiles/` that are part of the binary, in explicit order. A test asserts that the lists
//! name exactly the files in the folders.

/// A file inside the binary.
#[derive(Debug, Clone, Copy)]
pub struct File {
    /// The stem: `kernel`, `redis-sentinel`.
    pub name: &'static str,
    /// The path in the repository.
    pub path: &'static str,
    pub text: &'static str,
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

/// The files of checks, in the order of the sections of a report.
pub const CHECKS: &[File] = files!("checks": "host" "docker" "ports" "resources" "kernel" "limits" "time");

/// The profiles.
pub const PROFILES: &[File] = files!("profiles": "redis-sentinel" "docker-host");

/// The profile that is meant when none is named.
pub const DEFAULT_PROFILE: &str = "redis-sentinel";

/// The OS profiles. `generic` is last: it answers when nothing else does.
pub const OS_PROFILES: &[File] =
    files!("profiles/os": "debian" "ubuntu" "rhel" "amazon" "fedora" "suse" "alpine" "arch" "generic");

/// Which os-release IDs each OS profile answers for, so that a run parses one profile instead of all. A test asserts
/// that it says what the files say.
pub const OS_IDS: &[(&str, &[&str])] = &[
    ("debian", &["debian"]),
    ("ubuntu", &["ubuntu"]),
    ("rhel", &["rhel", "centos", "rocky", "almalinux", "ol"]),
    ("amazon", &["amzn"]),
    ("fedora", &["fedora"]),
    ("suse", &["sles", "opensuse-leap", "opensuse-tumbleweed"]),
    ("alpine", &["alpine"]),
    ("arch", &["arch"]),
    ("generic", &[]),
];
