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
    // `/dev/stdout`, a pipe or a terminal cannot be replaced; it is written to.
    if let Ok(known) = path.metadata()
        && !known.is_file()
    {
        let mut file = std::fs::File::options().write(true).open(path)?;
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
