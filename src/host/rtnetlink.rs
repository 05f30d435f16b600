//! The interfaces and addresses of the calling thread's network namespace, over rtnetlink(7). Messages are handed on as
//! they come; `src/probe/firewall/` reads them.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::{self, Conversation};

pub const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
pub const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
/// `IFLA_EXT_MASK` and `RTEXT_FILTER_SKIP_STATS` of `include/uapi/linux/if_link.h` and `rtnetlink.h`; older kernels than 4.4
/// send the counters all the same.
const EXTENSION_MASK: u16 = 29;
const SKIP_STATS: u32 = 1 << 3;

/// All interfaces, then all addresses, one message after the other.
pub fn interfaces(within: Duration) -> io::Result<Vec<u8>> {
    let mut kernel = Conversation::open(NETLINK_ROUTE, within)?;
    let mut bytes: Vec<u8> = Vec::new();
    let mut append = |message: &[u8]| {
        bytes.extend_from_slice(message);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    };
    // `struct ifinfomsg` and `struct ifaddrmsg`, of any family. Counters are half of what is said of an interface.
    let without_counters = netlink::attribute(EXTENSION_MASK, &SKIP_STATS.to_ne_bytes());
    kernel.dump(GET_LINK, &[&[0; 16], &without_counters[..]].concat(), &mut append)?;
    kernel.dump(GET_ADDRESS, &[0; 8], &mut append)?;
    Ok(bytes)
}
