//! The host of the apply tests and of the process that the sweeps kill.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use preflight::apply::clock::SystemClock;
use preflight::apply::journal::Event;
use preflight::apply::lock::LockPlace;
use preflight::apply::progress::Progress;
use preflight::apply::signals::Interrupt;
use preflight::apply::store::Store;
use preflight::apply::timer::{Armed, Timer, TimerError, start_watchdog};
use preflight::apply::who::Who;
use preflight::apply::{Env, NoBootTruth, Options, Recovery, State, TxId, Watch, apply, recover};
use preflight::change::Change;
use preflight::change::Kind;
use preflight::change::Plan;
use preflight::change::knob::Knob;
use preflight::change::knob::KnobError;
use preflight::change::knob::Knobs;
use preflight::exit::ExitCode;
use preflight::facts::Layer;
use preflight::host::Host;
use preflight::host::safe_file::Tree;
use preflight::subjects::knobs::HostKnobs;

pub(crate) const SOMAXCONN: &str = "sysctl:net.core.somaxconn";
pub(crate) const PORTS: &str = "sysctl:net.ipv4.ip_local_reserved_ports";
pub(crate) const DROP_IN: &str = "file:/etc/sysctl.d/99-zz-preflight.conf";
const BACKLOG: &str = "sysctl:net.ipv4.tcp_max_syn_backlog";
const LINK: &str = "link:/etc/runlevels/boot/preflight-thp";
const WANTED: [(&str, &str); 4] = [
    (SOMAXCONN, "65535"),
    (PORTS, "6379-6381"),
    (DROP_IN, "net.core.somaxconn = 65535\n"),
    (LINK, "/etc/init.d/preflight-thp"),
];

/// The calls that a transaction is made of.
const CALLS: [&str; 10] = [
    "write",
    "fsync",
    "fdatasync",
    "renameat",
    "unlinkat",
    "symlinkat",
    "openat2",
    "mkdirat",
    "fallocate",
    "ftruncate",
];

fn is_on_disk(target: &str) -> bool {
    target.starts_with("file:") || target == LINK
}

/// A network namespace for the settings, entered by this thread, and a folder for the files.
#[derive(Debug)]
pub(crate) struct Lab {
    root: PathBuf,
    /// `None` in a driver: the folder is its test's to remove.
    _folder: Option<tempfile::TempDir>,
}

/// Sysctls of the running kernel, files of the folder.
#[derive(Debug)]
struct LabKnobs<'a> {
    live: HostKnobs<'a>,
    files: HostKnobs<'a>,
}

impl Knobs for LabKnobs<'_> {
    fn resolve(&self, target: &str) -> Result<Box<dyn Knob + '_>, KnobError> {
        let knobs = if is_on_disk(target) { &self.files } else { &self.live };
        knobs.resolve(target)
    }
}

#[derive(Debug)]
struct LabWatch(Option<Interrupt>);

impl Watch for LabWatch {
    fn is_interrupted(&self) -> bool {
        self.0.as_ref().is_some_and(Interrupt::is_set)
    }
}

/// The watchdog of the product, with this test binary as its program.
#[derive(Debug)]
struct LabTimer(PathBuf);

impl Timer for LabTimer {
    fn arm(&self, tx: &TxId, deadline: Duration) -> Result<Armed, TimerError> {
        let environment = [
            ("PREFLIGHT_LAB_VERB", "watch".to_owned()),
            ("PREFLIGHT_LAB_ROOT", self.0.display().to_string()),
            ("PREFLIGHT_LAB_TX", tx.to_string()),
            ("PREFLIGHT_LAB_DEADLINE_US", deadline.as_micros().to_string()),
        ];
        let environment: Vec<(OsString, OsString)> =
            environment.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        start_watchdog(&driver(), &[], &environment)
    }

    fn disarm(&self, _: &str, _: &str) {}
}

/// For what ends long before its window.
#[derive(Debug)]
struct NoTimer;

impl Timer for NoTimer {
    fn arm(&self, _: &TxId, _: Duration) -> Result<Armed, TimerError> {
        Ok(Armed { kind: "none", name: String::new(), weakness: None })
    }

    fn disarm(&self, _: &str, _: &str) {}
}

/// The program that the tests start as a process of its own; in that program, itself.
fn driver() -> PathBuf {
    option_env!("CARGO_BIN_EXE_preflight-apply-driver").map_or_else(|| std::env::current_exe().unwrap(), PathBuf::from)
}

pub(crate) fn at_once() -> Options {
    Options { settle: Duration::ZERO, ..Options::default() }
}

/// The exit code of a driver: 0 and 101 are what a program ends with that never came to it.
pub(crate) fn code(exit: ExitCode) -> i32 {
    i32::from(exit as u8) + 10
}

/// A mount namespace of this thread's own.
pub(crate) fn private_mounts() {
    use nix::mount::{MsFlags, mount};
    unshare(CloneFlags::CLONE_NEWNS).expect("these tests need root");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
}

impl Lab {
    /// The folder of another process's lab, which is that one's to remove.
    #[allow(dead_code, reason = "only the driver is somebody else's")]
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root, _folder: None }
    }

    pub(crate) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let folder = tempfile::tempdir().unwrap();
        let lab = Self { root: folder.path().to_owned(), _folder: Some(folder) };
        lab.reset();
        lab
    }

    fn reset(&self) {
        for name in ["etc", "var", "run"] {
            let _ = std::fs::remove_dir_all(self.root().join(name));
        }
        std::fs::create_dir_all(self.root().join("etc/runlevels/boot")).unwrap();
        std::fs::create_dir_all(self.root().join("etc/sysctl.d")).unwrap();
        std::fs::create_dir_all(self.root().join("var/lib")).unwrap();
        std::fs::create_dir_all(self.root().join("run")).unwrap();
        self.set(SOMAXCONN, "4096");
        self.set(PORTS, "");
        self.set(BACKLOG, "512");
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    #[expect(clippy::unused_self, reason = "the settings are those of the namespace that the lab made")]
    pub(crate) fn set(&self, target: &str, value: &str) {
        std::fs::write(path(target), format!("{value}\n")).unwrap();
    }

    pub(crate) fn values(&self) -> BTreeMap<&'static str, String> {
        let read = |target: &str| match target.strip_prefix("file:") {
            Some(path) => {
                let path = self.root().join(path.trim_start_matches('/'));
                std::fs::read_to_string(path).unwrap_or("(absent)".into())
            }
            None if target == LINK => {
                let path = self.root().join(LINK.trim_start_matches("link:/"));
                std::fs::read_link(path).map_or("(absent)".into(), |to| to.display().to_string())
            }
            None => std::fs::read_to_string(path(target)).unwrap().trim().to_owned(),
        };
        WANTED.iter().map(|(target, _)| (*target, read(target))).collect()
    }

    pub(crate) fn is_new(&self) -> bool {
        self.values() == WANTED.iter().map(|(target, value)| (*target, (*value).to_owned())).collect()
    }

    pub(crate) fn is_old(&self) -> bool {
        let old = [(SOMAXCONN, "4096"), (PORTS, ""), (DROP_IN, "(absent)"), (LINK, "(absent)")];
        self.values() == old.iter().map(|(target, value)| (*target, (*value).to_owned())).collect()
    }

    pub(crate) fn plan(&self) -> Plan {
        let values = self.values();
        let change = |(target, after): &(&str, &str)| Change {
            id: "test".into(),
            layer: if is_on_disk(target) { Layer::Boot } else { Layer::Live },
            target: (*target).to_owned(),
            before: Some(values[target].clone()).filter(|value| value != "(absent)"),
            after: (*after).to_owned(),
            kind: Kind::Needed,
            undo: "put it back".into(),
            restarts: Vec::new(),
            connectivity_risk: false,
        };
        Plan::new(WANTED.iter().map(change).collect(), Vec::new(), Vec::new())
    }

    pub(crate) fn other_plan(&self) -> Plan {
        let mut plan = self.plan();
        plan.changes.truncate(1);
        BACKLOG.clone_into(&mut plan.changes[0].target);
        plan.changes[0].before = Some("512".into());
        plan.changes[0].after = "1024".into();
        plan
    }

    /// Runs a command of the library in this process.
    pub(crate) fn run<T>(&self, command: impl FnOnce(&Env<'_>) -> T) -> T {
        with_env(self.root(), None, command)
    }

    /// Starts the driver as a process; it inherits the network namespace of this thread.
    pub(crate) fn start(&self, verb: &str, env: &[(&str, String)], own_session: bool) -> Child {
        let mut command = Command::new(driver());
        command.env("PREFLIGHT_LAB_VERB", verb).env("PREFLIGHT_LAB_ROOT", self.root());
        command.envs(env.iter().map(|(name, value)| (name, value))).stdout(Stdio::null()).stderr(Stdio::null());
        if own_session {
            command.process_group(0);
        }
        command.spawn().unwrap()
    }

    pub(crate) fn newest(&self) -> Option<Progress> {
        self.run(|env| {
            let tx = env.store.transactions().ok()?.pop()?;
            Progress::of(&env.store.read(&tx).ok()??)
        })
    }

    pub(crate) fn newest_state(&self) -> Option<State> {
        self.newest().map(|progress| progress.state)
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.newest_state() == Some(State::PendingConfirm)
    }

    /// How long after its deadline the newest transaction was back, by the stamps of its journal.
    pub(crate) fn rolled_back_after_deadline(&self) -> Duration {
        let deadline = self.newest().unwrap().deadline.unwrap().0;
        let journal = self.run(|env| {
            let tx = env.store.transactions().unwrap().pop().unwrap();
            env.store.read(&tx).unwrap().unwrap()
        });
        let last = journal.records.iter().find(|record| matches!(record.event, Event::RolledBack { .. })).unwrap();
        Duration::from_micros(last.boottime_us.saturating_sub(deadline))
    }

    /// Copies the newest journal until there are `count`.
    pub(crate) fn multiply_history(&self, count: usize) {
        let folder = self.root().join("var/lib/preflight/tx");
        let tx = self.newest().unwrap().tx;
        let text = std::fs::read_to_string(folder.join(tx.as_str()).join("journal.jsonl")).unwrap();
        let journal = preflight::apply::journal::parse(&text).unwrap();
        for number in 0..count {
            let name = format!("20250101T{:06}Z-{number:08x}", number % 240_000);
            let mut records = journal.records.clone();
            if let Event::Begin { tx, .. } = &mut records[0].event {
                *tx = name.parse().unwrap();
            }
            let text: String = records.iter().map(|it| preflight::apply::journal::line(it).unwrap()).collect();
            std::fs::create_dir(folder.join(&name)).unwrap();
            std::fs::write(folder.join(&name).join("journal.jsonl"), text).unwrap();
        }
    }

    /// Runs the driver to its end and counts its calls, the ones that make room for the journal included.
    pub(crate) fn trace(&self, verb: &str, calls: &[&str]) -> BTreeMap<String, usize> {
        self.ready(verb);
        let list: Vec<&str> = calls.iter().chain(&["openat2"]).copied().collect();
        let (_, text) = self.strace(verb, &["-e", &format!("trace={}", list.join(","))]);
        let span = spans(&text);
        calls.iter().filter_map(|call| span.get(*call).map(|(_, total)| ((*call).to_owned(), *total))).collect()
    }

    fn ready(&self, verb: &str) {
        self.reset();
        if verb == "confirm" {
            let options = Options { confirm_within: Some(Duration::from_mins(10)), ..at_once() };
            let outcome =
                self.run(|env| apply(&self.plan(), &options, &Env { timer: &NoTimer, ..env.clone() })).unwrap();
            assert_eq!(outcome.state, Some(State::PendingConfirm), "{outcome:?}");
        }
        if verb == "rollback" {
            let outcome = self.run(|env| apply(&self.plan(), &at_once(), env)).unwrap();
            assert_eq!(outcome.state, Some(State::Committed), "{outcome:?}");
        }
    }

    fn strace(&self, verb: &str, options: &[&str]) -> (Option<i32>, String) {
        let output = self.root().join("trace");
        let status = Command::new("strace")
            .args(["-f", "-qq", "-s", "12", "-o"])
            .arg(&output)
            .args(options)
            .arg(driver())
            .env("PREFLIGHT_LAB_VERB", verb)
            .env("PREFLIGHT_LAB_ROOT", self.root())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("these tests need strace");
        (status.code(), std::fs::read_to_string(output).unwrap())
    }
}

/// Per call: how many before the first call of the engine, and how many in all, of the thread that carries it out. The
/// engine begins with its first openat2(2), which nothing else here uses.
fn spans(trace: &str) -> BTreeMap<String, (usize, usize)> {
    let begins = |line: &str| line.contains("openat2(");
    let begin = trace.lines().find(|line| begins(line)).expect("the trace shows no openat2");
    let thread = begin.split(' ').next().unwrap();
    let mut spans: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut begun = false;
    for line in trace.lines().filter(|line| line.split(' ').next() == Some(thread)) {
        begun |= begins(line);
        let Some((call, _)) = line[thread.len()..].trim().split_once('(') else { continue };
        let span = spans.entry(call.to_owned()).or_default();
        span.0 += usize::from(!begun);
        span.1 += 1;
    }
    spans
}

/// Disturbs each call of the driver in turn, recovers twice, and looks whether everything is whole.
pub(crate) fn sweep(verb: &str, disturbances: &[&str]) -> usize {
    let lab = Lab::new();
    lab.ready(verb);
    let (_, text) = lab.strace(verb, &["-e", &format!("trace={}", CALLS.join(","))]);
    let spans = spans(&text);
    let mut points = 0;
    for call in CALLS {
        let Some((before, total)) = spans.get(call).copied() else { continue };
        for at in before + 1..=total {
            for disturbance in disturbances {
                points += 1;
                disturb(&lab, verb, call, at, disturbance);
            }
        }
    }
    points
}

fn disturb(lab: &Lab, verb: &str, call: &str, at: usize, disturbance: &str) {
    let point = format!("{verb}, {call} number {at}, {disturbance}");
    lab.ready(verb);
    let inject = format!("inject={call}:{disturbance}:when={at}");
    let (exit, _) = lab.strace(verb, &["-e", &format!("trace={call}"), "-e", &inject]);
    // G7: whoever says success must mean it.
    if exit == Some(code(ExitCode::Success)) {
        let done = if verb == "rollback" { lab.is_old() } else { lab.is_new() };
        assert!(done, "{point}: success was reported and {:?} is the case", lab.values());
    }
    // A confirm that was cut off before its decision leaves the transaction waiting, and here nobody confirms again.
    let recovery = if verb == "confirm" { Recovery::Forced } else { Recovery::Unfinished };
    for round in 0..2 {
        let outcomes = lab.run(|env| recover(env, None, recovery)).unwrap();
        assert!(round == 0 || outcomes.is_empty(), "{point}: the second recovery found {outcomes:?}");
        assert!(lab.is_old() || lab.is_new(), "{point}, round {round}: {:?} after {outcomes:?}", lab.values());
    }
    if exit == Some(code(ExitCode::RolledBack)) {
        assert!(lab.is_old(), "{point}: rolled back was reported and {:?} is the case", lab.values());
    }
    lab.run(|env| {
        assert_eq!(env.store.managed().unwrap().is_empty(), lab.is_old(), "{point}: the summary is wrong");
        assert!(env.store.unfinished().unwrap().is_empty(), "{point}: something is left open");
    });
    let names: Vec<_> =
        std::fs::read_dir(lab.root().join("etc/sysctl.d")).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names.len(), usize::from(lab.is_new()), "{point}: {names:?} is left");
}

fn path(target: &str) -> String {
    format!("/proc/sys/{}", target.trim_start_matches("sysctl:").replace('.', "/"))
}

pub(crate) fn with_env<T>(root: &Path, interrupt: Option<Interrupt>, command: impl FnOnce(&Env<'_>) -> T) -> T {
    let (live, files) = (Tree::open(Path::new("/")).unwrap(), Tree::open(root).unwrap());
    let knobs = LabKnobs { live: HostKnobs::new(&live, true), files: HostKnobs::new(&files, true) };
    let store = Store::new(Tree::open(root).unwrap(), "/var/lib/preflight");
    let lock = LockPlace::new(Tree::open(root).unwrap(), "/run/preflight");
    let clock = SystemClock::new(&Host::live());
    let timer = LabTimer(root.to_owned());
    command(&Env {
        store: &store,
        lock: &lock,
        knobs: &knobs,
        timer: &timer,
        clock: &clock,
        boot: &NoBootTruth,
        watch: &LabWatch(interrupt),
        who: Who::this_process(&Host::live()),
    })
}
