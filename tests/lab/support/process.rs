//! Programs that the tests run, what they printed, and waits that end.

use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// What a run printed and how it ended.
#[derive(Debug, Clone)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Its output, when it ended with this code; a failed test otherwise.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> String {
        assert_eq!(self.code, code, "expected exit code {code}:\n{}\n{}", self.stdout, self.stderr);
        self.stdout
    }

    /// One text of each in a list of the answer.
    #[track_caller]
    pub(crate) fn texts(&self, list: &str, key: &str) -> Vec<String> {
        self.json()[list].as_array().unwrap().iter().map(|it| it[key].as_str().unwrap().to_owned()).collect()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// The program under test: the one that cargo built, or the one that `tests/run release` installed from the archive.
pub(crate) fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        std::env::var("PREFLIGHT_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_preflight").to_owned())
    })
}

/// Runs to the end; anything but success is a failed test that shows what was printed.
#[track_caller]
pub(crate) fn run(argv: &[&str]) -> String {
    let output = try_run(argv);
    assert!(output.status.success(), "{argv:?} ended with {}:\n{}", output.status, told(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn try_run(argv: &[&str]) -> Output {
    Command::new(argv[0])
        .args(&argv[1..])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{argv:?} cannot be run: {error}"))
}

#[track_caller]
pub(crate) fn succeeds(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?} ended with {}:\n{}", output.status, told(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Both outputs in one text.
pub(crate) fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits for something that another process does, named by `what`; its absence after `patience` is a failed test.
#[track_caller]
pub(crate) fn eventually(what: &str, patience: Duration, is_so: impl FnMut() -> bool) {
    assert!(comes_true(patience, is_so), "not within {patience:?}: {what}");
}

/// Whether something that another process does came about in that time.
pub(crate) fn comes_true(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !is_so() {
        if started.elapsed() > patience {
            return false;
        }
        sleep(Duration::from_millis(20));
    }
    true
}

/// Fails the test, rather than skipping it, when the lab cannot be had.
#[track_caller]
pub(crate) fn require_root() {
    assert!(nix::unistd::geteuid().is_root(), "the lab suites need root: sudo -E tests/run SUITE");
}

/// A name that no other test process uses.
pub(crate) fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Ends a process by its id: politely, then not.
pub(crate) fn end(child: &mut Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    if child.try_wait().ok().flatten().is_some() {
        return;
    }
    let _ = kill(pid, Signal::SIGTERM);
    if !comes_true(Duration::from_secs(15), || child.try_wait().ok().flatten().is_some()) {
        drop(child.kill());
        drop(child.wait());
    }
}
