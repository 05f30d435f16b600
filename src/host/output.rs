//! Writing a report where the user asked for it, without trusting what is there.

use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Reports may name processes and paths that are nobody else's business.
const MODE: u32 = 0o640;

/// Writes a file whole or not at all: a temporary file beside it, synced, then renamed over it. A symbolic link at the
/// path is replaced, never followed; as root, a folder that others can write is refused unless it is sticky.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if path.is_dir() {
        return Err(io::Error::other("it is a directory"));
    }
    #[expect(clippy::disallowed_methods, reason = "this is a room of `host`")]
    let metadata = std::fs::metadata(folder)?;
    let others_write = metadata.mode() & 0o022 != 0 && metadata.mode() & 0o1000 == 0;
    if nix::unistd::geteuid().is_root() && (others_write || metadata.uid() != 0) {
        let reason = format!("{} can be changed by others than root", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    // A pipe, a terminal or /dev/null cannot be replaced; it is written to. Nor are the names in /dev and /proc: to
    // rename over /dev/stdout would take it from every other program of the machine.
    let real_folder = std::fs::canonicalize(folder)?;
    let of_the_kernel =
        (real_folder.starts_with("/dev") && !real_folder.starts_with("/dev/shm")) || real_folder.starts_with("/proc");
    if of_the_kernel || path.metadata().is_ok_and(|known| !known.is_file()) {
        // Appending: `> file` may have been opened by a shell that wrote to it before.
        let mut file = std::fs::File::options().append(true).open(path)?;
        return file.write_all(bytes);
    }
    let mut file = tempfile::Builder::new()
        .prefix(".preflight-")
        .permissions(std::fs::Permissions::from_mode(MODE))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
