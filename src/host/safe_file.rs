//! Writing as root without being led astray: no symbolic link is followed, no file is ever seen half written, and what
//! was written is on the disk before anybody is told so.
//!
//! A [`Tree`] is the root directory as an open file descriptor. Every path is resolved below it by openat2(2) with
//! `RESOLVE_NO_SYMLINKS`; before Linux 5.6, or where a seccomp filter hides the call, component by component with
//! `O_NOFOLLOW`, as sudo-rs does in `src/system/audit.rs`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, geteuid, symlinkat, unlinkat};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::beneath::open_beneath;
use super::describe;

/// No file that preflight replaces is larger; a larger one is refused rather than copied into a journal.
pub const MAX_MANAGED_BYTES: u64 = 1024 * 1024;

/// What could not be done, to which path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {reason}", path = .path.display(), reason = reason(.source))]
pub struct FileError {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl FileError {
    /// The path, or a folder on its way, does not exist.
    pub fn is_absent(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    }
}

/// openat2(2) answers ELOOP for any symbolic link it was told not to follow; say so.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(nix::libc::ELOOP) => "a symbolic link is on the way, and none is followed here".to_owned(),
        _ => describe(error),
    }
}

/// The sha256 of a file's content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Who may do what with a file. A rollback restores these too: netplan once lost the ownership and thereby the whole
/// rollback (canonical/netplan#548).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attributes {
    /// The permission bits, 0o7777 at most.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Attributes {
    /// Owned by the caller, who is root wherever it matters.
    pub fn own(mode: u32) -> Self {
        Self { mode, uid: geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }

    /// Why others than root could write the file, if so.
    pub fn exposed(self) -> Option<String> {
        let owner_is_trusted = self.uid == 0 || self.uid == geteuid().as_raw();
        (!owner_is_trusted || self.mode & 0o022 != 0)
            .then(|| format!("others than root may write it: mode {:04o}, user {}", self.mode, self.uid))
    }
}

/// A file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub bytes: Vec<u8>,
    pub attributes: Attributes,
}

impl Content {
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }
}

/// The root of a host, or of an image that looks like one, held open.
#[derive(Debug)]
pub struct Tree {
    base: OwnedFd,
    root: PathBuf,
}

impl Tree {
    /// Opens the root. It is the caller's word, so links *to* it are followed; links below it are not.
    pub fn open(root: &Path) -> Result<Self, FileError> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        let base = open(root, flags, Mode::empty()).map_err(|errno| error("open", root, errno))?;
        Ok(Self { base, root: root.to_owned() })
    }

    /// A folder below, held open: what is named from here on is found in it, wherever it is moved.
    pub fn below(&self, path: &Path) -> Result<Self, FileError> {
        let base = self.open_dir(path)?.into();
        Ok(Self { base, root: self.root.join(relative(path)?) })
    }

    /// The directory that `/` stands for.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens a file or directory below the root.
    pub fn open_at(&self, path: &Path, flags: OFlag, mode: u32) -> Result<File, FileError> {
        let relative = relative(path)?;
        let fd = open_beneath(self.base.as_fd(), &relative, flags | OFlag::O_CLOEXEC, Mode::from_bits_truncate(mode))
            .map_err(|errno| error("open", path, errno))?;
        Ok(File::from(fd))
    }

    /// Reads a regular file of at most [`MAX_MANAGED_BYTES`]; `None` when there is none.
    pub fn read(&self, path: &Path) -> Result<Option<Content>, FileError> {
        self.read_up_to(path, MAX_MANAGED_BYTES)
    }

    /// The same with a limit of one's own.
    pub fn read_up_to(&self, path: &Path, limit_bytes: u64) -> Result<Option<Content>, FileError> {
        // O_NONBLOCK: a FIFO in the file's place must not hang us.
        let file = match self.open_at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0) {
            Ok(file) => file,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error),
        };
        read_whole(&file, limit_bytes).map(Some).map_err(|source| FileError {
            action: "read",
            path: path.to_owned(),
            source,
        })
    }

    /// Creates the directory and its missing parents; tells how many were created. Each is on the disk on return.
    pub fn create_dirs(&self, path: &Path, mode: u32) -> Result<u8, FileError> {
        self.make_dirs(path, mode, true)
    }

    /// The same without syncing, for what a reboot takes away anyhow.
    pub fn create_volatile_dirs(&self, path: &Path, mode: u32) -> Result<u8, FileError> {
        self.make_dirs(path, mode, false)
    }

    fn make_dirs(&self, path: &Path, mode: u32, durably: bool) -> Result<u8, FileError> {
        let mut missing = Vec::new();
        let mut at = path.to_owned();
        while !self.is_dir(&at)? {
            let Some(name) = at.file_name().map(OsStr::to_owned) else { break };
            missing.push(name);
            at.pop();
        }
        let created = u8::try_from(missing.len()).map_err(|_| FileError {
            action: "create",
            path: path.to_owned(),
            source: Errno::ENAMETOOLONG.into(),
        })?;
        while let Some(name) = missing.pop() {
            let parent = self.open_dir(&at)?;
            at.push(&name);
            match mkdirat(&parent, name.as_os_str(), Mode::from_bits_truncate(mode)) {
                // The umask of a hardened root shell must not hide a folder from the services that read it.
                Ok(()) => fchmod(self.open_dir(&at)?, Mode::from_bits_truncate(mode))
                    .map_err(|errno| error("set the mode of", &at, errno))?,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(error("create", &at, errno)),
            }
            if durably {
                fsync(&parent).map_err(|errno| error("sync the folder of", &at, errno))?;
            }
        }
        Ok(created)
    }

    /// How many parents of a path do not exist.
    pub fn missing_parents(&self, path: &Path) -> Result<u8, FileError> {
        let mut count = 0_u8;
        let mut at = path.parent();
        while let Some(parent) = at {
            if self.is_dir(parent)? {
                break;
            }
            count = count.saturating_add(1);
            at = parent.parent();
        }
        Ok(count)
    }

    /// Puts a file in place in one step: written beside it, synced, renamed over it, folder synced.
    pub fn replace(&self, path: &Path, bytes: &[u8], attributes: Attributes) -> Result<(), FileError> {
        let stage = stage_name(path, &random_word());
        // One descriptor for both steps: what happens to the name of the folder meanwhile does not matter.
        let folder = self.open_dir(parent(path)?)?;
        stage_in(&folder, path, &stage, bytes, attributes)?;
        publish_in(&folder, path, &stage).inspect_err(|_| {
            let _ = unlinkat(&folder, stage.as_os_str(), UnlinkatFlags::NoRemoveDir);
        })
    }

    /// The same without syncing anything: a process that is killed leaves either file whole, a power cut perhaps an empty
    /// one. Only for what can be made anew, and for folders that nobody else may write: the stage has a fixed name, so
    /// that a killed run leaves at most one.
    pub fn replace_lazily(&self, path: &Path, bytes: &[u8], attributes: Attributes) -> Result<(), FileError> {
        let stage = stage_name(path, "new");
        self.unstage(path, &stage)?;
        let folder = self.open_dir(parent(path)?)?;
        write_stage(&folder, path, &stage, bytes, attributes, false)?;
        renameat(&folder, stage.as_os_str(), &folder, name(path)?).map_err(|errno| {
            let _ = unlinkat(&folder, stage.as_os_str(), UnlinkatFlags::NoRemoveDir);
            error("replace", path, errno)
        })
    }

    /// Writes and syncs the new content beside its target, where no reader of `*.conf` looks. EROFS, ENOSPC and EPERM
    /// show here, before anything has changed.
    pub fn stage(&self, path: &Path, stage: &OsStr, bytes: &[u8], attributes: Attributes) -> Result<(), FileError> {
        stage_in(&self.open_dir(parent(path)?)?, path, stage, bytes, attributes)
    }

    /// The same for a symbolic link; what it leads to is text and need not exist.
    pub fn stage_link(&self, path: &Path, stage: &OsStr, leads_to: &Path) -> Result<(), FileError> {
        let folder = self.open_dir(parent(path)?)?;
        symlinkat(leads_to, &folder, stage).map_err(|errno| error("stage", path, errno))
    }

    /// What stands in a symbolic link; `None` when there is nothing. Anything else under that name is an error.
    pub fn read_link(&self, path: &Path) -> Result<Option<String>, FileError> {
        let folder = match self.open_dir(parent(path)?) {
            Err(error) if error.is_absent() => return Ok(None),
            other => other?,
        };
        match readlinkat(&folder, name(path)?) {
            Ok(text) => Ok(Some(text.to_string_lossy().into_owned())),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(error("read the link", path, errno)),
        }
    }

    /// Renames a staged file over its target and syncs the folder.
    pub fn publish(&self, path: &Path, stage: &OsStr) -> Result<(), FileError> {
        publish_in(&self.open_dir(parent(path)?)?, path, stage)
    }

    /// Removes a staged file; one that is gone already is fine.
    pub fn unstage(&self, path: &Path, stage: &OsStr) -> Result<(), FileError> {
        let folder = match self.open_dir(parent(path)?) {
            Err(error) if error.is_absent() => return Ok(()),
            other => other?,
        };
        match unlinkat(&folder, stage, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(error("remove", &path.with_file_name(stage), errno)),
        }
    }

    /// Removes a file and syncs its folder. `false`: there was none.
    pub fn remove(&self, path: &Path) -> Result<bool, FileError> {
        let folder = match self.open_dir(parent(path)?) {
            Err(error) if error.is_absent() => return Ok(false),
            other => other?,
        };
        match unlinkat(&folder, name(path)?, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => {}
            Err(Errno::ENOENT) => return Ok(false),
            Err(errno) => return Err(error("remove", path, errno)),
        }
        fsync(&folder).map_err(|errno| error("sync the folder of", path, errno))?;
        Ok(true)
    }

    /// Removes a file without syncing its folder; one that is gone already is fine.
    pub fn unlink(&self, path: &Path) -> Result<(), FileError> {
        self.unstage(path, name(path)?)
    }

    /// Removes an empty directory; one that is in use or gone stays as it is.
    pub fn remove_empty_dir(&self, path: &Path) -> Result<(), FileError> {
        let folder = match self.open_dir(parent(path)?) {
            Err(error) if error.is_absent() => return Ok(()),
            other => other?,
        };
        match unlinkat(&folder, name(path)?, UnlinkatFlags::RemoveDir) {
            Ok(()) => fsync(&folder).map_err(|errno| error("sync the folder of", path, errno)),
            Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST) => Ok(()),
            Err(errno) => Err(error("remove", path, errno)),
        }
    }

    /// The names in a directory, sorted; empty when there is none.
    pub fn list(&self, path: &Path) -> Result<Vec<OsString>, FileError> {
        let folder = match self.open_dir(path) {
            Err(error) if error.is_absent() => return Ok(Vec::new()),
            other => other?,
        };
        let mut dir = nix::dir::Dir::from_fd(folder.into()).map_err(|errno| error("list", path, errno))?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(|errno| error("list", path, errno))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Syncs a directory, so that the names in it survive a power cut.
    pub fn sync_dir(&self, path: &Path) -> Result<(), FileError> {
        fsync(&self.open_dir(path)?).map_err(|errno| error("sync", path, errno))
    }

    /// Refuses a file that somebody besides root could have written: itself or any of its parents is owned by another
    /// user or writable by group or world. Walks the path as opened, not as named.
    pub fn audit(&self, path: &Path) -> Result<(), FileError> {
        let mut at = PathBuf::from("/");
        self.audit_one(&at)?;
        for component in relative(path)?.components() {
            at.push(component);
            self.audit_one(&at)?;
        }
        Ok(())
    }

    fn audit_one(&self, path: &Path) -> Result<(), FileError> {
        let file = self.open_at(path, OFlag::O_PATH | OFlag::O_NOFOLLOW, 0)?;
        let stat = fstat(&file).map_err(|errno| error("look at", path, errno))?;
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        let refuse = |why: String| {
            Err(FileError {
                action: "trust",
                path: path.to_owned(),
                source: io::Error::new(io::ErrorKind::PermissionDenied, why),
            })
        };
        if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
            return refuse(format!("it belongs to user {}, not to root", stat.st_uid));
        }
        // The sticky bit of /tmp keeps others from replacing what is ours, so a folder with it passes.
        let sticky = kind == SFlag::S_IFDIR && stat.st_mode & nix::libc::S_ISVTX != 0;
        if stat.st_mode & 0o022 != 0 && !sticky && kind != SFlag::S_IFLNK {
            return refuse(format!("others than its owner may write it (mode {:04o})", stat.st_mode & 0o7777));
        }
        Ok(())
    }

    fn open_dir(&self, path: &Path) -> Result<File, FileError> {
        self.open_at(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)
    }

    fn is_dir(&self, path: &Path) -> Result<bool, FileError> {
        match self.open_at(path, OFlag::O_PATH | OFlag::O_DIRECTORY, 0) {
            Ok(_) => Ok(true),
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Attributes {
    fn owner(self) -> (u32, u32) {
        (self.uid, self.gid)
    }
}

/// The name of the file beside `path` that holds its new content until the rename. Hidden, and never ending in `.conf`:
/// systemd-sysctl, systemd-tmpfiles and the unit loader must not read it.
pub fn stage_name(path: &Path, word: &str) -> OsString {
    let mut stage = OsString::from(".");
    stage.push(path.file_name().unwrap_or_default());
    stage.push(".preflight-");
    stage.push(word);
    stage
}

/// A word that nobody can guess: std seeds its hasher from getrandom(2).
pub fn random_word() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    format!("{:016x}", std::hash::RandomState::new().build_hasher().finish())
}

/// Reads what an open regular file holds.
pub fn read_whole(file: &File, limit_bytes: u64) -> io::Result<Content> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    if file.take(limit_bytes + 1).read_to_end(&mut bytes)? as u64 > limit_bytes {
        return Err(io::Error::other(format!("larger than {} KiB", limit_bytes >> 10)));
    }
    let attributes = Attributes { mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() };
    Ok(Content { bytes, attributes })
}

/// The path below the root; `..` has no place in it.
fn relative(path: &Path) -> Result<PathBuf, FileError> {
    let mut relative = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => relative.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                let source = io::Error::other("`..` is not accepted here");
                return Err(FileError { action: "open", path: path.to_owned(), source });
            }
        }
    }
    if relative.as_os_str().is_empty() {
        relative.push(".");
    }
    Ok(relative)
}

fn stage_in(folder: &File, path: &Path, stage: &OsStr, bytes: &[u8], attributes: Attributes) -> Result<(), FileError> {
    write_stage(folder, path, stage, bytes, attributes, true)
}

fn write_stage(
    folder: &File,
    path: &Path,
    stage: &OsStr,
    bytes: &[u8],
    attributes: Attributes,
    durably: bool,
) -> Result<(), FileError> {
    let shown = path.with_file_name(stage);
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(folder, stage, flags, Mode::from_bits_truncate(0o600))
        .map_err(|errno| error("create", &shown, errno))?;
    let mut file = File::from(fd);
    let written = file.write_all(bytes).and_then(|()| {
        // Owner before mode: chown clears the set-id bits. By descriptor, so that nobody can swap the file.
        if Attributes::own(0).owner() != attributes.owner() {
            fchown(&file, Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))?;
        }
        fchmod(&file, Mode::from_bits_truncate(attributes.mode))?;
        if durably { file.sync_all() } else { Ok(()) }
    });
    written.map_err(|source| {
        let _ = unlinkat(folder, stage, UnlinkatFlags::NoRemoveDir);
        FileError { action: "write", path: shown, source }
    })
}

fn publish_in(folder: &File, path: &Path, stage: &OsStr) -> Result<(), FileError> {
    renameat(folder, stage, folder, name(path)?).map_err(|errno| error("replace", path, errno))?;
    fsync(folder).map_err(|errno| error("sync the folder of", path, errno))
}

fn parent(path: &Path) -> Result<&Path, FileError> {
    path.parent().ok_or_else(|| error("open the folder of", path, Errno::EISDIR))
}

fn name(path: &Path) -> Result<&OsStr, FileError> {
    path.file_name().ok_or_else(|| error("open", path, Errno::EISDIR))
}

fn error(action: &'static str, path: &Path, errno: Errno) -> FileError {
    FileError { action, path: path.to_owned(), source: errno.into() }
}

#[cfg(test)]
#[path = "safe_file_tests.rs"]
mod tests;
