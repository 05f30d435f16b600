//! One transaction at a time: a flock(2), which the kernel drops when its holder dies.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;

use super::clock::Clock;
use super::store::StoreError;
use crate::host::safe_file::{FileError, Tree};

/// The folder of the lock on a running host. Not `/run/lock`, which anybody may write.
pub const LOCK_DIR: &str = "/run/preflight";

const RETRY: Duration = Duration::from_millis(50);

/// Where the lock is.
#[derive(Debug)]
pub struct LockPlace {
    tree: Tree,
    dir: PathBuf,
}

/// Held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl LockPlace {
    pub fn new(tree: Tree, dir: impl Into<PathBuf>) -> Self {
        Self { tree, dir: dir.into() }
    }

    /// Takes the lock if nobody holds it.
    pub fn try_take(&self) -> Result<Option<Lock>, StoreError> {
        let path = self.dir.join("lock");
        let file = self.open(&path).map_err(StoreError::Lock)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(StoreError::Lock(FileError { action: "lock", path, source })),
        }
    }

    fn open(&self, path: &Path) -> Result<File, FileError> {
        self.tree.create_volatile_dirs(&self.dir, 0o700)?;
        self.tree.audit(&self.dir)?;
        let open = |flags: OFlag| self.tree.open_at(path, flags | OFlag::O_NOFOLLOW, 0o600);
        match open(OFlag::O_CREAT | OFlag::O_RDWR) {
            // Made read-only since: a lock that is there can be taken all the same, and the way back needs it.
            Err(error) if error.source.kind() == ErrorKind::ReadOnlyFilesystem => {
                open(OFlag::O_RDONLY).map_err(|_| error)
            }
            other => other,
        }
    }

    /// Waits for the lock; `None` when it is still held at the end.
    pub fn take(&self, clock: &dyn Clock, patience: Duration) -> Result<Option<Lock>, StoreError> {
        let until = clock.boottime() + patience;
        loop {
            if let Some(lock) = self.try_take()? {
                return Ok(Some(lock));
            }
            if clock.boottime() >= until {
                return Ok(None);
            }
            clock.sleep(RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_gets_nothing_until_the_first_lets_go() {
        let root = tempfile::tempdir().unwrap();
        let place = || LockPlace::new(Tree::open(root.path()).unwrap(), "/run/preflight");
        let (one, two) = (place(), place());
        let held = one.try_take().unwrap().unwrap();
        assert!(two.try_take().unwrap().is_none());
        drop(held);
        assert!(two.try_take().unwrap().is_some());
    }

    /// Without the audit a folder that anybody may write is used.
    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("run");
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        let place = LockPlace::new(Tree::open(root.path()).unwrap(), "/run");
        assert!(place.try_take().unwrap_err().to_string().contains("cannot trust /run"));
    }
}
