//! The kernel's socket tables over netlink (sock_diag(7)).
//!
//! Unlike `/proc/net/tcp`, a dump of listeners alone does not walk the table of connections, which has 262,144 buckets
//! on a mid-sized machine and one entry per open connection on a busy one.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::ops::Range;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use crate::catalog::parameters::Protocol;
use crate::host::{netlink, socket};

/// `TCP_BOUND_INACTIVE` of `include/net/tcp_states.h`: bound, neither listening nor connected. Dumped since Linux 6.8;
/// older kernels ignore the bit.
const BOUND_INACTIVE: u32 = 1 << 13;

/// The state byte of a connection that carries data.
const ESTABLISHED: u8 = 1;

/// The state byte of a listener in an answer.
const LISTEN: u8 = 10;

/// The state byte of a connection that only waits for late packets; no process has it open any more.
const TIME_WAIT: u8 = 6;

/// Which address family to dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// Which sockets to dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// TCP listeners on any port; cheap.
    Listening,
    /// Every socket with this local port, or with any when 0; walks the table of connections.
    Every { port: u16 },
    /// Every socket whose local port is one of these; walks the table of connections, too, but the kernel hands out no
    /// others.
    Between { first: u16, last: u16 },
    /// Connections that carry data, on any port; walks the table of connections.
    Established,
}

/// One socket of the kernel's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub address: IpAddr,
    pub port: u16,
    /// The other end of a connection; `None` where nobody asked.
    pub peer: Option<IpAddr>,
    /// 0 when no process has it open.
    pub inode: u64,
    /// Who opened it.
    pub uid: u32,
    /// Whether an IPv6 socket leaves IPv4 alone; `None` when the kernel does not say.
    pub v6_only: Option<bool>,
    pub listening: bool,
    pub time_wait: bool,
}

/// Dumps the sockets of both families in the calling thread's network namespace. A kernel without IPv6 has none of it.
pub fn dump_both(protocol: Protocol, which: Which) -> io::Result<Vec<Entry>> {
    let mut tables = Tables::open()?;
    if protocol == Protocol::Tcp {
        // One walk through the table for both; a kernel that refuses it is asked for one after the other.
        let mut all = Vec::new();
        if tables.each_of(&request_of_both(which), |some| all.append(some)).is_ok() {
            return Ok(all);
        }
        tables = Tables::open()?;
    }
    let mut all = tables.dump(Family::V4, protocol, which)?;
    match tables.dump(Family::V6, protocol, which) {
        Ok(entries) => all.extend(entries),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => {}
        Err(error) => return Err(error),
    }
    Ok(all)
}

/// Which of these ports any TCP socket of the calling thread's network namespace has, in whatever state, of either family.
///
/// `None` where the kernel does not tell all: before Linux 6.8 it leaves out sockets that are bound and nothing else. It
/// is asked whether it knows of one that is made for that.
pub fn used_ports(first: u16, last: u16) -> io::Result<Option<HashSet<u16>>> {
    let witness = socket::bound_only()?;
    let mut tables = Tables::open()?;
    // In the words in which the others are asked for.
    let just_it = request_of_both(Which::Between { first: witness.port, last: witness.port });
    let mut known = Vec::new();
    tables.each_of(&just_it, |some| known.append(some))?;
    if !known.iter().any(|entry| entry.port == witness.port) {
        return Ok(None);
    }
    drop(witness);
    let mut ports = HashSet::new();
    // Listeners come first: who began to listen after that was in neither part, so they are asked for once more.
    for which in [Which::Between { first, last }, Which::Listening] {
        tables.each_of(&request_of_both(which), |some| {
            ports.extend(some.drain(..).map(|entry| entry.port).filter(|port| (first..=last).contains(port)));
        })?;
    }
    Ok(Some(ports))
}

/// The kernel, to be asked for one table after the other.
struct Tables {
    socket: Socket,
    /// Empty but for its room: what no answer fills is never touched.
    buffer: Vec<u8>,
}

impl Tables {
    fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::new(NETLINK_SOCK_DIAG)?, buffer: Vec::with_capacity(netlink::BUFFER_BYTES) })
    }

    fn dump(&mut self, family: Family, protocol: Protocol, which: Which) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.each(family, protocol, which, |some| entries.append(some))?;
        Ok(entries)
    }

    /// Hands on what each datagram of a dump holds.
    fn each(
        &mut self,
        family: Family,
        protocol: Protocol,
        which: Which,
        take: impl FnMut(&mut Vec<Entry>),
    ) -> io::Result<()> {
        self.each_of(&request(family, protocol, which), take)
    }

    fn each_of(&mut self, request: &[u8], mut take: impl FnMut(&mut Vec<Entry>)) -> io::Result<()> {
        self.socket.send_to(request, &SocketAddr::new(0, 0), 0)?;
        let mut entries = Vec::new();
        loop {
            self.buffer.clear();
            let (size, _) = self.socket.recv_from(&mut self.buffer, nix::libc::MSG_TRUNC)?;
            // With MSG_TRUNC the size is that of what was sent. A part of it would look like all there is.
            let answer = self.buffer.get_mut(..size).ok_or_else(|| io::Error::other("an answer does not fit"))?;
            number_as_of_one_family(answer);
            let is_last = size == 0 || parse_answer(answer, &mut entries)?;
            take(&mut entries);
            if is_last {
                return Ok(());
            }
        }
    }
}

fn request(family: Family, protocol: Protocol, which: Which) -> Vec<u8> {
    let every = StateFlags::from_bits_retain(StateFlags::all().bits() | BOUND_INACTIVE);
    let (states, port, filter) = match which {
        Which::Listening => (StateFlags::LISTEN, 0, Vec::new()),
        Which::Established => (StateFlags::ESTABLISHED, 0, Vec::new()),
        Which::Every { port } => (every, port, Vec::new()),
        Which::Between { first, last } => (every, 0, between(first, last)),
    };
    let (family, mut socket_id) = match family {
        Family::V4 => (AF_INET, SocketId::new_v4()),
        Family::V6 => (AF_INET6, SocketId::new_v6()),
    };
    socket_id.source_port = port;
    let protocol = match protocol {
        Protocol::Tcp => IPPROTO_TCP,
        Protocol::Udp => IPPROTO_UDP,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest { family, protocol, extensions: ExtensionFlags::empty(), states, socket_id };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes.extend(filter);
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    if let Some(place) = bytes.first_chunk_mut() {
        *place = length.to_ne_bytes();
    }
    bytes
}

/// The older request, `struct inet_diag_req` of `include/uapi/linux/inet_diag.h`: of TCP alone, and of both families.
/// What it asks is said in the same way, in another order.
fn request_of_both(which: Which) -> Vec<u8> {
    const HEADER: usize = 16;
    const ID: Range<usize> = HEADER + 8..HEADER + 56;
    let newer = request(Family::V4, Protocol::Tcp, which);
    let (header, states, id) = (&newer[..HEADER], &newer[HEADER + 4..HEADER + 8], &newer[ID]);
    // Families and lengths of prefixes, which no kernel looks at, and extensions; at the end which tables: none is left out.
    let mut bytes = [header, &[0; 4], id, states, &[0; 4], &newer[ID.end..]].concat();
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[KIND].copy_from_slice(&GET_TCP.to_ne_bytes());
    bytes
}

/// Where a message says of which kind it is.
const KIND: Range<usize> = 4..6;
/// `TCPDIAG_GETSOCK` and `SOCK_DIAG_BY_FAMILY`.
const GET_TCP: u16 = 18;
const BY_FAMILY: u16 = 20;

/// The answers to the older request differ from the others in their number alone.
fn number_as_of_one_family(mut bytes: &mut [u8]) {
    while let Some((length, kind)) = bytes.first_chunk().zip(bytes.get(KIND)) {
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX).next_multiple_of(4);
        if kind == GET_TCP.to_ne_bytes() {
            bytes[KIND].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        }
        bytes = bytes.get_mut(length.max(16)..).unwrap_or_default();
    }
}

/// The attribute `INET_DIAG_REQ_BYTECODE` of `include/uapi/linux/inet_diag.h`: the local port is at least `first` and at most
/// `last`. Each of the two comparisons is an operation and its operand, of 4 bytes each; one that fails jumps 4 bytes past
/// the end, which means no (`inet_diag_bc_run` in `net/ipv4/inet_diag.c`).
fn between(first: u16, last: u16) -> Vec<u8> {
    const BYTECODE: u16 = 1;
    const AT_LEAST: u8 = 2;
    const AT_MOST: u8 = 3;
    let mut bytes = Vec::with_capacity(20);
    bytes.extend(20_u16.to_ne_bytes());
    bytes.extend(BYTECODE.to_ne_bytes());
    for (comparison, port, left) in [(AT_LEAST, first, 16_u16), (AT_MOST, last, 8)] {
        bytes.extend([comparison, 8]);
        bytes.extend((left + 4).to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(port.to_ne_bytes());
    }
    bytes
}

/// Reads one datagram of the kernel; true when it was the last.
pub fn parse_answer(mut bytes: &[u8], entries: &mut Vec<Entry>) -> io::Result<bool> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(bytes).map_err(io::Error::other)?;
        match message.payload {
            NetlinkPayload::Done(done) if done.code < 0 => return Err(errno(done.code)),
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => return Err(errno(error.raw_code())),
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => entries.push(entry(&response)),
            _ => {}
        }
        // Netlink messages are aligned to 4 bytes (`NLMSG_ALIGNTO`).
        let length = usize::try_from(message.header.length).unwrap_or(usize::MAX).next_multiple_of(4);
        bytes = bytes.get(length.max(16)..).unwrap_or_default();
    }
    Ok(false)
}

/// Netlink says errors as negative numbers; the lowest has no positive one.
fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code.saturating_neg())
}

fn entry(response: &InetResponse) -> Entry {
    let header = &response.header;
    let v6_only = response.nlas.iter().find_map(|attribute| match attribute {
        Nla::SkV6Only(only) => Some(*only),
        _ => None,
    });
    Entry {
        address: header.socket_id.source_address.to_canonical(),
        port: header.socket_id.source_port,
        peer: (header.state == ESTABLISHED).then(|| header.socket_id.destination_address.to_canonical()),
        inode: header.inode.into(),
        uid: header.uid,
        v6_only,
        listening: header.state == LISTEN,
        time_wait: header.state == TIME_WAIT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn dump(family: Family, protocol: Protocol, which: Which) -> io::Result<Vec<Entry>> {
        Tables::open()?.dump(family, protocol, which)
    }

    fn find(family: Family, protocol: Protocol, which: Which, port: u16) -> Vec<Entry> {
        let entries = dump(family, protocol, which).unwrap();
        entries.into_iter().filter(|entry| entry.port == port).collect()
    }

    #[test]
    fn own_sockets_are_in_the_dump() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = find(Family::V4, Protocol::Tcp, Which::Listening, port);
        assert!(matches!(&found[..], [entry] if entry.listening && entry.inode != 0), "{found:?}");
        assert_eq!(find(Family::V4, Protocol::Tcp, Which::Every { port }, port), found);
        assert_eq!(find(Family::V6, Protocol::Tcp, Which::Listening, port), []);

        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = find(Family::V4, Protocol::Udp, Which::Every { port }, port);
        assert!(matches!(&found[..], [entry] if entry.inode != 0), "{found:?}");
    }

    /// Of every state that can be made here without a network. Seen failing without `BOUND_INACTIVE`.
    #[test]
    fn every_port_in_use_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let bound = socket::bound_only().unwrap();
        let used = |first, last| used_ports(first, last).unwrap().expect("a kernel of 6.8 or later");
        let all = used(1, u16::MAX);
        for port in [listener.local_addr().unwrap().port(), client.local_addr().unwrap().port(), bound.port] {
            assert!(all.contains(&port), "{port}");
            assert!(used(port, port).into_iter().eq([port]), "{port}");
            assert!(!used(1, port - 1).contains(&port) && !used(port + 1, u16::MAX).contains(&port), "{port}");
        }
    }

    /// Seen failing with the answers left numbered as they are, and with the states asked for in the place of the tables.
    #[test]
    fn both_families_in_one_walk_are_those_of_two() {
        let listeners = ["127.0.0.1:0", "[::1]:0", "[::]:0"].map(|address| TcpListener::bind(address).unwrap());
        let clients = listeners.each_ref().map(|listener| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
        let own = |entries: Vec<Entry>| {
            let own = entries.into_iter().filter(|entry| ports.contains(&entry.port));
            let mut own: Vec<String> = own.map(|entry| format!("{entry:?}")).collect();
            own.sort_unstable();
            own
        };
        let one_walk = |which| {
            let mut all = Vec::new();
            Tables::open().unwrap().each_of(&request_of_both(which), |some| all.append(some)).unwrap();
            own(all)
        };
        let two_walks = |which| {
            let dump = |family| dump(family, Protocol::Tcp, which).unwrap();
            own([dump(Family::V4), dump(Family::V6)].concat())
        };
        let between = Which::Between { first: 1, last: u16::MAX };
        for which in [Which::Listening, Which::Established, Which::Every { port: ports[1] }, between] {
            let found = one_walk(which);
            assert_eq!(found, two_walks(which), "{which:?}");
            assert!(found.len() >= if matches!(which, Which::Every { .. }) { 2 } else { 3 }, "{which:?}: {found:?}");
            assert_eq!(own(dump_both(Protocol::Tcp, which).unwrap()), found);
        }
        drop(clients);
    }

    #[test]
    fn the_kernel_filters_by_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let entries = dump(Family::V4, Protocol::Tcp, Which::Every { port }).unwrap();
        assert!(entries.iter().all(|entry| entry.port == port) && !entries.is_empty(), "{entries:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_answer(&bytes, &mut Vec::new());
        }

        /// Random bytes rarely get past the header; these do.
        #[test]
        fn any_payload_is_read_or_refused(
            kind in prop_oneof![Just(20_u16), Just(2), Just(3), Just(4), any::<u16>()],
            family in prop_oneof![Just(2_u8), Just(10), Just(1), any::<u8>()],
            payload in proptest::collection::vec(any::<u8>(), 0..160),
            lie in -8_i32..8,
        ) {
            let length = u32::try_from(17 + payload.len()).unwrap().saturating_add_signed(lie);
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.push(family);
            bytes.extend(payload);
            let _ = parse_answer(&bytes, &mut Vec::new());
        }
    }
}
