//! A real Debian with systemd in a virtual machine, for what no container can show: a boot, a power cut, and settings
//! that a whole kernel shares.
//!
//! QEMU emulates the processor, so that it runs everywhere; a login takes seconds. Nothing leaves the machine: the guest's
//! network is restricted, and its sshd is reached through one port of 127.0.0.1. Every process here is ended by its id in
//! `Drop`, also when a test panics, and by the kernel when the test process is killed.

use super::process::{self, Ran, require_root};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Debian 12, whose systemd reads /etc/sysctl.conf through a link.
pub(crate) const BOOKWORM: &str = "bookworm";
/// Debian 13, whose systemd does not.
pub(crate) const TRIXIE: &str = "trixie";

/// From power on to a finished boot: 15 s on a quiet machine.
const BOOT: Duration = Duration::from_secs(240);
/// One command over ssh; the longest waits for a deadline.
const COMMAND: Duration = Duration::from_secs(180);
/// The size of the second disk, on which the program under test comes. It is a part of the saved state.
const PAYLOAD_BYTES: u64 = 64 << 20;

/// A virtual machine on a disk of its own; the image behind it is never written.
#[derive(Debug)]
pub(crate) struct Vm {
    image: PathBuf,
    emulator: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    qemu: Option<Guard>,
    connection: Option<Connection>,
}

impl Vm {
    /// A machine that was booted once, by whichever test came first, and goes on from there: seconds instead of a boot.
    pub(crate) fn booted(suite: &str) -> Self {
        let mut vm = Self::prepare(suite);
        let saved = vm.saved();
        vm.create_disk("qcow2", &saved.join("disk.qcow2"));
        vm.start(Some(&saved.join("memory")));
        let mut monitor = Monitor::open(&vm.path("monitor"));
        // It may still be reading its memory.
        monitor.wait_for("query-status", &["paused", "prelaunch", "postmigrate"]);
        monitor.ask("cont");
        vm.wait_for_ssh();
        // Its clock stood still while it was not there.
        let now = jiff::Timestamp::now().as_second();
        vm.run(&format!("date -s @{now} >/dev/null"));
        vm.install();
        vm
    }

    fn prepare(suite: &str) -> Self {
        require_root();
        Self::new(built(suite), built("qemu").join("run"))
    }

    fn new(image: PathBuf, emulator: PathBuf) -> Self {
        let folder = tempfile::Builder::new().prefix("pfvm").tempdir().unwrap();
        payload(&folder.path().join("payload"));
        // Free now; that another process takes it within the next milliseconds shows as a QEMU that does not start.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { image, emulator, folder, port, qemu: None, connection: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What is written goes to a file of this machine.
    fn create_disk(&self, format: &str, base: &Path) {
        let made = Command::new(&self.emulator)
            .args(["qemu-img", "create", "-q", "-f", "qcow2", "-F", format, "-b"])
            .arg(base)
            .arg(self.path("disk.qcow2"))
            .status()
            .unwrap();
        assert!(made.success(), "qemu-img create: {made}");
    }

    /// The disk and the memory of a booted machine, made once for an image and a version of QEMU.
    fn saved(&self) -> PathBuf {
        let version = Command::new(&self.emulator).args(["qemu-system-x86_64", "--version"]).output().unwrap().stdout;
        let key = format!("{}{:?}", String::from_utf8_lossy(&version), self.arguments(None));
        // Paths of this process do not belong to it.
        let key = key.replace(&self.folder.path().display().to_string(), "").replace(&self.port.to_string(), "");
        let saved = self
            .image
            .join(format!("booted-{:08x}", crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(key.as_bytes())));
        let lock = File::create(self.image.join("booted.lock")).unwrap();
        lock.lock().unwrap();
        if saved.exists() {
            return saved;
        }
        let half = self.image.join("booted.tmp");
        let _ = fs::remove_dir_all(&half);
        fs::create_dir(&half).unwrap();
        let mut vm = Self::new(self.image.clone(), self.emulator.clone());
        vm.create_disk("raw", &self.image.join("disk.raw"));
        vm.power_on();
        // What a boot starts late is over, and nothing is left to be written.
        vm.run("systemctl stop systemd-tmpfiles-clean.timer; sync; echo 3 >/proc/sys/vm/drop_caches");
        vm.connection = None;
        let mut monitor = Monitor::open(&vm.path("monitor"));
        monitor.ask("stop");
        let memory = half.join("memory");
        let unlimited = json!({ "max-bandwidth": 1_u64 << 40 });
        monitor.execute("migrate-set-parameters", unlimited);
        monitor.execute("migrate", json!({ "uri": format!("exec:cat >{}", memory.display()) }));
        monitor.wait_for("query-migrate", &["completed"]);
        monitor.ask("quit");
        assert!(vm.qemu.take().unwrap().ends_within(Duration::from_secs(20)), "QEMU does not quit");
        // One file, so that it does not depend on another one beside the image.
        fs::rename(vm.path("disk.qcow2"), half.join("disk.qcow2"))
            .or_else(|_| fs::copy(vm.path("disk.qcow2"), half.join("disk.qcow2")).map(drop))
            .unwrap();
        fs::rename(half, &saved).unwrap();
        saved
    }

    fn arguments(&self, memory: Option<&Path>) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        let image = |name: &str| self.image.join(name).display().to_string();
        // One processor: two do not boot faster under emulation, and two machines at once are served better by two cores.
        // `mitigations=off`: the emulated processor leaks nothing, and returns are slow enough without being guarded.
        let mut arguments: Vec<String> = [
            "-M",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "1",
            "-m",
            "1024",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-monitor",
            "none",
            "-append",
            "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 mitigations=off",
        ]
        .map(str::to_owned)
        .to_vec();
        // `cache=unsafe`: what the guest syncs is in this machine's page cache, which a killed QEMU does not take along;
        // what it did not sync is lost. That is a power cut, at the speed of memory.
        let disk = format!("file={},if=virtio,format=qcow2,cache=unsafe", path("disk.qcow2"));
        let payload = format!("file={},if=virtio,format=raw,readonly=on", path("payload"));
        let network = format!("user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{}-:22", self.port);
        let more = [
            ("-kernel", image("vmlinuz")),
            ("-initrd", image("initrd.img")),
            ("-drive", disk),
            ("-drive", payload),
            ("-netdev", network),
            ("-device", "virtio-net-pci,netdev=n0,romfile=".to_owned()),
            ("-serial", format!("file:{}", path("serial"))),
            ("-qmp", format!("unix:{},server=on,wait=off", path("monitor"))),
        ];
        arguments.extend(more.into_iter().flat_map(|(option, value)| [option.to_owned(), value]));
        if let Some(memory) = memory {
            arguments.extend(["-S".to_owned(), "-incoming".to_owned(), format!("exec:cat {}", memory.display())]);
        }
        arguments
    }

    fn start(&mut self, memory: Option<&Path>) {
        assert!(self.qemu.is_none(), "it runs already");
        let _ = fs::remove_file(self.path("monitor"));
        let log = File::create(self.path("qemu.log")).unwrap();
        let mut command = bound(self.emulator.to_str().unwrap());
        command.arg("qemu-system-x86_64").args(self.arguments(memory)).stdout(log.try_clone().unwrap()).stderr(log);
        self.qemu = Some(Guard(command.spawn().unwrap()));
    }

    /// A cold boot from the disk as it is, until systemd is done with it.
    pub(crate) fn power_on(&mut self) {
        self.start(None);
        self.wait_for_ssh();
        self.wait_until_up();
    }

    /// QEMU's process.
    pub(crate) fn pid(&self) -> u32 {
        self.qemu.as_ref().expect("it runs").0.id()
    }

    /// The power goes, at once. What the guest did not sync is lost.
    pub(crate) fn power_cut(&mut self) {
        drop(self.qemu.take().expect("it runs"));
        self.connection = None;
    }

    /// An orderly restart, from within.
    pub(crate) fn reboot(&mut self) {
        let before = self.run("cat /proc/sys/kernel/random/boot_id");
        // The answer is not waited for: the connection goes.
        let _ = self.try_run("systemctl reboot");
        self.connection = None;
        let started = Instant::now();
        loop {
            self.wait_for_ssh();
            let now = self.try_run("cat /proc/sys/kernel/random/boot_id");
            if now.code == 0 && now.stdout != before {
                break;
            }
            assert!(started.elapsed() < BOOT, "it did not reboot:\n{}", self.told());
            self.connection = None;
            sleep(Duration::from_secs(1));
        }
        self.wait_until_up();
    }

    /// An orderly stop; QEMU ends by itself.
    pub(crate) fn power_off(&mut self) {
        let _ = self.try_run("systemctl poweroff");
        self.connection = None;
        assert!(self.qemu.take().expect("it runs").ends_within(BOOT), "it does not power off:\n{}", self.told());
    }

    fn wait_until_up(&self) {
        // Not `--wait`: early in a boot it finds no bus to wait on.
        let state = self.try_run(
            "for i in {1..300}; do state=$(systemctl is-system-running 2>/dev/null)\n\
             case $state in running | degraded) break ;; esac; sleep 0.5; done; echo $state",
        );
        assert_eq!(
            state.stdout.trim(),
            "running",
            "{state:?}\n{}\n{}",
            self.try_run("systemctl --failed --no-pager; systemctl list-jobs --no-pager").stdout,
            self.told()
        );
    }

    /// Until a login works. The connection made stays, for the commands to come.
    fn wait_for_ssh(&mut self) {
        let started = Instant::now();
        self.connection = None;
        loop {
            if let Some(code) = self.qemu.as_mut().and_then(Guard::ended) {
                panic!("QEMU ended ({code}):\n{}", self.told());
            }
            if let Some(connection) = self.try_connect() {
                self.connection = Some(connection);
                return;
            }
            let told = self.told();
            assert!(!told.contains("Kernel panic"), "{told}");
            assert!(started.elapsed() < BOOT, "no login within {BOOT:?}:\n{told}");
            sleep(Duration::from_millis(300));
        }
    }

    /// The last of what the console and QEMU said.
    fn told(&self) -> String {
        let tail = |name: &str| {
            let text = String::from_utf8_lossy(&fs::read(self.path(name)).unwrap_or_default()).into_owned();
            let from = text.char_indices().rev().nth(3000).map_or(0, |(at, _)| at);
            text[from..].to_owned()
        };
        format!("--- console\n{}\n--- qemu\n{}", tail("serial"), tail("qemu.log"))
    }

    /// The program under test, into /usr/local/bin. It comes on a disk: ssh encrypts slowly under emulation.
    fn install(&self) {
        // Read past the page cache, which may be from another payload: that of the machine whose state was saved.
        self.run(
            "set -e -o pipefail; dd if=/dev/vdb bs=1M iflag=direct status=none | { tar -xf - -C /usr/local/bin; cat >/dev/null; }\n\
             chown 0:0 /usr/local/bin/preflight; chmod 0755 /usr/local/bin/preflight; sync\n\
             preflight --version",
        );
    }

    // ---- commands ----

    /// Runs a bash script as root, over the connection that all such commands share; it must succeed.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> String {
        self.try_run(script).ended(0)
    }

    pub(crate) fn try_run(&self, script: &str) -> Ran {
        self.connection.as_ref().expect("it is up").run(script)
    }

    /// Runs a script over a connection of its own, which nothing else uses.
    pub(crate) fn run_anew(&self, script: &str) -> Ran {
        ran(self.ssh().args(["root@127.0.0.1", "--", script]))
    }

    /// A new login that stays open. Every command over it is the same connection to the guest.
    #[track_caller]
    pub(crate) fn connect(&self) -> Connection {
        self.try_connect().unwrap_or_else(|| panic!("no login:\n{}", self.told()))
    }

    fn try_connect(&self) -> Option<Connection> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let socket = self.path(&format!("ssh{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut command = self.ssh();
        command.args(["-N", "-M", "-S"]).arg(&socket).arg("root@127.0.0.1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut master = Guard(command.spawn().unwrap());
        let started = Instant::now();
        while !socket.exists() {
            if master.ended().is_some() || started.elapsed() > Duration::from_secs(60) {
                return None;
            }
            sleep(Duration::from_millis(50));
        }
        Some(Connection { port: self.port, socket, _master: master })
    }

    fn ssh(&self) -> Command {
        let mut command = bound("ssh");
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]);
        command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=60", "-o", "ServerAliveInterval=20"]);
        command.args(["-o", "PreferredAuthentications=publickey", "-i"]).arg(self.image.join("key"));
        command.args(["-p", &self.port.to_string()]);
        command
    }

    /// A session with a terminal, left running. Ends with the value.
    pub(crate) fn session(&self, script: &str) -> Session {
        let mut command = self.ssh();
        command.args(["-tt", "root@127.0.0.1", "--", script]);
        let (file, output) = tempfile::NamedTempFile::new_in(self.folder.path()).unwrap().keep().unwrap();
        // An ssh that can read nothing from its input closes it, and with it the terminal.
        command.stdin(Stdio::piped()).stdout(file.try_clone().unwrap()).stderr(file);
        Session { output, ssh: Guard(command.spawn().unwrap()) }
    }
}

/// One connection to the guest, over which any number of commands run.
#[derive(Debug)]
pub(crate) struct Connection {
    port: u16,
    socket: PathBuf,
    _master: Guard,
}

impl Connection {
    pub(crate) fn run(&self, script: &str) -> Ran {
        let mut command = bound("ssh");
        // Never a connection of its own when the shared one is gone.
        command.args([
            "-F",
            "none",
            "-o",
            "ControlMaster=no",
            "-o",
            "ProxyCommand=false",
            "-o",
            "BatchMode=yes",
            "-o",
            "LogLevel=ERROR",
            "-S",
        ]);
        command.arg(&self.socket).args(["-p", &self.port.to_string(), "root@127.0.0.1", "--", script]);
        ran(&mut command)
    }
}

/// A command with a terminal in the guest.
#[derive(Debug)]
pub(crate) struct Session {
    output: PathBuf,
    ssh: Guard,
}

impl Session {
    /// What it printed so far.
    pub(crate) fn told(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// SIGKILL to the client on this side: no goodbye reaches the guest.
    pub(crate) fn kill(self) {
        drop(self.ssh);
    }
}

/// A command that the kernel ends together with the test.
fn bound(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]).stdin(Stdio::null());
    command
}

/// Runs to the end.
fn ran(command: &mut Command) -> Ran {
    let mut command_line = bound_output(command);
    let started = Instant::now();
    loop {
        if let Some(code) = command_line.child.ended() {
            let text = |file: &File| {
                let mut text = Vec::new();
                let mut file = file.try_clone().unwrap();
                std::io::Seek::rewind(&mut file).unwrap();
                std::io::Read::read_to_end(&mut file, &mut text).unwrap();
                String::from_utf8_lossy(&text).into_owned()
            };
            return Ran { code, stdout: text(&command_line.stdout), stderr: text(&command_line.stderr) };
        }
        assert!(started.elapsed() < COMMAND, "no end within {COMMAND:?}: {command:?}");
        sleep(Duration::from_millis(10));
    }
}

struct Started {
    child: Guard,
    stdout: File,
    stderr: File,
}

/// Into files: a process that stays behind and holds a pipe would be waited for.
fn bound_output(command: &mut Command) -> Started {
    let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    Started { child: Guard(command.spawn().unwrap()), stdout, stderr }
}

/// A process that ends with the value.
#[derive(Debug)]
struct Guard(Child);

impl Guard {
    /// Its exit code, once it has ended; 255 when a signal ended it.
    fn ended(&mut self) -> Option<i32> {
        self.0.try_wait().unwrap().map(|status| status.code().unwrap_or(255))
    }

    fn ends_within(&mut self, patience: Duration) -> bool {
        let started = Instant::now();
        while started.elapsed() < patience {
            if self.ended().is_some() {
                return true;
            }
            sleep(Duration::from_millis(50));
        }
        false
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// QEMU's machine protocol: one JSON object a line.
struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    fn open(socket: &Path) -> Self {
        let started = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(started.elapsed() < Duration::from_secs(30), "QEMU's monitor: {error}"),
            }
            sleep(Duration::from_millis(20));
        };
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut monitor = Self { stream: BufReader::new(stream) };
        monitor.ask("qmp_capabilities");
        monitor
    }

    fn ask(&mut self, command: &str) -> Value {
        self.execute(command, json!({}))
    }

    fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments }).to_string();
        self.stream.get_mut().write_all(format!("{request}\n").as_bytes()).unwrap();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            let answer: Value =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{command}: {error}: {line}"));
            assert!(answer.get("error").is_none(), "{command}: {answer}");
            // Events and the greeting come in between.
            if let Some(value) = answer.get("return") {
                return value.clone();
            }
        }
    }

    /// Until its `status` is one of these.
    fn wait_for(&mut self, command: &str, states: &[&str]) {
        let started = Instant::now();
        loop {
            let answer = self.ask(command);
            if answer["status"].as_str().is_some_and(|status| states.contains(&status)) {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(120), "{command}: {answer}");
            sleep(Duration::from_millis(50));
        }
    }
}

/// Builds what is not there yet, which takes a minute or two the first time, and tells its folder.
fn built(what: &str) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/vm-image.sh");
    let output = Command::new(script).arg(what).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{script} {what}: {}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// A disk that holds a tar with the program under test, without the symbols that make up most of a debug build.
fn payload(path: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("preflight");
    let stripped = Command::new("strip").arg("-o").arg(&program).arg(process::program()).status().unwrap();
    assert!(stripped.success(), "strip: {stripped}");
    let packed =
        Command::new("tar").arg("-cf").arg(path).arg("-C").arg(folder.path()).arg("preflight").status().unwrap();
    assert!(packed.success(), "tar: {packed}");
    let file = File::options().write(true).open(path).unwrap();
    assert!(file.metadata().unwrap().len() <= PAYLOAD_BYTES, "the program is too large for its disk");
    file.set_len(PAYLOAD_BYTES).unwrap();
}
