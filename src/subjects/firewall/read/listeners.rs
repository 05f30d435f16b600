//! Who waits for connections on the host's own network: a container there, or a process without one, publishes nothing
//! through Docker.

use std::net::{IpAddr, Ipv4Addr};

use crate::catalog::parameters::{Port, Protocol};
use crate::host::sock_diag::{self, Entry, Which};

/// The TCP sockets that listen in the network namespace of the calling thread; `None` when the kernel does not tell.
pub(crate) fn gather() -> Option<Vec<Entry>> {
    sock_diag::dump_both(Protocol::Tcp, Which::Listening).ok()
}

/// The addresses that a port is taken at; `None` where nobody waits.
pub(crate) fn addresses(listening: &[Entry], port: &Port) -> Option<Vec<IpAddr>> {
    if port.protocol != Protocol::Tcp {
        return None;
    }
    let mut found = Vec::new();
    for entry in listening.iter().filter(|entry| entry.port == port.port) {
        found.push(entry.address);
        if entry.address.is_ipv6() && entry.address.is_unspecified() && entry.v6_only != Some(true) {
            found.push(Ipv4Addr::UNSPECIFIED.into());
        }
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_both_families_counts_for_both() {
        let entry = |address: &str, v6_only| Entry {
            address: address.parse().unwrap(),
            port: 26379,
            peer: None,
            inode: 1,
            uid: 0,
            v6_only,
            listening: true,
            time_wait: false,
        };
        let port = |port| Port { name: "sentinel".into(), port, protocol: Protocol::Tcp, publish: true };
        let of =
            |entry: Entry| addresses(&[entry], &port(26379)).map(|all| all.iter().map(ToString::to_string).collect());
        let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(entry("0.0.0.0", None)), words(&["0.0.0.0"]));
        assert_eq!(of(entry("::", Some(true))), words(&["::"]));
        assert_eq!(of(entry("::", Some(false))), words(&["::", "0.0.0.0"]));
        assert_eq!(of(entry("fd77::1", Some(false))), words(&["fd77::1"]));
        assert_eq!(addresses(&[entry("::", None)], &port(26380)), None);
    }
}
