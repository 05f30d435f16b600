//! The example playbooks by a real ansible-core, and tune, confirm and the window over a real sshd.
//!
//! packages: openssh-server openssh-client python3 python3-venv iproute2 util-linux procps sudo
//!
//! Only settings of a network namespace are changed, so the machine keeps its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::process::{program, succeeds, told};
use crate::support::ssh::{BINARY, Host};
use serde_json::{Value, json};

/// Pinned, so that a release of Ansible does not change what this suite says about preflight.
const PINNED: [&str; 2] = ["ansible-core==2.19.14", "ansible-lint==26.10.1"];

const ONLY: &str = "--set=topology=host --only=kernel.somaxconn";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of the programs of Ansible, installed once into a virtual environment under target/lab.
fn ansible() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let folder = target.join("lab/ansible");
    fs::create_dir_all(&folder).unwrap();
    let lock = fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let environment = folder.join("av");
    if !is_usable(&environment) {
        let _ = fs::remove_dir_all(&environment);
        succeeds(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&environment));
        succeeds(Command::new(environment.join("bin/pip")).args(["install", "--quiet"]).args(PINNED));
        fs::write(environment.join("made-as"), made_as(&environment)).unwrap();
    }
    environment.join("bin")
}

/// What the programs of an environment depend on: each names its folder in its first line.
fn made_as(environment: &Path) -> String {
    format!("{} {}\n", environment.display(), PINNED.join(" "))
}

/// Whether an environment was made whole, under this name, and its Python still runs: a checkout can be moved, and the
/// system's Python be replaced.
fn is_usable(environment: &Path) -> bool {
    fs::read_to_string(environment.join("made-as")).is_ok_and(|found| found == made_as(environment))
        && Command::new(environment.join("bin/python"))
            .args(["-c", "import ansible"])
            .output()
            .is_ok_and(|output| output.status.success())
}

/// Six tests failed once by an environment of another folder.
#[test]
fn an_environment_that_was_moved_is_made_anew() {
    let made = ansible().parent().unwrap().to_owned();
    assert!(is_usable(&made));
    let folder = tempfile::tempdir_in(made.parent().unwrap()).unwrap();
    let moved = folder.path().join("av");
    succeeds(Command::new("cp").args(["--archive", "--link"]).args([&made, &moved]));
    assert!(!is_usable(&moved));
    fs::remove_file(moved.join("made-as")).unwrap();
    fs::write(moved.join("made-as"), made_as(&moved)).unwrap();
    assert!(is_usable(&moved));
    fs::remove_file(moved.join("bin/python")).unwrap();
    assert!(!is_usable(&moved), "its Python is gone");
}

/// What a run of a playbook came to.
#[derive(Debug)]
struct Played {
    code: Option<i32>,
    text: String,
}

impl Played {
    /// A number of the recap: `changed`, `failed`.
    #[track_caller]
    fn count(&self, what: &str) -> u32 {
        let recap = self.text.split("PLAY RECAP").nth(1).unwrap_or_else(|| panic!("no recap:\n{}", self.text));
        let (_, rest) = recap.split_once(&format!("{what}=")).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[track_caller]
    fn is(&self, changed: u32, failed: u32) {
        let found = (self.count("changed"), self.count("failed"), self.code == Some(0));
        assert_eq!(found, (changed, failed, failed == 0), "{}", self.text);
    }
}

/// Plays an example on the host. `variables` go above the settings that keep it to the namespace.
fn play(host: &Host, playbook: &str, arguments: &[&str], variables: &Value) -> Played {
    let programs = ansible();
    let inventory = "[redis]\n127.0.0.1 ansible_user=root ansible_python_interpreter=/usr/bin/python3 ansible_remote_tmp=/run/ansible\n";
    fs::write(host.path("inventory.ini"), inventory).unwrap();
    let mut all = json!({
        "preflight_become": false,
        "preflight_set": ["topology=host"],
        "preflight_only": ["kernel.somaxconn"],
        "preflight_gate": "never",
    });
    for (key, value) in variables.as_object().unwrap() {
        all[key] = value.clone();
    }
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display());
    let output = host
        .controller()
        .arg(programs.join("ansible-playbook"))
        .args(["-i", host.path("inventory.ini").to_str().unwrap()])
        .arg(format!("--ssh-common-args={}", host.ssh_options(Some("ansible")).join(" ")))
        .args(["-e", &all.to_string()])
        .args(arguments)
        .arg(root().join("ansible/examples").join(playbook))
        .env("PATH", path)
        .env("HOME", host.folder.path())
        .env("ANSIBLE_NOCOLOR", "1")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Played { code: output.status.code(), text: told(&output) }
}

/// Everything that preflight may have written on the host.
fn state(host: &Host) -> String {
    host.shell("cat /proc/sys/net/core/somaxconn; find /etc/sysctl.d /etc/tmpfiles.d /var/lib -type f -exec sha256sum {} + | sort")
}

// ---- the examples ----

/// Seen to fail with the example's `changed_when` lines taken away: every run is then "changed".
#[test]
fn first_run_changes_second_run_does_not_and_rollback_restores() {
    let host = Host::start();
    let before = host.somaxconn();
    let binary = json!({"preflight_copy_from": program()});
    let first = play(&host, "preflight.yml", &[], &binary);
    first.is(2, 0); // the copy and the apply
    assert_eq!(host.somaxconn(), "65535");
    assert!(host.shell("cat /etc/sysctl.d/99-zz-preflight.conf").contains("net.core.somaxconn = 65535"));
    assert!(first.text.contains("Takes effect after a restart of: the Redis containers"), "{}", first.text);

    let tuned = state(&host);
    play(&host, "preflight.yml", &[], &binary).is(0, 0);
    play(&host, "preflight.yml", &["--check"], &binary).is(0, 0);
    assert_eq!(state(&host), tuned);

    play(&host, "rollback.yml", &["--check"], &json!({})).is(1, 0);
    assert_eq!(state(&host), tuned);
    play(&host, "rollback.yml", &[], &json!({})).is(1, 0);
    assert_eq!(host.somaxconn(), before);
    assert_eq!(host.shell("ls /etc/sysctl.d/ | grep -c preflight || true"), "0");
    play(&host, "rollback.yml", &[], &json!({})).is(0, 0);
}

/// Seen to fail with `check_mode: false` put on the apply.
#[test]
fn check_mode_reports_the_plan_and_changes_nothing() {
    let host = Host::with_program();
    let before = state(&host);
    let checked = play(&host, "preflight.yml", &["--check"], &json!({"preflight_gate": "after"}));
    checked.is(1, 0);
    assert!(checked.text.contains("sysctl:net.core.somaxconn (live, needed): 4096 -> 65535"), "{}", checked.text);
    assert_eq!(state(&host), before);
}

/// Seen to fail with the gate's assertion taken away.
#[test]
fn the_gate_fails_the_play_when_asked() {
    let host = Host::with_program();
    // Something no tune mends.
    let needs = |gate: &str| {
        json!({
            "preflight_gate": gate, "preflight_only": ["kernel.somaxconn", "resource.*"],
            "preflight_set": ["topology=host", "maxmemory=900GiB"],
        })
    };
    let before = state(&host);
    let refused = play(&host, "preflight.yml", &[], &needs("before"));
    refused.is(0, 1);
    assert!(refused.text.contains("The verdict is not_ready. Failed: resource."), "{}", refused.text);
    assert_eq!(state(&host), before, "a refused host was changed");
    play(&host, "preflight.yml", &["--check"], &needs("before")).is(0, 1);

    play(&host, "preflight.yml", &[], &needs("never")).is(1, 0);
    play(&host, "preflight.yml", &[], &needs("after")).is(0, 1);
    let accepts = json!({"preflight_gate": "after", "preflight_gate_refuses": ["cannot_tell"]});
    play(&host, "preflight.yml", &[], &accepts).is(0, 0);
}

/// Ansible keeps one connection from task to task; the confirm comes over another one.
#[test]
fn a_window_is_confirmed_over_a_new_connection() {
    let host = Host::with_program();
    let windowed = play(&host, "preflight.yml", &[], &json!({"preflight_confirm_within": "60s"}));
    windowed.is(2, 0); // the apply and the confirm
    let records = journal(&host);
    let (applied, confirmed) = connections(&records);
    assert!(applied.is_string() && confirmed.is_string(), "{records:#?}");
    assert_ne!(applied, confirmed);
    assert_eq!(host.somaxconn(), "65535");
}

/// 5 comes with words and is a failure that changed nothing.
#[test]
fn a_pending_transaction_fails_the_play_with_words() {
    let host = Host::with_program();
    let pending = host.shell(&format!("{BINARY} tune --apply --no-wait --settle 0 --confirm-within 60s --format json --set topology=host --only kernel.syn-backlog || [ $? = 7 ]"));
    let pending: Value = serde_json::from_str(&pending).unwrap();
    let played = play(&host, "preflight.yml", &[], &json!({}));
    played.is(0, 1);
    assert!(played.text.contains("Another transaction waits for its confirm"), "{}", played.text);
    assert!(played.text.contains(pending["tx"].as_str().unwrap()), "{}", played.text);
}

#[test]
fn the_examples_pass_ansible_lint() {
    let programs = ansible();
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(programs.join("ansible-lint"));
    command
        .args(["--offline", "--strict"])
        .current_dir(root().join("ansible"))
        .env("PATH", path)
        .env("HOME", home.path());
    succeeds(&mut command);
}

// ---- one connection, another one, none ----

/// The journal of the only transaction, as data.
fn journal(host: &Host) -> Vec<Value> {
    let text = host.shell("cat /var/lib/preflight/tx/*/journal.jsonl");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Over which it was applied, and over which confirmed.
fn connections(records: &[Value]) -> (Value, Value) {
    let record = |name: &str| records.iter().find(|record| record["type"] == name).unwrap();
    (record("begin")["who"]["ssh"].clone(), record("confirm")["by"]["ssh"].clone())
}

fn apply(window: &str) -> String {
    format!("{BINARY} tune --apply --no-wait --settle 0 --confirm-within {window} --format json {ONLY}")
}

/// The connection as sshd itself gives it to its children, in the journal's form.
fn connection(ssh_connection: &str) -> String {
    let words: Vec<&str> = ssh_connection.split_whitespace().collect();
    format!("{}:{}>{}:{}", words[0], words[1], words[2], words[3])
}

/// sudo and cron clear the environment, and a terminal multiplexer carries a stale one: the journal's word comes from
/// sshd's socket. Seen to fail with `SSH_CONNECTION` as the source.
#[test]
fn the_journal_names_the_connection_whatever_the_environment_says() {
    for cleared in ["", "env -i ", "sudo -n ", "env SSH_CONNECTION='10.9.9.9 1 10.9.9.8 22' ", "setsid --wait "] {
        let host = Host::with_program();
        let output =
            host.ssh(Some("shared"), &format!("echo $SSH_CONNECTION; {cleared}{}", apply("60s"))).output().unwrap();
        assert_eq!(output.status.code(), Some(7), "{cleared}: {}", told(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        let (first, rest) = text.split_once('\n').unwrap();
        let outcome: Value = serde_json::from_str(rest).unwrap();
        assert_eq!(outcome["changed"], json!(true));
        assert_eq!(journal(&host)[0]["who"]["ssh"], connection(first), "with `{cleared}`");
    }
}

/// Nothing in this plan can cut a connection, so no new one is asked for; the journal says over which it came all the same.
#[test]
fn a_harmless_plan_is_confirmed_over_the_same_connection() {
    let host = Host::with_program();
    let applied = host.ssh(Some("shared"), &apply("60s")).output().unwrap();
    assert_eq!(applied.status.code(), Some(7), "{}", told(&applied));
    assert_eq!(host.shell("ls /etc/sysctl.d | grep -c preflight || true"), "0", "on the disk before the confirm");
    let confirmed = host.ssh(Some("shared"), &format!("{BINARY} confirm")).output().unwrap();
    assert_eq!(confirmed.status.code(), Some(0), "{}", told(&confirmed));
    let records = journal(&host);
    let (applied, confirmed) = connections(&records);
    assert!(applied.is_string());
    assert_eq!(applied, confirmed);
    assert!(host.shell("cat /etc/sysctl.d/99-zz-preflight.conf").contains("65535"));
}

/// The word that a plan is harmless is in its journal; with that word turned, as a plan of a firewall has it, the same
/// connection is refused, a new one is taken, and the watchdog still runs meanwhile.
#[test]
fn a_risky_plan_is_confirmed_over_a_new_connection_only() {
    let host = Host::with_program();
    let applied = host.ssh(Some("shared"), &apply("60s")).output().unwrap();
    assert_eq!(applied.status.code(), Some(7), "{}", told(&applied));
    host.shell(&format!("python3 - <<'END'\n{MAKE_RISKY}\nEND"));
    let same = host.ssh(Some("shared"), &format!("{BINARY} confirm")).output().unwrap();
    assert_eq!(same.status.code(), Some(2), "{}", told(&same));
    assert!(told(&same).contains("proves nothing about a new one"), "{}", told(&same));
    // Past sshd: nobody knows what that proves.
    let console = host.inside().args([BINARY, "confirm"]).output().unwrap();
    assert_eq!(console.status.code(), Some(2), "{}", told(&console));
    let new = host.ssh(None, &format!("{BINARY} confirm")).output().unwrap();
    assert_eq!(new.status.code(), Some(0), "{}", told(&new));
    assert!(journal(&host).iter().any(|record| record["type"] == "confirm" && record["new_connection"] == true));
}

/// No knob of today can cut a connection. The journal's first record is turned into one that can, with a right sum.
const MAKE_RISKY: &str = r#"
import glob, zlib
path, = glob.glob("/var/lib/preflight/tx/*/journal.jsonl")
first, rest = open(path, "rb").read().split(b"\n", 1)
text, _ = first.rsplit(b',"crc":"', 1)
assert b'"connectivity_risk":false' in text, text
text = text.replace(b'"connectivity_risk":false', b'"connectivity_risk":true')
import sys
def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff
open(path, "wb").write(text + b',"crc":"%08x"}\n' % crc32c(text) + rest)
"#;

/// The session, its shell and sshd's process of it end at once; the watchdog does not.
#[test]
fn a_session_killed_within_the_window_brings_the_old_values_back() {
    let host = Host::with_program();
    let before = host.somaxconn();
    // Waits for the confirm on a terminal, in the foreground of the session.
    let wait = apply("15s").replace("--no-wait ", "--yes ");
    let mut command = host.controller();
    command.arg("ssh").args(host.ssh_options(None)).args(["-tt", "root@127.0.0.1", &wait]);
    let mut session = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while host.somaxconn() != "65535" {
        assert!(started.elapsed() < Duration::from_secs(20), "the apply did not come to its window");
        sleep(Duration::from_millis(100));
    }
    sleep(Duration::from_millis(300));
    let waiting = Instant::now();
    // sshd's child first, so that nobody says goodbye.
    assert!(host.kill("sshd: root@") > 0, "no session was there");
    session.kill().unwrap();
    session.wait().unwrap();
    while host.somaxconn() != before {
        assert!(
            waiting.elapsed() < Duration::from_secs(18),
            "{}",
            host.shell("cat /var/lib/preflight/tx/*/journal.jsonl")
        );
        sleep(Duration::from_millis(100));
    }
    sleep(Duration::from_millis(500));
    assert!(host.shell("ls /var/lib/preflight").lines().all(|name| !name.starts_with("open-")));
    let history: Value = serde_json::from_str(&host.shell(&format!("{BINARY} history --format json"))).unwrap();
    assert_eq!(history[0]["state"], "rolled_back", "{history}");
}
