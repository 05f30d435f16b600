//! A host behind a real sshd: network namespace, mount namespace, folders of its own; gone afterwards.

use super::process::{require_root, succeeds};
use crate::support::process::program;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where the host's own program lies; what is written there never reaches the machine.
pub(crate) const BINARY: &str = "/usr/local/bin/preflight";

/// An sshd on the loopback device of its own network namespace, with an overlay over /etc and empty folders where
/// preflight, Ansible and sshd write. The process namespace is the machine's.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) folder: tempfile::TempDir,
    sshd: Child,
}

impl Host {
    pub(crate) fn start() -> Self {
        require_root();
        let folder = tempfile::Builder::new().prefix("pfa").tempdir_in("/tmp").unwrap();
        let scratch = folder.path().display().to_string();
        for name in ["etc", "work"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        for key in ["host", "user"] {
            succeeds(
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.path().join(key)),
            );
        }
        let config = format!(
            "Port 22\nListenAddress 127.0.0.1\nHostKey {scratch}/host\nAuthorizedKeysFile {scratch}/user.pub\nStrictModes no\n\
             PermitRootLogin yes\nPasswordAuthentication no\nUsePAM no\nPidFile none\nSubsystem sftp internal-sftp\n"
        );
        fs::write(folder.path().join("sshd_config"), config).unwrap();
        let host_key = fs::read_to_string(folder.path().join("host.pub")).unwrap();
        fs::write(folder.path().join("known_hosts"), format!("127.0.0.1 {host_key}")).unwrap();
        let script = format!(
            "set -eu\nip link set lo up\n\
             mount -t overlay overlay -o lowerdir=/etc,upperdir={scratch}/etc,workdir={scratch}/work /etc\n\
             for f in /run /root /var/lib /usr/local; do mount -t tmpfs tmpfs $f; done\n\
             mkdir -p /run/sshd /usr/local/bin\n\
             exec /usr/sbin/sshd -D -e -f {scratch}/sshd_config"
        );
        let log = fs::File::create(folder.path().join("sshd.log")).unwrap();
        let sshd = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "unshare", "-n", "-m", "--propagation", "private", "bash", "-c", &script])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut host = Self { folder, sshd };
        host.wait();
        host
    }

    /// With the program installed, outside of Ansible.
    pub(crate) fn with_program() -> Self {
        let host = Self::start();
        let install = format!("cat > {BINARY} && chmod 755 {BINARY}");
        let mut command = host.inside();
        command.args(["sh", "-c", &install]).stdin(fs::File::open(program()).unwrap());
        assert!(command.status().unwrap().success());
        host
    }

    fn wait(&mut self) {
        let started = Instant::now();
        loop {
            let log = fs::read_to_string(self.path("sshd.log")).unwrap_or_default();
            if log.contains("Server listening") {
                return;
            }
            assert!(self.sshd.try_wait().unwrap().is_none(), "sshd ended:\n{log}");
            assert!(started.elapsed() < Duration::from_secs(20), "sshd does not listen:\n{log}");
            sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command in the host's namespaces, past sshd: how a test looks at it.
    pub(crate) fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.sshd.id().to_string(), "--net", "--mount"]);
        command
    }

    /// A command that is only in the host's network: the controller.
    pub(crate) fn controller(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.sshd.id().to_string(), "--net"]);
        command
    }

    pub(crate) fn shell(&self, script: &str) -> String {
        succeeds(self.inside().args(["bash", "-c", script])).trim().to_owned()
    }

    pub(crate) fn somaxconn(&self) -> String {
        self.shell("cat /proc/sys/net/core/somaxconn")
    }

    /// The options of ssh; `control` names a connection that commands share, as Ansible does.
    pub(crate) fn ssh_options(&self, control: Option<&str>) -> Vec<String> {
        let option = |key: &str, value: &str| ["-o".to_owned(), format!("{key}={value}")];
        let mut options = vec!["-F".to_owned(), "none".to_owned()];
        options.extend(option("IdentityFile", &self.path("user").display().to_string()));
        options.extend(option("UserKnownHostsFile", &self.path("known_hosts").display().to_string()));
        options.extend(option("IdentitiesOnly", "yes"));
        options.extend(option("BatchMode", "yes"));
        if let Some(name) = control {
            options.extend(option("ControlMaster", "auto"));
            options.extend(option("ControlPersist", "60"));
            options.extend(option("ControlPath", &self.path(name).display().to_string()));
        }
        options
    }

    pub(crate) fn ssh(&self, control: Option<&str>, script: &str) -> Command {
        let mut command = self.controller();
        command.arg("ssh").args(self.ssh_options(control)).args(["root@127.0.0.1", script]).stdin(Stdio::null());
        command
    }

    /// Kills, by their ids, the processes in this network namespace whose command line begins so; returns how many.
    pub(crate) fn kill(&self, title: &str) -> usize {
        let namespace = fs::read_link(format!("/proc/{}/ns/net", self.sshd.id()));
        let (Ok(namespace), Ok(own)) = (namespace, fs::read_link("/proc/self/ns/net")) else { return 0 };
        assert_ne!(namespace, own);
        let mut killed = 0;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            if fs::read_link(entry.path().join("ns/net")).is_ok_and(|found| found == namespace)
                && fs::read(entry.path().join("cmdline")).is_ok_and(|found| found.starts_with(title.as_bytes()))
            {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
                killed += 1;
            }
        }
        killed
    }

    /// Ends a shared connection.
    pub(crate) fn hang_up(&self, control: &str) {
        let mut command = self.controller();
        command.arg("ssh").args(self.ssh_options(Some(control))).args(["-O", "exit", "root@127.0.0.1"]);
        let _ = command.output();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for name in ["shared", "ansible"] {
            self.hang_up(name);
        }
        // Also what a watchdog or a session left.
        self.kill("");
        let _ = self.sshd.wait();
    }
}
