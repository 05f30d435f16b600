//! The timer that takes an unconfirmed change back: it must fire when the session, this process and the terminal are
//! gone.
//!
//! With systemd it is a transient timer unit, outside of any session. Without, a process of its own session, started and
//! heard from before the first change; it is weaker, since whoever kills all processes kills it too.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Env;
use super::clock::{boottime, micros};
use super::outcome::{ApplyError, Outcome, Verb};
use super::progress::Progress;
use super::recover::{self, Recovery, recover};
use super::session::resolve;
use super::store::{Held, StoreError};
use super::tool;
use crate::change::id::TxId;
use crate::change::knob::KnobError;
use crate::facts::Layer;
use crate::host::command::{CommandError, Runner};
use crate::host::safe_file::{Attributes, Content, FileError, Tree};
use crate::host::units;
use crate::host::{Host, detached, env};

/// What the watchdog says when it runs on its own.
const ARMED: &str = "armed\n";

/// Systemd answers within milliseconds; a host under load gets time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Release builds are a few MiB, debug builds a few hundred.
const MAX_PROGRAM_BYTES: u64 = 1 << 30;

/// How long before the deadline systemd starts the program, which waits for the rest by itself: the timer's accuracy is a
/// second, and a busy machine takes another one to start a program.
const HEAD_START: Duration = Duration::from_secs(2);

/// How often the watchdog looks whether it is still needed.
const LOOK: Duration = Duration::from_secs(1);

/// How often the end of a window is tried again, a look apart.
const MORE_TRIES: u32 = 30;

/// A timer that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Armed {
    /// `systemd` or `watchdog`.
    pub kind: &'static str,
    /// The unit, or the process.
    pub name: String,
    /// What the user should know about it.
    pub weakness: Option<String>,
}

/// Why no timer could be set.
#[derive(Debug, thiserror::Error)]
pub enum TimerError {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("the program for the timer: {0}")]
    Program(#[from] FileError),
    #[error("{0}")]
    Watchdog(std::io::Error),
}

/// Sets and stops timers.
pub trait Timer: Debug {
    /// Returns when the timer certainly runs. `deadline` is in `CLOCK_BOOTTIME`.
    fn arm(&self, tx: &TxId, deadline: Duration) -> Result<Armed, TimerError>;

    /// Stops a timer that is not needed any more. One that fires nevertheless finds nothing to do.
    fn disarm(&self, kind: &str, name: &str);
}

/// Systemd's where it runs, a watchdog of our own elsewhere.
#[derive(Debug)]
pub struct HostTimer {
    has_systemd: bool,
    state_dir: Option<PathBuf>,
}

impl HostTimer {
    pub fn new(host: &Host, state_dir: Option<&Path>) -> Self {
        // The rehearsal is waited for over the message bus, which a minimal system leaves out: systemd's
        // own socket answers `systemd-run`, but not `systemd-run --wait`.
        let has_systemd = units::runs_systemd(host) && host.metadata("/run/dbus/system_bus_socket").is_ok();
        // Whoever takes it back starts in another folder.
        let state_dir = state_dir.map(|dir| std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()));
        Self { has_systemd, state_dir }
    }

    /// Whether the timer survives whatever kills the processes of a session.
    pub fn is_durable(&self) -> bool {
        self.has_systemd
    }

    fn arguments(&self, words: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
        if let Some(dir) = &self.state_dir {
            arguments.push("--state-dir".into());
            arguments.push(dir.into());
        }
        arguments
    }

    fn arm_systemd(&self, tx: &TxId, deadline: Duration) -> Result<Armed, TimerError> {
        let tree = Tree::open(Path::new("/"))?;
        let program = durable_program(&tree)?;
        let run = |arguments: Vec<OsString>| {
            let unit = arguments;
            Runner::new(tool::find(&tree, "systemd-run")?, PATIENCE).args(unit).run_checked().map_err(TimerError::from)
        };
        // A rehearsal by systemd itself: SELinux, a noexec mount or a missing library show now and not at the deadline.
        let mut rehearsal: Vec<OsString> = ["--wait", "--collect", "--quiet"].iter().map(OsString::from).collect();
        rehearsal.push(format!("--unit=preflight-rehearsal-{tx}").into());
        rehearsal.push(program.clone().into());
        rehearsal.extend(self.arguments(&["rollback", "--rehearse", tx.as_str()]));
        run(rehearsal)?;
        let unit = format!("preflight-rollback-{tx}");
        // The default accuracy of a timer is a whole minute (systemd.timer(5)).
        let mut timer: Vec<OsString> =
            ["--collect", "--quiet", "--timer-property=AccuracySec=1s"].iter().map(OsString::from).collect();
        // What is left now: on a busy machine the copy and the rehearsal take seconds, and the deadline does not move.
        let left = deadline.saturating_sub(boottime());
        let start = left.saturating_sub(HEAD_START.min(left / 2)).max(Duration::from_millis(1));
        timer.push(format!("--on-active={}us", micros(start)).into());
        timer.push(format!("--unit={unit}").into());
        timer.push(program.into());
        timer.extend(self.arguments(&["recover", "--if-unconfirmed", tx.as_str()]));
        run(timer)?;
        let name = format!("{unit}.timer");
        Runner::new(tool::find(&tree, "systemctl")?, PATIENCE).args(["is-active", "--quiet", &name]).run_checked()?;
        Ok(Armed { kind: "systemd", name, weakness: None })
    }
}

impl Timer for HostTimer {
    fn arm(&self, tx: &TxId, deadline: Duration) -> Result<Armed, TimerError> {
        if self.has_systemd {
            return self.arm_systemd(tx, deadline);
        }
        let program = env::program().map_err(TimerError::Watchdog)?;
        let deadline = micros(deadline).to_string();
        let arguments = self.arguments(&["recover", "--watch", tx.as_str(), "--deadline-us", &deadline]);
        start_watchdog(&program, &arguments, &[])
    }

    fn disarm(&self, kind: &str, name: &str) {
        // The name comes from the journal; only one of our own units is ever stopped.
        let is_ours = name
            .strip_prefix("preflight-rollback-")
            .and_then(|rest| rest.strip_suffix(".timer"))
            .is_some_and(|tx| tx.parse::<TxId>().is_ok());
        if kind == "systemd"
            && is_ours
            && self.has_systemd
            && let Ok(tree) = Tree::open(Path::new("/"))
            && let Ok(tool) = tool::find(&tree, "systemctl")
        {
            // A timer that cannot be stopped fires, finds the transaction ended, and leaves.
            let _ = Runner::new(tool, PATIENCE).args(["stop", "--quiet", name]).run();
        }
    }
}

/// Starts a watchdog and waits for its word.
pub fn start_watchdog(
    program: &Path,
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
) -> Result<Armed, TimerError> {
    let pid = detached::start(program, arguments, environment, ARMED, PATIENCE).map_err(TimerError::Watchdog)?;
    let weakness =
        "no systemd with a message bus here: the timer is a process, and whoever ends all processes ends it too"
            .to_owned();
    Ok(Armed { kind: "watchdog", name: pid.to_string(), weakness: Some(weakness) })
}

/// The life of the watchdog: a session of its own, one word, and then nothing until the deadline or the end of its
/// transaction. Its caller runs it as the whole program.
pub fn watch(env: &Env<'_>, tx: &TxId, deadline: Duration) -> Result<Vec<Outcome>, ApplyError> {
    let failed = |what: &str, error: String| ApplyError::Refused(format!("cannot {what}: {error}"));
    // Fails only for the leader of a group, which is detached enough.
    let _ = nix::unistd::setsid();
    super::signals::Interrupt::install().map_err(|error| failed("take over the signals", error.to_string()))?;
    // From here on it does not matter what becomes of the folder.
    let held = env.store.hold(tx).ok().flatten();
    let mut stdout = std::io::stdout();
    let said = stdout.write_all(ARMED.as_bytes()).and_then(|()| stdout.flush());
    said.map_err(|error| failed("answer", error.to_string()))?;
    loop {
        let left = deadline.saturating_sub(env.clock.boottime());
        if left.is_zero() {
            break;
        }
        env.clock.sleep(left.min(LOOK));
        if is_ended(env, tx, held.as_ref()) {
            return Ok(Vec::new());
        }
    }
    take_back(env, tx, held)
}

/// Whether there is nothing left to watch over. What cannot be looked at now may be at the deadline: only an answer ends
/// the watch. That a marker is gone is none, since a folder may be, too: the journal has the last word.
fn is_ended(env: &Env<'_>, tx: &TxId, held: Option<&Held>) -> bool {
    let is_marked = env.store.unfinished().map(|open| open.contains(tx));
    let ended = |held| {
        let journal = env.store.read_held(tx, held).ok();
        journal.as_ref().and_then(Progress::of).is_some_and(|progress| progress.state.is_terminal())
    };
    matches!(is_marked, Ok(false)) && held.is_none_or(ended)
}

/// The last one who could take it back does not give up at the first error.
fn take_back(env: &Env<'_>, tx: &TxId, held: Option<Held>) -> Result<Vec<Outcome>, ApplyError> {
    let attempt = || match &held {
        held if is_ended(env, tx, held.as_ref()) => Ok(Vec::new()),
        Some(held) => {
            let outcome = recover::held(env, tx, held.again()?, Recovery::Unfinished, Verb::Recover)?;
            Ok(outcome.into_iter().collect())
        }
        None => recover(env, Some(tx), Recovery::Unfinished),
    };
    for _ in 0..MORE_TRIES {
        match attempt() {
            Err(_) => env.clock.sleep(LOOK),
            done => return done,
        }
    }
    attempt()
}

/// What the systemd timer runs: the deadline is a little away yet.
pub fn if_unconfirmed(env: &Env<'_>, tx: &TxId) -> Result<Vec<Outcome>, ApplyError> {
    let held = env.store.hold(tx);
    // A journal is never removed: whoever moved it away keeps this from being taken back, and must hear of it.
    if let Ok(None) = held {
        return Err(ApplyError::Lost { tx: tx.clone(), dir: env.store.shown().to_owned() });
    }
    let held = held.ok().flatten();
    // Without a deadline that can be read it is now.
    let journal = held.as_ref().and_then(|held| env.store.read_held(tx, held).ok());
    let deadline = journal.and_then(|journal| Progress::of(&journal)?.deadline);
    if let Some((deadline_us, boot_id)) = deadline
        && boot_id == env.clock.boot_id()
    {
        let left = Duration::from_micros(deadline_us).saturating_sub(env.clock.boottime());
        env.clock.sleep(left.min(Duration::from_secs(5)));
    }
    take_back(env, tx, held)
}

/// What the timer would need at the deadline, tried beforehand in the surroundings in which it will run: to read the
/// journal, and to open what it would write. Changes nothing and takes no lock.
pub fn rehearse(env: &Env<'_>, tx: &TxId) -> Result<(), ApplyError> {
    let journal = env.store.read(tx)?;
    let Some(progress) = journal.and_then(|journal| Progress::of(&journal)) else {
        return Err(StoreError::NoTransaction(tx.clone()).into());
    };
    let steps: Vec<_> = progress.steps.into_iter().map(|step| step.step).collect();
    for (knob, step) in resolve(env, &steps)?.iter().zip(&steps).filter(|(_, step)| step.layer == Layer::Live) {
        let refused = |error: KnobError| ApplyError::Refused(error.to_string());
        knob.read().map_err(refused)?;
        knob.stage(tx, &step.after).map_err(refused)?;
    }
    Ok(())
}

/// This program where it will still be at the deadline: itself when it is installed, else a copy. Ansible removes the
/// folder it runs from, and the timer would point into nothing.
pub(super) fn durable_program(tree: &Tree) -> Result<PathBuf, TimerError> {
    let (durable, content) = plan_durable(tree)?;
    let Some(content) = content else { return Ok(durable) };
    if tree.read_up_to(&durable, MAX_PROGRAM_BYTES)?.is_none_or(|found| found.digest() != content.digest()) {
        tree.create_dirs(durable.parent().unwrap_or(Path::new("/")), 0o700)?;
        tree.replace(&durable, &content.bytes, Attributes::own(0o755))?;
    }
    tree.audit(&durable)?;
    // A noexec mount shows here.
    Runner::new(&durable, PATIENCE).args(["--version"]).run_checked()?;
    Ok(durable)
}

/// Where that will be. Writes nothing.
pub fn durable_path() -> Result<PathBuf, TimerError> {
    Ok(plan_durable(&Tree::open(Path::new("/"))?)?.0)
}

/// Where the program will be, and what must be copied there, if anything.
fn plan_durable(tree: &Tree) -> Result<(PathBuf, Option<Content>), TimerError> {
    let own = env::program().map_err(TimerError::Watchdog)?;
    let is_installed = ["/usr", "/opt"].iter().any(|folder| own.starts_with(folder));
    if is_installed && tree.audit(&own).is_ok() {
        return Ok((own, None));
    }
    let content = tree
        .read_up_to(&own, MAX_PROGRAM_BYTES)?
        .unwrap_or_else(|| Content { bytes: Vec::new(), attributes: Attributes::own(0o755) });
    let folder = Path::new(super::store::STATE_DIR).join("bin").join(content.digest().to_string());
    Ok((folder.join("preflight"), Some(content)))
}
