//! Whether only root can change a file: what root may run, or believe.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// As many symbolic links as the kernel follows in one path (`MAXSYMLINKS` in `include/linux/namei.h`).
const MAX_LINKS: usize = 40;

/// Write permission of the group or of everybody.
const OTHERS_WRITE: u32 = 0o022;

/// The sticky bit: entries of the directory can only be renamed or deleted by their owners.
const STICKY: u32 = 0o1000;

/// Why a file is not root's alone.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    #[error("{} belongs to user {uid}", .path.display())]
    Owner { path: PathBuf, uid: u32 },
    #[error("{} can be written by its group or by everybody", .path.display())]
    Writable { path: PathBuf },
    #[error("cannot read {}: {}", .path.display(), super::describe(&io::Error::from_raw_os_error(*.errno)))]
    Unseen { path: PathBuf, errno: i32 },
}

/// Checks a file and every directory and symbolic link on the way to it: each is owned by root, and neither the file nor
/// a directory can be written by its group or by everybody. A sticky directory such as /tmp passes: in it nobody can
/// rename or delete what is root's, so that root's own file there stays what it is.
pub fn only_root_writes(path: &Path) -> Result<(), Untrusted> {
    let absolute = std::path::absolute(path).map_err(|error| unseen(path, &error))?;
    let mut pending: VecDeque<OsString> = components(&absolute);
    let mut walked = PathBuf::from("/");
    look(&walked)?;
    let mut links = 0;
    while let Some(name) = pending.pop_front() {
        if name == ".." {
            walked.pop();
            continue;
        }
        walked.push(&name);
        if !look(&walked)? {
            continue;
        }
        links += 1;
        let target = fs::read_link(&walked).map_err(|error| unseen(&walked, &error))?;
        if links > MAX_LINKS {
            return Err(unseen(path, &io::Error::from_raw_os_error(nix::libc::ELOOP)));
        }
        walked.pop();
        if target.is_absolute() {
            walked = PathBuf::from("/");
        }
        for name in components(&target).into_iter().rev() {
            pending.push_front(name);
        }
    }
    Ok(())
}

fn unseen(path: &Path, error: &io::Error) -> Untrusted {
    Untrusted::Unseen { path: path.to_owned(), errno: error.raw_os_error().unwrap_or(nix::libc::EIO) }
}

/// Judges one step; `true` for a symbolic link, whose own mode means nothing.
fn look(path: &Path) -> Result<bool, Untrusted> {
    let found = fs::symlink_metadata(path).map_err(|error| unseen(path, &error))?;
    if found.uid() != 0 {
        return Err(Untrusted::Owner { path: path.to_owned(), uid: found.uid() });
    }
    let link = found.file_type().is_symlink();
    let sticky = found.is_dir() && found.mode() & STICKY != 0;
    if !link && !sticky && found.mode() & OTHERS_WRITE != 0 {
        return Err(Untrusted::Writable { path: path.to_owned() });
    }
    Ok(link)
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_own_programs_are_roots_and_temporary_files_are_not() {
        assert_eq!(only_root_writes(Path::new("/bin/sh")), Ok(()));
        assert!(matches!(only_root_writes(Path::new("/nonexistent/x")), Err(Untrusted::Unseen { .. })));
        assert!(only_root_writes(Path::new("/proc/self/cwd/nonexistent")).is_err());
    }

    /// Seen failing with the mode, and with the sticky bit, left out of `look`.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test makes what it judges")]
    fn whoever_else_can_write_the_file_or_replace_it_is_named() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        if !nix::unistd::geteuid().is_root() {
            assert!(matches!(only_root_writes(&file), Err(Untrusted::Owner { .. } | Untrusted::Writable { .. })));
            return;
        }
        assert_eq!(only_root_writes(&file), Ok(()));
        mode(&file, 0o620);
        assert_eq!(only_root_writes(&file), Err(Untrusted::Writable { path: file.clone() }));
        mode(&file, 0o644);
        mode(folder.path(), 0o777);
        let blamed = folder.path().canonicalize().unwrap();
        assert_eq!(only_root_writes(&file), Err(Untrusted::Writable { path: blamed }));
        mode(folder.path(), 0o1777);
        assert_eq!(only_root_writes(&file), Ok(()));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/bin/sh", &link).unwrap();
        assert_eq!(only_root_writes(&link), Ok(()));
    }
}
