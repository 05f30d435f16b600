//! The one room that touches the machine: files under an injectable root, the environment, other programs.
//!
//! A [`Host`] is either the running machine (`Host::live()`) or a directory that looks like one (`Host::at_root(dir)`:
//! an image, a fixture). Files are read through it, so that every probe works on both. What is not a file (system
//! calls, sockets, Docker) exists only on a live host; probes ask [`Host::is_live`] first.

mod beneath;
pub mod clock;
pub mod command;
pub mod conf_dirs;
pub mod cpus;
pub mod detached;
pub mod env;
pub mod input;
pub mod main_process;
pub mod mounts;
pub mod netlink;
pub mod netns;
pub mod nfnetlink;
pub mod output;
pub mod process;
pub mod process_limits;
pub mod protocol;
pub mod rtnetlink;
pub mod safe_file;
pub mod sock_diag;
pub mod socket;
pub mod space;
pub mod trust;
pub mod units;
pub mod unix;
pub mod xtables;

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

/// No file that preflight reads is larger; a larger one is refused instead of filling the memory of a small host.
/// `/proc/net/tcp` of a host with 50,000 sockets is about 8 MiB.
pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// What the first read(2) offers room for. Without room to begin with, the standard library reads 32 bytes at a time, and
/// a sysctl handler such as `proc_do_large_bitmap()` (`kernel/sysctl.c`) answers a second read with the end of the file:
/// the list would be cut off silently.
const FIRST_READ_BYTES: usize = 8192;

/// As many symbolic links as the kernel follows in one path (`MAXSYMLINKS` in `include/linux/namei.h`).
const MAX_LINKS: usize = 40;

/// Where files are read: the running machine or a directory that stands for one.
#[derive(Debug, Clone)]
pub struct Host {
    root: Option<PathBuf>,
}

/// A file that could not be read, with the path as the host names it.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {reason}", path = .path.display(), reason = describe(.source))]
pub struct ReadError {
    pub path: PathBuf,
    pub source: io::Error,
}

impl Clone for ReadError {
    /// An error of the system stays the same; of any other, its kind and its words.
    fn clone(&self) -> Self {
        let source = match self.source.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.source.kind(), self.source.to_string()),
        };
        Self { path: self.path.clone(), source }
    }
}

impl ReadError {
    /// The file, or a folder on its way, does not exist.
    pub fn is_absent(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    }

    /// The file is absent, or the process that it told of has ended (proc(5)).
    pub fn is_gone(&self) -> bool {
        self.is_absent() || self.source.raw_os_error() == Some(nix::libc::ESRCH)
    }

    /// The file exists, but this user may not read it.
    pub fn is_denied(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }
}

/// The error without Rust's `(os error N)` tail, which tells an administrator nothing.
pub fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

impl Host {
    /// The machine that this process runs on.
    pub fn live() -> Self {
        Self { root: None }
    }

    /// A directory that holds the files of a machine. Symbolic links are followed inside it, never out of it.
    pub fn at_root(root: impl Into<PathBuf>) -> Self {
        Self { root: Some(root.into()) }
    }

    /// Such a directory as a user names it. One without `etc` and `usr` holds no machine: nearly all of it would be absent, and
    /// the rest what a kernel does when no file says otherwise, which is no verdict about anything.
    #[expect(clippy::disallowed_methods, reason = "this is where files are looked at")]
    pub fn of_image(root: &Path) -> io::Result<Self> {
        if !fs::metadata(root)?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        for folder in ["etc", "usr"] {
            match fs::symlink_metadata(root.join(folder)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(Self::at_root(root)),
            }
        }
        Err(io::Error::other("it holds no system: neither etc nor usr"))
    }

    /// Whether system calls, sockets and Docker speak of this host too.
    pub fn is_live(&self) -> bool {
        self.root.is_none()
    }

    /// The directory given with `--root`.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// Reads a whole file of at most [`MAX_FILE_BYTES`].
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>, ReadError> {
        let path = path.as_ref();
        let wrap = |source| ReadError { path: path.to_owned(), source };
        let file = self.open(path).map_err(wrap)?;
        let mut bytes = Vec::with_capacity(FIRST_READ_BYTES);
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(wrap)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(wrap(io::Error::other(format!("larger than {} MiB", MAX_FILE_BYTES >> 20))));
        }
        Ok(bytes)
    }

    /// Reads a whole file as text. Bytes that are not UTF-8 become U+FFFD: a stray byte in a comment of somebody's
    /// sysctl.d file must not make the whole file unreadable.
    pub fn read_text(&self, path: impl AsRef<Path>) -> Result<String, ReadError> {
        let bytes = self.read(path)?;
        Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// Like [`Host::read_text`], with `None` for a file that does not exist.
    pub fn read_optional(&self, path: impl AsRef<Path>) -> Result<Option<String>, ReadError> {
        match self.read_text(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Like [`Host::read_optional`], for a file that the kernel leaves out to say something, such as that no table of the old
    /// iptables is there. Where /proc or /sys is not mounted a missing file says nothing, and is an error.
    pub fn read_of_kernel(&self, path: impl AsRef<Path>) -> Result<Option<String>, ReadError> {
        let path = path.as_ref();
        if let Some(text) = self.read_optional(path)? {
            return Ok(Some(text));
        }
        match self.unmounted(path) {
            Some(mount) => {
                Err(ReadError { path: path.to_owned(), source: io::Error::other(format!("{mount} is not there")) })
            }
            None => Ok(None),
        }
    }

    /// The names in a directory, sorted by their bytes; empty when the directory does not exist.
    pub fn list(&self, path: impl AsRef<Path>) -> Result<Vec<OsString>, ReadError> {
        let path = path.as_ref();
        let wrap = |source| ReadError { path: path.to_owned(), source };
        #[expect(clippy::disallowed_methods, reason = "this is where directories are read")]
        let entries = match self.resolve(path).and_then(fs::read_dir) {
            Ok(entries) => entries,
            Err(source) => {
                let error = wrap(source);
                return if error.is_absent() { Ok(Vec::new()) } else { Err(error) };
            }
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(wrap)?.file_name());
        }
        names.sort();
        Ok(names)
    }

    /// The kernel's file system that a missing file would be on, when this machine does not have it mounted: then the file
    /// says nothing about the kernel. `/proc` may also be there without `/proc/sys` (`subset=pid`, proc(5)).
    pub fn unmounted(&self, path: &Path) -> Option<&'static str> {
        const WITNESSES: [(&str, &str); 3] =
            [("/proc/sys", "/proc/sys/kernel"), ("/proc", "/proc/self"), ("/sys", "/sys/kernel")];
        let (mount, witness) = WITNESSES.into_iter().find(|(mount, _)| path.starts_with(mount))?;
        (self.is_live() && !self.exists(witness)).then_some(mount)
    }

    /// What the path is, links followed inside the root.
    #[expect(clippy::disallowed_methods, reason = "this is where files are looked at")]
    pub fn metadata(&self, path: impl AsRef<Path>) -> io::Result<fs::Metadata> {
        self.resolve(path.as_ref()).and_then(fs::metadata)
    }

    /// Whether the path exists. An unreadable parent folder counts as "does not"; where that matters, use
    /// [`Host::metadata`] and look at the error.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.metadata(path).is_ok()
    }

    /// Whether a folder has an entry of that name, whatever a link of that name leads to.
    pub fn has_entry(&self, path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
        self.resolve(folder).and_then(|folder| fs::symlink_metadata(folder.join(name))).is_ok()
    }

    /// Where the last component points, if it is a symbolic link. The target is as written in the link.
    pub fn link_target(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let path = path.as_ref();
        let parent = self.resolve(path.parent()?).ok()?;
        fs::read_link(parent.join(path.file_name()?)).ok()
    }

    /// Opens a file for reading without blocking on a FIFO that somebody put in its place. Under a root a device is not even
    /// opened: it would be one of this machine (`/dev/watchdog` restarts it), and a FIFO would pass for an empty file.
    #[expect(clippy::disallowed_methods, reason = "this is where files are looked at")]
    pub fn open(&self, path: &Path) -> io::Result<File> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let real = self.resolve(path)?;
        if self.root.is_some() {
            let kind = fs::metadata(&real)?;
            if !kind.is_file() && !kind.is_dir() {
                return Err(io::Error::other("it is a device, a FIFO or a socket"));
            }
        }
        fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC).open(real)
    }

    /// The path as this process must open it. On a live host it is the path itself (the kernel resolves links); under a
    /// root each component is resolved here, so that an absolute link such as `/etc/os-release` of an image stays
    /// inside the image.
    pub fn resolve<'p>(&self, path: &'p Path) -> io::Result<Cow<'p, Path>> {
        let Some(root) = &self.root else {
            return Ok(Cow::Borrowed(path));
        };
        let mut pending: Vec<OsString> = Vec::new();
        push_components(&mut pending, path);
        let mut inside: Vec<OsString> = Vec::new();
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == ".." {
                inside.pop();
                continue;
            }
            inside.push(name);
            let real: PathBuf = root.join(inside.iter().collect::<PathBuf>());
            let Ok(target) = fs::read_link(&real) else { continue };
            links += 1;
            if links > MAX_LINKS {
                return Err(io::Error::from_raw_os_error(nix::libc::ELOOP));
            }
            inside.pop();
            if target.is_absolute() {
                inside.clear();
            }
            push_components(&mut pending, &target);
        }
        Ok(Cow::Owned(root.join(inside.iter().collect::<PathBuf>())))
    }
}

/// Pushes the components of a path so that popping yields them first to last.
fn push_components(pending: &mut Vec<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => pending.push(name.to_owned()),
            Component::ParentDir => pending.push("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::symlink;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test builds the root it reads")]
    fn links_never_lead_out_of_the_root() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::create_dir_all(root.path().join("usr/lib")).unwrap();
        fs::write(root.path().join("usr/lib/os-release"), "ID=inside\n").unwrap();
        symlink("/usr/lib/os-release", root.path().join("etc/os-release")).unwrap();
        symlink("../../../../../../etc/passwd", root.path().join("etc/escape")).unwrap();
        symlink("loop", root.path().join("etc/loop")).unwrap();
        let host = Host::at_root(root.path());

        assert_eq!(host.read_text("/etc/os-release").unwrap(), "ID=inside\n");
        assert!(host.read_text("/etc/escape").unwrap_err().is_absent(), "followed a link out of the root");
        assert!(host.read_text("/../../../etc/passwd").unwrap_err().is_absent());
        assert_eq!(host.read_text("/etc/loop").unwrap_err().source.raw_os_error(), Some(nix::libc::ELOOP));
    }

    /// A pipe whose reader loses what one read(2) has no room for (`O_DIRECT` in pipe(2)), like a sysctl handler. Seen failing
    /// with `Vec::new()` in `Host::read`: 32 bytes were left.
    #[test]
    fn the_first_read_has_room_for_what_the_kernel_hands_out_once() {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_DIRECT | nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let handed_out = [b'x'; 4096];
        assert_eq!(nix::unistd::write(&writer, &handed_out).unwrap(), handed_out.len());
        // The end of the file comes where nobody can write any more.
        drop(writer);
        let read = Host::live().read(format!("/proc/self/fd/{}", reader.as_raw_fd())).unwrap();
        assert_eq!(read.len(), handed_out.len());
    }

    /// The kernel hands `/proc/kallsyms` out in pieces, the first of them short. Seen failing with one read(2) in `Host::read`.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test reads as nobody else does")]
    fn a_file_that_comes_in_pieces_is_read_whole() {
        let symbols = Path::new("/proc/kallsyms");
        let read = Host::live().read(symbols).unwrap();
        assert_eq!(read.len(), fs::read(symbols).unwrap().len());
        let first = Host::live().open(symbols).unwrap().read(&mut [0; FIRST_READ_BYTES]).unwrap();
        assert!(first < FIRST_READ_BYTES && first < read.len(), "this shows nothing: {first} of {}", read.len());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for length in [0, 1, FIRST_READ_BYTES - 1, FIRST_READ_BYTES, FIRST_READ_BYTES + 1, 70_000] {
            fs::write(&path, vec![b'x'; length]).unwrap();
            assert_eq!(Host::live().read(&path).unwrap().len(), length);
        }
    }

    #[test]
    fn an_error_names_the_path_and_not_the_errno() {
        let error = Host::live().read_text("/nonexistent/file").unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nonexistent/file: no such file or directory");
    }
}
