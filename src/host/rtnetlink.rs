//! The interfaces and addresses of the calling thread's network namespace, over rtnetlink(7). Messages are handed on as
//! they come; `src/probe/firewall/` reads them.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::Conversation;

pub const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
pub const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;

/// All interfaces, then all addresses, one message after the other.
pub fn interfaces(within: Duration) -> io::Result<Vec<u8>> {
    let mut kernel = Conversation::open(NETLINK_ROUTE, within)?;
    let mut bytes: Vec<u8> = Vec::new();
    let mut append = |message: &[u8]| {
        bytes.extend_from_slice(message);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    };
    // `struct ifinfomsg` and `struct ifaddrmsg`, of any family.
    kernel.dump(GET_LINK, &[0; 16], &mut append)?;
    kernel.dump(GET_ADDRESS, &[0; 8], &mut append)?;
    Ok(bytes)
}
