//! The files of `checks/` and `profiles/` that are part of the binary, in explicit order. A test asserts that the lists
//! name exactly the files in the folders.

use super::tree::Node;

/// A file inside the binary.
#[derive(Debug, Clone, Copy)]
pub struct File {
    /// The stem: `kernel`, `redis-sentinel`.
    pub name: &'static str,
    /// The path in the repository.
    pub path: &'static str,
    pub text: &'static str,
    /// The text, parsed at build time.
    pub tree: &'static Node,
}

/// The trees that `build.rs` wrote.
#[allow(clippy::unreadable_literal, reason = "offsets, written by build.rs")]
mod trees {
    use std::borrow::Cow;

    use crate::catalog::tree::{Entry, Kind, Node};

    const fn n(start: u32, end: u32, kind: Kind) -> Node {
        Node { start, end, kind }
    }

    const fn e(key: &'static str, start: u32, end: u32, node: Node) -> Entry {
        Entry { key: Cow::Borrowed(key), start, end, node }
    }

    const fn t(text: &'static str) -> Kind {
        Kind::Text(Cow::Borrowed(text))
    }

    #[allow(dead_code, reason = "only used when a file holds such a value")]
    const fn o(text: &'static str) -> Kind {
        Kind::Other(Cow::Borrowed(text))
    }

    const fn a(items: &'static [Node]) -> Kind {
        Kind::Array(Cow::Borrowed(items))
    }

    const fn b(entries: &'static [Entry]) -> Kind {
        Kind::Table(Cow::Borrowed(entries))
    }

    include!(concat!(env!("OUT_DIR"), "/trees.rs"));
}

/// How the paths of embedded files begin. No file on a host is named so: theirs are taken with a folder.
pub const EMBEDDED: &str = "embedded:";

macro_rules! files {
    ($folder:literal: $($name:literal $tree:ident)*) => {
        &[$(File {
            name: $name,
            path: concat!("embedded:", $folder, "/", $name, ".toml"),
            text: include_str!(concat!("../../", $folder, "/", $name, ".toml")),
            tree: &trees::$tree,
        }),*]
    };
}

/// The files of checks, in the order of the sections of a report.
pub const CHECKS: &[File] = files!("checks":
    "host" CHECKS_HOST "docker" CHECKS_DOCKER "ports" CHECKS_PORTS "firewall" CHECKS_FIREWALL "resources" CHECKS_RESOURCES "kernel" CHECKS_KERNEL
    "limits" CHECKS_LIMITS "time" CHECKS_TIME);

/// The profiles.
pub const PROFILES: &[File] =
    files!("profiles": "redis-sentinel" PROFILES_REDIS_SENTINEL "docker-host" PROFILES_DOCKER_HOST);

/// The profile that is meant when none is named.
pub const DEFAULT_PROFILE: &str = "redis-sentinel";

/// The OS profiles. `generic` is last: it answers when nothing else does.
pub const OS_PROFILES: &[File] = files!("profiles/os":
    "debian" PROFILES_OS_DEBIAN "ubuntu" PROFILES_OS_UBUNTU "rhel" PROFILES_OS_RHEL "amazon" PROFILES_OS_AMAZON
    "fedora" PROFILES_OS_FEDORA "suse" PROFILES_OS_SUSE "alpine" PROFILES_OS_ALPINE "arch" PROFILES_OS_ARCH
    "generic" PROFILES_OS_GENERIC);

/// Which os-release IDs each OS profile answers for, so that a run parses one profile instead of all. A test asserts
/// that it says what the files say.
pub const OS_IDS: &[(&str, &[&str])] = &[
    ("debian", &["debian"]),
    ("ubuntu", &["ubuntu"]),
    ("rhel", &["rhel", "centos", "rocky", "almalinux", "ol"]),
    ("amazon", &["amzn"]),
    ("fedora", &["fedora"]),
    ("suse", &["sles", "sles_sap", "opensuse-leap", "opensuse-tumbleweed", "suse", "opensuse"]),
    ("alpine", &["alpine"]),
    ("arch", &["arch"]),
    ("generic", &[]),
];
