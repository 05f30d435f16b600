//! One conversation with the kernel over netlink(7): requests out, whole messages in, under a deadline.
//!
//! What the messages say is not read here; [`messages`] and [`attributes`] are the two steps every reader of them takes.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The kernel fills at most 32 KiB per answer (`netlink_dump` in `net/netlink/af_netlink.c`).
pub(super) const BUFFER_BYTES: usize = 32 * 1024;

/// All requests of a conversation may answer with as much: a rule set of 100,000 rules is about 40 MB.
const MAX_BYTES: usize = 64 * 1024 * 1024;

const HEADER_BYTES: usize = 16;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
/// Set by the kernel when what it dumps changed meanwhile (`nl_dump_check_consistent`).
const INTERRUPTED: u16 = 0x10;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// One message of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub payload: &'a [u8],
    /// The message with its header.
    pub whole: &'a [u8],
}

/// The whole messages of a buffer. A torn one ends it.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let message = Message {
            kind: u16_at(rest, 4)?,
            flags: u16_at(rest, 6)?,
            sequence: u32_at(rest, 8)?,
            payload: rest.get(HEADER_BYTES..length)?,
            whole: rest.get(..length)?,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes of a message or of another attribute: number and value. A torn one ends it.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
    const FLAGS: u16 = 0xc000;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let attribute = (u16_at(rest, 2)? & !FLAGS, rest.get(4..length)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// An attribute with its padding.
pub fn attribute(number: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(number.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A socket, its deadline, and how much it may still take in.
#[derive(Debug)]
pub struct Conversation {
    socket: Socket,
    sequence: u32,
    deadline: Instant,
    room: usize,
    buffer: Vec<u8>,
}

/// Whether a dump shows one state of what it dumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistent {
    Yes,
    /// It changed while it was dumped.
    No,
}

impl Conversation {
    pub fn open(protocol: isize, within: Duration) -> io::Result<Self> {
        let socket = Socket::new(protocol)?;
        socket.set_non_blocking(true)?;
        let deadline = Instant::now() + within;
        Ok(Self { socket, sequence: 0, deadline, room: MAX_BYTES, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// One question with one answer, handed on with its header.
    pub fn ask(&mut self, kind: u16, body: &[u8], each: &mut dyn FnMut(&[u8])) -> io::Result<Consistent> {
        self.send(kind, REQUEST, body)?;
        self.receive(false, each)
    }

    /// All objects of a kind, each handed on with its header.
    pub fn dump(&mut self, kind: u16, body: &[u8], each: &mut dyn FnMut(&[u8])) -> io::Result<Consistent> {
        self.send(kind, REQUEST | DUMP, body)?;
        self.receive(true, each)
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let length = u32::try_from(HEADER_BYTES + body.len()).map_err(io::Error::other)?;
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend_from_slice(body);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map(drop)
    }

    fn receive(&mut self, until_done: bool, each: &mut dyn FnMut(&[u8])) -> io::Result<Consistent> {
        let mut consistent = Consistent::Yes;
        loop {
            self.buffer.clear();
            let (size, from) = match self.socket.recv_from(&mut self.buffer, nix::libc::MSG_TRUNC) {
                Ok(received) => received,
                // The kernel usually has the answer ready.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait()?;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if from.port_number() != 0 {
                continue;
            }
            self.room = self.room.checked_sub(size).ok_or_else(|| io::Error::other("the answer is too large"))?;
            // With MSG_TRUNC the size is that of what was sent. A part of it would look like all there is.
            let received = self.buffer.get(..size).ok_or_else(|| io::Error::other("an answer does not fit"))?;
            for message in messages(received).filter(|message| message.sequence == self.sequence) {
                if message.flags & INTERRUPTED != 0 {
                    consistent = Consistent::No;
                }
                match message.kind {
                    // Both begin with an error number; 0 says that all went well.
                    ERROR | DONE => {
                        let code = u32_at(message.payload, 0).map_or(0, u32::cast_signed);
                        return if code < 0 {
                            Err(io::Error::from_raw_os_error(code.saturating_neg()))
                        } else {
                            Ok(consistent)
                        };
                    }
                    kind if kind < 16 => {}
                    _ => {
                        each(message.whole);
                        if !until_done {
                            return Ok(consistent);
                        }
                    }
                }
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer in time"));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Seen failing without `MSG_TRUNC`: the interfaces were then left out, without an error.
    #[test]
    fn a_part_of_an_answer_is_not_taken_for_all_of_it() {
        const ROUTE: isize = 0;
        const GET_LINK: u16 = 18;
        let interfaces = |room: usize| {
            let mut conversation = Conversation::open(ROUTE, Duration::from_secs(2)).unwrap();
            conversation.buffer = Vec::with_capacity(room);
            let mut count = 0;
            conversation.dump(GET_LINK, &[0; 16], &mut |_| count += 1).map(|_| count)
        };
        assert!(interfaces(BUFFER_BYTES).unwrap() > 0);
        assert_eq!(interfaces(40).unwrap_err().to_string(), "an answer does not fit");
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_through(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let total: usize = messages(&bytes).map(|message| message.whole.len()).sum();
            prop_assert!(total <= bytes.len());
            let total: usize = attributes(&bytes).map(|(_, value)| value.len() + 4).sum();
            prop_assert!(total <= bytes.len());
        }

        #[test]
        fn attributes_are_read_as_written(list in prop::collection::vec((0_u16..0x3fff, prop::collection::vec(any::<u8>(), 0..20)), 0..6)) {
            let bytes: Vec<u8> = list.iter().flat_map(|(number, value)| attribute(*number, value)).collect();
            let read: Vec<(u16, Vec<u8>)> = attributes(&bytes).map(|(number, value)| (number, value.to_vec())).collect();
            prop_assert_eq!(read, list);
        }
    }

    #[test]
    fn a_deadline_that_has_passed_is_an_error() {
        let conversation = Conversation::open(netlink_sys::protocols::NETLINK_ROUTE, Duration::ZERO).unwrap();
        let error = conversation.wait().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn errors_of_the_kernel_are_errors() {
        let mut conversation =
            Conversation::open(netlink_sys::protocols::NETLINK_ROUTE, Duration::from_secs(5)).unwrap();
        // A message of a number that nobody answers.
        let error = conversation.ask(0x7777, &[0; 4], &mut |_| {}).unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
    }
}
