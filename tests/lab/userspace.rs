//! Debian 12 and Debian 13 as they are: their real user space, judged through `--root` from outside, and by the binary
//! inside of it. What the next boot brings is compared with their own systemd-sysctl.
//!
//! packages: mmdebstrap util-linux iproute2

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::docker::{PIVOT, image};
use crate::support::process::{require_root, run, try_run};
use crate::support::report::{Report, installed, preflight};

/// A copy of the root that nobody else sees, in a mount and network namespace that a sleeping process keeps. Everything
/// written to it lands in the scratch folder.
struct Root {
    child: Child,
    folder: tempfile::TempDir,
}

impl Root {
    /// `files` are (path, text), written over what the distribution ships.
    fn new(image_name: &str, files: &[(&str, &str)]) -> Self {
        require_root();
        let lower = image(image_name);
        let folder = tempfile::Builder::new().prefix("pfu").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let scratch = folder.path().display().to_string();
        for name in ["root", "upper", "work", "bin"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        installed(&folder.path().join("bin"));
        // /proc/sys is read-only in there but for the network's own settings: no test changes the machine's.
        let script = format!(
            "set -eu\nip link set lo up\nR={scratch}/root\n\
             mount -t overlay overlay -o lowerdir={},upperdir={scratch}/upper,workdir={scratch}/work $R\n\
             mount -t proc proc $R/proc; mount --rbind /sys $R/sys\n\
             mount --bind $R/proc/sys $R/proc/sys; mount --bind $R/proc/sys/net $R/proc/sys/net\n\
             mount -o remount,bind,ro $R/proc/sys\n\
             mkdir -p $R/mnt/bin; mount --bind {scratch}/bin $R/mnt/bin\necho ready\nexec sleep 600",
            lower.display()
        );
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "-n", "-m", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        let root = Self { child, folder };
        assert_eq!(line, "ready\n", "the root could not be made");
        for (path, text) in files {
            root.inside(&["sh", "-euc", "mkdir -p \"${1%/*}\"; printf '%s' \"$2\" >\"$1\"", "sh", path, text]);
        }
        root
    }

    /// What makes a command run in the namespaces, seeing the machine's files.
    fn beside(&self) -> Vec<String> {
        let pid = self.child.id().to_string();
        ["nsenter", "--target", &pid, "--net", "--mount", "--"].map(str::to_owned).to_vec()
    }

    fn path(&self) -> String {
        self.folder.path().join("root").display().to_string()
    }

    fn enter(&self) -> Vec<String> {
        let script = format!("set -e; R=$0; {PIVOT}exec \"$@\"");
        let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, &self.path()];
        self.beside().into_iter().chain(words.map(str::to_owned)).collect()
    }

    /// Runs a program of the distribution.
    fn inside(&self, argv: &[&str]) -> String {
        let prefix = self.enter();
        run(&prefix.iter().map(String::as_str).chain(argv.iter().copied()).collect::<Vec<_>>())
    }

    /// The root looked at from outside, as a directory.
    fn judged_from_outside(&self, args: &[&str]) -> Report {
        let root = self.path();
        let args = [&["check", "--format", "json", "--root", &root], args].concat();
        preflight(&self.folder.path().join("bin"), &self.beside(), &[], &args).report()
    }

    /// The binary run within the root, as on a host.
    fn judged_within(&self, args: &[&str]) -> Report {
        let prefix = self.enter();
        let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
        let output = try_run(&[&prefix[..], &["/mnt/bin/preflight", "check", "--format", "json"], args].concat());
        let value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        Report { value, code: output.status.code().unwrap() }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // The mounts go with the last process of the namespace; the folder can only then be deleted.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `VALUE FILE` of what the next boot brings.
fn boot(report: &Report, id: &str) -> String {
    let boot = &report.finding(id)["boot"];
    format!("{} {}", boot["text"].as_str().unwrap_or("-"), boot["source"].as_str().unwrap_or("-"))
}

/// /etc/sysctl.conf against drop-ins of /etc and /usr/lib. Debian 12 reads it as /etc/sysctl.d/99-sysctl.conf, through a
/// link that its systemd ships; Debian 13 has no such link and reads it no more.
const FILES: &[(&str, &str)] = &[
    ("/etc/sysctl.conf", "# by hand\nnet.core.somaxconn = 1111\nvm.overcommit_memory = 1\n"),
    ("/etc/sysctl.d/50-site.conf", "net.core.somaxconn = 2222\nnet.ipv4.tcp_syncookies = 2\n"),
    ("/usr/lib/sysctl.d/90-vendor.conf", "net.ipv4.tcp_syncookies = 0\nnet.ipv4.tcp_max_syn_backlog = 3333\n"),
];

struct Expected {
    image: &'static str,
    system: &'static str,
    somaxconn: &'static str,
    overcommit: &'static str,
}

/// Seen failing with /etc/sysctl.conf read on every system that systemd runs.
fn sysctl_winners(expected: &Expected) {
    let root = Root::new(expected.image, FILES);
    let outside = root.judged_from_outside(&[]);
    let within = root.judged_within(&[]);
    for report in [&outside, &within] {
        let system = report.value["host"]["os"].as_str().unwrap();
        assert!(system.starts_with(expected.system), "{system}");
        assert_eq!(report.said("os.supported"), "pass supported");
        assert_eq!(boot(report, "kernel.somaxconn"), expected.somaxconn);
        assert_eq!(boot(report, "kernel.overcommit"), expected.overcommit);
        assert_eq!(boot(report, "kernel.syncookies"), "0 /usr/lib/sysctl.d/90-vendor.conf:1");
        assert_eq!(boot(report, "kernel.syn-backlog"), "3333 /usr/lib/sysctl.d/90-vendor.conf:2");
        assert_eq!(
            (report.said("tool.curl"), report.said("tool.git")),
            ("pass installed".into(), "warn not installed".into())
        );
        let remedy = report.finding("tool.git")["remedy"]["commands"][0].as_str().unwrap();
        assert!(remedy.starts_with("apt-get ") && remedy.ends_with(" git"), "{remedy}");
    }

    // The distribution's own loader, for the settings of this network namespace alone.
    root.inside(&["/usr/lib/systemd/systemd-sysctl", "--prefix=/net"]);
    for (file, id) in [
        ("/proc/sys/net/core/somaxconn", "kernel.somaxconn"),
        ("/proc/sys/net/ipv4/tcp_syncookies", "kernel.syncookies"),
        ("/proc/sys/net/ipv4/tcp_max_syn_backlog", "kernel.syn-backlog"),
    ] {
        let real = root.inside(&["cat", file]);
        let boot = outside.finding(id)["boot"]["text"].as_str().unwrap().to_owned();
        assert_eq!(real.trim(), boot, "{id}: the real loader came to something else");
        // And the binary inside now finds live what it foretold for the boot.
        let after = root.judged_within(&["--only", id]);
        assert_eq!(after.finding(id)["live"]["text"].as_str().unwrap(), boot, "{id}");
    }
    // What may not be written here is at least in the loader's list, or is not.
    let listed = root.inside(&["/usr/lib/systemd/systemd-sysctl", "--cat-config"]);
    let reads = listed.lines().any(|line| line.trim() == "vm.overcommit_memory = 1");
    assert_eq!(reads, expected.overcommit.starts_with("1 "), "{listed}");
}

#[test]
fn debian_12_reads_sysctl_conf_through_its_link() {
    sysctl_winners(&Expected {
        image: "debian12",
        system: "Debian GNU/Linux 12",
        somaxconn: "1111 /etc/sysctl.d/99-sysctl.conf:2",
        overcommit: "1 /etc/sysctl.d/99-sysctl.conf:3",
    });
}

#[test]
fn debian_13_does_not_read_sysctl_conf() {
    sysctl_winners(&Expected {
        image: "debian13",
        system: "Debian GNU/Linux 13",
        somaxconn: "2222 /etc/sysctl.d/50-site.conf:1",
        overcommit: "0 kernel default",
    });
}

/// A root without a running host: nothing is taken for good that only a running host can tell. Seen failing with huge
/// pages passed, because there was no /sys to ask.
#[test]
fn an_image_is_not_judged_by_what_only_a_host_has() {
    require_root();
    for name in ["debian12", "debian13"] {
        let root = image(name).display().to_string();
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let report = preflight(folder.path(), &[], &[], &["check", "--format", "json", "--root", &root]).report();
        for finding in report.findings() {
            let observed = finding["observed"].as_str().unwrap_or("");
            if observed == "not a running host" {
                assert_eq!(finding["result"], "not_applicable", "{name}: {finding}");
            }
        }
        for id in ["docker.reachable", "port.free.6379", "resource.cpu", "kernel.thp", "kernel.thp-sizes"] {
            assert_eq!(report.result(id), "not_applicable", "{name}: {}", report.finding(id));
        }
        assert_eq!(report.said("os.supported"), "pass supported");
        assert_eq!(report.with_result("unknown"), [""; 0], "{name}: {}", report.value);
    }
}
