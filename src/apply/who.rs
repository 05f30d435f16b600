//! Who asked for it, and over which connection: for the audit log, and so that a confirm can prove that a *new*
//! connection still gets in.

use std::path::PathBuf;

use nix::unistd::{getpid, getuid};
use procfs_core::net::{TcpNetEntries, TcpState};
use procfs_core::process::Stat;
use procfs_core::{ExplicitSystemInfo, FromBufReadSI as _, FromRead as _};
use serde::{Deserialize, Serialize};

use crate::host::{Host, env};

/// A session seldom nests deeper; a damaged process table must not loop forever.
const MAX_ANCESTORS: usize = 64;

/// The socket tables print addresses in the machine's byte order; nothing else here is used.
const BYTE_ORDER: ExplicitSystemInfo = ExplicitSystemInfo {
    boot_time_secs: 0,
    ticks_per_second: 100,
    page_size: 4096,
    is_little_endian: cfg!(target_endian = "little"),
};

/// The person behind a record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Who {
    pub uid: u32,
    /// `SUDO_USER`: whom sudo says it was. A note for the log, not a proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_user: Option<String>,
    /// The SSH connection, as `10.0.0.5:51234>10.0.0.1:22`, from the socket of the sshd among our ancestors: sudo
    /// strips `SSH_CONNECTION`, and a tmux would carry a stale one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<String>,
}

impl Who {
    /// This process. Nothing here fails: what cannot be found is left out.
    pub fn this_process(host: &Host) -> Self {
        Self {
            uid: getuid().as_raw(),
            sudo_user: env::text("SUDO_USER").map(|name| name.chars().take(64).collect()),
            ssh: host.is_live().then(|| connection(host, getpid().as_raw())).flatten(),
        }
    }

    /// An action of preflight's own: the timer, the boot unit.
    pub fn automatic() -> Self {
        Self { uid: getuid().as_raw(), sudo_user: None, ssh: None }
    }
}

/// The connection of the nearest sshd above a process.
fn connection(host: &Host, pid: i32) -> Option<String> {
    let mut pid = pid;
    for _ in 0..MAX_ANCESTORS {
        let stat = Stat::from_read(host.read(format!("/proc/{pid}/stat")).ok()?.as_slice()).ok()?;
        // `sshd-session` since OpenSSH 9.8.
        let is_sshd = stat.comm == "sshd" || stat.comm.starts_with("sshd-");
        if is_sshd && let Some(found) = established(host, pid) {
            return Some(found);
        }
        if stat.ppid <= 1 {
            return None;
        }
        pid = stat.ppid;
    }
    None
}

/// The established TCP connection that a process holds.
fn established(host: &Host, pid: i32) -> Option<String> {
    let folder = PathBuf::from(format!("/proc/{pid}/fd"));
    let inodes: Vec<u64> = host
        .list(&folder)
        .ok()?
        .iter()
        .filter_map(|name| host.link_target(folder.join(name)))
        .filter_map(|target| socket_inode(target.to_str()?))
        .collect();
    ["tcp", "tcp6"].iter().find_map(|table| {
        let text = host.read(format!("/proc/{pid}/net/{table}")).ok()?;
        let entries = TcpNetEntries::from_buf_read(text.as_slice(), &BYTE_ORDER).ok()?;
        let entry =
            entries.0.iter().find(|entry| entry.state == TcpState::Established && inodes.contains(&entry.inode))?;
        Some(format!("{}>{}", entry.remote_address, entry.local_address))
    })
}

/// The number in `socket:[12345]`.
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test builds the process table it reads")]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn process(root: &Path, pid: i32, comm: &str, parent: i32) -> PathBuf {
        let folder = root.join(format!("proc/{pid}"));
        fs::create_dir_all(folder.join("fd")).unwrap();
        fs::create_dir_all(folder.join("net")).unwrap();
        let rest = "0 ".repeat(48);
        fs::write(folder.join("stat"), format!("{pid} ({comm}) S {parent} {rest}\n")).unwrap();
        folder
    }

    /// By fixture: the process table of `sshd-session` > `bash` > `sudo` > us, with two sockets, one of them listening.
    #[test]
    fn the_connection_is_that_of_the_sshd_above_us() {
        let root = tempfile::tempdir().unwrap();
        process(root.path(), 40, "preflight", 30);
        process(root.path(), 30, "sudo", 20);
        process(root.path(), 20, "bash", 10);
        let sshd = process(root.path(), 10, "sshd-session", 1);
        symlink("socket:[777]", sshd.join("fd/4")).unwrap();
        symlink("/dev/null", sshd.join("fd/0")).unwrap();
        fs::write(
            sshd.join("net/tcp"),
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100000A:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 776 1 0 100 0 0 10 0\n\
             1: 0100000A:0016 0500000A:C832 01 00000000:00000000 00:00000000 00000000     0        0 777 1 0 100 0 0 10 0\n",
        )
        .unwrap();
        let host = Host::at_root(root.path());
        assert_eq!(connection(&host, 40).as_deref(), Some("10.0.0.5:51250>10.0.0.1:22"));
        fs::remove_file(sshd.join("fd/4")).unwrap();
        assert_eq!(connection(&host, 40), None, "somebody else's connection was taken for ours");
    }

    #[test]
    fn only_a_socket_link_has_an_inode() {
        assert_eq!(socket_inode("socket:[12345]"), Some(12345));
        for link in ["pipe:[1]", "socket:[", "socket:[x]", "/dev/null", ""] {
            assert_eq!(socket_inode(link), None);
        }
    }
}
