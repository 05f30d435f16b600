//! Opening a path without following any symbolic link on the way.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};

/// Opens a path below a directory. Neither the path nor anything on the way may be a symbolic link or lead above it.
pub(super) fn open_beneath(base: impl AsFd, path: &Path, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    // The kernel refuses a mode where nothing is created.
    let mode = if flags.contains(OFlag::O_CREAT) { mode } else { Mode::empty() };
    let how =
        OpenHow::new().flags(flags).mode(mode).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH);
    match openat2(&base, path, how) {
        // EPERM too: the seccomp filters of old container engines answer so to calls they do not know. A real EPERM
        // comes back from the fallback.
        Err(Errno::ENOSYS | Errno::EPERM) => by_component(base, path, flags, mode),
        other => other,
    }
}

/// The same, one component at a time, for kernels before 5.6.
fn by_component(base: impl AsFd, path: &Path, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    let mut components: Vec<&OsStr> = path.iter().collect();
    let last = components.pop().ok_or(Errno::ENOENT)?;
    let mut at: Option<OwnedFd> = None;
    let walk = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    for name in components {
        at = Some(
            match &at {
                Some(fd) => openat(fd, name, walk, Mode::empty()),
                None => openat(base.as_fd(), name, walk, Mode::empty()),
            }
            .map_err(link_is_loop)?,
        );
    }
    let folder = at.as_ref().map_or_else(|| base.as_fd(), AsFd::as_fd);
    let fd = openat(folder, last, flags | OFlag::O_NOFOLLOW, mode)
        .map_err(|errno| if flags.contains(OFlag::O_DIRECTORY) { link_is_loop(errno) } else { errno })?;
    // O_PATH with O_NOFOLLOW opens the link itself instead of failing.
    if flags.contains(OFlag::O_PATH) && fstat(&fd)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFLNK.bits() {
        return Err(Errno::ELOOP);
    }
    Ok(fd)
}

/// O_DIRECTORY with O_NOFOLLOW answers ENOTDIR for a link, which would read as "does not exist".
fn link_is_loop(errno: Errno) -> Errno {
    if errno == Errno::ENOTDIR { Errno::ELOOP } else { errno }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// The fallback for kernels before 5.6 must refuse what openat2(2) refuses.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test builds the root it reads")]
    fn the_fallback_agrees_with_openat2() {
        let root = tempfile::tempdir().unwrap();
        let base = std::fs::File::open(root.path()).unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::fs::write(root.path().join("a/b/file"), "x").unwrap();
        symlink("b", root.path().join("a/link")).unwrap();
        symlink("file", root.path().join("a/b/to-file")).unwrap();
        let cases = [
            ("a/b/file", OFlag::O_RDONLY),
            ("a/link/file", OFlag::O_RDONLY),
            ("a/b/to-file", OFlag::O_RDONLY),
            ("a/link", OFlag::O_RDONLY | OFlag::O_DIRECTORY),
            ("a/link", OFlag::O_PATH),
            ("a/b", OFlag::O_PATH | OFlag::O_DIRECTORY),
            ("a/none/file", OFlag::O_RDONLY),
            ("a/b/none", OFlag::O_RDONLY),
            (".", OFlag::O_RDONLY | OFlag::O_DIRECTORY),
        ];
        for (path, flags) in cases {
            let new = open_beneath(&base, Path::new(path), flags | OFlag::O_CLOEXEC, Mode::empty());
            let old = by_component(&base, Path::new(path), flags | OFlag::O_CLOEXEC, Mode::empty());
            assert_eq!(new.map(drop), old.map(drop), "{path} {flags:?}");
        }
    }
}
