//! Room on file systems, as a writer without privileges has it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::Host;

/// As many dangling links as are followed on the way to a folder that exists.
const MAX_LINKS: usize = 40;

/// The room on one file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that an unprivileged writer has left: without the blocks kept for root; none where nobody may write.
    pub available: u64,
    /// Mounted read-only, as this process sees it.
    pub read_only: bool,
    /// Bytes in all.
    pub total: u64,
    /// Percent of the inodes that are free, rounded down; `None` where the file system does not count them (btrfs).
    pub inodes_free_percent: Option<i64>,
}

/// The room on the file system that holds `path`, which must exist: statvfs(3) `f_bavail` × `f_frsize`.
pub fn available(path: &Path) -> io::Result<Space> {
    let stat = statvfs(path)?;
    let block = stat.fragment_size();
    let percent = |free: u64, all: u64| i64::try_from(u128::from(free) * 100 / u128::from(all)).unwrap_or(0);
    let inodes = (stat.files(), stat.files_available());
    let read_only = stat.flags().contains(FsFlags::ST_RDONLY);
    Ok(Space {
        available: if read_only { 0 } else { stat.blocks_available().saturating_mul(block) },
        read_only,
        total: stat.blocks().saturating_mul(block),
        inodes_free_percent: (inodes.0 > 0).then(|| percent(inodes.1, inodes.0)),
    })
}

/// The part of a path that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path itself or its nearest ancestor that exists, links resolved.
    pub path: PathBuf,
    /// The whole path exists.
    pub whole: bool,
    /// A folder on the way may not be entered by this user: what lies below is not known.
    pub hidden: bool,
}

/// Finds the nearest existing ancestor of an absolute path. A dangling link counts as its target, since that is where
/// the folder will be made.
pub fn nearest(path: &Path) -> io::Result<Place> {
    let mut current = path.to_owned();
    let (mut whole, mut hidden, mut links) = (true, false, 0);
    loop {
        let error = match fs::canonicalize(&current) {
            // No folder can be made below a file.
            Ok(path) if !path.is_dir() => return Err(io::Error::other(format!("{} is not a folder", path.display()))),
            Ok(path) => return Ok(Place { path, whole, hidden }),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {}
            ErrorKind::PermissionDenied => hidden = true,
            _ => return Err(error),
        }
        whole = false;
        match (fs::read_link(&current), current.parent()) {
            (Ok(target), Some(parent)) if links < MAX_LINKS => {
                links += 1;
                current = parent.join(target);
            }
            (_, Some(parent)) => current = parent.to_owned(),
            (_, None) => return Err(error),
        }
    }
}

/// The id of the mount that holds an existing path, as in the first field of `/proc/self/mountinfo`: exact even where
/// mounts cover each other. Since Linux 3.15 (`fs/proc/fd.c`).
pub fn mount_id(path: &Path) -> Option<u64> {
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path).ok()?;
    let text = Host::live().read_text(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_nearest_ancestor_is_the_real_one() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(real.join("data")).unwrap();
        symlink("data", real.join("link")).unwrap();
        symlink(real.join("data/later/redis"), real.join("dangling")).unwrap();
        symlink("loop", real.join("loop")).unwrap();
        let place = |tail: &str| nearest(&real.join(tail)).unwrap();
        assert_eq!(place("data"), Place { path: real.join("data"), whole: true, hidden: false });
        assert_eq!(place("link/a/b"), Place { path: real.join("data"), whole: false, hidden: false });
        assert_eq!(place("dangling/x").path, real.join("data"), "a dangling link is made at its target");
        assert_eq!(place("no/such").path, real);
        assert_eq!(nearest(&real.join("loop")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn the_root_has_a_mount_and_room() {
        assert!(mount_id(Path::new("/")).is_some());
        let space = available(Path::new("/")).unwrap();
        assert!(space.available <= space.total && space.total > 0);
        assert!(available(Path::new("/no/such")).is_err());
    }
}
