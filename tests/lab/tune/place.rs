//! A host of its own for each test: a network namespace for the settings, a mount namespace with an overlay on `/etc`
//! and memory for `/run` and `/var/lib`. A process holds both open; everything else enters them.

use crate::support::process::{Ran, program, require_root};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

pub(crate) const SOMAXCONN: &str = "net/core/somaxconn";
pub(crate) const BACKLOG: &str = "net/ipv4/tcp_max_syn_backlog";
pub(crate) const RESERVED: &str = "net/ipv4/ip_local_reserved_ports";
pub(crate) const DROP_IN: &str = "/etc/sysctl.d/99-zz-preflight.conf";

/// Only settings that each network namespace has for itself, so that the machine stays as it is.
pub(crate) const TUNE: [&str; 11] = [
    "tune",
    "--only",
    "kernel.somaxconn",
    "--only",
    "kernel.syn-backlog",
    "--only",
    "port.ephemeral-overlap",
    "--set",
    "topology=host",
    "--color",
    "never",
];

const SETUP: &str = "
set -e
mkdir -p /run/user
mount -t tmpfs lab /run
mkdir -p /run/lab/upper /run/lab/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/lab/upper,workdir=/run/lab/work /etc
mount -t tmpfs lab /var/lib
rm -f /etc/sysctl.d/99-zz-preflight.conf
echo '1024 65535' > /proc/sys/net/ipv4/ip_local_port_range
echo 4096 > /proc/sys/net/core/somaxconn
echo 2048 > /proc/sys/net/ipv4/tcp_max_syn_backlog
echo ready
exec sleep 100000
";

#[derive(Debug)]
pub(crate) struct Place {
    holder: Child,
    _said: BufReader<ChildStdout>,
}

impl Place {
    pub(crate) fn new() -> Self {
        require_root();
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", SETUP])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(holder.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        if line != "ready\n" {
            let _ = said.read_to_string(&mut line);
            panic!("no place to test in: {line}");
        }
        Self { holder, _said: said }
    }

    /// A program inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--target", &self.holder.id().to_string(), "--", program]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command
    }

    pub(crate) fn preflight(&self) -> Command {
        self.command(program())
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.preflight().args(args).output().unwrap())
    }

    /// `tune` of the settings under test, with more arguments.
    pub(crate) fn tune(&self, args: &[&str]) -> Ran {
        Ran::from(self.preflight().args(TUNE).args(args).output().unwrap())
    }

    pub(crate) fn apply(&self, args: &[&str]) -> Ran {
        self.tune(&[&["--apply", "--settle", "0", "--format", "json"], args].concat())
    }

    pub(crate) fn shell(&self, script: &str) -> String {
        let output = self.command("sh").args(["-c", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn value(&self, key: &str) -> String {
        self.shell(&format!("cat /proc/sys/{key}")).trim_end().to_owned()
    }

    pub(crate) fn set(&self, key: &str, value: &str) {
        self.shell(&format!("echo {value} > /proc/sys/{key}"));
    }

    /// Every value, and what stands in the folders that are written to.
    pub(crate) fn state(&self) -> String {
        self.shell(&format!(
            "cd /proc/sys; head -n 9 {SOMAXCONN} {BACKLOG} {RESERVED}; ls -A /etc /etc/sysctl.d; cat {DROP_IN} 2>&1 || true"
        ))
    }

    pub(crate) fn records(&self) -> Vec<serde_json::Value> {
        // The newest by its time: names of one second have no order.
        let text = self.shell("cat $(ls -t /var/lib/preflight/tx/*/journal.jsonl | head -n 1)");
        text.trim_matches('\0').lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub(crate) fn newest_state(&self) -> String {
        let entries = self.run(&["history", "--format", "json"]).json();
        entries[0]["state"].as_str().unwrap_or("none").to_owned()
    }

    /// By the journal's own stamps: how long after its deadline the newest transaction was back.
    pub(crate) fn late(&self) -> Duration {
        let records = self.records();
        let find =
            |kind: &str| records.iter().find(|record| record["type"] == kind).unwrap_or_else(|| panic!("{kind}"));
        let deadline = find("armed")["deadline_us"].as_u64().unwrap();
        Duration::from_micros(find("rolled_back")["boottime_us"].as_u64().unwrap().saturating_sub(deadline))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
