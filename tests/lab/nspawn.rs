//! The timer by a real systemd, booted by systemd-nspawn: rehearsal, deadline, confirm.
//!
//! packages: iproute2 mmdebstrap systemd-container util-linux
//!
//! Only settings of the container's network namespace can be changed in there; the whole host is a VM's matter.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::docker::image;
use crate::support::process::{program, require_root, told};
use serde_json::Value;

const APPLY: &str =
    "preflight tune --apply --no-wait --settle 0 --format json --set topology=host --only kernel.somaxconn";

#[derive(Debug)]
struct Container {
    folder: tempfile::TempDir,
    namespace: String,
    nspawn: Child,
    init: u32,
}

impl Container {
    fn boot() -> Self {
        require_root();
        let folder = tempfile::Builder::new().prefix("pfn").tempdir_in("/tmp").unwrap();
        for name in ["upper", "work", "root"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let namespace = format!("pfn{}", std::process::id());
        assert!(Command::new("ip").args(["netns", "add", &namespace]).status().unwrap().success());
        let script = format!(
            "set -eu; cd {}\nmount -t overlay overlay -o lowerdir={},upperdir=upper,workdir=work root\n\
             install -D -m 755 {} root/usr/local/bin/preflight\n\
             exec systemd-nspawn -q -D root --machine={namespace} --register=no --keep-unit \
             --network-namespace-path=/run/netns/{namespace} --capability=CAP_NET_ADMIN --boot --console=pipe",
            folder.path().display(),
            image("nspawn").display(),
            program(),
        );
        let log = fs::File::create(folder.path().join("log")).unwrap();
        // Without its own mount namespace nspawn has been seen to leave the machine's cgroups read-only.
        let nspawn = Command::new("unshare")
            .args(["-m", "--propagation", "private", "bash", "-c", &script])
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut container = Self { folder, namespace, nspawn, init: 0 };
        let started = Instant::now();
        loop {
            let children = format!("/proc/{0}/task/{0}/children", container.nspawn.id());
            let children = fs::read_to_string(children).unwrap_or_default();
            container.init = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or_default();
            if container.init != 0
                && container.run("systemctl is-active multi-user.target dbus.socket").status.success()
            {
                return container;
            }
            let log = || fs::read_to_string(container.folder.path().join("log")).unwrap_or_default();
            assert!(started.elapsed() < Duration::from_secs(60), "systemd does not come up:\n{}", log());
            sleep(Duration::from_millis(200));
        }
    }

    fn run(&self, script: &str) -> Output {
        Command::new("nsenter")
            .args(["--target", &self.init.to_string(), "-m", "-p", "-n", "-u", "-i", "bash", "-c", script])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn says(&self, script: &str, code: i32) -> String {
        let output = self.run(script);
        assert_eq!(output.status.code(), Some(code), "{script}\n{}", told(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn somaxconn(&self) -> String {
        self.says("cat /proc/sys/net/core/somaxconn", 0)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // SIGRTMIN+4 powers systemd off; glibc's SIGRTMIN is 34.
        let _ = Command::new("kill").args(["-s", "38", &self.init.to_string()]).status();
        let started = Instant::now();
        while self.nspawn.try_wait().is_ok_and(|ended| ended.is_none()) && started.elapsed() < Duration::from_secs(20) {
            sleep(Duration::from_millis(50));
        }
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
        let _ = Command::new("ip").args(["netns", "delete", &self.namespace]).status();
    }
}

/// Fails with a longer `--on-active` than the window.
#[test]
fn systemd_rehearses_takes_back_at_the_deadline_and_is_disarmed_by_a_confirm() {
    let container = Container::boot();
    let before = container.somaxconn();
    let pending: Value = serde_json::from_str(&container.says(&format!("{APPLY} --confirm-within 10s"), 7)).unwrap();
    let tx = pending["tx"].as_str().unwrap().to_owned();
    assert_eq!(container.somaxconn(), "65535");
    let timer = container.says(&format!("systemctl show -p ActiveState,AccuracyUSec preflight-rollback-{tx}.timer"), 0);
    assert!(timer.contains("ActiveState=active") && timer.contains("AccuracyUSec=1s"), "{timer}");
    let rehearsed = container.says("journalctl --no-pager -o cat", 0);
    assert!(rehearsed.contains(&format!("preflight-rehearsal-{tx}.service: Deactivated successfully")), "{rehearsed}");
    let started = Instant::now();
    while container.somaxconn() != before {
        assert!(started.elapsed() < Duration::from_secs(12), "not taken back by the deadline and 2 s");
        sleep(Duration::from_millis(100));
    }
    // The journal's last record follows the value.
    sleep(Duration::from_secs(1));
    let history: Value = serde_json::from_str(&container.says("preflight history --format json", 0)).unwrap();
    assert_eq!(history[0]["state"], "rolled_back", "{history}");

    container.says(&format!("{APPLY} --confirm-within 60s"), 7);
    container.says("preflight confirm", 0);
    assert_eq!(container.says("systemctl list-units --all --no-legend 'preflight*'", 0), "", "a unit stayed");
    assert_eq!(container.somaxconn(), "65535");
    container.says("preflight verify", 0);
}

/// No message bus: `systemd-run --wait` cannot be asked, and a window is still kept, by the watchdog, with a word.
#[test]
fn without_a_message_bus_the_watchdog_keeps_the_window() {
    let container = Container::boot();
    let before = container.somaxconn();
    container.says("systemctl stop dbus.socket dbus.service; rm -f /run/dbus/system_bus_socket", 0);
    let told = container.says(&format!("{APPLY} --confirm-within 6s"), 7);
    assert!(told.contains("message bus"), "{told}");
    let started = Instant::now();
    while container.somaxconn() != before {
        assert!(started.elapsed() < Duration::from_secs(8), "not taken back by the deadline and 2 s");
        sleep(Duration::from_millis(100));
    }
}
