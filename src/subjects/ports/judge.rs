//! From the kernel's answers, the sockets in the way, their processes and Docker's containers to how a port stands.

use std::fmt::Write as _;

use super::holder::{Holder, Holders, short};
use super::published::PublishedPorts;
use super::table::{Ask, Table};
use super::verdict::{self, Address, Standing};
use super::{Answer, Outcome, refused_any};
use crate::catalog::parameters::Protocol;
use crate::facts::Fact;
use crate::host::process;
use crate::host::sock_diag::Entry;
use crate::subjects::context::Context;

/// Processes that hold a port for a container: dockerd's and Podman's forwarders. `comm` is cut to 15 bytes.
const FORWARDERS: &[&str] = &[
    "docker-proxy",
    "dockerd",
    "rootlesskit",
    "rootlesskit-doc",
    "rootlessport",
    "containers-root",
    "conmon",
    "netavark",
    "slirp4netns",
    "pasta",
    "pasta.avx2",
    "passt",
    "passt.avx2",
];

/// All evidence of one run.
pub(crate) struct Judge<'a> {
    pub(crate) cx: &'a Context<'a>,
    pub(crate) table: Table,
    pub(crate) holders: Holders,
    pub(crate) published: PublishedPorts<'a>,
}

impl Judge<'_> {
    /// How the port stands, and whether it is held at all.
    pub(crate) fn facts(&self, outcome: &Outcome) -> (Fact, Fact) {
        let port = &outcome.port;
        let standings: Vec<Address> = outcome
            .answers
            .iter()
            .map(|(address, answer)| self.standing((port.protocol, *address, port.port), *answer))
            .collect();
        let mut source = "bind(2)".to_owned();
        if refused_any(outcome) {
            source = format!("bind(2), {}, /proc/PID/fd", self.table.source);
        }
        if self.published.has(port.protocol, port.port) {
            source.push_str(", GET /containers/json");
        }
        (verdict::fact(port.port, &standings, &source), verdict::in_use(port.port, &standings, &source))
    }

    /// How an address stands, under the address of whoever holds it where that is another one: 127.0.0.1 and \[::] are
    /// both in the way of 0.0.0.0.
    pub(crate) fn standing(&self, ask: Ask, answer: Answer) -> Address {
        let (_, address, port) = ask;
        let standing = match answer {
            // With the userland proxy off, older engines publish by packet rules alone and bind nothing.
            Answer::Free => self.published_on(ask).unwrap_or(Standing::Free),
            Answer::InUse => return self.held(ask),
            Answer::NotPermitted => return self.not_permitted(ask),
            Answer::NoFamily if address.is_unspecified() => Standing::Skipped,
            Answer::NotOurAddress | Answer::NoFamily => Standing::NotOurs,
            Answer::Failed(errno) => {
                Standing::Unknown { what: format!("the kernel refused port {port} with {errno}"), help: None }
            }
        };
        (address, standing)
    }

    /// The kernel said "in use".
    fn held(&self, ask: Ask) -> Address {
        let (protocol, address, port) = ask;
        let entries: Vec<&Entry> = self.table.holders(ask).collect();
        if !entries.is_empty() {
            return self.worst(ask, entries);
        }
        let standing = if let Some(standing) = self.published_on(ask) {
            standing
        } else if Answer::ask(address, port, protocol) == Answer::Free {
            // The holder has gone since.
            Standing::Free
        } else {
            self.invisible("in use by a socket that is not visible".into())
        };
        (address, standing)
    }

    /// The kernel did not say. Whoever listens there holds the port all the same; sockets that do not listen may or may
    /// not be in the way.
    fn not_permitted(&self, ask: Ask) -> Address {
        let (protocol, address, port) = ask;
        let listening = |entry: &&Entry| entry.listening || protocol == Protocol::Udp;
        let entries: Vec<&Entry> = self.table.holders(ask).filter(listening).collect();
        if !entries.is_empty() {
            return self.worst(ask, entries);
        }
        let standing = self.published_on(ask).unwrap_or_else(|| Standing::Unknown {
            what: format!("not permitted to ask for port {port}"),
            help: Some(if process::is_root() {
                "a security policy (SELinux, AppArmor, seccomp) refuses the bind: look into its log"
            } else {
                "run as root"
            }),
        });
        (address, standing)
    }

    /// Several sockets may stand in the way of a wildcard; one of a stranger is enough.
    fn worst(&self, ask: Ask, entries: Vec<&Entry>) -> Address {
        let own = |entry: &Entry| entry.address.to_canonical();
        let standings = entries.into_iter().map(|entry| (own(entry), self.held_by_socket(ask, entry)));
        standings.max_by_key(|(_, standing)| standing.rank()).unwrap_or((ask.1, Standing::Free))
    }

    fn held_by_socket(&self, ask: Ask, entry: &Entry) -> Standing {
        if entry.time_wait {
            return Standing::Taken("held for up to 60 s by a closed connection (TIME_WAIT)".into());
        }
        match self.holders.get(entry.inode) {
            Some(holder) => self.held_by_process(ask, entry, holder),
            None if entry.inode == 0 && entry.listening => Standing::Taken("held by the kernel itself".into()),
            None if entry.inode == 0 => Standing::Taken("held by a connection that is closing".into()),
            None => self.published_on(ask).unwrap_or_else(|| {
                let user = self.holders.user(entry.uid);
                self.invisible(format!("held by a process of user {user} that is not visible"))
            }),
        }
    }

    pub(crate) fn held_by_process(&self, ask: Ask, entry: &Entry, holder: &Holder) -> Standing {
        let container = holder.belongs.container.as_deref();
        let text = format!("held by {}", self.describe(holder));
        if !entry.listening && ask.0 == Protocol::Tcp {
            // A client's connection that got this port by chance is in the way, whoever's it is.
            return Standing::Taken(format!("{text}, which does not listen"));
        }
        if FORWARDERS.contains(&holder.name.as_str()) {
            if let Some(standing) = self.published_on(ask) {
                return standing;
            }
            return match self.published.unknown() {
                None => Standing::Taken(format!("{text}, which serves no running container,")),
                Some(why) => Standing::Held {
                    what: format!("{text} for a container that Docker could not name ({})", short(why)),
                    help: Some("run as root with Docker reachable"),
                },
            };
        }
        let ours = self.is_workload_process(&holder.name)
            || container.is_some_and(|id| self.published.is_workload(id, self.cx.parameters.list("workload_images")));
        if ours { Standing::Ours(text) } else { Standing::Taken(text) }
    }

    fn invisible(&self, what: String) -> Standing {
        let help = if process::is_root() && !self.holders.some_hidden {
            "its process is outside this PID namespace: run on the host itself"
        } else {
            "run as root to see whether it is the workload itself"
        };
        Standing::Held { what, help: Some(help) }
    }

    /// The container that publishes this port on an address in the way. Its forwarder's pid is left out: one container
    /// has one per family, and ending it is not how the port gets free.
    fn published_on(&self, ask: Ask) -> Option<Standing> {
        let container = self.published.on(ask)?;
        let text = format!("published by container {} (image {})", short(&container.name), short(&container.image));
        let ours = container.is_workload(self.cx.parameters.list("workload_images"));
        Some(if ours { Standing::Ours(text) } else { Standing::Taken(text) })
    }

    /// By name, as far as the kernel keeps it (`TASK_COMM_LEN` is 16 with the final NUL).
    pub(crate) fn is_workload_process(&self, name: &str) -> bool {
        let wanted = self.cx.parameters.list("workload_processes");
        wanted.iter().any(|want| want == name || (name.len() == 15 && want.as_bytes().starts_with(name.as_bytes())))
    }

    /// `nginx (pid 812, user root, unit nginx.service)`.
    fn describe(&self, holder: &Holder) -> String {
        let name = if holder.name.is_empty() { "a process" } else { &holder.name };
        let mut text = format!("{} (pid {}", short(name), holder.pid);
        if !holder.user.is_empty() {
            let _ = write!(text, ", user {}", holder.user);
        }
        if let Some(id) = &holder.belongs.container {
            let _ = write!(text, ", container {}", self.published.name(id));
        }
        if let Some(unit) = &holder.belongs.unit {
            let _ = write!(text, ", unit {}", short(unit));
        }
        text.push(')');
        text
    }
}
