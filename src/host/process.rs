//! Other processes: which there are, whose they are, and which sockets they have open.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

/// The ids of all processes this process can see, ascending.
pub fn ids() -> io::Result<Vec<i32>> {
    let mut ids = numbers("/proc")?;
    ids.sort_unstable();
    Ok(ids)
}

/// Whether a process runs whose command line ends in these words, as in `/usr/bin/python3 /usr/sbin/ufw WORDS`.
pub fn is_running(words: &[String]) -> bool {
    let ending: Vec<u8> = words.iter().flat_map(|word| word.bytes().chain([0])).collect();
    let host = super::Host::live();
    ids()
        .unwrap_or_default()
        .into_iter()
        .any(|pid| host.read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(&ending)))
}

/// Whether this process has root's rights over other users' processes.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The effective user of a process: the owner of its folder in /proc (proc(5)).
pub fn owner(pid: i32) -> Option<u32> {
    #[expect(clippy::disallowed_methods, reason = "this is host")]
    fs::metadata(format!("/proc/{pid}")).ok().map(|metadata| metadata.uid())
}

/// The numbers of a process's open files. Refused for a process of another user.
pub fn open_files(pid: i32) -> io::Result<Vec<i32>> {
    numbers(&format!("/proc/{pid}/fd"))
}

/// The inode of the socket that is open under a number; `None` for something else than a socket.
pub fn socket_inode(pid: i32, fd: i32) -> io::Result<Option<u64>> {
    let target = fs::read_link(format!("/proc/{pid}/fd/{fd}"))?;
    Ok(target.to_str().and_then(parse_socket_link))
}

/// `socket:[12345]`, as /proc/PID/fd shows it.
pub fn parse_socket_link(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn numbers(folder: &str) -> io::Result<Vec<i32>> {
    #[expect(clippy::disallowed_methods, reason = "this is host")]
    let entries = fs::read_dir(folder)?;
    let mut found = Vec::new();
    for entry in entries {
        found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn own_sockets_are_found() {
        use std::os::fd::AsRawFd as _;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(ids().unwrap().contains(&own) && owner(own).is_some());
        let fd = listener.as_raw_fd();
        assert!(open_files(own).unwrap().contains(&fd));
        assert!(socket_inode(own, fd).unwrap().is_some());
        assert_eq!(socket_inode(own, 999_999).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    proptest! {
        #[test]
        fn only_sockets_have_an_inode(text in "\\PC{0,20}", inode in any::<u64>()) {
            prop_assert_eq!(parse_socket_link(&format!("socket:[{inode}]")), Some(inode));
            prop_assert_eq!(parse_socket_link(&format!("pipe:[{inode}]")), None);
            let _ = parse_socket_link(&text);
        }
    }
}
