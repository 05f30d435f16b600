//! Real engines for lab tests: each in a network and mount namespace of its own, on its own data, gone afterwards.
//!
//! Everything here cleans up in `Drop`, also when a test panics. Processes are ended by their id.

use super::process::{end, require_root, run, try_run, unique};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The path of an image of `tests/lab/images.sh`, built when it is not there yet.
pub(crate) fn image(name: &str) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/images.sh");
    PathBuf::from(run(&[script, name]).trim())
}

/// Makes `$R` the root of this mount namespace. Under chroot `docker exec` and health checks enter the root from before.
pub(crate) const PIVOT: &str = "cd $R; pivot_root . mnt; cd /; umount -l /mnt\n";

/// How an engine is started.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// daemon.json, as only the engine and who enters its mount namespace see it.
    pub(crate) daemon_json: Option<String>,
    /// `SOFT:HARD` limit on open files of dockerd.
    pub(crate) nofile: Option<String>,
    /// Run dockerd of this root instead of the machine's.
    pub(crate) root: Option<PathBuf>,
    pub(crate) arguments: Vec<String>,
    /// Start in the network and mount namespace of this process, with the `/etc` and `/run` that it made, instead of in
    /// new ones. So the host outlives its dockerd.
    pub(crate) host: Option<u32>,
}

/// A running dockerd.
#[derive(Debug)]
pub(crate) struct Engine {
    /// Scratch, on the same path inside and outside of the engine's mount namespace.
    pub(crate) folder: tempfile::TempDir,
    pub(crate) socket: PathBuf,
    cgroup: String,
    argv: Vec<String>,
    child: Child,
}

impl Engine {
    /// Starts dockerd and waits until it answers.
    pub(crate) fn start(options: &Options) -> Self {
        require_root();
        let folder = tempfile::Builder::new().prefix("pfd").tempdir().unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let scratch = folder.path().display().to_string();
        for name in ["etc/docker", "work", "data", "exec"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        if let Some(json) = &options.daemon_json {
            fs::write(folder.path().join("etc/docker/daemon.json"), json).unwrap();
        }
        // /etc is an overlay and /run is empty in there: dockerd writes a key and a state folder, and a daemon.json
        // of the machine must not be seen. The inner root keeps the outer path of the scratch folder.
        let root = options.root.as_ref().map_or(String::new(), |root| root.display().to_string());
        let inner_root = format!("{scratch}/root");
        let prepare = if root.is_empty() && options.host.is_some() {
            String::new()
        } else if root.is_empty() {
            format!(
                "mount -t overlay overlay -o lowerdir=/etc,upperdir={scratch}/etc,workdir={scratch}/work /etc\n\
                 mount -t tmpfs tmpfs /run\n"
            )
        } else {
            // The image stays clean: all writes go to the scratch folder.
            for name in ["root", "upper/etc/docker", "rootwork"] {
                fs::create_dir_all(folder.path().join(name)).unwrap();
            }
            if let Some(json) = &options.daemon_json {
                fs::write(folder.path().join("upper/etc/docker/daemon.json"), json).unwrap();
            }
            let run = if options.host.is_some() { "--rbind /run" } else { "-t tmpfs tmpfs" };
            format!(
                "R={inner_root}\n\
                 mount -t overlay overlay -o lowerdir={root},upperdir={scratch}/upper,workdir={scratch}/rootwork $R\n\
                 mount -t proc proc $R/proc; mount --rbind /sys $R/sys; mount --rbind /dev $R/dev\n\
                 mount -t tmpfs tmpfs $R/tmp; mount {run} $R/run; mkdir -p $R{scratch}\n\
                 mount --bind {scratch} $R{scratch}\n{PIVOT}"
            )
        };
        let limit = options.nofile.as_ref().map_or(String::new(), |limit| format!("prlimit --nofile={limit} "));
        let cgroup = unique("pfd");
        let script = format!(
            "set -eu\nip link set lo up\n{prepare}exec {limit}/usr/sbin/dockerd -H unix://{scratch}/docker.sock \
             --data-root {scratch}/data --exec-root {scratch}/exec --pidfile {scratch}/docker.pid \
             --cgroup-parent /{cgroup} {}",
            options.arguments.join(" ")
        );
        let host = options.host.map(|pid| pid.to_string());
        let mut argv = vec!["setpriv", "--pdeathsig", "TERM"];
        match &host {
            None => argv.extend(["unshare", "-n", "-m", "--propagation", "private"]),
            Some(pid) => {
                argv.extend(["nsenter", "--target", pid, "--net", "--mount"]);
                if !root.is_empty() {
                    argv.extend(["unshare", "-m", "--propagation", "private"]);
                }
            }
        }
        argv.extend(["bash", "-c", &script]);
        let argv: Vec<String> = argv.into_iter().map(str::to_owned).collect();
        let child = spawn(&argv, folder.path());
        let socket = folder.path().join("docker.sock");
        let mut engine = Self { folder, socket, cgroup, argv, child };
        engine.wait();
        engine
    }

    /// Stops dockerd and starts it again on the same data. Only on a host of its own does its network stay the same.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.child = spawn(&self.argv, self.folder.path());
        self.wait();
    }

    fn wait(&mut self) {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(30) {
            let exited = self.child.try_wait().unwrap();
            assert!(exited.is_none(), "dockerd ended:\n{}", self.log());
            if try_run(&["curl", "-sf", "--unix-socket", &self.socket.display().to_string(), "http://d/_ping"])
                .status
                .success()
            {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("dockerd did not answer within 30 s:\n{}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("dockerd.log")).unwrap_or_default()
    }

    /// dockerd's process id: every program before it replaced itself by exec.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Asks the engine with curl: an oracle that shares no code with preflight.
    pub(crate) fn get(&self, path: &str) -> serde_json::Value {
        let socket = self.socket.display().to_string();
        let text = run(&["curl", "-sf", "--unix-socket", &socket, &format!("http://d{path}")]);
        serde_json::from_str(&text).unwrap()
    }

    /// The docker command line, against this engine.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        let endpoint = self.endpoint();
        run(&[&["/usr/bin/docker", "-H", &endpoint], arguments].concat()).trim().to_owned()
    }

    /// Imports the image with redis as `lab/redis:7`.
    pub(crate) fn import_redis(&self) {
        let tar = image("mini");
        self.docker(&["import", "--change", "CMD [\"redis-server\"]", &tar.display().to_string(), "lab/redis:7"]);
    }

    /// What makes a command run where the engine runs: same network, files and root.
    pub(crate) fn enter(&self) -> Vec<String> {
        let pid = self.pid().to_string();
        ["nsenter", "--target", &pid, "--net", "--mount", "--root", "--wd=/", "--"].map(str::to_owned).to_vec()
    }

    /// Runs a command in the engine's network, where its published ports are.
    pub(crate) fn in_network(&self, argv: &[&str]) -> String {
        let pid = self.pid().to_string();
        run(&[&["nsenter", "--target", &pid, "--net", "--"], argv].concat())
    }

    /// Stops dockerd as a service manager does: it removes its socket and stops its containers.
    pub(crate) fn stop(&mut self) {
        end(&mut self.child);
    }
}

/// Starts the process that becomes dockerd.
fn spawn(argv: &[String], folder: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.join("dockerd.log")).unwrap();
    Command::new(&argv[0])
        .args(&argv[1..])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Engine {
    fn drop(&mut self) {
        end(&mut self.child);
        // A dockerd that had to be killed leaves containerd and its shims behind; they name the scratch folder.
        let scratch = self.folder.path().display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if let Some(pid) = pid
                && pid != std::process::id().cast_signed()
                && String::from_utf8_lossy(&command).contains(&scratch)
            {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
        // dockerd leaves the parent of its containers' cgroups behind.
        remove_cgroups(&self.cgroup);
    }
}

/// Removes a cgroup of that name below the root of every hierarchy. The last process of a container (conmon, a shim) may
/// take a moment to end.
pub(crate) fn remove_cgroups(name: &str) {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for folder in hierarchies.chain(["/sys/fs/cgroup".into()]).map(|hierarchy| hierarchy.join(name)) {
        let started = Instant::now();
        while folder.exists() && started.elapsed() < Duration::from_secs(5) {
            remove_cgroup(&folder);
            sleep(Duration::from_millis(10));
        }
    }
}

/// Removes a cgroup and what is below it, all without processes by now.
fn remove_cgroup(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    drop(fs::remove_dir(folder));
}
