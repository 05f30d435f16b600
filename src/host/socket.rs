//! Asking the kernel for an address and a port, the way a service would, without ever listening on it.

use std::net::{Ipv6Addr, SocketAddr};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, setsockopt, socket, sockopt};
use std::os::fd::AsRawFd as _;

use crate::host::protocol::Protocol;

/// Binds and closes at once; the error is the kernel's.
///
/// It asks as dockerd does (moby `daemon/libnetwork/portallocator/osallocator_linux.go`): one socket per family,
/// `IPV6_V6ONLY` on IPv6, `SO_REUSEADDR` on TCP, so that connections in TIME_WAIT do not count. UDP is asked without
/// `SO_REUSEADDR`: with it, two UDP sockets share a port and only one of them gets the datagrams (socket(7)).
///
/// Nothing listens, so no client can connect to this socket by mistake, and a service that starts in the same
/// microseconds with `SO_REUSEADDR` (every common server) is not disturbed.
pub fn try_bind(address: SocketAddr, protocol: Protocol) -> Result<(), Errno> {
    ask(address, protocol, true)
}

/// Whether both wildcards are free, asked with one socket of both families. The kernel holds such a bind against every
/// socket of either family, so that a yes is a yes for each alone; a no says nothing about which.
pub fn both_free(port: u16, protocol: Protocol) -> bool {
    ask(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), protocol, false).is_ok()
}

fn ask(address: SocketAddr, protocol: Protocol, v6_only: bool) -> Result<(), Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if protocol == Protocol::Tcp {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    match address {
        SocketAddr::V4(address) => bind(fd.as_raw_fd(), &SockaddrIn::from(address)),
        SocketAddr::V6(address) => {
            setsockopt(&fd, sockopt::Ipv6V6Only, &v6_only)?;
            bind(fd.as_raw_fd(), &SockaddrIn6::from(address))
        }
    }
}
