//! The sockets that can stand in the way of a bind: from sock_diag(7), or from `/proc/net` where netlink is refused.

use std::io;
use std::net::IpAddr;

use procfs_core::net::{TcpNetEntries, TcpState, UdpNetEntries};
use procfs_core::{ExplicitSystemInfo, FromBufReadSI as _};

use crate::catalog::parameters::Protocol;
use crate::host::Host;
use crate::host::sock_diag::{self, Entry, Which};

/// Above this many ports whose holder does not listen, one dump of everything is cheaper than one dump per port.
const MAX_SINGLE_DUMPS: usize = 8;

/// What was found for a set of ports, and where.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: Vec<(Protocol, Entry)>,
    /// `sock_diag(7)` or the file; empty when nothing had to be asked.
    pub(crate) source: &'static str,
}

/// A port and the address that was asked for.
pub(crate) type Ask = (Protocol, IpAddr, u16);

impl Table {
    /// Looks for the holders of all refused asks at once. Listeners first; only what no listener explains is looked up
    /// among all sockets, since that walks the table of connections.
    pub(crate) fn gather(host: &Host, asks: &[Ask]) -> Self {
        let mut table = Self::default();
        if asks.is_empty() {
            return table;
        }
        table.source = "sock_diag(7)";
        // EPERM and EACCES under a seccomp or SELinux policy, ENOENT where the kernel lacks inet_diag.
        if table.gather_by_netlink(asks).is_err() {
            table.entries.clear();
            table.gather_from_proc(host, asks);
            table.source = "/proc/net";
        }
        table
    }

    fn gather_by_netlink(&mut self, asks: &[Ask]) -> io::Result<()> {
        if asks.iter().any(|ask| ask.0 == Protocol::Tcp) {
            self.dump(Protocol::Tcp, Which::Listening)?;
        }
        let mut unexplained: Vec<(Protocol, u16)> = asks
            .iter()
            .filter(|ask| self.holders(**ask).next().is_none())
            .map(|(protocol, _, port)| (*protocol, *port))
            .collect();
        unexplained.sort_unstable();
        unexplained.dedup();
        if unexplained.len() > MAX_SINGLE_DUMPS {
            unexplained = unexplained.into_iter().map(|(protocol, _)| (protocol, 0)).collect();
            unexplained.dedup();
        }
        for (protocol, port) in unexplained {
            self.dump(protocol, Which::Every { port })?;
        }
        Ok(())
    }

    fn dump(&mut self, protocol: Protocol, which: Which) -> io::Result<()> {
        self.entries.extend(sock_diag::dump_both(protocol, which)?.into_iter().map(|entry| (protocol, entry)));
        Ok(())
    }

    fn gather_from_proc(&mut self, host: &Host, asks: &[Ask]) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            if !asks.iter().any(|ask| ask.0 == protocol) {
                continue;
            }
            for suffix in ["", "6"] {
                // thread-self, not self: a thread may stand in another network namespace than the main one.
                let read = host.read_text(format!("/proc/thread-self/net/{}{suffix}", protocol.name()));
                let entries = read.map_err(drop).and_then(|text: String| parse_proc(&text, protocol).map_err(drop));
                // A table that cannot be read names nobody; the verdict is then "not visible".
                self.entries.extend(entries.unwrap_or_default().into_iter().map(|entry| (protocol, entry)));
            }
        }
    }

    /// The sockets that make the kernel refuse this ask. Listeners hide whatever else shares their port: an accepted
    /// connection of theirs never stands in the way by itself.
    pub(crate) fn holders(&self, ask: Ask) -> impl Iterator<Item = &Entry> {
        let (protocol, address, port) = ask;
        let in_the_way =
            move |(of, entry): &&(Protocol, Entry)| *of == protocol && entry.port == port && conflicts(address, entry);
        let listened = self.entries.iter().filter(in_the_way).any(|(_, entry)| entry.listening);
        self.entries.iter().filter(in_the_way).map(|(_, entry)| entry).filter(move |entry| entry.listening || !listened)
    }
}

/// Whether a socket stands in the way of a new one on `address`, which is for its own family only (`IPV6_V6ONLY`).
/// `inet_rcv_saddr_equal` in `net/ipv4/inet_connection_sock.c`.
pub fn conflicts(address: IpAddr, entry: &Entry) -> bool {
    match (address, entry.address) {
        (IpAddr::V4(_), IpAddr::V6(other)) => other.is_unspecified() && entry.v6_only != Some(true),
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
        (asked, other) => asked.is_unspecified() || other.is_unspecified() || asked == other,
    }
}

/// Reads `/proc/net/tcp`, `tcp6`, `udp` or `udp6` (proc_net_tcp.rst of the kernel). Connections that nobody listens on
/// are kept: without `SO_REUSEADDR` they hold their port too.
pub fn parse_proc(text: &str, protocol: Protocol) -> Result<Vec<Entry>, procfs_core::ProcError> {
    let native = ExplicitSystemInfo {
        boot_time_secs: 0,
        ticks_per_second: 100,
        page_size: 4096,
        is_little_endian: cfg!(target_endian = "little"),
    };
    let entry = |local: std::net::SocketAddr, uid, inode| Entry {
        address: local.ip().to_canonical(),
        port: local.port(),
        peer: None,
        inode,
        uid,
        v6_only: None,
        listening: false,
        time_wait: false,
    };
    Ok(match protocol {
        Protocol::Tcp => TcpNetEntries::from_buf_read(text.as_bytes(), &native)?
            .0
            .into_iter()
            .map(|line| Entry {
                listening: line.state == TcpState::Listen,
                time_wait: line.state == TcpState::TimeWait,
                ..entry(line.local_address, line.uid, line.inode)
            })
            .collect(),
        Protocol::Udp => UdpNetEntries::from_buf_read(text.as_bytes(), &native)?
            .0
            .into_iter()
            .map(|line| entry(line.local_address, line.uid, line.inode))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn held(address: &str, v6_only: Option<bool>) -> Entry {
        Entry {
            address: address.parse().unwrap(),
            port: 6379,
            peer: None,
            inode: 1,
            uid: 0,
            v6_only,
            listening: true,
            time_wait: false,
        }
    }

    #[test]
    fn who_stands_in_whose_way() {
        for (asked, holder, v6_only, want) in [
            ("0.0.0.0", "0.0.0.0", None, true),
            ("0.0.0.0", "127.0.0.1", None, true),
            ("127.0.0.1", "0.0.0.0", None, true),
            ("127.0.0.1", "127.0.0.2", None, false),
            ("0.0.0.0", "::", Some(false), true),
            ("10.0.0.1", "::", Some(false), true),
            ("0.0.0.0", "::", Some(true), false),
            ("0.0.0.0", "::1", Some(false), false),
            // /proc does not tell; a possible holder is better named than nobody.
            ("0.0.0.0", "::", None, true),
            ("::", "0.0.0.0", None, false),
            ("::", "::", Some(true), true),
            ("::", "::1", Some(false), true),
            ("::1", "::", Some(true), true),
            ("::1", "fe80::1", Some(true), false),
        ] {
            let answer = conflicts(asked.parse().unwrap(), &held(holder, v6_only));
            assert_eq!(answer, want, "{asked} against {holder} {v6_only:?}");
        }
    }

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000   103        0 16621 1 0000000000000000 100 0 0 10 0
   1: 0100007F:18EB 0100007F:C350 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0000000000000000
";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:18EB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20011 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:18EB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20012 1 0000000000000000 100 0 0 10 0
";

    #[test]
    fn proc_tables_are_read() {
        let tcp = parse_proc(TCP, Protocol::Tcp).unwrap();
        assert_eq!(tcp.len(), 2);
        assert_eq!((tcp[0].address, tcp[0].port), (Ipv4Addr::LOCALHOST.into(), 6379));
        assert_eq!((tcp[0].uid, tcp[0].inode, tcp[0].listening, tcp[0].time_wait), (103, 16_621, true, false));
        assert_eq!((tcp[1].inode, tcp[1].listening, tcp[1].time_wait), (0, false, true));

        let tcp6 = parse_proc(TCP6, Protocol::Tcp).unwrap();
        assert_eq!(tcp6[0].address, IpAddr::from(Ipv6Addr::UNSPECIFIED));
        assert_eq!(tcp6[1].address, IpAddr::from(Ipv4Addr::LOCALHOST), "a mapped address is an IPv4 one");

        let udp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  17: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 18000 2 0000000000000000 0
";
        let udp = parse_proc(udp, Protocol::Udp).unwrap();
        assert_eq!((udp[0].port, udp[0].uid, udp[0].inode), (53, 101, 18_000));
    }

    #[test]
    fn a_listener_hides_its_own_connections() {
        let mut table = Table::default();
        table.entries.extend(parse_proc(TCP, Protocol::Tcp).unwrap().into_iter().map(|entry| (Protocol::Tcp, entry)));
        let ask = (Protocol::Tcp, Ipv4Addr::UNSPECIFIED.into(), 6379);
        assert_eq!(table.holders(ask).count(), 1);
        table.entries.remove(0);
        assert!(table.holders(ask).all(|entry| entry.time_wait));
        assert_eq!(table.holders((Protocol::Udp, Ipv4Addr::UNSPECIFIED.into(), 6379)).count(), 0);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in "\\PC{0,200}",
            line in "( *[0-9]+: [0-9A-F]{0,33}:[0-9A-F]{0,5} [0-9A-F]{8}:[0-9A-F]{4} [0-9A-F]{2} [0-9:A-F ]{0,80}\n){0,3}",
        ) {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let _ = parse_proc(&text, protocol);
                let _ = parse_proc(&format!("header\n{line}"), protocol);
            }
        }
    }
}
