//! What the control groups around this process allow: memory limits with what is left of them, and CPU quotas.

use std::io;
use std::path::{Path, PathBuf};

use super::cgroup::{self, Controller, Group};
use crate::facts::Fact;
use crate::host::mounts::Mount;
use crate::host::{Host, ReadError};

/// "No limit": what `max` is read as.
const UNLIMITED: u64 = u64::MAX;

/// v1 prints "no limit" as the largest multiple of the page size below 2^63; nothing real is near it.
const V1_UNLIMITED: u64 = 1 << 62;

/// A memory limit of a group, with what is used of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLimit {
    pub bytes: u64,
    /// What is left of it: the limit less what is used, plus what of that is file cache not in active use.
    pub left: u64,
    /// The group, as it is named to people.
    pub group: String,
    /// The file that says so.
    pub file: PathBuf,
}

/// A CPU quota of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuQuota {
    /// Thousandths of a CPU.
    pub millicpus: u64,
    pub group: String,
    pub file: PathBuf,
}

/// A limit that cannot be read may be the one that binds.
pub fn unreadable(error: &ReadError) -> Fact {
    let help = if error.is_denied() {
        "run as root"
    } else {
        "run where /proc and /sys/fs/cgroup are mounted: on the host itself"
    };
    Fact::unknown(error.to_string(), Some(help), error.path.display().to_string())
}

/// All memory limits around this process, which is in these groups.
pub fn memory_limits(host: &Host, membership: Option<&str>, mounts: &[Mount]) -> Result<Vec<MemoryLimit>, ReadError> {
    let mut limits = Vec::new();
    for hierarchy in cgroup::around(Controller::Memory, membership, mounts)? {
        if hierarchy.unified {
            for group in &hierarchy.groups {
                limits.extend(v2_memory(host, group)?);
            }
        } else {
            v1_memory(host, &hierarchy.groups, &mut limits)?;
        }
    }
    Ok(limits)
}

fn v2_memory(host: &Host, group: &Group) -> Result<Option<MemoryLimit>, ReadError> {
    let file = group.dir.join("memory.max");
    // The root group of the host has no such file.
    let Some(bytes) = number(host, &file, limit)? else { return seen(host, group).map(|()| None) };
    if bytes == UNLIMITED {
        return Ok(None);
    }
    let used = number(host, &group.dir.join("memory.current"), |text| text.parse().ok())?.unwrap_or(0);
    let left = left(bytes, used, statistic(host, group, "inactive_file")?);
    Ok(Some(MemoryLimit { bytes, left, group: group.path.clone(), file }))
}

/// On v1 an ancestor binds only where `use_hierarchy` was set on the way (always since Linux 5.11), and a container does
/// not see its ancestors' files. `hierarchical_memory_limit` is the kernel's own answer to both.
fn v1_memory(host: &Host, groups: &[Group], limits: &mut Vec<MemoryLimit>) -> Result<(), ReadError> {
    let Some(own) = groups.first() else { return Ok(()) };
    let effective = statistic(host, own, "hierarchical_memory_limit")?;
    // Then no limit on the way binds.
    if effective.is_some_and(|effective| effective >= V1_UNLIMITED) {
        return Ok(());
    }
    let mut tightest = V1_UNLIMITED;
    for group in groups {
        let file = group.dir.join("memory.limit_in_bytes");
        let Some(bytes) = number(host, &file, |text| text.parse().ok())? else {
            seen(host, group)?;
            continue;
        };
        if bytes >= V1_UNLIMITED || effective.is_some_and(|effective| bytes < effective) {
            continue;
        }
        tightest = tightest.min(bytes);
        limits.push(MemoryLimit { bytes, left: v1_left(host, group, bytes)?, group: group.path.clone(), file });
    }
    if let Some(bytes) = effective.filter(|bytes| *bytes < tightest) {
        limits.push(MemoryLimit {
            bytes,
            left: v1_left(host, own, bytes)?,
            group: format!("around {}", own.path),
            file: own.dir.join("memory.stat"),
        });
    }
    Ok(())
}

fn v1_left(host: &Host, group: &Group, bytes: u64) -> Result<u64, ReadError> {
    let used = number(host, &group.dir.join("memory.usage_in_bytes"), |text| text.parse().ok())?.unwrap_or(0);
    Ok(left(bytes, used, statistic(host, group, "total_inactive_file")?))
}

/// File cache that is not in active use is given up before anything is refused.
fn left(limit: u64, used: u64, reclaimable: Option<u64>) -> u64 {
    limit.saturating_sub(used).saturating_add(reclaimable.unwrap_or(0).min(used)).min(limit)
}

/// All CPU quotas around this process, which is in these groups.
pub fn cpu_quotas(host: &Host, membership: Option<&str>, mounts: &[Mount]) -> Result<Vec<CpuQuota>, ReadError> {
    let mut quotas = Vec::new();
    for hierarchy in cgroup::around(Controller::Cpu, membership, mounts)? {
        for group in &hierarchy.groups {
            let file = group.dir.join(if hierarchy.unified { "cpu.max" } else { "cpu.cfs_quota_us" });
            let millicpus = if hierarchy.unified {
                number(host, &file, cpu_max)?
            } else {
                match number(host, &file, |text| text.parse::<i64>().ok())?.map(u64::try_from) {
                    Some(Ok(quota)) => {
                        let period = group.dir.join("cpu.cfs_period_us");
                        number(host, &period, |text| share(quota, text.parse().ok()?))?
                    }
                    // -1 is "no quota".
                    Some(Err(_)) => Some(UNLIMITED),
                    None => None,
                }
            };
            let Some(millicpus) = millicpus else {
                seen(host, group)?;
                continue;
            };
            let millicpus = Some(millicpus).filter(|millicpus| *millicpus < UNLIMITED);
            quotas.extend(millicpus.map(|millicpus| CpuQuota { millicpus, group: group.path.clone(), file }));
        }
    }
    Ok(quotas)
}

/// A group without a limit's file has no such limit (the root group, a controller that is off), unless the group itself
/// is not there: something is mounted over the control groups.
fn seen(host: &Host, group: &Group) -> Result<(), ReadError> {
    if cgroup::is_group(host, group) { Ok(()) } else { Err(cgroup::hidden(&group.dir)) }
}

/// `max` (no limit) or bytes.
fn limit(text: &str) -> Option<u64> {
    if text == "max" { Some(UNLIMITED) } else { text.parse().ok() }
}

/// `cpu.max`: `max 100000` or `150000 100000`, quota and period in microseconds; in thousandths of a CPU.
fn cpu_max(text: &str) -> Option<u64> {
    let (quota, period) = text.split_once(' ')?;
    match limit(quota)? {
        UNLIMITED => Some(UNLIMITED),
        quota => share(quota, period.parse().ok()?),
    }
}

fn share(quota: u64, period: u64) -> Option<u64> {
    u64::try_from((u128::from(quota) * 1000).checked_div(u128::from(period))?).ok()
}

/// One field of `memory.stat`.
fn statistic(host: &Host, group: &Group, name: &str) -> Result<Option<u64>, ReadError> {
    let text = host.read_optional(group.dir.join("memory.stat"))?.unwrap_or_default();
    Ok(field(&text, name))
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Reads a file of one value; `None` when it does not exist, an error when it holds something else.
fn number<T>(host: &Host, path: &Path, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, ReadError> {
    let Some(text) = host.read_optional(path)? else { return Ok(None) };
    let text = text.trim();
    match parse(text) {
        Some(value) => Ok(Some(value)),
        None => Err(ReadError {
            path: path.to_owned(),
            source: io::Error::other(format!("`{}` is not a limit", text.chars().take(40).collect::<String>())),
        }),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the roots they read")]
mod tests {
    use super::*;
    use crate::host::mounts;
    use proptest::prelude::*;
    use std::fs;

    #[test]
    fn values_are_read_as_the_kernel_prints_them() {
        assert_eq!(limit("max"), Some(UNLIMITED));
        assert_eq!(limit("2147483648"), Some(2 << 30));
        assert_eq!(limit("-1"), None);
        assert_eq!(cpu_max("max 100000"), Some(UNLIMITED));
        assert_eq!(cpu_max("150000 100000"), Some(1500));
        assert_eq!(cpu_max("1 0"), None);
        assert_eq!(field("total_inactive_file 5\ninactive_file 7\n", "inactive_file"), Some(7));
        assert_eq!(left(100, 60, Some(50)), 90);
        assert_eq!(left(100, 160, Some(10)), 10, "over the limit: only what can be given up is left");
        assert_eq!(left(100, 10, Some(u64::MAX)), 100);
    }

    /// A directory that stands for a host with control groups.
    fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let host = Host::at_root(root.path());
        (root, host)
    }

    fn memory_limits(host: &Host, mounts: &[Mount]) -> Result<Vec<MemoryLimit>, ReadError> {
        super::memory_limits(host, cgroup::membership(host)?.as_deref(), mounts)
    }

    fn cpu_quotas(host: &Host, mounts: &[Mount]) -> Result<Vec<CpuQuota>, ReadError> {
        super::cpu_quotas(host, cgroup::membership(host)?.as_deref(), mounts)
    }

    #[test]
    fn v2_limits_of_all_ancestors_are_read() {
        let (_root, host) = root(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/cgroup.procs", ""),
            ("sys/fs/cgroup/a/memory.max", "1000\n"),
            ("sys/fs/cgroup/a/memory.current", "400\n"),
            ("sys/fs/cgroup/a/memory.stat", "inactive_file 100\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/a/cpu.max", "max 100000\n"),
        ]);
        let limits = memory_limits(&host, &mounts::read(&host).unwrap()).unwrap();
        assert_eq!(limits.len(), 1);
        assert_eq!((limits[0].bytes, limits[0].left, &*limits[0].group), (1000, 700, "/a"));
        assert_eq!(cpu_quotas(&host, &mounts::read(&host).unwrap()).unwrap()[0].millicpus, 500);
    }

    #[test]
    fn a_v1_ancestor_that_a_container_cannot_see_binds_too() {
        let (_root, host) = root(&[
            ("proc/self/cgroup", "4:memory:/docker/x\n"),
            ("proc/self/mountinfo", "35 31 0:32 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "100\n"),
            ("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 5000\ntotal_inactive_file 0\n"),
        ]);
        let limits = memory_limits(&host, &mounts::read(&host).unwrap()).unwrap();
        assert_eq!((limits[0].bytes, limits[0].left, &*limits[0].group), (5000, 4900, "around /docker/x"));
    }

    #[test]
    fn a_v1_ancestor_without_use_hierarchy_does_not_bind() {
        let (_root, host) = root(&[
            ("proc/self/cgroup", "4:memory:/a/b\n"),
            ("proc/self/mountinfo", "35 31 0:32 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"),
            ("sys/fs/cgroup/memory/cgroup.procs", ""),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000\n"),
            ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "4000\n"),
            ("sys/fs/cgroup/memory/a/b/memory.stat", "hierarchical_memory_limit 4000\n"),
        ]);
        let bytes: Vec<u64> =
            memory_limits(&host, &mounts::read(&host).unwrap()).unwrap().iter().map(|limit| limit.bytes).collect();
        assert_eq!(bytes, [4000]);
    }

    /// Fails where a missing file is "no limit" without a look at the group.
    #[test]
    fn groups_that_something_is_mounted_over_are_not_without_a_limit() {
        for (membership, mountinfo) in [
            ("0::/a\n", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("0::/\n", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("0::/\n", "30 23 0:26 / /proc rw - proc proc rw\n"),
            (
                "4:memory:/\n1:cpu:/\n",
                "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                 36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
            ),
        ] {
            let (root, host) = root(&[("proc/self/cgroup", membership), ("proc/self/mountinfo", mountinfo)]);
            let mounts = mounts::read(&host).unwrap();
            for error in [memory_limits(&host, &mounts).unwrap_err(), cpu_quotas(&host, &mounts).unwrap_err()] {
                assert!(error.to_string().contains("hidden from it"), "{error}");
            }
            for mount in ["", "/memory", "/cpu", "/a"] {
                let dir = root.path().join(format!("sys/fs/cgroup{mount}"));
                fs::create_dir_all(&dir).unwrap();
                fs::write(dir.join("cgroup.procs"), "").unwrap();
            }
            if mountinfo.contains("cgroup") {
                assert_eq!(memory_limits(&host, &mounts).unwrap(), []);
                assert_eq!(cpu_quotas(&host, &mounts).unwrap(), []);
            }
        }
    }

    #[test]
    fn a_limit_that_cannot_be_understood_is_an_error_and_not_no_limit() {
        let (_root, host) = root(&[
            ("proc/self/cgroup", "0::/a\n"),
            ("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/a/memory.max", "lots\n"),
            ("sys/fs/cgroup/a/cpu.max", "100000\n"),
        ]);
        assert!(
            memory_limits(&host, &mounts::read(&host).unwrap())
                .unwrap_err()
                .to_string()
                .contains("`lots` is not a limit")
        );
        assert!(cpu_quotas(&host, &mounts::read(&host).unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(max|[0-9]{1,20}| |-|inactive_file|\n|\\PC){0,20}") {
            limit(&text);
            cpu_max(&text);
            field(&text, "inactive_file");
        }
    }
}
