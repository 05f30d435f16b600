//! Probes: the code that gathers facts, one file per source. Nothing else reads the host.
//!
//! A probe is asked for the facts it [wants](Want), never for more: a fact that no selected check uses costs nothing.
//! It never fails; what it cannot read it inserts as unknown.

pub mod cgroup;
pub mod cgroup_limits;
pub mod clocksource;
pub mod conf_dirs;
pub mod conntrack;
pub mod containers;
pub mod cpu;
pub mod deep;
pub mod disk;
pub mod docker;
pub mod docker_boot;
pub mod firewall;
pub mod gather;
pub mod host_container;
pub mod identity;
pub mod kernel;
pub mod main_process;
pub mod memory;
pub mod mounts;
pub mod os_release;
pub mod pam_limits;
pub mod port;
pub mod process_limits;
pub mod service;
pub mod sysctl;
pub mod thp;
pub mod time;
pub mod tmpfiles;
pub mod tools;
pub mod tuned;
pub mod tuned_profile;
pub mod units;

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ops::Bound;

use self::mounts::Mount;
use self::sysctl::boot::Sources;
use self::tuned::Tuned;
use self::units::BootFolders;
use crate::catalog::os::{OsProfile, SysctlLoader};
use crate::catalog::parameters::Parameters;
use crate::facts::Facts;
use crate::host::{Host, ReadError};

/// The ids that the selected checks need.
#[derive(Debug, Clone, Default)]
pub struct Want(BTreeSet<String>);

impl Want {
    pub fn new(ids: impl IntoIterator<Item = String>) -> Self {
        Self(ids.into_iter().collect())
    }

    pub fn has(&self, id: &str) -> bool {
        self.0.contains(id)
    }

    /// The wanted ids of a family, without the prefix: `Want::family("sysctl.")`.
    pub fn family<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let from_the_first = self.0.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from_the_first.map_while(move |id| id.strip_prefix(prefix))
    }

    pub fn any(&self, prefix: &str) -> bool {
        self.family(prefix).next().is_some()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// What every probe is given.
#[derive(Debug)]
pub struct Context<'a> {
    pub host: &'a Host,
    pub want: &'a Want,
    pub parameters: &'a Parameters,
    pub os: &'a OsProfile,
    // What several probes look at, read when the first one asks: each run has a context of its own.
    mounts: OnceCell<Result<Vec<Mount>, ReadError>>,
    tuned: OnceCell<Result<Option<Tuned>, ReadError>>,
    boot_folders: OnceCell<BootFolders>,
    membership: OnceCell<Result<Option<String>, ReadError>>,
    command_line: OnceCell<String>,
    boot_sources: OnceCell<Result<Sources, ReadError>>,
    sysctl_loader: OnceCell<SysctlLoader>,
}

impl<'a> Context<'a> {
    pub fn new(host: &'a Host, want: &'a Want, parameters: &'a Parameters, os: &'a OsProfile) -> Self {
        Self {
            host,
            want,
            parameters,
            os,
            mounts: OnceCell::new(),
            tuned: OnceCell::new(),
            boot_folders: OnceCell::new(),
            membership: OnceCell::new(),
            command_line: OnceCell::new(),
            boot_sources: OnceCell::new(),
            sysctl_loader: OnceCell::new(),
        }
    }

    /// The mount table of this process; empty without /proc.
    pub fn mounts(&self) -> Result<&[Mount], ReadError> {
        match self.mounts.get_or_init(|| mounts::read(self.host)) {
            Ok(mounts) => Ok(mounts),
            Err(error) => Err(error.clone()),
        }
    }

    /// What tuned does at boot; `None` when it is not there or does not start.
    pub fn tuned(&self) -> Result<Option<&Tuned>, ReadError> {
        match self.tuned.get_or_init(|| tuned::load(self.host, || self.boot_folders())) {
            Ok(tuned) => Ok(tuned.as_ref()),
            Err(error) => Err(error.clone()),
        }
    }

    /// What applies the files of `sysctl.d` and `tmpfiles.d` at boot.
    pub fn sysctl_loader(&self) -> SysctlLoader {
        *self.sysctl_loader.get_or_init(|| sysctl::loader(self.host, self.os.sysctl_loader))
    }

    /// Where it stands what the service manager starts at boot.
    pub fn boot_folders(&self) -> &BootFolders {
        self.boot_folders.get_or_init(|| BootFolders::read(self.host))
    }

    /// The control groups of this process, as the kernel lists them; `None` where it has none.
    pub fn membership(&self) -> Result<Option<&str>, ReadError> {
        match self.membership.get_or_init(|| cgroup::membership(self.host)) {
            Ok(text) => Ok(text.as_deref()),
            Err(error) => Err(error.clone()),
        }
    }

    /// What the settings of the next boot come from.
    pub fn boot_sources(&self) -> &Result<Sources, ReadError> {
        self.boot_sources.get_or_init(|| sysctl::sources_of_run(self))
    }

    /// The same, for whoever goes on where the probes end; `None` where none of them asked.
    pub fn into_boot_sources(self) -> Option<Result<Sources, ReadError>> {
        self.boot_sources.into_inner()
    }

    /// The kernel's command line; empty where it cannot be read.
    pub fn command_line(&self) -> &str {
        self.command_line.get_or_init(|| command_line(self.host))
    }
}

fn command_line(host: &Host) -> String {
    host.read_text("/proc/cmdline").unwrap_or_default()
}

/// A probe: inserts the wanted facts of its family.
pub type Probe = fn(&Context<'_>, &mut Facts);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test builds the root it reads")]
mod tests {
    use super::*;
    use crate::catalog::library;

    /// What several probes look at is read for the first of them, and is the same for all. Seen failing with the command
    /// line, the groups and the folders read by each.
    #[test]
    fn a_run_reads_once_what_several_probes_look_at() {
        let root = tempfile::tempdir().unwrap();
        let wants = "etc/systemd/system/multi-user.target.wants";
        for (path, text) in [("proc/cmdline", "quiet\n"), ("proc/self/cgroup", "0::/a\n"), (wants, "")] {
            std::fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
            if !text.is_empty() {
                std::fs::write(root.path().join(path), text).unwrap();
            }
        }
        std::fs::create_dir(root.path().join(wants)).unwrap();
        std::fs::write(root.path().join(wants).join("docker.service"), "").unwrap();
        let (host, want, parameters) = (Host::at_root(root.path()), Want::default(), Parameters::default());
        let seen = |cx: &Context<'_>| {
            let groups = cx.membership().unwrap().map(str::to_owned);
            (cx.command_line().to_owned(), groups, cx.boot_folders().clone())
        };
        let cx = Context::new(&host, &want, &parameters, library::os_profile("debian", &[]));
        let first = seen(&cx);
        assert!(first.2.start(&host, "docker") && !first.2.start(&host, "tuned"));
        std::fs::remove_dir_all(root.path().join("proc")).unwrap();
        std::fs::remove_dir_all(root.path().join("etc")).unwrap();
        assert_eq!(seen(&cx), first);
        let later = Context::new(&host, &want, &parameters, library::os_profile("debian", &[]));
        assert_ne!(seen(&later), first, "another run looks anew");
    }
}
