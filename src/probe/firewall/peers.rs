//! Who would be shut out: who is connected to the workload now, and whether sshd listens on one of its ports. Walks all
//! connections and all processes, so only a plan that closes something asks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::connections;
use crate::catalog::parameters::Protocol;
use crate::firewall::intent::Intent;
use crate::host::sock_diag::{self, Entry, Family, Which};
use crate::host::{Host, describe, nfnetlink, process};

const PATIENCE: Duration = Duration::from_secs(5);

/// Programs that let people in; the init process holds the socket where it starts one of them by connection.
const SSHD: [&str; 5] = ["sshd", "dropbear", "tinysshd", "systemd", "init"];

/// What was found; an error where it could not be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Ports of the workload that sshd listens on.
    pub sshd: Result<BTreeSet<u16>, String>,
    /// `203.0.113.9 (port 6379)`: connected now, and not allowed.
    pub peers: Result<BTreeSet<String>, String>,
}

/// Looks at the network namespace of the calling thread.
pub fn look(host: &Host, intent: &Intent) -> Connected {
    Connected { sshd: sshd(host, intent), peers: peers(host, intent) }
}

fn dump(which: Which) -> Result<Vec<Entry>, String> {
    let mut all = Vec::new();
    for family in [Family::V4, Family::V6] {
        match sock_diag::dump(family, Protocol::Tcp, which) {
            Ok(entries) => all.extend(entries),
            // A kernel without IPv6.
            Err(error) if family == Family::V6 && error.raw_os_error() == Some(nix::libc::ENOENT) => {}
            Err(error) => return Err(format!("sock_diag: {}", describe(&error))),
        }
    }
    Ok(all)
}

fn sshd(host: &Host, intent: &Intent) -> Result<BTreeSet<u16>, String> {
    let listeners = dump(Which::Listening)?.into_iter().filter(|entry| intent.tcp.contains(entry.port));
    let mut wanted: BTreeMap<u64, u16> = listeners.map(|entry| (entry.inode, entry.port)).collect();
    if wanted.is_empty() {
        return Ok(BTreeSet::new());
    }
    if !process::is_root() {
        return Err("only root sees who listens there".to_owned());
    }
    let mut found = BTreeSet::new();
    for pid in process::ids() {
        let Ok(name) = host.read_text(format!("/proc/{pid}/comm")) else { continue };
        let name = name.trim();
        if !SSHD.iter().any(|known| name == *known || name.starts_with("sshd-")) {
            continue;
        }
        for fd in process::open_files(pid).unwrap_or_default() {
            if let Ok(Some(inode)) = process::socket_inode(pid, fd)
                && let Some(port) = wanted.remove(&inode)
            {
                found.insert(port);
            }
        }
    }
    Ok(found)
}

/// Sockets of this host, and connections that are sent on to containers.
fn peers(host: &Host, intent: &Intent) -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    let mut add = |peer: std::net::IpAddr, port: u16| {
        if intent.tcp.contains(port) && !peer.is_loopback() && !intent.allows(peer) {
            found.insert(format!("{peer} (port {port})"));
        }
    };
    let entries = dump(Which::Established)?;
    // A connection of the host with itself has both ends here; the guard lets loopback through, whatever the address.
    let own: BTreeSet<_> = entries.iter().map(|entry| entry.address).collect();
    let outside = entries.iter().filter_map(|entry| Some((entry.peer.filter(|peer| !own.contains(peer))?, entry.port)));
    outside.for_each(|(peer, port)| add(peer, port));
    // Asked for its connections, the kernel walks the whole table, which takes ten milliseconds when it is empty, too.
    if tracks_none(host) {
        return Ok(found);
    }
    let mut each = |message: &[u8]| {
        for connection in connections::parse(message).iter().filter(|connection| connection.is_established()) {
            let source = connection.original.source;
            if !own.contains(&source) {
                add(source, connection.original.destination_port);
            }
        }
    };
    nfnetlink::connections(PATIENCE, &mut each).map_err(|error| format!("nf_conntrack: {}", describe(&error)))?;
    Ok(found)
}

/// Whether the kernel says that it tracks no connection of this network namespace.
fn tracks_none(host: &Host) -> bool {
    host.read_text("/proc/sys/net/netfilter/nf_conntrack_count").is_ok_and(|text| text.trim() == "0")
}
