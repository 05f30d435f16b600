//! Room on a file system, as an unprivileged writer sees it.

use std::io;
use std::path::Path;

use nix::sys::statvfs::statvfs;

/// What is left of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that an unprivileged writer can still use: `f_bavail × f_frsize`. `f_bfree` would count root's reserve.
    pub available: u64,
    /// The size of the file system in bytes.
    pub total: u64,
    /// Percent of inodes free to an unprivileged writer, rounded down; `None` where the file system does not count
    /// them (btrfs, vfat).
    pub inodes_free_percent: Option<i64>,
}

/// Asks the nearest existing ancestor of an absolute path, links followed: a directory that is not there yet will be
/// made on that file system. Source: statvfs(3).
pub fn available(path: &Path) -> io::Result<Space> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for ancestor in path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
        match statvfs(ancestor) {
            Ok(found) => {
                // The fields are u32 or u64 depending on the architecture.
                #[allow(clippy::useless_conversion, reason = "not useless on 32-bit targets")]
                let (fragment, inodes) = (u64::from(found.fragment_size()), u64::from(found.files()));
                let free = u128::from(found.files_available()) * 100;
                let percent = (inodes > 0).then(|| i64::try_from(free / u128::from(inodes)).unwrap_or(100));
                return Ok(Space {
                    available: found.blocks_available().saturating_mul(fragment),
                    total: found.blocks().saturating_mul(fragment),
                    inodes_free_percent: percent,
                });
            }
            Err(errno) => {
                last = errno.into();
                let climb = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory, io::ErrorKind::PermissionDenied];
                if !climb.contains(&last.kind()) {
                    break;
                }
            }
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_does_not_exist_is_answered_by_its_ancestor() {
        let here = available(Path::new("/proc")).unwrap();
        assert_eq!(available(Path::new("/proc/nothing/below")).unwrap(), here);
        assert_eq!(here.inodes_free_percent, None, "procfs counts no inodes");
        assert!(available(Path::new("/")).unwrap().total > 0);
    }
}
