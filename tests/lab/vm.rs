//! The truth after a reboot: a real Debian with systemd, cgroup v2 and a kernel of its own, in a virtual machine.
//!
//! packages: qemu-system-x86 qemu-utils mmdebstrap e2fsprogs openssh-client binutils util-linux zstd systemd shellcheck
//!
//! Here are the settings that the whole machine shares (vm.*, huge pages), which no other suite touches, and what only a
//! real boot shows: which file wins, what a power cut leaves, whether systemd's timer fires when nobody is there.
//! Deadlines are judged by the guest's own clock since boot, in the journal and by an observer that shares no code with
//! preflight; never by how fast a login answers.

#![allow(clippy::disallowed_methods, reason = "a test builds and looks at the machine directly")]
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

#[path = "support/vm.rs"]
mod lab;

use std::collections::BTreeMap;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::{BOOKWORM, Ran, TRIXIE, Vm};
use serde_json::Value;

/// A plan that changes something on every kind of live knob that this machine has.
const EVERYTHING: &str = "--yes --settle 0 --format json";

/// The settings looked at, as the kernel shows them.
const SETTINGS: [(&str, &str); 5] = [
    ("overcommit", "/proc/sys/vm/overcommit_memory"),
    ("swappiness", "/proc/sys/vm/swappiness"),
    ("somaxconn", "/proc/sys/net/core/somaxconn"),
    ("syn_backlog", "/proc/sys/net/ipv4/tcp_max_syn_backlog"),
    ("thp", "/sys/kernel/mm/transparent_hugepage/enabled"),
];

// ---- what is asked of the guest ----

/// The settings by name; of the huge pages, the word in brackets.
fn settings(vm: &Vm) -> BTreeMap<&'static str, String> {
    let paths: Vec<&str> = SETTINGS.iter().map(|(_, path)| *path).collect();
    let text = vm.run(&format!("cat {}", paths.join(" ")));
    let values = text.lines().map(|line| {
        let chosen = line.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word);
        chosen.unwrap_or(line).to_owned()
    });
    let settings: BTreeMap<_, _> = SETTINGS.iter().map(|(name, _)| *name).zip(values).collect();
    assert_eq!(settings.len(), SETTINGS.len(), "{text}");
    settings
}

/// The id of the only transaction that is open, or of the newest.
#[track_caller]
fn transaction(ran: &Ran) -> String {
    ran.json()["tx"].as_str().unwrap_or_else(|| panic!("no transaction: {ran:?}")).to_owned()
}

/// The journal's records.
fn journal(vm: &Vm, tx: &str) -> Vec<Value> {
    let text = vm.run(&format!("cat /var/lib/preflight/tx/{tx}/journal.jsonl"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn event<'a>(journal: &'a [Value], kind: &str) -> &'a Value {
    journal.iter().find(|record| record["type"] == kind).unwrap_or_else(|| panic!("no `{kind}` in {journal:#?}"))
}

/// Everything that preflight may have written outside of its state, with contents.
fn files(vm: &Vm) -> String {
    vm.run(
        "find /etc/sysctl.d /etc/sysctl.conf /etc/tmpfiles.d /etc/systemd/system /etc/tuned /usr/local \
         -type f ! -path '/usr/local/bin/preflight' 2>/dev/null | sort | xargs -r sha256sum",
    )
}

/// Waits, in the guest, until a shell condition holds.
#[track_caller]
fn wait_until(vm: &Vm, condition: &str, seconds: u64) {
    let script =
        format!("n=0; until {condition}; do n=$((n+1)); [ $n -lt {} ] || exit 9; sleep 0.5; done", seconds * 2);
    let ran = vm.try_run(&script);
    assert_eq!(ran.code, 0, "`{condition}` did not come true within {seconds} s: {ran:?}\n{}", state_of(vm));
}

/// For the message of a failed test.
fn state_of(vm: &Vm) -> String {
    vm.try_run("preflight history; systemctl list-timers --all --no-pager; journalctl -b --no-pager -n 40; uptime")
        .stdout
}

/// Notes the time since boot and overcommit_memory ten times a second, outside of any session: the oracle for when the old
/// value was back. /proc/uptime counts suspends in, like the clock of the deadline.
fn observe(vm: &Vm) {
    vm.run(
        "cat >/run/observer <<'END'\n\
         #!/bin/bash\n\
         exec 9<> <(:)\n\
         while :; do\n\
         read -r value </proc/sys/vm/overcommit_memory; read -r now _ </proc/uptime\n\
         echo \"$now $value\"; read -r -t 0.1 -u 9\n\
         done\n\
         END\n\
         systemd-run --quiet --collect --unit=observer --nice=-10 \
           --property=StandardOutput=file:/run/observed bash /run/observer",
    );
}

/// What the observer saw: seconds since boot, value.
fn observed(vm: &Vm) -> Vec<(f64, i64)> {
    let text = vm.run("systemctl stop observer; cat /run/observed");
    let all: Vec<(f64, i64)> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(at, value)| Some((at.parse().ok()?, value.parse().ok()?)))
        .collect();
    assert!(all.len() > 20, "the observer saw too little: {all:?}");
    all
}

/// The guarantee of the window: the journal says that the old state was back by the deadline and two seconds, and the
/// observer saw it.
#[track_caller]
fn assert_back_in_time(vm: &Vm, tx: &str, no_earlier: bool) {
    let records = journal(vm, tx);
    let deadline = event(&records, "armed")["deadline_us"].as_f64().unwrap() / 1e6;
    let back = event(&records, "rolled_back")["boottime_us"].as_f64().unwrap() / 1e6;
    let seen = observed(vm);
    let changed = seen.iter().position(|(_, value)| *value == 1).expect("the observer saw the new value");
    let (seen_back, _) =
        *seen[changed..].iter().find(|(_, value)| *value == 0).expect("the observer saw the old value");
    assert!(seen[changed..].iter().skip_while(|(_, value)| *value == 1).all(|(_, value)| *value == 0), "{seen:?}");
    println!(
        "taken back {:+.2} s from the deadline by the journal, {:+.2} s as seen",
        back - deadline,
        seen_back - deadline
    );
    assert!(back <= deadline + 2.0, "back {:.2} s after the deadline\n{}", back - deadline, state_of(vm));
    assert!(seen_back <= deadline + 2.0, "seen back {:.2} s after the deadline", seen_back - deadline);
    if no_earlier {
        assert!(seen_back >= deadline - 0.2, "back {:.2} s before the deadline", deadline - seen_back);
    }
}

// ---- check ----

/// A modern host, which the machine that builds this may not be: cgroup v2, systemd as init, a kernel with modules.
#[test]
fn check_knows_a_real_host_and_what_its_next_boot_sets() {
    let mut vm = Vm::cold(BOOKWORM);
    assert_eq!(vm.run("stat -fc %T /sys/fs/cgroup; cat /proc/1/comm"), "cgroup2fs\nsystemd\n");
    let ran = vm.try_run("preflight check --format json");
    let report = ran.json();
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.len() > 40, "{report}");
    let unknown: Vec<&Value> = findings.iter().filter(|finding| finding["result"] == "unknown").collect();
    assert!(unknown.is_empty(), "unknown on a plain host: {unknown:#?}");
    let snapshot = vm.try_run("preflight facts").json();
    let live = |id: &str| snapshot["facts"][id]["live"]["state"]["known"].clone();
    let number = |text: String| text.trim().parse::<i64>().unwrap();
    assert_eq!(live("memory.total")["bytes"], number(vm.run("awk '/^MemTotal/ {print $2 * 1024}' /proc/meminfo")));
    assert_eq!(live("cpu.count")["int"], 2);
    assert_eq!(
        live("time.synchronized")["bool"],
        false,
        "nothing synchronises this clock: {}",
        snapshot["facts"]["time.synchronized"]
    );
    println!("{} findings: {}", findings.len(), report["summary"]);

    // What the next boot sets, without a file of anybody.
    assert_boot_truth(&mut vm, "");
    // Files that fight: a vendor's, the administrator's of the same name, the old sysctl.conf, a later one, a line that
    // may fail, and a glob.
    assert_boot_truth(
        &mut vm,
        "mkdir -p /etc/sysctl.d /usr/lib/sysctl.d /run/sysctl.d /etc/tmpfiles.d\n\
         echo 'vm.overcommit_memory = 2' >/usr/lib/sysctl.d/50-lab.conf\n\
         echo 'vm.swappiness = 33' >>/usr/lib/sysctl.d/50-lab.conf\n\
         echo 'vm.swappiness = 22' >/etc/sysctl.d/50-lab.conf\n\
         echo 'net.core.somaxconn = 1111' >/etc/sysctl.conf\n\
         echo 'net.core.somaxconn = 2222' >/etc/sysctl.d/40-lab.conf\n\
         echo '-net/ipv4/tcp_max_syn_backlog = 777' >/etc/sysctl.d/zz-lab.conf\n\
         echo 'w /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise' >/etc/tmpfiles.d/lab.conf",
    );
}

/// Compares the boot layer of every fact with what is live after a real boot.
fn assert_boot_truth(vm: &mut Vm, prepare: &str) {
    vm.run(prepare);
    let said = vm.try_run("preflight facts").json();
    vm.reboot();
    let is = vm.try_run("preflight facts").json();
    let (mut known, mut unknown) = (0, Vec::new());
    for (id, layers) in said["facts"].as_object().unwrap() {
        let Some(boot) = layers.get("boot") else { continue };
        let Some(value) = boot["state"].get("known") else {
            unknown.push((id, boot));
            continue;
        };
        known += 1;
        assert_eq!(*value, is["facts"][id]["live"]["state"]["known"], "{id}: {boot} was said after `{prepare}`");
    }
    println!("{known} settings after a boot as foretold, {} not foretold: {unknown:?}", unknown.len());
    assert!(known >= 8, "{known} known, unknown: {unknown:#?}");
}
