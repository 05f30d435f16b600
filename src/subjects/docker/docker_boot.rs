//! Whether Docker comes back by itself after a reboot, by the files of the service manager.

use std::time::Instant;

use crate::facts::{Fact, Facts, Value};
use crate::host::Host;
use crate::host::units;
use crate::host::units::BootFolders;
use crate::subjects::context::Context;

const ID: &str = "boot.docker";

/// As the packages of Docker, of the distributions, and snap call it.
const SERVICES: [&str; 2] = ["docker", "snap.docker.dockerd"];

pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    if cx.want.has(ID) {
        let started = Instant::now();
        facts.live(ID, boot(cx.host, cx.boot_folders()).took(started.elapsed()));
    }
}

fn boot(host: &Host, folders: &BootFolders) -> Fact {
    let mut source = None;
    for name in SERVICES {
        match units::definition(host, name) {
            Ok(Some((path, _))) if folders.start(host, name) => return known("enabled", path),
            Ok(Some((path, _))) => source = source.or(Some(path)),
            Ok(None) => {}
            Err(error) => return Fact::unreadable(&error, "it is gone"),
        }
    }
    match source {
        // systemd.socket(5): the daemon is started by the first who asks it something, and containers with it.
        Some(path) if folders.start_unit(host, "docker.socket") => known("socket", path),
        Some(path) => known("disabled", path),
        None => Fact::absent("the service manager knows no service of Docker", "docker.service"),
    }
}

fn known(word: &str, path: String) -> Fact {
    Fact::known(Value::Text(word.to_owned()), path)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the files they read")]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn word(build: impl FnOnce(&Path)) -> String {
        let root = tempfile::tempdir().unwrap();
        for folder in ["lib/systemd/system", "etc/systemd/system/sockets.target.wants", "etc/init.d"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        build(root.path());
        let host = Host::at_root(root.path());
        match boot(&host, &BootFolders::read(&host)).state {
            crate::facts::State::Known(value) => value.to_string(),
            other => format!("{other:?}"),
        }
    }

    /// Seen failing with the socket not looked at, and with the link alone taken for a service.
    #[test]
    fn docker_comes_back_when_its_service_is_enabled() {
        let unit = |root: &Path| std::fs::write(root.join("lib/systemd/system/docker.service"), "[Service]\n").unwrap();
        let link = |root: &Path, folder: &str, name: &str| {
            let folder = root.join("etc/systemd/system").join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            symlink(format!("/lib/systemd/system/{name}"), folder.join(name)).unwrap();
        };
        assert!(word(|_| {}).starts_with("Absent"));
        assert!(word(|root| link(root, "multi-user.target.wants", "docker.service")).starts_with("Absent"));
        assert_eq!(word(unit), "disabled");
        let socket = |root: &Path| {
            unit(root);
            link(root, "sockets.target.wants", "docker.socket");
        };
        assert_eq!(word(socket), "socket");
        let both = |root: &Path| {
            socket(root);
            link(root, "multi-user.target.wants", "docker.service");
        };
        assert_eq!(word(both), "enabled");
        let openrc = |root: &Path| {
            std::fs::write(root.join("etc/init.d/docker"), "#!/sbin/openrc-run\n").unwrap();
            std::fs::create_dir_all(root.join("etc/runlevels/default")).unwrap();
            symlink("/etc/init.d/docker", root.join("etc/runlevels/default/docker")).unwrap();
        };
        assert_eq!(word(openrc), "enabled");
    }
}
