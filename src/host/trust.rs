//! Whether only root can change a file: what root may run, or believe.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// As many symbolic links as the kernel follows in one path (`MAXSYMLINKS` in `include/linux/namei.h`).
const MAX_LINKS: usize = 40;

/// Write permission of the group or of everybody.
const OTHERS_WRITE: u32 = 0o022;

/// Why a file is not root's alone.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    #[error("{} belongs to user {uid}", .path.display())]
    Owner { path: PathBuf, uid: u32 },
    #[error("{} can be written by its group or by everybody", .path.display())]
    Writable { path: PathBuf },
    #[error("{} cannot be looked at", .path.display())]
    Unseen { path: PathBuf },
}

/// Checks a file and every directory and symbolic link on the way to it: each is owned by root, and no directory and
/// not the file itself can be written by its group or by everybody. A sticky directory such as /tmp does not pass.
pub fn only_root_writes(path: &Path) -> Result<(), Untrusted> {
    let unseen = |path: &Path| Untrusted::Unseen { path: path.to_owned() };
    if !path.is_absolute() {
        return Err(unseen(path));
    }
    let mut pending: VecDeque<OsString> = components(path);
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
        let target = fs::read_link(&walked).map_err(|_| unseen(&walked))?;
        if links > MAX_LINKS {
            return Err(unseen(path));
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

/// Judges one step; `true` for a symbolic link, whose own mode means nothing.
fn look(path: &Path) -> Result<bool, Untrusted> {
    let found = fs::symlink_metadata(path).map_err(|_| Untrusted::Unseen { path: path.to_owned() })?;
    if found.uid() != 0 {
        return Err(Untrusted::Owner { path: path.to_owned(), uid: found.uid() });
    }
    let link = found.file_type().is_symlink();
    if !link && found.mode() & OTHERS_WRITE != 0 {
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
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(only_root_writes(file.path()).is_err(), "/tmp can be written by everybody");
        assert!(matches!(only_root_writes(Path::new("/nonexistent/x")), Err(Untrusted::Unseen { .. })));
        assert!(only_root_writes(Path::new("bin/sh")).is_err(), "a relative path depends on where one stands");
    }

    #[test]
    fn a_link_in_a_trusted_place_to_an_untrusted_file_is_not_trusted() {
        // /proc/self/cwd is root's link (as root) or ours; its target decides.
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/bin/sh", &link).unwrap();
        assert!(only_root_writes(&link).is_err(), "the link itself stands where everybody can write");
    }
}
