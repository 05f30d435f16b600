//! Control groups around this process: the memory and CPU that they leave of the host's (cgroups(7), cgroup v1 and v2).
//!
//! Every ancestor's limit binds, so all that can be seen are read. A container with its own cgroup namespace sees
//! itself as `/`; one without sees its full path, while only its own folder is mounted. Both end at the mount point.

use std::io;
use std::path::{Path, PathBuf};

use crate::host::mounts::Mount;
use crate::host::{Host, ReadError};
use crate::subjects::context::Context;

const MEMBERSHIP: &str = "/proc/self/cgroup";

/// Where they are mounted by convention; for people.
const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    Memory,
    Cpu,
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
        }
    }
}

/// One control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// As this process sees it: `/system.slice/docker.service`.
    pub path: String,
    /// Where its files are.
    pub dir: PathBuf,
}

/// The groups of one hierarchy around this process that can be seen, its own first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub unified: bool,
    pub groups: Vec<Group>,
}

/// The hierarchies that may limit `controller`: in hybrid mode the v1 one and the (then powerless) unified one. `None`
/// when this process is in one whose files cannot be seen: what its groups allow is then not known. The kernel lists
/// only hierarchies that were mounted once, so that not to find one is a matter of this mount namespace.
pub fn hierarchies(controller: Controller, membership: &str, mounts: &[Mount]) -> Option<Vec<Hierarchy>> {
    let mut hidden = [false; 2];
    let found: Vec<Hierarchy> = membership
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let unified = number == "0" && controllers.is_empty();
            if !unified && !controllers.split(',').any(|name| name == controller.name()) {
                return None;
            }
            let ours = |mount: &&Mount| {
                if unified {
                    mount.filesystem == "cgroup2"
                } else {
                    mount.filesystem == "cgroup" && mount.super_options.split(',').any(|name| name == controller.name())
                }
            };
            let groups = mounts.iter().filter(ours).map(|mount| visible(path, mount)).max_by_key(Vec::len);
            let groups = groups.filter(|groups| !groups.is_empty());
            hidden[usize::from(unified)] |= groups.is_none();
            Some(Hierarchy { unified, groups: groups? })
        })
        .collect();
    let [v1_hidden, unified_hidden] = hidden;
    // A controller is in one hierarchy only: where a v1 one has it, the unified one has nothing to say.
    let has_v1 = found.iter().any(|hierarchy| !hierarchy.unified);
    if v1_hidden || (unified_hidden && !has_v1) { None } else { Some(found) }
}

/// The group `path` and its ancestors, as far as they lie under the mount.
fn visible(path: &str, mount: &Mount) -> Vec<Group> {
    let own = Path::new(path);
    let Ok(below) = own.strip_prefix(&mount.root) else {
        // Mounted from outside of our cgroup namespace (`/..`): the mount point is an ancestor, which of its folders is
        // ours cannot be determined. Any other root is not an ancestor of ours.
        let outside = mount.root.starts_with("/..") && !path.starts_with("/..");
        return if outside {
            vec![Group { path: mount.root.clone(), dir: mount.mount_point.clone() }]
        } else {
            Vec::new()
        };
    };
    below
        .ancestors()
        .map(|part| Group {
            path: Path::new(&mount.root).join(part).display().to_string().trim_end_matches('/').to_owned(),
            dir: mount.mount_point.join(part),
        })
        .map(|group| if group.path.is_empty() { Group { path: "/".to_owned(), ..group } } else { group })
        .collect()
}

/// Which groups this process is in, as the kernel lists them. A kernel without control groups lists none.
pub fn membership(host: &Host) -> Result<Option<String>, ReadError> {
    host.read_of_kernel(MEMBERSHIP)
}

/// [`membership`], read once in a run.
pub fn shared_membership(cx: &Context<'_>) -> Result<Option<String>, ReadError> {
    struct Membership(Result<Option<String>, ReadError>);
    cx.shared(|| Membership(membership(cx.host))).0.clone()
}

/// The hierarchies around this process, of its [`membership`].
pub fn around(controller: Controller, membership: Option<&str>, mounts: &[Mount]) -> Result<Vec<Hierarchy>, ReadError> {
    let Some(membership) = membership else { return Ok(Vec::new()) };
    hierarchies(controller, membership, mounts).ok_or_else(|| hidden(MOUNT_POINT))
}

/// This process is in a group whose files are not there: its limits are not known.
pub fn hidden(path: impl AsRef<Path>) -> ReadError {
    let error = "the control groups of this process are hidden from it, so that their limits are not known";
    ReadError { path: path.as_ref().to_owned(), source: io::Error::other(error) }
}

/// Whether the folder is that of a group: every group has this file, and nothing that hides them does.
pub fn is_group(host: &Host, group: &Group) -> bool {
    host.exists(group.dir.join("cgroup.procs"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::mounts;
    use proptest::prelude::*;

    fn paths(membership: &str, mountinfo: &str, controller: Controller) -> Vec<(String, String)> {
        hierarchies(controller, membership, &mounts::parse(mountinfo))
            .unwrap()
            .into_iter()
            .flat_map(|hierarchy| hierarchy.groups)
            .map(|group| (group.path, group.dir.display().to_string()))
            .collect()
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(path, dir)| ((*path).to_owned(), (*dir).to_owned())).collect()
    }

    #[test]
    fn every_visible_ancestor_is_found() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            paths("0::/system.slice/x.service\n", v2, Controller::Memory),
            owned(&[
                ("/system.slice/x.service", "/sys/fs/cgroup/system.slice/x.service"),
                ("/system.slice", "/sys/fs/cgroup/system.slice"),
                ("/", "/sys/fs/cgroup/"),
            ])
        );
        // A container with a cgroup namespace, and one without: v1 shows the full path, but mounts its own folder only.
        assert_eq!(paths("0::/\n", v2, Controller::Cpu), owned(&[("/", "/sys/fs/cgroup/")]));
        let v1 = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        assert_eq!(
            paths("4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n", v1, Controller::Memory),
            owned(&[("/docker/abc", "/sys/fs/cgroup/memory/")])
        );
        assert_eq!(paths("4:memory:/docker/abc\n", v1, Controller::Cpu), []);
    }

    #[test]
    fn a_hierarchy_that_cannot_be_seen_is_not_taken_for_none() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let v1 = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let is_hidden =
            |membership, mountinfo| hierarchies(Controller::Memory, membership, &mounts::parse(mountinfo)).is_none();
        assert!(is_hidden("0::/a\n", ""));
        assert!(is_hidden("4:memory:/a\n0::/\n", ""));
        assert!(is_hidden("4:memory:/a\n0::/\n", v2), "the v1 hierarchy has the controller");
        // Moved to a sibling after the mount was made: the mounted folder is no ancestor.
        assert!(is_hidden("4:memory:/docker/abcd\n", v1));
        assert!(!is_hidden("4:memory:/docker/abc\n0::/\n", v1), "the unified one has nothing to say");
        assert!(!is_hidden("0::/a\n", v2));
        assert!(!is_hidden("5:pids:/a\n1:name=systemd:/\n", ""), "nothing limits memory");
        assert!(!is_hidden("", ""));
    }

    #[test]
    fn a_mount_from_outside_of_the_namespace_still_counts_as_an_ancestor() {
        let v2 = "30 23 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(paths("0::/\n", v2, Controller::Memory), owned(&[("/../..", "/sys/fs/cgroup")]));
        let sibling = "30 23 0:26 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            paths("0::/../other\n", sibling, Controller::Memory),
            owned(&[("/../other", "/sys/fs/cgroup/other"), ("/..", "/sys/fs/cgroup/")])
        );
    }

    proptest! {
        #[test]
        fn any_text_is_survived(membership in "([0-9]|:|/|\\.\\.|memory|cpu|\n|\\PC){0,40}", root in "(/|\\.\\.|\\PC){0,10}") {
            let mountinfo = format!("30 23 0:26 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
            hierarchies(Controller::Memory, &membership, &mounts::parse(&mountinfo));
        }
    }
}
