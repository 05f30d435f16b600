//! `verify` on a host that has drifted, while one of its reads fails: what it could not read must not make it say that all
//! is well.

use std::process::{Child, Stdio};
use std::time::Duration;

use super::place::{DROP_IN, Place};
use crate::support::process::{Ran, eventually, program};

/// The calls by which a host is read.
const READS: &str =
    "openat,openat2,read,pread64,getdents64,readlink,readlinkat,statx,newfstatat,fstat,access,faccessat2";

/// One way to drift, and how it is put right again. Alone, so that nothing else makes the verdict red.
const DRIFTS: [(&str, &str, &str); 4] = [
    ("live", "echo 777 > /proc/sys/net/core/somaxconn", "echo 65535 > /proc/sys/net/core/somaxconn"),
    ("edited", "cp $F /run/kept; echo '# mine' >> $F", "cat /run/kept > $F"),
    ("gone", "cp $F /run/kept; rm $F", "cat /run/kept > $F"),
    (
        "overridden",
        "mkdir -p /run/sysctl.d; echo net.core.somaxconn=5 > /run/sysctl.d/99-zzz.conf",
        "rm -r /run/sysctl.d",
    ),
];

/// Each read of `verify` fails once in each way, and the drift that is there is told, or that something could not be read.
/// Every k-th point: `PREFLIGHT_SEED` repeats a run, `PREFLIGHT_EVERY=1` takes all. Seen failing with `HostTruth::overridden`
/// leaving out what is unknown: 260 of 3198 points said "4 of 4 as applied" of a host that a later file overrides.
#[test]
fn an_error_at_any_read_of_verify_is_never_a_clean_verdict() {
    let place = Place::new();
    assert_eq!(place.apply(&[]).code, 0);
    assert_eq!(place.run(&["verify"]).code, 0);
    let mut wrong = Vec::new();
    for (name, drift, back) in DRIFTS {
        place.shell(&format!("F={DROP_IN}; {drift}"));
        let points = sweep(&place, name, &[], 9, &mut wrong);
        assert!(points >= 250, "{name}: only {points} points");
        place.shell(&format!("F={DROP_IN}; {back}"));
        assert_eq!(place.run(&["verify"]).code, 0, "{name} was not put right");
    }
    assert!(wrong.is_empty(), "{} clean verdicts:\n{}", wrong.len(), wrong.join("\n"));
}

/// The same of what was started before the change, at the reads of the list of processes, of that process and of the journal.
/// Seen failing with a journal or a process that could not be read passed over: 26 of 36 points were clean.
#[test]
fn an_error_at_the_reads_of_processes_is_never_a_clean_verdict() {
    let place = Place::new();
    place.shell("cp /bin/sleep /run/redis-server");
    let mut redis: Child = place.command("/run/redis-server").arg("1000").stdout(Stdio::null()).spawn().unwrap();
    let pid = redis.id();
    eventually("the program bears its name", Duration::from_secs(5), || {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default() == "redis-server\n"
    });
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(place.apply(&[]).code, 0);
    let mut wrong = Vec::new();
    let journal = place.shell("ls /var/lib/preflight/tx/*/journal.jsonl").trim().to_owned();
    let paths = ["/proc".to_owned(), format!("/proc/{pid}/stat"), format!("/proc/{pid}/ns/net"), journal];
    for path in &paths {
        let points = sweep(&place, path, &["-P", path], 1, &mut wrong);
        assert!(points > 0, "nobody reads {path}");
    }
    redis.kill().unwrap();
    redis.wait().unwrap();
    assert!(wrong.is_empty(), "{} clean verdicts:\n{}", wrong.len(), wrong.join("\n"));
}

/// How many points there were; the clean verdicts are added to `wrong`.
fn sweep(place: &Place, name: &str, filter: &[&str], every: usize, wrong: &mut Vec<String>) -> usize {
    let strace = |options: &[&str]| {
        let mut command = place.command("strace");
        command.args(["-f", "-qq", "-o", "/run/trace"]).args(filter).args(options).arg(program());
        Ran::from(command.args(["verify", "--color", "never"]).output().unwrap())
    };
    let is_clean = |ran: &Ran| ran.code == 0 && !ran.stdout.contains("perhaps restart");
    let base = strace(&["-e", &format!("trace={READS}")]);
    assert_eq!(base.code, 1, "{name} is not seen: {base:?}");
    let trace = place.shell("cat /run/trace");
    let mut points = Vec::new();
    for call in READS.split(',') {
        let count = trace.lines().filter(|line| line.contains(&format!(" {call}("))).count();
        points.extend((1..=count).flat_map(|at| ["EIO", "EACCES"].map(|error| (call, error, at))));
    }
    let seed: usize =
        std::env::var("PREFLIGHT_SEED").map_or_else(|_| std::process::id() as usize, |it| it.parse().unwrap());
    let every = std::env::var("PREFLIGHT_EVERY").map_or(every, |it| it.parse().unwrap());
    println!("{name}: {} points, PREFLIGHT_SEED={seed}, every {every}th", points.len());
    for (call, error, at) in points.iter().skip(seed % every).step_by(every) {
        let inject = format!("inject={call}:error={error}:when={at}");
        let ran = strace(&["-e", &format!("trace={call}"), "-e", &inject]);
        if is_clean(&ran) {
            let line = place.shell("grep INJECTED /run/trace || true");
            wrong.push(format!("{name}: {line}  {}", ran.stdout));
        }
    }
    points.len()
}
