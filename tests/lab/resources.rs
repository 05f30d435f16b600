//! Memory, CPU, disk and time against the real kernel: in real control groups, under a real affinity, on real mounts in
//! a private mount namespace, beside programs that ask the kernel by themselves (df, adjtimex through Python).
//!
//! Needs root. The unified hierarchy of a hybrid machine has no memory and CPU controllers, so limits are cgroup v1's
//! here where v1 is mounted, and v2's otherwise.
//!
//! The probes run in a process of their own: this test binary again, with only `facts_for_the_caller`.

use crate::support::process::program;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use preflight::catalog::library;
use preflight::catalog::parameters::{Parameters, Setting};
use preflight::facts::{Facts, Layer, State, Value};
use preflight::host::Host;
use preflight::subjects::context::Context;
use preflight::subjects::context::Want;
use preflight::subjects::resources::cpu;
use preflight::subjects::resources::disk;
use preflight::subjects::resources::memory;
use preflight::subjects::time::read as time;

const MIB: u64 = 1 << 20;

const MEMORY: &[&str] = &["memory.total", "memory.available"];
const CPU: &[&str] = &["cpu.count"];
const DISK: &[&str] = &["disk.data.available", "disk.data.inodes", "disk.data.filesystem", "disk.data.rotational"];

/// The line that carries the facts out of the helper process.
const MARK: &str = "FACTS ";

/// The helper: gathers what `LAB_WANT` names for the data directory `LAB_DATA_DIR`. By itself it only shows that the
/// probes of this file know their facts here.
#[test]
fn facts_for_the_caller() {
    let want = std::env::var("LAB_WANT").unwrap_or_else(|_| [MEMORY, CPU, DISK].concat().join(" "));
    let mut parameters = Parameters::default();
    let data_dir = std::env::var("LAB_DATA_DIR").unwrap_or_else(|_| "/".into());
    parameters.insert("data_dir", Setting::One(Value::Text(data_dir)));
    let os = library::os_profile("debian", &[]);
    let host = Host::live();
    let want = Want::new(want.split(' ').map(Into::into));
    let cx = Context::new(&host, &want, &parameters, os);
    let mut facts = Facts::default();
    for probe in [memory::probe, cpu::probe, disk::probe, time::probe] {
        probe(&cx, &mut facts);
    }
    assert_eq!(facts.len(), want.iter().count(), "{facts:?}");
    println!("\n{MARK}{}", serde_json::to_string(&facts).unwrap());
}

/// The facts that the helper finds when a shell runs it after `setup`. `$0`… of the setup are free; it must not exec.
fn facts_after(setup: &str, want: &[&str], data_dir: &str) -> (Facts, String) {
    run(&["sh", "-euc", &format!("{setup}\nexec \"$@\"")], want, data_dir)
}

/// The same in a mount namespace of its own, which ends with the helper.
fn facts_with_mounts(setup: &str, want: &[&str], data_dir: &str) -> (Facts, String) {
    let script = format!("{setup}\nexec \"$@\"");
    run(&["unshare", "-m", "--propagation", "private", "sh", "-euc", &script], want, data_dir)
}

fn run(wrapper: &[&str], want: &[&str], data_dir: &str) -> (Facts, String) {
    let output = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg("sh")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "resources::facts_for_the_caller", "--nocapture"])
        .env("LAB_WANT", want.join(" "))
        .env("LAB_DATA_DIR", data_dir)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "this test needs root and the programs in `{wrapper:?}`: {text}{errors}");
    let json = text.lines().find_map(|line| line.strip_prefix(MARK)).expect(&text);
    (serde_json::from_str(json).unwrap(), text)
}

fn bytes(facts: &Facts, id: &str) -> u64 {
    match facts.value(id) {
        Some(Value::Bytes(bytes)) => *bytes,
        other => panic!("{id} is {other:?}: {facts:?}"),
    }
}

fn note<'a>(facts: &'a Facts, id: &str) -> &'a str {
    facts.get(id, Layer::Live).unwrap().note.as_deref().unwrap_or_default()
}

/// A control group that is removed, with its children, when the test ends.
struct Group {
    dir: PathBuf,
    unified: bool,
}

impl Group {
    fn new(controller: &str, name: &str) -> Self {
        let v1 = Path::new("/sys/fs/cgroup").join(controller);
        let unified = !v1.exists();
        let base = if unified { PathBuf::from("/sys/fs/cgroup") } else { v1 };
        let dir = base.join(format!("preflight-lab-{name}-{}", std::process::id()));
        fs::create_dir(&dir).expect("making a control group needs root");
        let group = Self { dir, unified };
        if unified {
            for parent in [&base, &group.dir] {
                fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
            }
        }
        fs::create_dir(group.dir.join("inner")).unwrap();
        group
    }

    fn write(&self, inner: bool, v1: (&str, &str), v2: (&str, &str)) {
        let (file, value) = if self.unified { v2 } else { v1 };
        let dir = if inner { self.dir.join("inner") } else { self.dir.clone() };
        fs::write(dir.join(file), value).unwrap();
    }

    /// The shell line that enters the inner group.
    fn enter(&self) -> String {
        format!("echo $$ > {}/inner/cgroup.procs", self.dir.display())
    }

    fn path(&self) -> String {
        format!("/{}", self.dir.file_name().unwrap().to_str().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The helper has been waited for; the kernel may take a moment to notice.
        for dir in [self.dir.join("inner"), self.dir.clone()] {
            for _ in 0..50 {
                if fs::remove_dir(&dir).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
        assert!(!self.dir.exists(), "{} is left behind", self.dir.display());
    }
}

fn limit_memory(group: &Group, inner: bool, bytes: u64) {
    let value = bytes.to_string();
    group.write(inner, ("memory.limit_in_bytes", &value), ("memory.max", &value));
}

/// Fails when only the process's own group is read.
#[test]
fn memory_is_limited_by_the_tightest_ancestor() {
    let group = Group::new("memory", "ancestor");
    limit_memory(&group, false, 256 * MIB);
    let (facts, _) = facts_after(&group.enter(), MEMORY, "/");
    assert_eq!(bytes(&facts, "memory.total"), 256 * MIB);
    let text = note(&facts, "memory.total");
    assert!(text.starts_with(&format!("limited to 256 MiB by cgroup {}; the host has ", group.path())), "{text}");
    let left = bytes(&facts, "memory.available");
    assert!(left > 128 * MIB && left <= 256 * MIB, "{left} left of 256 MiB with next to nothing in use");
}

/// Fails when only the ancestors, or only the loosest of several, is taken.
#[test]
fn memory_is_limited_by_the_own_group() {
    let group = Group::new("memory", "own");
    limit_memory(&group, false, 512 * MIB);
    limit_memory(&group, true, 192 * MIB);
    let (facts, _) = facts_after(&group.enter(), MEMORY, "/");
    assert_eq!(bytes(&facts, "memory.total"), 192 * MIB);
    assert!(note(&facts, "memory.total").contains("/inner; the host has"));
}

/// Without reading the page cache as reclaimable this sees the 192 MiB that the file leaves. Which of the file's pages the kernel
/// takes for active is its own affair, mostly none of them: then 501 MiB are left, but less than 320 were seen, too. So the
/// file is written until most of them are inactive.
#[test]
fn file_cache_of_the_group_counts_as_available() {
    let group = Group::new("memory", "cache");
    limit_memory(&group, false, 512 * MIB);
    let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    let setup = format!(
        "{enter}
        for attempt in 1 2 3 4 5 6 7 8; do
          head -c {size} /dev/zero >{file}
          sync {file}
          inactive=$(sed -n 's/^{key} //p' {dir}/inner/memory.stat)
          [ \"$inactive\" -lt {enough} ] || break
          sleep 0.2
        done",
        enter = group.enter(),
        size = 320 * MIB,
        file = file.path().display(),
        key = if group.unified { "inactive_file" } else { "total_inactive_file" },
        dir = group.dir.display(),
        enough = 240 * MIB,
    );
    let (facts, _) = facts_after(&setup, MEMORY, "/");
    let left = bytes(&facts, "memory.available");
    assert!(left > 400 * MIB, "only {} MiB of 512 left after writing a file of 320", left / MIB);
}

/// In a cgroup namespace the own group is `/` and the limiting ancestor has no files: the kernel's own answer in
/// `memory.stat` must be taken. v1 only; on v2 such an ancestor cannot be seen by anyone inside.
#[test]
fn an_ancestor_outside_of_the_cgroup_namespace_binds() {
    let group = Group::new("memory", "namespace");
    assert!(!group.unified, "this test needs the v1 memory controller");
    limit_memory(&group, false, 256 * MIB);
    let script = "umount /sys/fs/cgroup/memory\nmount -t cgroup -o memory none /sys/fs/cgroup/memory\nexec \"$@\"";
    let setup = format!("{}\nexec unshare -C -m --propagation private sh -euc '{script}' sh \"$@\"", group.enter());
    let (facts, _) = facts_after(&setup, MEMORY, "/");
    assert_eq!(bytes(&facts, "memory.total"), 256 * MIB);
    assert!(note(&facts, "memory.total").contains("cgroup around /;"), "{}", note(&facts, "memory.total"));
}

/// Both ways in which a sandbox hides them: something mounted over them, and no mount at all. Fails where a file that is
/// not there is taken for no limit.
#[test]
fn limits_that_are_hidden_are_unknown() {
    for hide in ["mount -t tmpfs none /sys/fs/cgroup", "umount -R /sys/fs/cgroup"] {
        let (facts, _) = facts_with_mounts(hide, &[MEMORY, CPU].concat(), "/");
        for id in [MEMORY, CPU].concat() {
            match &facts.get(id, Layer::Live).unwrap().state {
                State::Unknown { error, .. } => assert!(error.contains("are hidden from it"), "{hide}: {error}"),
                state => panic!("{hide}: {id} is {state:?}"),
            }
        }
    }
}

#[test]
fn without_a_limit_memory_is_what_the_kernel_says() {
    let group = Group::new("memory", "none");
    let (facts, _) = facts_after(&group.enter(), MEMORY, "/");
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let kib: u64 = meminfo.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(bytes(&facts, "memory.total"), kib * 1024);
}

/// By a fake: the kernel's own `/proc/meminfo` cannot be made to shrink. It covers the live reader.
#[test]
fn a_fake_meminfo_is_read_as_it_is_and_a_broken_one_is_unknown() {
    let fake = tempfile::NamedTempFile::new().unwrap();
    let all = ["memory.total", "memory.available", "memory.hugepages", "swap.total"];
    let mount = format!("mount --bind {} /proc/meminfo", fake.path().display());
    let text = "MemTotal: 2000000 kB\nMemFree: 1 kB\nMemAvailable: 1500000 kB\nSwapTotal: 1024 kB\nSwapFree: 0 kB\nHugePages_Total: 3\nHugepagesize: 2048 kB\n";
    fs::write(fake.path(), text).unwrap();
    let (facts, _) = facts_with_mounts(&mount, &all, "/");
    assert_eq!(bytes(&facts, "memory.total"), 2_000_000 * 1024);
    assert_eq!(bytes(&facts, "memory.available"), 1_500_000 * 1024);
    assert_eq!(bytes(&facts, "memory.hugepages"), 6 * MIB);
    assert_eq!(bytes(&facts, "swap.total"), MIB);
    fs::write(fake.path(), "nothing of use\n").unwrap();
    let (facts, _) = facts_with_mounts(&mount, &all, "/");
    for id in ["memory.total", "memory.available", "swap.total"] {
        let fact = facts.get(id, Layer::Live).unwrap();
        assert!(matches!(fact.state, State::Unknown { .. }), "{id}: {fact:?}");
    }
}

fn online() -> i64 {
    let output = Command::new("getconf").arg("_NPROCESSORS_ONLN").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn limit_cpu(group: &Group, inner: bool, quota: &str) {
    group.write(inner, ("cpu.cfs_quota_us", quota), ("cpu.max", &format!("{quota} 100000")));
}

#[test]
fn cpus_are_limited_by_affinity_and_by_the_quota_of_any_ancestor() {
    let online = online();
    assert!(online >= 2, "this test needs two CPUs");
    let count = |facts: &Facts| facts.value("cpu.count").cloned();
    let (facts, _) = facts_after(":", CPU, "/");
    assert_eq!(count(&facts), Some(Value::Int(online)));

    let (facts, _) = facts_after("exec taskset -c 0 \"$@\"", CPU, "/");
    assert_eq!(count(&facts), Some(Value::Int(1)));
    assert_eq!(note(&facts, "cpu.count"), format!("1 by the affinity of this process; {online} online"));

    let group = Group::new("cpu", "quota");
    limit_cpu(&group, false, "150000");
    let (facts, _) = facts_after(&group.enter(), CPU, "/");
    assert_eq!(count(&facts), Some(Value::Int(1)));
    let expected = format!("1.5 CPUs by the quota of cgroup {}; {online} online", group.path());
    assert_eq!(note(&facts, "cpu.count"), expected);
    limit_cpu(&group, true, "50000");
    let (facts, _) = facts_after(&group.enter(), CPU, "/");
    assert_eq!(count(&facts), Some(Value::Int(0)));
    assert!(note(&facts, "cpu.count").starts_with("0.5 CPUs"), "{}", note(&facts, "cpu.count"));
}

/// What df grants an unprivileged user, in bytes; printed by the setup scripts below as a line of its own.
const DF: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups df -B1 --output=avail";

fn df(path: &str) -> u64 {
    let output = Command::new("sh").args(["-c", &format!("{DF} {path}")]).output().unwrap();
    last_number(&String::from_utf8(output.stdout).unwrap())
}

fn last_number(text: &str) -> u64 {
    text.lines().filter_map(|line| line.trim().parse().ok()).next_back().expect(text)
}

/// Others write to this disk meanwhile, so all three answers must agree once, and ours never be far off.
#[test]
fn the_room_on_the_root_file_system_is_what_df_says() {
    for _ in 0..50 {
        let before = df("/");
        let (facts, _) = facts_after(":", DISK, "/no/such/folder");
        let after = df("/");
        let ours = bytes(&facts, "disk.data.available");
        if before == ours && ours == after {
            assert!(note(&facts, "disk.data.available").ends_with("; /no/such/folder does not exist yet"));
            return;
        }
        assert!(ours.abs_diff(before) < 4 << 30, "{ours} is not near {before}");
    }
    panic!("df and the probe never agreed");
}

/// Fails when the file system of the parent of the mount point, or of `/`, is asked.
#[test]
fn the_room_of_a_small_mount_counts_for_a_folder_that_does_not_exist_yet() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let setup = format!("mount -t tmpfs -o size=64m tmpfs {at}\nhead -c 10M /dev/zero > {at}/full\n{DF} {at}");
    let (facts, text) = facts_with_mounts(&setup, DISK, &format!("{at}/later/redis"));
    let df = text.lines().find_map(|line| line.trim().parse::<u64>().ok()).expect(&text);
    assert_eq!(bytes(&facts, "disk.data.available"), df);
    assert_eq!(df, 54 * MIB);
    assert_eq!(facts.value("disk.data.filesystem"), Some(&Value::Text("tmpfs".into())));
    assert_eq!(note(&facts, "disk.data.available"), format!("on {at} (tmpfs); {at}/later/redis does not exist yet"));
    assert!(matches!(facts.get("disk.data.rotational", Layer::Live).unwrap().state, State::Absent(_)));
}

/// A third of this ext4 is kept for root: `f_bfree` would promise it to Redis.
#[test]
fn blocks_kept_for_root_are_not_available() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let setup = format!(
        "truncate -s 64M {at}/image\nmkfs.ext4 -q -m 30 {at}/image\nmkdir {at}/disk\n\
         mount -o loop {at}/image {at}/disk\nchmod 755 {at} {at}/disk\n{DF} {at}/disk"
    );
    let (facts, text) = facts_with_mounts(&setup, DISK, &format!("{at}/disk"));
    let df = text.lines().find_map(|line| line.trim().parse::<u64>().ok()).expect(&text);
    assert_eq!(bytes(&facts, "disk.data.available"), df);
    assert!(df < 45 * MIB, "the image has no blocks kept for root: {df}");
    assert_eq!(facts.value("disk.data.filesystem"), Some(&Value::Text("ext4".into())));
    match facts.value("disk.data.inodes") {
        Some(Value::Percent(percent)) => assert!((90..=100).contains(percent), "{percent}"),
        other => panic!("{other:?}"),
    }
}

/// The folder exists on the upper mount; the longest mount point of its name belongs to the covered one.
#[test]
fn a_covered_mount_is_not_taken_for_the_real_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let setup = format!(
        "mkdir -p {at}/a/b\nmount -t ramfs ramfs {at}/a/b\nmount -t tmpfs -o size=32m tmpfs {at}/a\nmkdir {at}/a/b"
    );
    let (facts, _) = facts_with_mounts(&setup, DISK, &format!("{at}/a/b"));
    assert_eq!(facts.value("disk.data.filesystem"), Some(&Value::Text("tmpfs".into())));
    assert_eq!(bytes(&facts, "disk.data.available"), 32 * MIB);
}

/// Without root the mount behind a closed folder must not be answered for by the folder's own file system.
#[test]
fn a_mount_that_this_user_cannot_reach_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let setup = format!(
        "chmod 755 {at}\nmkdir -p {at}/closed/disk\nchmod 700 {at}/closed\nmount -t tmpfs -o size=8m tmpfs {at}/closed/disk\n\
         exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\""
    );
    let (facts, _) = facts_with_mounts(&setup, DISK, &format!("{at}/closed/disk/redis"));
    let fact = facts.get("disk.data.available", Layer::Live).unwrap();
    assert!(matches!(&fact.state, State::Unknown { help: Some(help), .. } if help == "run as root"), "{fact:?}");
    let (facts, _) = facts_with_mounts(&setup, DISK, &format!("{at}/closed/other"));
    assert!(note(&facts, "disk.data.available").ends_with("/closed/other is not visible to this user"));
}

/// Read 32 bytes at a time, as the standard library does without a hint, this list ends after its first 32 bytes.
#[test]
fn a_long_list_of_reserved_ports_is_read_whole() {
    const FILE: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
    let list: Vec<String> = (10_000..10_400).step_by(2).map(|port| port.to_string()).collect();
    fs::write(FILE, list.join(",")).unwrap();
    assert_eq!(Host::live().read_text(FILE).unwrap().trim(), list.join(","));
}

/// The kernel is asked for the same bound through Python's ctypes, before and after. On a machine whose clock has no
/// reference both say 16 s, as `esterror` would: there this test proves little.
#[test]
fn the_clock_error_is_what_adjtimex_says() {
    // struct timex: modes, offset, freq, maxerror, … (adjtimex(2)); native longs.
    const PYTHON: &str = "import ctypes; b = (ctypes.c_long * 64)(); \
                          assert ctypes.CDLL(None).adjtimex(b) >= 0; print(b[3])";
    let oracle = || {
        let output = Command::new("python3").args(["-c", PYTHON]).output().expect("python3 is needed");
        last_number(&String::from_utf8(output.stdout).unwrap())
    };
    let before = oracle();
    let (facts, _) = facts_after(":", &["time.synchronized", "time.max-error"], "/");
    let after = oracle();
    let Some(Value::Duration(ours)) = facts.value("time.max-error") else { panic!("{facts:?}") };
    let ours = u64::try_from(ours.as_micros()).unwrap();
    // It only grows, but for the moment in which a daemon disciplines the clock.
    assert!((before.min(after)..=before.max(after)).contains(&ours), "{before} {ours} {after}");
    assert_eq!(facts.value("time.synchronized"), Some(&Value::Bool(ours < 16_000_000)));
}

/// A disk made slow by strace, which lets each wait for it return later: 64 waits of 40 ms, and as many of 250 ms as
/// preflight has patience for.
#[test]
fn a_slow_disk_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for (delay_us, expected) in [(0, "pass"), (40_000, "warn"), (250_000, "fail")] {
        let inject = format!("inject=fdatasync:delay_exit={delay_us}");
        let strace = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", inject.as_str()];
        let data_dir = format!("data_dir={}", folder.path().join("data").display());
        let check =
            ["check", "--deep", "--only", "resource.data-fsync", "--format", "json", "--set", data_dir.as_str()];
        let output = Command::new("strace").args(strace).arg(program()).args(check).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["findings"][0]["result"], expected, "{report:#}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
