//! Asking the kernel for an address and a port, the way a service would, without ever listening on it.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, getsockname, getsockopt, setsockopt, socket,
    sockopt,
};
use std::os::fd::{AsRawFd as _, OwnedFd};

use crate::catalog::parameters::Protocol;

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

/// A TCP socket that has a port of both families, and neither listens nor is connected.
#[derive(Debug)]
pub struct BoundOnly {
    pub port: u16,
    _fd: OwnedFd,
}

/// Takes any free port until it is dropped. An error where the host has no IPv6.
pub fn bound_only() -> Result<BoundOnly, Errno> {
    let fd = bound(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0), Protocol::Tcp, false)?;
    let port = getsockname::<SockaddrIn6>(fd.as_raw_fd())?.port();
    Ok(BoundOnly { port, _fd: fd })
}

/// What `IPV6_V6ONLY` is on a new socket: `net.ipv6.bindv6only`, asked of the first. `None`: it cannot be told.
fn v6_only_by_default(new: &OwnedFd) -> Option<bool> {
    static DEFAULT: OnceLock<Option<bool>> = OnceLock::new();
    *DEFAULT.get_or_init(|| getsockopt(new, sockopt::Ipv6V6Only).ok())
}

fn ask(address: SocketAddr, protocol: Protocol, v6_only: bool) -> Result<(), Errno> {
    bound(address, protocol, v6_only).map(drop)
}

fn bound(address: SocketAddr, protocol: Protocol, v6_only: bool) -> Result<OwnedFd, Errno> {
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
        SocketAddr::V4(address) => bind(fd.as_raw_fd(), &SockaddrIn::from(address))?,
        SocketAddr::V6(address) => {
            if v6_only_by_default(&fd) != Some(v6_only) {
                setsockopt(&fd, sockopt::Ipv6V6Only, &v6_only)?;
            }
            bind(fd.as_raw_fd(), &SockaddrIn6::from(address))?;
        }
    }
    Ok(fd)
}
