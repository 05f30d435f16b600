//! The tables of the old iptables in the calling thread's network namespace, as the kernel hands them to iptables-legacy:
//! getsockopt(2) on a raw socket (`include/uapi/linux/netfilter_ipv4/ip_tables.h`, `netfilter_ipv6/ip6_tables.h`).
//!
//! Asking for a table that is not there makes it, so ask only for those that /proc/net/ip_tables_names lists.
//! Needs CAP_NET_ADMIN.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`; IPv6 has the same numbers.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;

/// `XT_TABLE_MAXNAMELEN`.
const NAME_BYTES: usize = 32;
/// `struct ipt_getinfo`: the name and thirteen numbers.
const INFO_BYTES: usize = NAME_BYTES + 13 * 4;
/// `struct ipt_get_entries` up to its entries, which are aligned to eight bytes.
const HEAD_BYTES: usize = 40;

/// Larger tables than this are not read; the kernel itself has no bound.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// How often a table that changes while it is read is read again.
const ATTEMPTS: usize = 8;

/// One table: where its chains begin, where their policies stand, and all entries one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawTable {
    /// A bit for each hook that it is called from.
    pub valid_hooks: u32,
    pub hook_entry: [u32; 5],
    pub underflow: [u32; 5],
    pub entries: Vec<u8>,
}

/// Reads one table of one family.
pub fn table(v6: bool, name: &str) -> io::Result<RawTable> {
    let (family, level) = if v6 { (AddressFamily::Inet6, libc::SOL_IPV6) } else { (AddressFamily::Inet, libc::SOL_IP) };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    for _ in 0..ATTEMPTS {
        let mut info = named(name, INFO_BYTES)?;
        ask(&socket, level, GET_INFO, &mut info)?;
        let numbers: Vec<u32> = info[NAME_BYTES..].chunks_exact(4).map(number).collect();
        let of = |from: usize| -> [u32; 5] { std::array::from_fn(|at| numbers.get(from + at).copied().unwrap_or(0)) };
        let size = numbers.last().copied().unwrap_or_default();
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        if length > MAX_BYTES {
            return Err(io::Error::other(format!("the table {name} of iptables-legacy has {length} bytes")));
        }
        let mut entries = named(name, HEAD_BYTES + length)?;
        entries[NAME_BYTES..NAME_BYTES + 4].copy_from_slice(&size.to_ne_bytes());
        match ask(&socket, level, GET_ENTRIES, &mut entries) {
            // It has another size by now.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            answer => {
                answer?;
                entries.drain(..HEAD_BYTES);
                let valid_hooks = numbers.first().copied().unwrap_or_default();
                return Ok(RawTable { valid_hooks, hook_entry: of(1), underflow: of(6), entries });
            }
        }
    }
    Err(io::Error::other(format!("the table {name} of iptables-legacy changed at every attempt to read it")))
}

fn named(name: &str, bytes: usize) -> io::Result<Vec<u8>> {
    if name.len() >= NAME_BYTES {
        return Err(io::Error::other(format!("`{name}` is no table's name")));
    }
    let mut buffer = vec![0; bytes];
    buffer[..name.len()].copy_from_slice(name.as_bytes());
    Ok(buffer)
}

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

/// getsockopt(2) with a question in the buffer that takes the answer, and an answer of exactly that length.
fn ask(socket: &OwnedFd, level: i32, option: i32, buffer: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "no library in use has a getsockopt(2) that hands a question in")]
    // SAFETY: the buffer is ours, is initialised, and lives through the call; the kernel writes at most `length` bytes.
    let status =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut length) };
    Errno::result(status)?;
    if usize::try_from(length) == Ok(buffer.len()) {
        return Ok(());
    }
    Err(io::Error::other("the kernel gave an answer of another length"))
}
