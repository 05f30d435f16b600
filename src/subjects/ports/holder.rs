//! From a socket's inode to the process that holds it: pid, name, user, unit or container.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use super::cgroup::{self, Belongs};
use crate::host::{Host, process};

/// Services open their listening sockets first, so these file numbers answer nearly always. Looking only at them spares
/// the walk over the tens of thousands of connections that a busy server has open.
const FIRST_FILES: std::ops::Range<i32> = 0..64;

/// More unused numbers in a row end the first look: a process's files are dense at the low end.
const MAX_GAP: u32 = 4;

/// Names are somebody else's text: a note carries at most this many characters of one.
const MAX_NAME_CHARS: usize = 64;

/// A process that holds a socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: i32,
    /// `comm`, cut to 15 bytes by the kernel.
    pub(crate) name: String,
    pub(crate) user: String,
    pub(crate) belongs: Belongs,
}

/// Who holds the sockets that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    by_inode: BTreeMap<u64, Holder>,
    users: BTreeMap<u32, String>,
    /// Whether some process may not be looked into: an unnamed socket may then be its.
    pub(crate) some_hidden: bool,
}

impl Holders {
    /// `sockets` are inode and user of each socket.
    pub(crate) fn find(host: &Host, sockets: &BTreeSet<(u64, u32)>) -> Self {
        let mut holders = Self::default();
        if sockets.is_empty() {
            return holders;
        }
        holders.users = host.read_text("/etc/passwd").map(|text| parse_passwd(&text)).unwrap_or_default();
        let mut search = Search {
            wanted: sockets.iter().map(|(inode, _)| *inode).filter(|inode| *inode != 0).collect(),
            ..Search::default()
        };
        let users: BTreeSet<u32> = sockets.iter().map(|(_, user)| *user).collect();
        search.run(&users);
        holders.some_hidden = search.some_hidden;
        holders.describe(host, &search.found);
        holders
    }

    pub(crate) fn get(&self, inode: u64) -> Option<&Holder> {
        self.by_inode.get(&inode)
    }

    /// The name of a user, or `uid 1234`.
    pub(crate) fn user(&self, uid: u32) -> String {
        self.users.get(&uid).map_or_else(|| format!("uid {uid}"), |name| short(name))
    }

    fn describe(&mut self, host: &Host, found: &BTreeMap<u64, i32>) {
        let pids: BTreeSet<i32> = found.values().copied().collect();
        let names = names(&pids);
        let of_pid: BTreeMap<i32, Holder> = pids
            .into_iter()
            .map(|pid| {
                // A process that ends in between keeps its pid and loses the rest.
                let text = host.read_text(format!("/proc/{pid}/cgroup")).unwrap_or_default();
                let user = process::owner(pid).map(|uid| self.user(uid)).unwrap_or_default();
                let name = names.get(&pid).cloned().unwrap_or_default();
                (pid, Holder { pid, name, user, belongs: cgroup::parse(&text) })
            })
            .collect();
        for (inode, pid) in found {
            if let Some(holder) = of_pid.get(pid) {
                self.by_inode.insert(*inode, holder.clone());
            }
        }
    }
}

/// The walk over the processes.
#[derive(Debug, Default)]
struct Search {
    wanted: BTreeSet<u64>,
    found: BTreeMap<u64, i32>,
    some_hidden: bool,
}

impl Search {
    /// Processes of the sockets' users first, the parent before its workers, and the init process last: with socket
    /// activation it holds the socket of a service that holds it too.
    fn run(&mut self, users: &BTreeSet<u32>) {
        let mut pids = process::ids().unwrap_or_default();
        let others = |pid: &i32| !process::owner(*pid).is_some_and(|uid| users.contains(&uid));
        pids.sort_by_cached_key(|pid| (*pid == 1, others(pid), *pid));
        let is_root = process::is_root();
        // Those whose files beyond the first ones are still to be looked at. Without root, only a process of a socket's
        // own user is worth that: one's own server with 50,000 connections does not hold root's socket.
        let mut rest = Vec::new();
        for pid in pids {
            if self.wanted.is_empty() {
                return;
            }
            if self.look_at_first_files(pid) && (is_root || !others(&pid)) {
                rest.push(pid);
            }
        }
        for pid in rest {
            for fd in process::open_files(pid).unwrap_or_default() {
                if self.wanted.is_empty() {
                    return;
                }
                self.look_at(pid, fd).unwrap_or_default();
            }
        }
    }

    /// False when the process may not be looked into.
    fn look_at_first_files(&mut self, pid: i32) -> bool {
        let mut gap = 0;
        for fd in FIRST_FILES {
            match self.look_at(pid, fd) {
                Ok(()) => gap = 0,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    self.some_hidden = true;
                    return false;
                }
                // No standard input: a kernel thread, which has no files at all. Half of a host's processes are such.
                Err(_) if fd == 0 => break,
                Err(_) => gap += 1,
            }
            if self.wanted.is_empty() || gap > MAX_GAP {
                break;
            }
        }
        true
    }

    fn look_at(&mut self, pid: i32, fd: i32) -> io::Result<()> {
        if let Some(inode) = process::socket_inode(pid, fd)?
            && self.wanted.remove(&inode)
        {
            self.found.insert(inode, pid);
        }
        Ok(())
    }
}

fn names(pids: &BTreeSet<i32>) -> BTreeMap<i32, String> {
    let Ok(mut system) = System::new() else { return BTreeMap::new() };
    let wanted: Vec<Pid> = pids.iter().filter_map(|pid| u32::try_from(*pid).ok()).map(Pid::from_u32).collect();
    let kind = ProcessRefreshKind::nothing().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&wanted), false, kind);
    pids.iter()
        .filter_map(|pid| {
            let process = system.process(Pid::from_u32(u32::try_from(*pid).ok()?))?;
            Some((*pid, process.name().to_string_lossy().into_owned()))
        })
        .collect()
}

/// The users of passwd(5), by id; the first entry of an id names it, as getpwuid(3) does. Read here since a static
/// binary must not load name service modules; a user known only to a directory service is shown by number.
pub fn parse_passwd(text: &str) -> BTreeMap<u32, String> {
    let mut users = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(uid))) = (fields.next(), fields.nth(1).map(str::parse)) {
            users.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    users
}

/// At most [`MAX_NAME_CHARS`] characters of a name.
pub(crate) fn short(name: &str) -> String {
    match name.char_indices().nth(MAX_NAME_CHARS) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn users_are_named() {
        let users =
            parse_passwd("root:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/:\n# comment\nredis:x:103:1::/:\nbad\n");
        assert_eq!(users.get(&0).map(String::as_str), Some("root"));
        assert_eq!(users.get(&103).map(String::as_str), Some("redis"));
        assert_eq!(users.len(), 2);
    }

    /// Fails when the second look (`rest` in `Search::run`) is left out: the socket's number is beyond the first ones.
    #[test]
    fn a_socket_opened_late_is_found_too() {
        let _filler: Vec<TcpListener> = (0..80).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!FIRST_FILES.contains(&listener.as_raw_fd()));
        let inode = process::socket_inode(own, listener.as_raw_fd()).unwrap().unwrap();
        let uid = process::owner(own).unwrap();
        let holders = Holders::find(&Host::live(), &BTreeSet::from([(inode, uid)]));
        assert_eq!(holders.get(inode).map(|holder| holder.pid), Some(own));
        assert!(!holders.get(inode).unwrap().name.is_empty());
    }

    proptest! {
        #[test]
        fn any_passwd_is_read(text in "\\PC{0,80}", lines in "([a-z:0-9]{0,20}\n){0,4}") {
            let _ = (parse_passwd(&text), parse_passwd(&lines));
        }

        #[test]
        fn names_are_cut(name in "\\PC{0,100}") {
            prop_assert!(short(&name).chars().count() <= MAX_NAME_CHARS + 1);
            prop_assert!(name.starts_with(short(&name).trim_end_matches('…')) || name.contains('…'));
        }
    }
}
