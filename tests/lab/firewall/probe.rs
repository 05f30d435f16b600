//! What a connection really does: out of a network namespace, from a chosen address, to an answer of Redis or none.
//!
//! A connect alone proves nothing, because docker-proxy accepts before it knows whether anybody answers behind it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, socket, sockopt,
};

/// A dropped packet is sent again after one second: what takes longer than this was dropped twice.
const PATIENCE: Duration = Duration::from_millis(1300);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// Redis answered.
    Open,
    /// Nothing came back.
    Blocked,
    /// Somebody said no: a reset, an unreachable.
    Refused,
    /// Somebody took the connection, and no answer came over it.
    Mute,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Blocked => "blocked",
            Self::Refused => "refused",
            Self::Mute => "mute",
        })
    }
}

/// One connection to try.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Try {
    /// A process in the network namespace to start from.
    pub(crate) namespace: u32,
    pub(crate) source: Option<IpAddr>,
    pub(crate) to: SocketAddr,
}

/// All at once, so that many that are dropped cost the patience of one.
pub(crate) fn ask_all(tries: &[Try]) -> Vec<Answer> {
    let threads: Vec<_> = tries
        .iter()
        .map(|it| {
            (
                *it,
                std::thread::spawn({
                    let it = *it;
                    move || ask(&it)
                }),
            )
        })
        .collect();
    threads
        .into_iter()
        .map(|(it, thread)| thread.join().unwrap_or_else(|_| panic!("{it:?} could not be tried")))
        .collect()
}

pub(crate) fn ask(it: &Try) -> Answer {
    connection(it).map_or_else(|answer| answer, |stream| ping(&stream))
}

/// A connection that stays open.
pub(crate) fn hold(it: &Try) -> TcpStream {
    let it = *it;
    let held = std::thread::spawn(move || connection(&it)).join().unwrap();
    held.unwrap_or_else(|answer| panic!("{it:?}: {answer}"))
}

/// Whether Redis answers over an established connection.
pub(crate) fn ping(mut stream: &TcpStream) -> Answer {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0; 5];
    match stream.write_all(b"PING\r\n").and_then(|()| stream.read_exact(&mut answer)) {
        Ok(()) if &answer == b"+PONG" => Answer::Open,
        Ok(()) => panic!("something else answers: {answer:?}"),
        Err(_) => Answer::Mute,
    }
}

/// An established connection. This thread enters the namespace and stays in it.
fn connection(it: &Try) -> Result<TcpStream, Answer> {
    let namespace = File::open(format!("/proc/{}/ns/net", it.namespace)).unwrap();
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
    let family = if it.to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(family, SockType::Stream, flags, None).unwrap();
    if let Some(source) = it.source {
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0))).unwrap();
    }
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(it.to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(_) => return Err(Answer::Refused),
    }
    let mut waiting = [PollFd::new(std::os::fd::AsFd::as_fd(&socket), PollFlags::POLLOUT)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap();
    if poll(&mut waiting, patience).unwrap() == 0 {
        return Err(Answer::Blocked);
    }
    match getsockopt(&socket, sockopt::SocketError).unwrap() {
        0 => {
            let stream = TcpStream::from(socket);
            stream.set_nonblocking(false).unwrap();
            Ok(stream)
        }
        _ => Err(Answer::Refused),
    }
}
