//! A host for tests: shared knobs in memory, real files in a folder, a clock that only moves when told, and a switch
//! that ends the "process" at any step.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::Duration;

use super::clock::Clock;
use super::knob::file::ManagedFile;
use super::knob::place::{FilePlace, Places};
use super::lock::LockPlace;
use super::store::Store;
use super::timer::{Armed, Timer, TimerError};
use super::who::Who;
use super::{Env, NoBootTruth, Watch};
use crate::change::id::TxId;
use crate::change::knob::{Capabilities, Knob, KnobError, Knobs, Reading};
use crate::change::{Change, Kind, Plan};
use crate::facts::Layer;
use crate::host::safe_file::{Attributes, FileError, Tree};

/// What a killed process unwinds with. No `Drop` of the engine does anything but close files, so unwinding is as good
/// as a kill for everything but unsynced pages.
struct Killed;

#[derive(Debug)]
pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    tree: Tree,
    store: Store,
    lock: LockPlace,
    pub(super) live: RefCell<BTreeMap<String, String>>,
    now: Cell<Duration>,
    boot: Cell<u32>,
    /// The boot as a journal of another machine names it.
    boot_name: RefCell<Option<String>>,
    /// The process ends at the n-th step from now.
    pub(super) kill_in: Cell<Option<u32>>,
    /// The n-th write to a knob from now fails.
    pub(super) fail_in: Cell<Option<u32>>,
    pub(super) is_interrupted: Cell<bool>,
    /// Somebody sets this knob while the live values settle.
    pub(super) fighter: RefCell<Option<(String, String)>>,
    pub(super) ssh: RefCell<Option<String>>,
    pub(super) is_timer_broken: Cell<bool>,
    pub(super) steps_taken: Cell<u32>,
}

const PLACES: Places = Places::new(
    &[&[
        FilePlace::ours("/etc/sysctl.d/99-zz-preflight.conf", 0o644),
        FilePlace::ours("/etc/tmpfiles.d/00-preflight*.conf", 0o644),
        FilePlace::shared("/etc/docker/daemon.json"),
    ]],
    &[],
);

pub(super) const DROP_IN: &str = "file:/etc/sysctl.d/99-zz-preflight.conf";
pub(super) const DAEMON: &str = "file:/etc/docker/daemon.json";

/// A knob with which the kernel moves another, as the switch for huge pages does.
pub(super) const MOVER: &str = "fake:mover";
pub(super) const MOVED: &str = "fake:moved";

impl World {
    pub(super) fn new() -> Self {
        // A tmpfs where there is one: these tests sync thousands of times and ask nothing of the disk.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let tree = || Tree::open(folder.path()).unwrap();
        tree().create_dirs(Path::new("/etc/sysctl.d"), 0o755).unwrap();
        tree().create_dirs(Path::new("/etc/docker"), 0o755).unwrap();
        Self {
            store: Store::new(tree(), "/var/lib/preflight"),
            lock: LockPlace::new(tree(), "/run/preflight"),
            tree: tree(),
            folder,
            live: RefCell::new(
                ["a", "b", "c", "mover", "moved"].map(|name| (format!("fake:{name}"), "d".to_owned())).into(),
            ),
            now: Cell::new(Duration::from_secs(1000)),
            boot: Cell::new(0),
            boot_name: RefCell::new(None),
            kill_in: Cell::new(None),
            fail_in: Cell::new(None),
            is_interrupted: Cell::new(false),
            fighter: RefCell::new(None),
            ssh: RefCell::new(None),
            is_timer_broken: Cell::new(false),
            steps_taken: Cell::new(0),
        }
    }

    pub(super) fn env(&self) -> Env<'_> {
        let who = Who { uid: 0, sudo_user: None, ssh: self.ssh.borrow().clone() };
        Env {
            store: &self.store,
            lock: &self.lock,
            knobs: self,
            timer: self,
            clock: self,
            boot: &NoBootTruth,
            watch: self,
            who,
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Runs one command as a process of its own; `None`: it was killed.
    pub(super) fn process<T>(&self, command: impl FnOnce(&Env<'_>) -> T) -> Option<T> {
        let result = catch_unwind(AssertUnwindSafe(|| command(&self.env())));
        self.kill_in.set(None);
        self.fail_in.set(None);
        match result {
            Ok(value) => Some(value),
            Err(cause) if cause.is::<Killed>() => None,
            Err(cause) => resume_unwind(cause),
        }
    }

    pub(super) fn value(&self, target: &str) -> Option<String> {
        match target.strip_prefix("file:") {
            Some(path) => {
                let content = self.tree.read(Path::new(path)).unwrap()?;
                Some(String::from_utf8(content.bytes).unwrap())
            }
            None => self.live.borrow().get(target).cloned(),
        }
    }

    /// Everything that a test can change.
    pub(super) fn values(&self) -> BTreeMap<String, Option<String>> {
        let live: Vec<String> = self.live.borrow().keys().cloned().collect();
        let targets = live.into_iter().chain([DROP_IN, DAEMON].map(str::to_owned));
        targets.map(|target| (target.clone(), self.value(&target))).collect()
    }

    /// Somebody else's edit.
    pub(super) fn edit(&self, target: &str, value: &str) {
        match target.strip_prefix("file:") {
            Some(path) => self.tree.replace(Path::new(path), value.as_bytes(), Attributes::own(0o644)).unwrap(),
            None => drop(self.live.borrow_mut().insert(target.to_owned(), value.to_owned())),
        }
    }

    /// Gives a knob a value, or takes away its file.
    pub(super) fn edit_if(&self, target: &str, value: Option<&str>) {
        match value {
            Some(value) => self.edit(target, value),
            None => assert_eq!(self.value(target), None, "only what is there from the start would have to go"),
        }
    }

    pub(super) fn reboot(&self) {
        self.boot.set(self.boot.get() + 1);
        self.now.set(Duration::from_secs(5));
        self.live.borrow_mut().values_mut().for_each(|value| "d".clone_into(value));
    }

    /// The boot and the time of a journal that another machine wrote.
    pub(super) fn as_of(&self, boot_id: &str, now: Duration) {
        *self.boot_name.borrow_mut() = Some(boot_id.to_owned());
        self.now.set(now);
    }

    pub(super) fn advance(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }

    /// A plan from what is there now.
    pub(super) fn plan(&self, wishes: &[(&str, &str)]) -> Plan {
        let change = |(target, after): &(&str, &str)| Change {
            id: format!("test.{}", target.len()),
            layer: if target.starts_with("file:") { Layer::Boot } else { Layer::Live },
            target: (*target).to_owned(),
            before: self.value(target),
            after: (*after).to_owned(),
            kind: Kind::Needed,
            undo: "put it back".into(),
            restarts: Vec::new(),
            connectivity_risk: *target == "fake:c",
        };
        Plan::new(wishes.iter().map(change).collect(), Vec::new(), Vec::new())
    }

    /// Every file but the state, with its content: what must be as before when everything is taken back.
    pub(super) fn files(&self) -> BTreeMap<String, Option<String>> {
        let mut found = BTreeMap::new();
        for folder in ["/etc", "/etc/sysctl.d", "/etc/docker"] {
            for name in self.tree.list(Path::new(folder)).unwrap() {
                let path = format!("{folder}/{}", name.to_string_lossy());
                let value = self.tree.read(Path::new(&path)).ok().flatten();
                found.insert(path, value.map(|content| String::from_utf8_lossy(&content.bytes).into_owned()));
            }
        }
        found
    }

    fn step(&self) {
        self.steps_taken.set(self.steps_taken.get() + 1);
        if let Some(left) = self.kill_in.get() {
            if left == 0 {
                self.kill_in.set(None);
                resume_unwind(Box::new(Killed));
            }
            self.kill_in.set(Some(left - 1));
        }
    }
}

impl Clock for World {
    fn boot_id(&self) -> String {
        self.boot_name.borrow().clone().unwrap_or_else(|| format!("boot-{}", self.boot.get()))
    }

    fn boottime(&self) -> Duration {
        self.now.get()
    }

    fn wall(&self) -> jiff::Timestamp {
        // Seconds since the first of 2026; it goes on over a reboot.
        let second =
            1_767_225_600 + i64::from(self.boot.get()) * 1_000_000 + i64::try_from(self.now.get().as_secs()).unwrap();
        jiff::Timestamp::from_second(second).unwrap()
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
        if let Some((target, value)) = self.fighter.borrow_mut().take() {
            self.edit(&target, &value);
        }
    }
}

impl Watch for World {
    fn is_interrupted(&self) -> bool {
        self.is_interrupted.get()
    }

    fn checkpoint(&self, _: &'static str) {
        self.step();
    }
}

impl Timer for World {
    fn arm(&self, _: &TxId, _: Duration) -> Result<Armed, TimerError> {
        if self.is_timer_broken.get() {
            return Err(TimerError::Watchdog(std::io::Error::other("it is broken")));
        }
        Ok(Armed { kind: "test", name: "test".into(), weakness: None })
    }

    fn disarm(&self, _: &str, _: &str) {}
}

impl Knobs for World {
    fn resolve(&self, target: &str) -> Result<Box<dyn Knob + '_>, KnobError> {
        if self.live.borrow().contains_key(target) {
            return Ok(Box::new(FakeKnob { world: self, target: target.to_owned() }));
        }
        let knob = target.strip_prefix("file:").and_then(|path| ManagedFile::new(&self.tree, &PLACES, path));
        knob.map(|knob| Box::new(knob) as _).ok_or_else(|| KnobError::UnknownTarget(target.to_owned()))
    }
}

/// A shared knob in memory.
#[derive(Debug)]
struct FakeKnob<'a> {
    world: &'a World,
    target: String,
}

impl Knob for FakeKnob<'_> {
    fn target(&self) -> &str {
        &self.target
    }

    fn layer(&self) -> Layer {
        Layer::Live
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            footprint: if self.target == MOVER { vec![MOVED.to_owned()] } else { Vec::new() },
            ..Capabilities::live()
        }
    }

    fn read(&self) -> Result<Reading, KnobError> {
        Ok(Reading { value: self.world.value(&self.target), ..Reading::default() })
    }

    fn validate(&self, _: &str) -> Result<(), KnobError> {
        Ok(())
    }

    fn stage(&self, _: &TxId, _: &str) -> Result<(), KnobError> {
        Ok(())
    }

    fn unstage(&self, _: &TxId) -> Result<(), KnobError> {
        Ok(())
    }

    fn write(&self, _: &TxId, value: &str) -> Result<(), KnobError> {
        self.world.step();
        match self.world.fail_in.get() {
            Some(0) => {
                self.world.fail_in.set(None);
                let source = nix::errno::Errno::EIO.into();
                let source = FileError { action: "write", path: self.target.clone().into(), source };
                return Err(KnobError::File { target: self.target.clone(), source });
            }
            left => self.world.fail_in.set(left.map(|left| left - 1)),
        }
        self.world.edit(&self.target, value);
        if self.target == MOVER {
            self.world.edit(MOVED, "kernel");
        }
        self.world.step();
        Ok(())
    }

    fn restore(&self, tx: &TxId, to: &Reading) -> Result<(), KnobError> {
        self.write(tx, to.value.as_deref().unwrap_or_default())
    }
}
