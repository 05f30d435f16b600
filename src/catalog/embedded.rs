//! The files of `checks/` and `profiles/` that are part of the binary, in explicit order. A test asserts that the lists
//! name exactly the files in the folders.

use std::borrow::Cow;

use super::check::Check;
use super::diagnostic::Source;
use super::reader::Text;
use super::tree::Node;

/// A file inside the binary.
#[derive(Debug)]
pub struct File<T: ?Sized + 'static> {
    /// The stem: `kernel`, `redis-sentinel`.
    pub name: &'static str,
    /// The path in the repository.
    pub path: &'static str,
    pub text: &'static str,
    /// What `build.rs` has made of the text.
    pub content: &'static T,
}

impl File<Node> {
    /// The file with its tree.
    pub fn source(&self) -> Source {
        Source { path: self.path.to_owned(), text: Cow::Borrowed(self.text), tree: Some(self.content) }
    }
}

impl File<[Check]> {
    /// The file as the places of its checks refer to it.
    pub fn source(&self) -> Source {
        Source { path: self.path.to_owned(), text: Cow::Borrowed(self.text), tree: None }
    }
}

/// The trees that `build.rs` wrote.
#[allow(clippy::unreadable_literal, reason = "offsets, written by build.rs")]
mod trees {
    use super::t as text;
    use crate::catalog::tree::{Entry, Kind, Node};
    use std::borrow::Cow;

    const fn n(start: u32, end: u32, kind: Kind) -> Node {
        Node { start, end, kind }
    }

    const fn e(key: &'static str, start: u32, end: u32, node: Node) -> Entry {
        Entry { key: text(key), start, end, node }
    }

    const fn t(written: &'static str) -> Kind {
        Kind::Text(text(written))
    }

    #[allow(dead_code, reason = "only used when a file holds such a value")]
    const fn o(written: &'static str) -> Kind {
        Kind::Other(text(written))
    }

    const fn a(items: &'static [Node]) -> Kind {
        Kind::Array(Cow::Borrowed(items))
    }

    const fn b(entries: &'static [Entry]) -> Kind {
        Kind::Table(Cow::Borrowed(entries))
    }

    include!(concat!(env!("OUT_DIR"), "/trees.rs"));
}

/// The checks that `build.rs` wrote.
#[allow(clippy::unreadable_literal, reason = "offsets, written by build.rs")]
mod checks {
    use std::sync::LazyLock;
    use std::time::Duration;

    use super::t;
    use crate::catalog::check::{Absent, Case, Check, Condition, Severity, Tune};
    use crate::catalog::diagnostic::Place;
    use crate::catalog::kept::Kept;
    use crate::catalog::predicate::{Literal, Predicate, Term, Written};
    use crate::catalog::reader::{Placed, Text};
    use crate::facts::{Kind, Value, Version};

    const fn p(source: usize, start: usize, end: usize) -> Place {
        Place { source, span: start..end }
    }

    fn word(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[expect(clippy::expect_used, reason = "build.rs has read it")]
    fn version(text: &str) -> Value {
        Value::Version(Version::parse(text).expect("a version"))
    }

    fn set(words: &[&str]) -> Value {
        Value::Set(words.iter().map(|&word| word.to_owned()).collect())
    }

    include!(concat!(env!("OUT_DIR"), "/checks.rs"));
}

const fn t(text: &'static str) -> Text {
    Text::Borrowed(text)
}

/// How the paths of embedded files begin. No file on a host is named so: theirs are taken with a folder.
pub const EMBEDDED: &str = "embedded:";

macro_rules! files {
    ($folder:literal of $made:ident: $($name:literal $content:ident)*) => {
        &[$(File {
            name: $name,
            path: concat!("embedded:", $folder, "/", $name, ".toml"),
            text: include_str!(concat!("../../", $folder, "/", $name, ".toml")),
            content: &$made::$content,
        }),*]
    };
}

/// The files of checks, in the order of the sections of a report, which is the order in which `build.rs` has read them.
pub const CHECKS: &[File<[Check]>] = files!("checks" of checks:
    "host" CHECKS_HOST "docker" CHECKS_DOCKER "ports" CHECKS_PORTS "firewall" CHECKS_FIREWALL "resources" CHECKS_RESOURCES "kernel" CHECKS_KERNEL
    "limits" CHECKS_LIMITS "time" CHECKS_TIME);

/// The profiles.
pub const PROFILES: &[File<Node>] =
    files!("profiles" of trees: "redis-sentinel" PROFILES_REDIS_SENTINEL "docker-host" PROFILES_DOCKER_HOST);

/// The profile that is meant when none is named.
pub const DEFAULT_PROFILE: &str = "redis-sentinel";

/// The OS profiles. `generic` is last: it answers when nothing else does.
pub const OS_PROFILES: &[File<Node>] = files!("profiles/os" of trees:
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
