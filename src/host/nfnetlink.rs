//! What netfilter has in the calling thread's network namespace, over nfnetlink: the rules of nf_tables and the table of
//! connections. Messages are handed on as they come; `src/probe/firewall/` reads them.
//!
//! Needs CAP_NET_ADMIN; without it the kernel answers EPERM before anything else (`nfnetlink_rcv`).

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::netlink::{Consistent, Conversation, attribute, attributes, messages};

// `include/uapi/linux/netfilter/nfnetlink.h`, `nf_tables.h`, `nfnetlink_conntrack.h`.
const NFTABLES: u16 = 10 << 8;
const CTNETLINK: u16 = 1 << 8;
pub const NEW_TABLE: u16 = NFTABLES;
const GET_TABLE: u16 = NFTABLES + 1;
pub const NEW_CHAIN: u16 = NFTABLES + 3;
const GET_CHAIN: u16 = NFTABLES + 4;
pub const NEW_RULE: u16 = NFTABLES + 6;
const GET_RULE: u16 = NFTABLES + 7;
pub const NEW_SET: u16 = NFTABLES + 9;
const GET_SET: u16 = NFTABLES + 10;
pub const NEW_SET_ELEMENTS: u16 = NFTABLES + 12;
const GET_SET_ELEMENTS: u16 = NFTABLES + 13;
const GET_GENERATION: u16 = NFTABLES + 16;
const GET_CONNECTION: u16 = CTNETLINK + 1;

/// `struct nfgenmsg`: family, version, resource.
pub const GENERIC_BYTES: usize = 4;
const ANY_FAMILY: u8 = 0;

const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const GENERATION: u16 = 1;

/// How often a rule set that changes while it is read is read again.
const ATTEMPTS: usize = 8;

/// The rules of nf_tables, as the kernel's own messages, one after the other: tables, chains, rules, sets and their
/// elements, all of one generation. `None`: this kernel has no nf_tables.
pub fn ruleset(within: Duration) -> io::Result<Option<Vec<u8>>> {
    let mut kernel = Conversation::open(NETLINK_NETFILTER, within)?;
    for _ in 0..ATTEMPTS {
        let before = match generation(&mut kernel) {
            // The answer where no module nf_tables is to be had.
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => return Ok(None),
            generation => generation?,
        };
        let mut bytes = Vec::new();
        if all(&mut kernel, &mut bytes)? == Consistent::Yes && generation(&mut kernel)? == before {
            return Ok(Some(bytes));
        }
    }
    Err(io::Error::other("the rules of nf_tables changed at every attempt to read them"))
}

fn generation(kernel: &mut Conversation) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    kernel.ask(GET_GENERATION, &generic(ANY_FAMILY), &mut |message| {
        let of =
            messages(message).flat_map(|message| attributes(message.payload.get(GENERIC_BYTES..).unwrap_or_default()));
        answer.extend(of.filter(|(number, _)| *number == GENERATION).flat_map(|(_, value)| value.to_vec()));
    })?;
    Ok(answer)
}

fn all(kernel: &mut Conversation, bytes: &mut Vec<u8>) -> io::Result<Consistent> {
    let mut sets = Vec::new();
    for kind in [GET_TABLE, GET_CHAIN, GET_RULE, GET_SET] {
        let start = bytes.len();
        if kernel.dump(kind, &generic(ANY_FAMILY), &mut |message| append(bytes, message))? == Consistent::No {
            return Ok(Consistent::No);
        }
        // Everything else is in a table.
        if kind == GET_TABLE && bytes.is_empty() {
            return Ok(Consistent::Yes);
        }
        if kind == GET_SET {
            sets.extend(
                messages(bytes.get(start..).unwrap_or_default()).filter_map(|message| set_request(message.payload)),
            );
        }
    }
    for request in sets {
        match kernel.dump(GET_SET_ELEMENTS, &request, &mut |message| append(bytes, message)) {
            Ok(Consistent::Yes) => {}
            Ok(Consistent::No) => return Ok(Consistent::No),
            // Deleted since the sets were listed.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => return Ok(Consistent::No),
            Err(error) => return Err(error),
        }
    }
    Ok(Consistent::Yes)
}

fn append(bytes: &mut Vec<u8>, message: &[u8]) {
    bytes.extend_from_slice(message);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn generic(family: u8) -> Vec<u8> {
    vec![family, 0, 0, 0]
}

/// What asks for the elements of a set; `None` for what is no set.
fn set_request(payload: &[u8]) -> Option<Vec<u8>> {
    let mut request = generic(*payload.first()?);
    let mut name_of = |wanted| {
        let (_, name) = attributes(payload.get(GENERIC_BYTES..)?).find(|(number, _)| *number == wanted)?;
        request.extend(attribute(wanted, name));
        Some(())
    };
    name_of(SET_TABLE)?;
    name_of(SET_NAME)?;
    Some(request)
}

/// The table of connections of both families, one message of the kernel at a time: it may be large. A kernel without the
/// table has no connections in it.
pub fn connections(within: Duration, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut kernel = Conversation::open(NETLINK_NETFILTER, within)?;
    match kernel.dump(GET_CONNECTION, &generic(ANY_FAMILY), each) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => Ok(()),
        done => done.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_asked_for_by_its_names() {
        let mut payload = vec![2, 0, 0, 0];
        payload.extend(attribute(SET_TABLE, b"filter\0"));
        payload.extend(attribute(SET_NAME, b"blocked\0"));
        payload.extend(attribute(3, &[0; 4]));
        let request = set_request(&payload).unwrap();
        assert_eq!(request, payload[..payload.len() - 8]);
        assert_eq!(set_request(&payload[..10]), None);
        assert_eq!(set_request(&[]), None);
    }

    #[test]
    fn what_may_not_be_asked_is_an_error_and_what_may_be_is_an_answer() {
        match ruleset(Duration::from_secs(5)) {
            Ok(bytes) => assert!(nix::unistd::geteuid().is_root(), "{bytes:?}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(nix::libc::EPERM), "{error}"),
        }
    }
}
