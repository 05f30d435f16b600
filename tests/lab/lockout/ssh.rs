//! A host with a real sshd on a port of the workload, and clients that log in over the wire.

use crate::support::process::Ran;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::wired::Place;

/// The port of a Redis in the default profile.
pub(crate) const PORT: u16 = 6380;

/// Rules of somebody else, with a counter that moves; what stands in the kernel is never empty.
const COLLEAGUE: &str = "table inet colleague {
    chain input {
        type filter hook input priority 10; policy accept;
        counter
        tcp dport 9999 drop
    }
}
";

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) place: Place,
    folder: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        let mut place = Place::new();
        let folder = tempfile::Builder::new().prefix("pfl").tempdir_in("/tmp").unwrap();
        let scratch = folder.path().display().to_string();
        for key in ["host", "user"] {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.path().join(key));
            assert!(command.stdin(Stdio::null()).status().unwrap().success());
        }
        let config = format!(
            "Port {PORT}\nHostKey {scratch}/host\nAuthorizedKeysFile {scratch}/user.pub\nStrictModes no\nPermitRootLogin yes\n\
             PasswordAuthentication no\nUsePAM no\nPidFile none\nUseDNS no\nMaxStartups 200\n\
             SetEnv PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        );
        std::fs::write(folder.path().join("sshd_config"), config).unwrap();
        place.shell("mkdir -p /run/sshd");
        colleague(&place);
        place.start("/usr/sbin/sshd", &["-D", "-f", &format!("{scratch}/sshd_config")]);
        place.eventually("sshd listens", &format!("ss -Hltn sport = {PORT} | grep -q ."));
        Self { place, folder }
    }

    /// The rules, counters aside, and every file and link of preflight's with what stands in it.
    pub(crate) fn state(&self) -> String {
        state(&self.place)
    }

    fn ssh(&self) -> Command {
        let mut command = self.place.client("ssh");
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]);
        command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=2", "-p", &PORT.to_string(), "-i"]);
        command.arg(self.folder.path().join("user"));
        command
    }

    /// Runs a script over a connection of its own.
    pub(crate) fn login(&self, address: &str, script: &str) -> Ran {
        Ran::from(self.ssh().args([&format!("root@{address}"), "--", script]).output().unwrap())
    }

    /// A login that stays open: every command over it is the same connection.
    pub(crate) fn connect(&self, address: &str) -> Session<'_> {
        let socket = self.folder.path().join("shared").display().to_string();
        let mut command = self.ssh();
        command.args(["-N", "-M", "-S", &socket, &format!("root@{address}")]);
        let master = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let session = Session { host: self, socket, master };
        let started = Instant::now();
        while !std::path::Path::new(&session.socket).exists() {
            assert!(started.elapsed() < Duration::from_secs(20), "no login from {address}");
            std::thread::sleep(Duration::from_millis(20));
        }
        session
    }

    /// Connects to sshd again and again, each time anew, and notes when it was heard.
    pub(crate) fn knock(&self, address: &str) -> Knocks {
        let script = format!(
            "
import socket, time
while True:
    answered = 0
    try:
        with socket.create_connection(('{address}', {PORT}), 0.2) as one:
            answered = int(one.recv(4) == b'SSH-')
    except OSError:
        pass
    print(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000, answered, flush=True)
    time.sleep(0.05)
"
        );
        let mut command = self.place.client("python3");
        Knocks(command.args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap())
    }
}

/// Sleeps until a time of the kernel's clock since boot, by which deadlines are set.
pub(crate) fn wait_until_past(at: Duration) {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap();
    std::thread::sleep(at.saturating_sub(Duration::from(now)));
}

pub(crate) fn colleague(place: &Place) {
    place.shell(&format!("nft -f - <<'END'\n{COLLEAGUE}END"));
}

/// See [`Host::state`].
pub(crate) fn state(place: &Place) -> String {
    place.shell(
        "/run/lab/nft -s list ruleset
         for f in ip ip6; do
           ! grep -qs . /proc/net/${f}_tables_names || ${f}tables-legacy-save | sed '/^#/d; s/ \\[.*//'
         done
         find /etc -path '*preflight*' -printf '%p %y %m %l\\n' | sort
         find /etc -path '*preflight*' -type f | sort | xargs -r sha256sum",
    )
}

#[derive(Debug)]
pub(crate) struct Session<'a> {
    host: &'a Host,
    socket: String,
    master: Child,
}

impl Session<'_> {
    pub(crate) fn run(&self, script: &str) -> Ran {
        let mut command = self.host.place.client("ssh");
        // Never a connection of its own when the shared one is gone.
        command.args(["-F", "none", "-o", "ControlMaster=no", "-o", "ProxyCommand=false", "-o", "BatchMode=yes"]);
        Ran::from(command.args(["-S", &self.socket, "root@host", "--", script]).output().unwrap())
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let _ = self.master.kill();
        let _ = self.master.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

#[derive(Debug)]
pub(crate) struct Knocks(Child);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Knock {
    /// When it was over, by the clock since boot.
    pub(crate) at: Duration,
    pub(crate) answered: bool,
}

impl Knocks {
    pub(crate) fn heard(mut self) -> Vec<Knock> {
        let _ = self.0.kill();
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines().map_while(Result::ok);
        lines
            .filter_map(|line| {
                let (at, answered) = line.split_once(' ')?;
                Some(Knock { at: Duration::from_micros(at.parse().ok()?), answered: answered == "1" })
            })
            .collect()
    }
}

impl Drop for Knocks {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
