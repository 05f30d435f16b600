//! Other programs that a change needs: only as root installed them, never from a PATH.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::process;
use crate::host::safe_file::{FileError, Tree};

/// Where packages of the distribution put programs.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// How long a program that a killed run left behind is waited for, and how often it is looked for.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// A program from the folders where only root installs.
pub(crate) fn find(tree: &Tree, name: &str) -> Result<PathBuf, FileError> {
    let mut last = None;
    for candidate in FOLDERS.map(|folder| Path::new(folder).join(name)) {
        match tree.audit(&candidate) {
            Ok(()) => return Ok(candidate),
            // One that is there and not to be trusted says more than one that is not there.
            Err(error) if last.is_none() || !error.is_absent() => last = Some(error),
            Err(_) => {}
        }
    }
    let missing = || FileError { action: "find", path: name.into(), source: nix::errno::Errno::ENOENT.into() };
    Err(last.unwrap_or_else(missing))
}

/// Waits until no program runs with exactly these arguments. A run that was killed may have left one behind that is
/// about to change what is looked at here.
pub(crate) fn wait_for(arguments: &[String]) {
    let until = std::time::Instant::now() + PATIENCE;
    while process::is_running(arguments) && std::time::Instant::now() < until {
        std::thread::sleep(LOOK);
    }
}
