//! What the service manager starts and has started, told from its files: no program is run and no bus is asked.

use std::path::Path;

use crate::host::{Host, ReadError};

/// In the order in which systemd looks (systemd.unit(5)).
pub const UNIT_FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The folders whose entries the service manager starts at boot. A run asks for several services and looks for the folders
/// once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFolders {
    systemd: Vec<String>,
    openrc: Vec<String>,
}

impl BootFolders {
    pub fn read(host: &Host) -> Self {
        Self {
            systemd: folders(host, "/etc/systemd/system", &[".wants", ".requires"]),
            openrc: folders(host, "/etc/runlevels", &[""]),
        }
    }

    /// Whether a service of that name starts at boot, under systemd or OpenRC. A unit that is masked never does.
    pub fn start(&self, host: &Host, name: &str) -> bool {
        self.start_unit(host, &format!("{name}.service")) || has_entry(host, &self.openrc, name)
    }

    /// Whether systemd starts a unit at boot: a service, or a socket behind which one waits.
    pub fn start_unit(&self, host: &Host, unit: &str) -> bool {
        let is_masked = ["/etc/systemd/system", "/run/systemd/system"]
            .iter()
            .any(|folder| host.link_target(format!("{folder}/{unit}")).is_some_and(|to| to == Path::new("/dev/null")));
        !is_masked && has_entry(host, &self.systemd, unit)
    }
}

/// [`BootFolders::start`] for one that asks once.
pub fn is_enabled(host: &Host, name: &str) -> bool {
    BootFolders::read(host).start(host, name)
}

/// The folders below a directory that end so.
fn folders(host: &Host, directory: &str, suffixes: &[&str]) -> Vec<String> {
    let names = host.list(directory).unwrap_or_default();
    let names = names.iter().filter_map(|name| name.to_str());
    let chosen = names.filter(|name| suffixes.iter().any(|suffix| name.ends_with(suffix)));
    chosen.map(|name| format!("{directory}/{name}")).collect()
}

/// Whether a name stands in one of the folders, wherever a link of that name leads.
fn has_entry(host: &Host, folders: &[String], name: &str) -> bool {
    folders.iter().any(|folder| host.has_entry(format!("{folder}/{name}")))
}

/// Whether the service manager says that a service is started. systemd keeps a link per unit from its start until it is
/// inactive again (`unit_export_invocation_id` and `unit_unlink_state_files` in src/core/unit.c), OpenRC one per started
/// service.
pub fn is_started(host: &Host, name: &str) -> bool {
    let links = [format!("/run/systemd/units/invocation:{name}.service"), format!("/run/openrc/started/{name}")];
    links.iter().any(|link| host.link_target(link).is_some())
}

/// The text of a service's unit file or, under OpenRC, of its script, with its path.
pub fn definition(host: &Host, name: &str) -> Result<Option<(String, String)>, ReadError> {
    let units = UNIT_FOLDERS.map(|folder| format!("{folder}/{name}.service"));
    for path in units.into_iter().chain([format!("/etc/init.d/{name}")]) {
        if let Some(text) = host.read_optional(&path)? {
            return Ok(Some((path, text)));
        }
    }
    Ok(None)
}

/// Whether systemd is this host's init system and runs (sd_booted(3)).
pub fn runs_systemd(host: &Host) -> bool {
    host.is_live() && host.metadata("/run/systemd/system").is_ok_and(|found| found.is_dir())
}

/// Whether the process that a file names runs, and is called so.
pub fn is_running(host: &Host, pid_file: &str, comm: &str) -> bool {
    let pid = host.read_text(pid_file).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let name = pid.and_then(|pid| host.read_text(format!("/proc/{pid}/comm")).ok());
    name.is_some_and(|name| name.trim_end() == comm)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the files they read")]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        for folder in [
            "etc/systemd/system/multi-user.target.wants",
            "etc/runlevels/default",
            "run/systemd/units",
            "run/openrc/started",
            "proc/70",
        ] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let host = Host::at_root(root.path());
        (root, host)
    }

    #[test]
    fn a_link_makes_a_service_start_and_a_mask_does_not_let_it() {
        let (root, host) = root();
        assert!(!is_enabled(&host, "nftables") && !is_started(&host, "nftables"));
        let etc = root.path().join("etc/systemd/system");
        // Dangling on purpose: the unit itself is elsewhere.
        symlink("/lib/systemd/system/nftables.service", etc.join("multi-user.target.wants/nftables.service")).unwrap();
        assert!(is_enabled(&host, "nftables") && !is_enabled(&host, "ufw"));
        symlink("/dev/null", etc.join("nftables.service")).unwrap();
        assert!(!is_enabled(&host, "nftables"));
        symlink("/etc/init.d/ufw", root.path().join("etc/runlevels/default/ufw")).unwrap();
        assert!(is_enabled(&host, "ufw"));
    }

    #[test]
    fn what_is_started_is_told_from_the_managers_own_links() {
        let (root, host) = root();
        symlink("0123", root.path().join("run/systemd/units/invocation:nftables.service")).unwrap();
        symlink("/etc/init.d/iptables", root.path().join("run/openrc/started/iptables")).unwrap();
        assert!(is_started(&host, "nftables") && is_started(&host, "iptables") && !is_started(&host, "ufw"));
    }

    #[test]
    fn a_pid_file_of_somebody_else_is_no_proof() {
        let (root, host) = root();
        std::fs::write(root.path().join("run/firewalld.pid"), "70\n").unwrap();
        assert!(!is_running(&host, "/run/firewalld.pid", "firewalld"));
        std::fs::write(root.path().join("proc/70/comm"), "sshd\n").unwrap();
        assert!(!is_running(&host, "/run/firewalld.pid", "firewalld"));
        std::fs::write(root.path().join("proc/70/comm"), "firewalld\n").unwrap();
        assert!(is_running(&host, "/run/firewalld.pid", "firewalld"));
    }
}
