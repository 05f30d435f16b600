//! A cheap look at a unix socket: is somebody listening, and who?

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};

/// What connect(2) said.
#[derive(Debug)]
pub enum Contact {
    /// Somebody listens. `pid` and `uid` are those of the process that called listen(2), which is systemd's for a
    /// socket unit; see `SO_PEERCRED` in unix(7).
    Open {
        pid: i32,
        uid: u32,
    },
    /// There is no such path.
    Absent,
    /// The socket file is there, but nobody listens.
    Refused,
    /// This user may not connect.
    Denied,
    /// Somebody listens but no longer accepts: the queue of waiting connections is full.
    Full,
    Failed(io::Error),
}

/// Connects without blocking and hangs up at once: microseconds, whatever the other side does. A blocking connect
/// would wait for ever on a full queue.
pub fn contact(path: &Path) -> Contact {
    let attempt = || -> Result<Contact, Errno> {
        let address = UnixAddr::new(path)?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(stream.as_raw_fd(), &address)?;
        let peer = getsockopt(&stream, sockopt::PeerCredentials)?;
        Ok(Contact::Open { pid: peer.pid(), uid: peer.uid() })
    };
    match attempt() {
        Ok(contact) => contact,
        Err(Errno::ENOENT | Errno::ENOTDIR) => Contact::Absent,
        Err(Errno::ECONNREFUSED) => Contact::Refused,
        Err(Errno::EACCES | Errno::EPERM) => Contact::Denied,
        Err(Errno::EAGAIN) => Contact::Full,
        Err(errno) => Contact::Failed(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn each_state_of_a_socket_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        assert!(matches!(contact(&path), Contact::Absent));
        let listener = UnixListener::bind(&path).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(contact(&path), Contact::Open { pid, .. } if pid == own));
        drop(listener);
        assert!(matches!(contact(&path), Contact::Refused));
        assert!(matches!(contact(&folder.path().join("x".repeat(200))), Contact::Failed(_)));
    }

    #[test]
    fn a_full_queue_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        // A connection that nobody accepts stays in the queue even when its other end is gone.
        let full = (0..100_000).any(|_| matches!(contact(&path), Contact::Full));
        assert!(full, "the queue never filled");
    }
}
