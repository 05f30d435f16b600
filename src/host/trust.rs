//! Which files root may believe: those that only root can change.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file that somebody else than root could have written.
#[derive(Debug, thiserror::Error)]
#[error("{file} is not trusted: {path} {reason}", file = .file.display(), path = .path.display())]
pub struct Untrusted {
    /// The file that was to be read.
    pub file: PathBuf,
    /// The file or the folder above it that is to blame.
    pub path: PathBuf,
    pub reason: String,
}

const GROUP_OR_OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Walks the file, every folder above it, and every link on the way; each must belong to root and be writable by nobody
/// else. A sticky folder such as `/tmp` is accepted only above a component that root owns itself.
pub fn only_root_writes(file: &Path) -> Result<(), Untrusted> {
    let blame = |path: &Path, reason: String| Untrusted { file: file.to_owned(), path: path.to_owned(), reason };
    let absolute = std::path::absolute(file).map_err(|error| blame(file, super::describe(&error)))?;
    // The file as named (so that a link in a stranger's folder is seen) and where it leads to.
    #[expect(clippy::disallowed_methods, reason = "this is a room of `host`")]
    let real = std::fs::canonicalize(&absolute).map_err(|error| blame(file, super::describe(&error)))?;
    for path in absolute.ancestors().chain(real.ancestors()) {
        let metadata = path.symlink_metadata().map_err(|error| blame(path, super::describe(&error)))?;
        if metadata.uid() != 0 {
            return Err(blame(path, format!("belongs to user {}, not to root", metadata.uid())));
        }
        let mode = metadata.mode();
        let sticky_folder = metadata.is_dir() && mode & STICKY != 0;
        if !metadata.is_symlink() && mode & GROUP_OR_OTHERS_WRITE != 0 && !sticky_folder {
            return Err(blame(path, format!("can be written by others (mode {:o})", mode & 0o7777)));
        }
    }
    Ok(())
}
