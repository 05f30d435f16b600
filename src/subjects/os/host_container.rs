//! Whether this process itself runs in a container, where it sees another host than the one it is asked about.
//!
//! The order is that of systemd's `detect_container()` (`src/basic/virt.c`): what the manager wrote, then PID 1's
//! environment, then the marker files. A virtual machine made from a container image keeps such a file, so it counts only
//! where some namespace is not the one that the kernel booted with; and such a PID namespace betrays a container that
//! left no mark.

use std::time::Instant;

use crate::facts::{Fact, Facts, Value};
use crate::host::Host;
use crate::subjects::context::Context;

/// Files whose text is the kind; systemd in the container writes the first, a manager may leave the second.
const NAMING_FILES: [&str; 2] = ["/run/systemd/container", "/run/host/container-manager"];

/// Files that only exist inside.
const MARKER_FILES: [(&str, &str); 2] = [("/run/.containerenv", "podman"), ("/.dockerenv", "docker")];

const ENVIRON: &str = "/proc/1/environ";
/// The namespaces that no container of a known kind shares all of with its host, and the numbers that those of the
/// host itself have in every kernel (`include/uapi/linux/nsfs.h`, before that `include/linux/proc_ns.h`). PID first.
const FIRST_NAMESPACES: [(&str, &str); 3] = [
    ("/proc/self/ns/pid", "pid:[4026531836]"),
    ("/proc/self/ns/uts", "uts:[4026531838]"),
    ("/proc/self/ns/ipc", "ipc:[4026531839]"),
];

/// Inserts `host.container`.
pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    if !cx.want.has("host.container") {
        return;
    }
    let started = Instant::now();
    let fact = if cx.host.is_live() { detect(cx.host) } else { Fact::not_running(ENVIRON) };
    facts.live("host.container", fact.took(started.elapsed()));
}

fn detect(host: &Host) -> Fact {
    let known = |kind: &str, source: &str| Fact::known(Value::Text(kind.to_owned()), source);
    for path in NAMING_FILES {
        if let Some(kind) = host.read_text(path).ok().and_then(|text| word(&text)) {
            return known(&kind, path);
        }
    }
    let environment = host.read(ENVIRON);
    if let Some(kind) = environment.as_deref().ok().and_then(container_variable) {
        return known(&kind, ENVIRON);
    }
    let [own_pid, own_uts, own_ipc] =
        FIRST_NAMESPACES.map(|(path, first)| host.link_target(path).map(|namespace| namespace.as_os_str() != first));
    let marker = MARKER_FILES.iter().find(|(path, _)| host.exists(path));
    let isolated = [own_pid, own_uts, own_ipc].iter().any(|own| *own != Some(false));
    let namespace = FIRST_NAMESPACES[0].0;
    match (marker, own_pid) {
        (Some((path, kind)), _) if isolated => known(kind, path),
        (Some((path, _)), _) => known("none", namespace)
            .note(format!("{path} is there, but all namespaces are the host's: left over from an image")),
        (None, Some(false)) => known("none", namespace),
        (None, Some(true)) => {
            known("other", namespace).note("a PID namespace of its own, but no marker of a known kind")
        }
        (None, None) => {
            Fact::unknown("neither a marker nor the PID namespace can be read", Some("mount /proc"), namespace)
        }
    }
}

/// The value of `container=` among NUL-separated variables.
pub fn container_variable(environment: &[u8]) -> Option<String> {
    let value = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(b"container="))?;
    word(&String::from_utf8_lossy(value))
}

/// The first word, if there is one.
fn word(text: &str) -> Option<String> {
    text.split_whitespace().next().map(Into::into)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the roots they read")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    #[test]
    fn the_kind_comes_from_the_most_telling_source() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at_root(root.path());
        let kind = |host: &Host| detect(host).value().map(ToString::to_string);
        assert_eq!(kind(&host), None, "nothing readable must be unknown, not `none`");
        fs::create_dir_all(root.path().join("proc/self/ns")).unwrap();
        fs::create_dir_all(root.path().join("proc/1")).unwrap();
        fs::create_dir_all(root.path().join("run/systemd")).unwrap();
        let namespace = root.path().join("proc/self/ns/pid");
        for (path, first) in FIRST_NAMESPACES {
            std::os::unix::fs::symlink(first, root.path().join(&path[1..])).unwrap();
        }
        assert_eq!(kind(&host).as_deref(), Some("none"));
        fs::write(root.path().join(".dockerenv"), "").unwrap();
        assert_eq!(kind(&host).as_deref(), Some("none"), "an image's file in a virtual machine is no container");
        fs::remove_file(root.path().join(".dockerenv")).unwrap();
        fs::remove_file(&namespace).unwrap();
        std::os::unix::fs::symlink("pid:[4026532000]", &namespace).unwrap();
        assert_eq!(kind(&host).as_deref(), Some("other"));
        fs::write(root.path().join(".dockerenv"), "").unwrap();
        assert_eq!(kind(&host).as_deref(), Some("docker"));
        fs::write(root.path().join("proc/1/environ"), "HOME=/\0container=lxc\0").unwrap();
        assert_eq!(kind(&host).as_deref(), Some("lxc"));
        fs::write(root.path().join("run/systemd/container"), "systemd-nspawn\n").unwrap();
        assert_eq!(kind(&host).as_deref(), Some("systemd-nspawn"));
    }

    #[test]
    fn only_the_variable_itself_counts() {
        assert_eq!(container_variable(b"mycontainer=lxc\0container=\0"), None);
        assert_eq!(container_variable(b"container=podman"), Some("podman".into()));
    }

    proptest! {
        #[test]
        fn any_environment_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            container_variable(&bytes);
        }
    }
}
