//! Changing the host so that every change can be taken back.
//!
//! [`apply`] carries out a plan as one transaction: everything that can fail is tried first, every old value is durable
//! before the first write, the running kernel is changed before the disk, and the disk only after the confirm. Until
//! then a crash, a deadline or a power cut takes everything back; after it, a crash finishes what was confirmed.
//!
//! ```text
//! planned -> staged -> armed -> applying -> verifying -> pending_confirm -> persisting -> committed
//!                         \________ any failure, signal, deadline _______/       \-> forward after a crash
//!                                              v
//!                    rolling_back -> rolled_back | rolled_back_with_conflicts | rollback_failed
//! ```
//!
//! Nothing here knows the catalogue, the judge or the command line.

pub mod boots;
pub mod clock;
mod confirm;
pub mod history;
pub mod journal;
pub mod knob;
pub mod lock;
pub mod managed;
pub mod outcome;
mod persist;
pub mod progress;
mod recover;
pub mod recovery;
mod rollback;
mod session;
pub mod signals;
pub mod store;
pub mod timer;
pub mod tool;
mod transaction;
mod undo;
pub mod verify;
pub mod who;

#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod old_journals_tests;
#[cfg(test)]
mod world;

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

pub use crate::change::id::TxId;
pub use crate::change::state::State;
pub use confirm::{Connection, confirm};
pub use history::{Entry, history};
pub use outcome::{ApplyError, Outcome};
pub use recover::{Recovery, clear, recover};
pub use rollback::{Selection, rollback};
pub use transaction::{Options, apply, window};
pub use verify::{Drift, Restart, Verified, verify};

use crate::change::knob::Knobs;
use clock::{Clock, SystemClock};
use journal::Step;
use lock::{LOCK_DIR, LockPlace};
use store::{STATE_DIR, Store, StoreError};
use timer::{HostTimer, Timer};
use who::Who;

use crate::host::Host;
use crate::host::safe_file::Tree;

/// How long a command waits for another one to let go of the lock. An apply does not wait.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_mins(1);

/// A change that another file undoes at the next boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overridden {
    /// `sysctl:vm.swappiness`.
    pub target: String,
    pub expected: String,
    pub found: String,
    /// The file and line that win.
    pub by: String,
}

/// A program that was started before a value was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleProcess {
    /// `redis-server.service`, `redis-server (process 4711)`.
    pub what: String,
    /// Whether it surely has the older value; else that cannot be seen.
    pub is_certain: bool,
    pub reason: String,
}

/// A value of the next boot that cannot be determined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownAtBoot {
    /// `sysctl:vm.swappiness`.
    pub target: String,
    pub expected: String,
    pub why: String,
}

/// Computes what the next boot will set, over all files that this OS reads.
pub trait BootTruth: Debug {
    /// Which of the values that these steps put on the disk will not be the case, and of which that cannot be determined. Asked
    /// after they are there.
    fn overridden(&self, steps: &[&Step]) -> Vec<Result<Overridden, UnknownAtBoot>>;

    /// What runs with an older value than a step brought, as far as that can be seen. `since_us` is when the step was
    /// done, in microseconds of `CLOCK_BOOTTIME`; `None`: before this boot. An error when nobody could be looked at.
    fn behind(&self, _step: &Step, _since_us: Option<u64>) -> Result<Vec<StaleProcess>, String> {
        Ok(Vec::new())
    }

    /// What a step was made of and is not any more, such as Docker's networks; an error when that cannot be determined. Asked
    /// while the step's value is there.
    fn outdated(&self, _step: &Step) -> Result<Option<Overridden>, String> {
        Ok(None)
    }

    /// Who may have taken away what a step brought, as far as the host's files tell.
    fn suspect(&self, _step: &Step) -> Option<String> {
        None
    }
}

/// A boot whose files nobody computes.
#[derive(Debug)]
pub struct NoBootTruth;

impl BootTruth for NoBootTruth {
    fn overridden(&self, _: &[&Step]) -> Vec<Result<Overridden, UnknownAtBoot>> {
        Vec::new()
    }
}

/// Who looks on while a transaction runs.
pub trait Watch: Debug {
    /// Whether somebody wants it to stop: the current step is finished, then everything is taken back.
    fn is_interrupted(&self) -> bool {
        false
    }

    /// The live values hold and are watched for another while.
    fn settling(&self, _left: Duration) {}

    /// It waits for the confirm.
    fn waiting(&self, _tx: &TxId, _left: Duration) {}

    /// A place where tests end the process. Does nothing in earnest.
    fn checkpoint(&self, _name: &'static str) {}
}

/// Nobody looks on.
#[derive(Debug)]
pub struct Unwatched;

impl Watch for Unwatched {}

/// Everything that a transaction touches, so that a test can stand in for any of it.
#[derive(Debug, Clone)]
pub struct Env<'a> {
    pub store: &'a Store,
    pub lock: &'a LockPlace,
    pub knobs: &'a dyn Knobs,
    pub timer: &'a dyn Timer,
    pub clock: &'a dyn Clock,
    pub boot: &'a dyn BootTruth,
    pub watch: &'a dyn Watch,
    pub who: Who,
}

/// The parts of an [`Env`] on a real host, or on an image under `--root`.
#[derive(Debug)]
pub struct Machine {
    tree: Tree,
    store: Store,
    lock: LockPlace,
    clock: SystemClock,
    timer: HostTimer,
    host: Host,
}

impl Machine {
    /// `state_dir` replaces `/var/lib/preflight`; it must exist. Under a root, state and lock lie inside the image. A state
    /// that others could have written is refused here, for whoever changes by it and for whoever only tells what it says.
    pub fn open(host: &Host, state_dir: Option<&Path>) -> Result<Self, StoreError> {
        let root = host.root().unwrap_or(Path::new("/"));
        let store = match state_dir {
            Some(dir) => Store::new(Tree::open(dir)?, "/"),
            None => Store::new(Tree::open(root)?, STATE_DIR),
        };
        let lock = match state_dir {
            Some(dir) => LockPlace::new(Tree::open(dir)?, "/lock"),
            None if host.is_live() => LockPlace::new(Tree::open(root)?, LOCK_DIR),
            None => LockPlace::new(Tree::open(root)?, Path::new(STATE_DIR).join("lock")),
        };
        store.audit()?;
        Ok(Self {
            tree: Tree::open(root)?,
            store,
            lock,
            clock: SystemClock::new(host),
            timer: HostTimer::new(host, state_dir),
            host: host.clone(),
        })
    }

    /// The files of this machine, for its knobs.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Whether it is the machine that runs.
    pub fn is_live(&self) -> bool {
        self.host.is_live()
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn clock(&self) -> &dyn Clock {
        &self.clock
    }

    pub fn env<'a>(&'a self, knobs: &'a dyn Knobs, boot: &'a dyn BootTruth, watch: &'a dyn Watch) -> Env<'a> {
        Env {
            store: &self.store,
            lock: &self.lock,
            knobs,
            timer: &self.timer,
            clock: &self.clock,
            boot,
            watch,
            // Found by walking through the process table, which whoever only looks has no need of.
            who: Who::this_process(&self.host),
        }
    }
}
