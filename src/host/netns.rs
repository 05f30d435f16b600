//! Reading settings as a process in another network namespace sees them.

use std::io;
use std::path::PathBuf;
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::Host;

/// Reads files below /proc/sys/net in the network namespace of a process. Needs CAP_SYS_ADMIN.
///
/// `/proc/sys/net` shows the namespace of the thread that looks (`proc_sys` lookups use `current->nsproxy`, see
/// `net/sysctl_net.c`), so a thread of its own enters the namespace, reads, and ends: no other thread ever moves.
pub fn read_settings(pid: i32, files: Vec<PathBuf>) -> io::Result<Vec<Option<String>>> {
    let namespace = Host::live().open(&PathBuf::from(format!("/proc/{pid}/ns/net")))?;
    let reader = thread::Builder::new().name("netns".into()).spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
        Ok(files.iter().map(|file| Host::live().read_text(file).ok()).collect())
    })?;
    reader.join().unwrap_or_else(|_| Err(io::Error::other("the reading thread panicked")))
}
