//! The way forward: stage, arm, apply, verify, wait, persist, commit.

use std::time::Duration;

use super::Env;
use super::clock::micros;
use super::journal::{Event, Step};
use super::lock::Lock;
use super::outcome::{ApplyError, Outcome, Verb};
use super::persist::fingerprint;
use super::progress::Progress;
use super::recover::{self, Recovery};
use super::session::{Failure, Session, resolve, shown};
use crate::change::id::TxId;
use crate::change::knob::Knob;
use crate::change::state::State;
use crate::change::{Conflict, Plan};
use crate::facts::Layer;
use crate::host::safe_file::Digest;

/// How long the confirm of a plan is awaited that can cut the connection of the person who applies it.
const RISKY_WINDOW: Duration = Duration::from_mins(2);

/// How often a waiting apply looks whether somebody confirmed.
const LOOK: Duration = Duration::from_millis(200);

/// How long an apply waits for the name of the transaction that is in its way.
const NAMELESS: Duration = Duration::from_secs(2);

/// A settle time is slept in slices, so that a signal is noticed.
const SLICE: Duration = Duration::from_millis(100);

/// How a plan is carried out.
#[derive(Debug, Clone)]
pub struct Options {
    /// The profile the plan was made for, for the log.
    pub profile: String,
    /// The ids of the conflicts that are allowed.
    pub allow: Vec<String>,
    /// How long the confirm is awaited before everything is taken back; `None` = no confirm is asked for.
    pub confirm_within: Option<Duration>,
    /// Whether to stay until the confirm or the deadline.
    pub wait: bool,
    /// How long the live values are watched before they count as holding.
    pub settle: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: String::new(),
            allow: Vec::new(),
            confirm_within: None,
            wait: false,
            settle: Duration::from_secs(3),
        }
    }
}

/// Carries out a plan as one transaction.
pub fn apply(plan: &Plan, options: &Options, env: &Env<'_>) -> Result<Outcome, ApplyError> {
    let words = |conflict: &Conflict| format!("{}: {}", conflict.id, conflict.reason);
    let not_allowed: Vec<String> = plan.unallowed(&options.allow).map(words).collect();
    if !not_allowed.is_empty() {
        return Err(ApplyError::NotAllowed(not_allowed));
    }
    // Before "nothing to do": that it may be so only because of what is taken back in a minute.
    if let Some(error) = pending(env)? {
        return Err(error);
    }
    if plan.is_empty() {
        return Ok(Outcome::unchanged(Verb::Apply));
    }
    if prepare(plan, options, env)?.0.is_empty() {
        return Ok(Outcome::unchanged(Verb::Apply));
    }
    let lock = take_lock(env)?;
    // What a killed run left is finished first, in whichever direction; what waits for its confirm is not ours to end.
    recover::under_lock(env, Recovery::Unfinished)?;
    if let Some(error) = pending(env)? {
        return Err(error);
    }
    if let Some(tx) = env.store.unfinished()?.pop() {
        return Err(ApplyError::Refused(format!(
            "transaction {tx} could not be rolled back\nhint: `preflight recover` tries again, and says what stands in the way"
        )));
    }
    // Once more, under the lock: another apply may have done it meanwhile.
    let (steps, knobs) = prepare(plan, options, env)?;
    if steps.is_empty() {
        return Ok(Outcome::unchanged(Verb::Apply));
    }
    let plan_sha256 = serde_json::to_vec(plan).map(|json| Digest::of(&json).to_string()).unwrap_or_default();
    let mut session = Session::begin(env, options, plan_sha256, steps, knobs)?;
    env.watch.checkpoint("begun");
    if let Err(failure) = session.go_live(options) {
        session.undo_all(&failure.to_string(), env.who.clone())?;
        return Ok(session.outcome(Verb::Apply));
    }
    if options.confirm_within.is_none() {
        session.persist_or_undo(&env.who, None)?;
        return Ok(session.outcome(Verb::Apply));
    }
    let tx = session.tx();
    let outcome = session.outcome(Verb::Apply);
    drop(lock);
    if options.wait { wait(env, &tx) } else { Ok(outcome) }
}

/// The lock, or an error that names the transaction of whoever holds it. One that has the lock and no journal yet is
/// given a moment: it will have a name, or be gone.
fn take_lock(env: &Env<'_>) -> Result<Lock, ApplyError> {
    let until = env.clock.boottime() + NAMELESS;
    loop {
        if let Some(lock) = env.lock.try_take().map_err(ApplyError::NotBegun)? {
            return Ok(lock);
        }
        if let Some(error) = pending(env)? {
            return Err(error);
        }
        let holder = env.store.unfinished()?.pop();
        if holder.is_some() || env.clock.boottime() >= until {
            return Err(ApplyError::Locked(holder));
        }
        env.clock.sleep(SLICE);
    }
}

/// The transaction that waits for its confirm in time, as an error.
pub(super) fn pending(env: &Env<'_>) -> Result<Option<ApplyError>, ApplyError> {
    for tx in env.store.unfinished()? {
        let Some(progress) = env.store.read(&tx)?.and_then(|journal| Progress::of(&journal)) else { continue };
        if progress.state == State::PendingConfirm
            && is_in_time(env, &progress)
            && let Some((deadline_us, _)) = progress.deadline
        {
            let left = deadline_us.saturating_sub(micros(env.clock.boottime()));
            return Ok(Some(ApplyError::Pending { tx, deadline_in_s: left.div_ceil(1_000_000) }));
        }
    }
    Ok(None)
}

/// Whether the confirm window of a transaction is open: the same boot, before the deadline.
pub(super) fn is_in_time(env: &Env<'_>, progress: &Progress) -> bool {
    progress.deadline.as_ref().is_some_and(|(deadline_us, boot_id)| {
        *boot_id == env.clock.boot_id() && micros(env.clock.boottime()) < *deadline_us
    })
}

/// The confirm window of a plan: what was asked for, where zero means none; else two minutes for a plan that can cut a
/// connection, unless the person sits at the console. Whether an SSH session is above us does not count: a tmux, a mosh
/// or an agent has none to be found.
pub fn window(plan: &Plan, asked: Option<Duration>, is_console: bool) -> Option<Duration> {
    match asked {
        Some(asked) => Some(asked).filter(|asked| !asked.is_zero()),
        None => Some(RISKY_WINDOW).filter(|_| plan.is_connectivity_risk() && !is_console),
    }
}

/// The steps that are left to do, and an adapter for each.
type Prepared<'e> = (Vec<Step>, Vec<Box<dyn Knob + 'e>>);

/// Turns a plan into steps with adapters, and refuses what could not be carried out. Reads, and writes nothing.
fn prepare<'e>(plan: &Plan, options: &Options, env: &'e Env<'e>) -> Result<Prepared<'e>, ApplyError> {
    let refused = |error: crate::change::knob::KnobError| ApplyError::Refused(error.to_string());
    let mut steps: Vec<Step> = Vec::new();
    let mut knobs: Vec<Box<dyn Knob + 'e>> = Vec::new();
    for change in &plan.changes {
        let mut step = Step {
            id: change.id.clone(),
            layer: change.layer,
            target: change.target.clone(),
            after: change.after.clone(),
            before_sha256: None,
            restarts: change.restarts.clone(),
            connectivity_risk: change.connectivity_risk,
        };
        if steps.iter().any(|known| known.target == step.target) {
            return Err(ApplyError::Refused(format!("the plan changes `{}` twice", step.target)));
        }
        let Some(knob) = resolve(env, std::slice::from_ref(&step))?.pop() else { continue };
        knob.validate(&step.after).map_err(refused)?;
        if options.confirm_within.is_some() && !knob.capabilities().revertable {
            return Err(ApplyError::Refused(format!(
                "`{}` cannot be undone, so no confirm can be awaited",
                step.target
            )));
        }
        step.connectivity_risk |= knob.capabilities().connectivity_risk;
        let current = knob.read().map_err(refused)?;
        // An equal write can have effects of its own.
        if knob.holds(&current, &step.after) {
            continue;
        }
        if knob.is_shared() && knob.merge(&current, &step.after) == step.after && current.value != change.before {
            let (is, was) = (shown(current.value.as_deref()), shown(change.before.as_deref()));
            let text = format!("{} is {is} now, and the plan was made when it was {was}", step.target);
            return Err(ApplyError::Refused(format!("{text}\nhint: make a new plan")));
        }
        if step.layer != Layer::Live && knob.is_shared() {
            step.before_sha256 = Some(fingerprint(current.value.as_deref()));
        }
        steps.push(step);
        knobs.push(knob);
    }
    Ok((steps, knobs))
}

/// Stays until somebody confirmed, the time ran out, or a signal asks to stop.
fn wait(env: &Env<'_>, tx: &TxId) -> Result<Outcome, ApplyError> {
    let lost = || ApplyError::Lost { tx: tx.clone(), dir: env.store.shown().to_owned() };
    let held = env.store.hold(tx)?.ok_or_else(lost)?;
    loop {
        let progress = Progress::of(&env.store.read_held(tx, &held)?).ok_or_else(lost)?;
        if progress.state.is_terminal() || progress.state == State::RollbackFailed {
            return Ok(Outcome::of(Verb::Apply, &progress, micros(env.clock.boottime())));
        }
        let in_time = is_in_time(env, &progress);
        if progress.state == State::PendingConfirm && (!in_time || env.watch.is_interrupted()) {
            let recovery = if in_time { Recovery::Interrupted } else { Recovery::Forced };
            match recover::held(env, tx, held.again()?, recovery, Verb::Apply) {
                Ok(Some(outcome)) => return Ok(outcome),
                // Whoever is at work ends it.
                Ok(None) | Err(ApplyError::Locked(_)) => continue,
                Err(error) => return Err(error),
            }
        }
        let deadline_us = progress.deadline.map_or(0, |(at, _)| at);
        let left = Duration::from_micros(deadline_us.saturating_sub(micros(env.clock.boottime())));
        env.watch.waiting(tx, left);
        env.clock.sleep(LOOK.min(left.max(Duration::from_millis(1))));
    }
}

impl Session<'_> {
    /// Everything up to the decision: staged, armed, written to the kernel, verified twice.
    fn go_live(&mut self, options: &Options) -> Result<(), Failure> {
        let tx = self.tx();
        for (knob, step) in self.knobs.iter().zip(&self.progress.steps) {
            knob.stage(&tx, &step.step.after)?;
        }
        self.progress.state = State::Staged;
        self.env.watch.checkpoint("staged");
        let mut records: Vec<Event> = Vec::new();
        if let Some(window) = options.confirm_within {
            let deadline = self.env.clock.boottime() + window;
            let armed = self.env.timer.arm(&tx, deadline).map_err(|error| Failure::Timer(error.to_string()))?;
            if let Some(warning) = armed.weakness {
                self.warn(warning);
            }
            records.push(Event::Armed {
                timer: armed.kind.to_owned(),
                name: armed.name,
                deadline_us: micros(deadline),
            });
        }
        self.env.watch.checkpoint("armed");
        let live = self.progress.on(Layer::Live);
        let mut rest = live.as_slice();
        while !rest.is_empty() || !records.is_empty() {
            // Intents of harmless knobs share one sync; each that can cut the connection, or that outlives a reboot by
            // itself, has its own.
            let heavy = |step: &usize| {
                self.progress.steps[*step].step.connectivity_risk
                    || self.knobs[*step].capabilities().persists_as_it_applies
            };
            let light = rest.iter().take_while(|step| !heavy(step)).count();
            let (batch, later) = rest.split_at(if light == 0 { rest.len().min(1) } else { light });
            rest = later;
            for step in batch {
                records.push(Event::Intent(self.intend(*step)?));
            }
            self.log_all(std::mem::take(&mut records))?;
            self.sync()?;
            self.env.watch.checkpoint("intended");
            for step in batch {
                self.stop_if_asked()?;
                self.carry_out(*step)?;
                self.env.watch.checkpoint("done");
            }
        }
        self.progress.state = State::Verifying;
        if !live.is_empty() {
            self.check(Layer::Live, "after everything was written")?;
            self.settle(options.settle)?;
            self.check(Layer::Live, "after it was left alone for a while: something else sets it")?;
        }
        self.stop_if_asked()?;
        if options.confirm_within.is_some() && !is_in_time(self.env, &self.progress) {
            return Err(Failure::Deadline);
        }
        self.log(Event::Verified { settle_ms: micros(options.settle) / 1000 })?;
        self.env.watch.checkpoint("verified");
        Ok(())
    }

    fn settle(&self, time: Duration) -> Result<(), Failure> {
        let until = self.env.clock.boottime() + time;
        loop {
            let left = until.saturating_sub(self.env.clock.boottime());
            if left.is_zero() {
                return Ok(());
            }
            self.stop_if_asked()?;
            self.env.watch.settling(left);
            self.env.clock.sleep(left.min(SLICE));
        }
    }

    fn stop_if_asked(&self) -> Result<(), Failure> {
        if self.env.watch.is_interrupted() { Err(Failure::Interrupted) } else { Ok(()) }
    }
}
