//! The way forward: stage, arm, apply, verify, wait, persist, commit.

use std::time::Duration;

use super::clock::micros;
use super::id::TxId;
use super::journal::{Event, Step};
use super::knob::Knob;
use super::outcome::{ApplyError, Outcome, Verb};
use super::progress::{Progress, State};
use super::recover::{self, Recovery};
use super::session::{Failure, Session, Undecided, resolve, shown};
use super::store::StoreError;
use super::who::Who;
use super::{Env, LOCK_PATIENCE};
use crate::facts::Layer;
use crate::host::safe_file::Digest;
use crate::plan::Plan;

/// How often a waiting apply looks whether somebody confirmed.
const LOOK: Duration = Duration::from_millis(200);

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

/// What a confirm must come over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Another one than the apply's, where the plan can cut connections.
    New,
    /// Any.
    Any,
}

/// Carries out a plan as one transaction.
pub fn apply(plan: &Plan, options: &Options, env: &Env<'_>) -> Result<Outcome, ApplyError> {
    let not_allowed: Vec<String> = plan.unallowed(&options.allow).map(|conflict| conflict.id.clone()).collect();
    if !not_allowed.is_empty() {
        return Err(ApplyError::NotAllowed(not_allowed));
    }
    if plan.is_empty() {
        return Ok(Outcome::unchanged(Verb::Apply));
    }
    if prepare(plan, options, env)?.0.is_empty() {
        return Ok(Outcome::unchanged(Verb::Apply));
    }
    let Some(lock) = env.lock.try_take()? else {
        return Err(pending(env)?.unwrap_or(ApplyError::Locked(env.store.unfinished()?.pop())));
    };
    // What a killed run left is finished first, in whichever direction; what waits for its confirm is not ours to end.
    recover::under_lock(env, Recovery::Unfinished)?;
    if let Some(error) = pending(env)? {
        return Err(error);
    }
    if let Some(tx) = env.store.unfinished()?.pop() {
        return Err(ApplyError::Refused(format!(
            "transaction {tx} could not be taken back; see `preflight history {tx}`"
        )));
    }
    // Once more, under the lock: another apply may have done it meanwhile.
    let (steps, knobs) = prepare(plan, options, env)?;
    if steps.is_empty() {
        return Ok(Outcome::unchanged(Verb::Apply));
    }
    let plan_sha256 = serde_json::to_vec(plan).map(|json| Digest::of(&json).to_string()).unwrap_or_default();
    let mut session = Session::begin(env, &options.profile, plan_sha256, steps, knobs)?;
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

/// Confirms the transaction that waits for it, and puts it on the disk.
pub fn confirm(env: &Env<'_>, tx: Option<&TxId>, connection: Connection) -> Result<Outcome, ApplyError> {
    let Some(_lock) = env.lock.take(env.clock, LOCK_PATIENCE)? else {
        return Err(ApplyError::Locked(env.store.unfinished()?.pop()));
    };
    let unfinished = env.store.unfinished()?;
    let tx = match tx {
        Some(tx) if unfinished.contains(tx) => tx.clone(),
        Some(tx) => return Err(ended(env, tx)?),
        None => {
            unfinished.last().cloned().ok_or(ApplyError::Refused("no transaction waits for a confirm".to_owned()))?
        }
    };
    let Some(mut session) = Session::reopen(env, &tx)? else {
        return Err(ApplyError::Refused(format!("transaction {tx} never began")));
    };
    if session.progress.state != State::PendingConfirm || !is_in_time(env, &session.progress) {
        // Too late, or it died on the way: it goes where a recovery takes it.
        drop(session);
        let outcome = recover::one(env, &tx, Recovery::Forced, Verb::Confirm)?;
        return outcome.ok_or(ApplyError::Refused(format!("transaction {tx} never began")));
    }
    let new_connection = proof(&session.progress, &env.who, connection)?;
    session.persist_or_undo(&env.who.clone(), new_connection)?;
    Ok(session.outcome(Verb::Confirm))
}

/// Whether the confirm proves that a new connection gets in; `None` where nothing in the plan could cut one.
fn proof(progress: &Progress, who: &Who, connection: Connection) -> Result<Option<bool>, ApplyError> {
    if !progress.is_connectivity_risk() {
        return Ok(None);
    }
    let is_new = match (&progress.who.ssh, &who.ssh) {
        (Some(applied), Some(confirms)) => Some(applied != confirms),
        // Applied from a console, confirmed over SSH: that one is new.
        (None, Some(_)) => Some(true),
        (_, None) => None,
    };
    match (connection, is_new) {
        (_, Some(true)) | (Connection::Any, _) => Ok(Some(is_new == Some(true))),
        (Connection::New, Some(false)) => Err(ApplyError::SameConnection),
        (Connection::New, None) => Err(ApplyError::UnknownConnection),
    }
}

/// Why a transaction that is not open cannot be confirmed.
fn ended(env: &Env<'_>, tx: &TxId) -> Result<ApplyError, ApplyError> {
    let Some(progress) = env.store.read(tx)?.and_then(|journal| Progress::of(&journal)) else {
        return Ok(StoreError::NoTransaction(tx.clone()).into());
    };
    let why = progress.rollback_reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let state = match progress.state {
        State::Committed => "committed already",
        _ => "rolled back already",
    };
    Ok(ApplyError::Refused(format!("transaction {tx} is {state}{why}")))
}

/// The transaction that waits for its confirm, as an error.
pub(super) fn pending(env: &Env<'_>) -> Result<Option<ApplyError>, ApplyError> {
    for tx in env.store.unfinished()? {
        let Some(progress) = env.store.read(&tx)?.and_then(|journal| Progress::of(&journal)) else { continue };
        if progress.state == State::PendingConfirm
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

/// The steps that are left to do, and an adapter for each.
type Prepared<'e> = (Vec<Step>, Vec<Box<dyn Knob + 'e>>);

/// Turns a plan into steps with adapters, and refuses what could not be carried out. Reads, and writes nothing.
fn prepare<'e>(plan: &Plan, options: &Options, env: &'e Env<'e>) -> Result<Prepared<'e>, ApplyError> {
    let refused = |error: super::knob::KnobError| ApplyError::Refused(error.to_string());
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
                "`{}` cannot be taken back, so no confirm can be awaited",
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

/// Tells two contents apart, and none from an empty one.
fn fingerprint(value: Option<&str>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| Digest::of(value.as_bytes()).to_string())
}

/// Stays until somebody confirmed, the time ran out, or a signal asks to stop.
fn wait(env: &Env<'_>, tx: &TxId) -> Result<Outcome, ApplyError> {
    loop {
        let Some(progress) = env.store.read(tx)?.and_then(|journal| Progress::of(&journal)) else {
            return Err(StoreError::NoTransaction(tx.clone()).into());
        };
        if progress.state.is_terminal() || progress.state == State::RollbackFailed {
            return Ok(Outcome::of(Verb::Apply, &progress, micros(env.clock.boottime())));
        }
        let in_time = is_in_time(env, &progress);
        if progress.state == State::PendingConfirm && (!in_time || env.watch.is_interrupted()) {
            if let Some(_lock) = env.lock.take(env.clock, LOCK_PATIENCE)? {
                let recovery = if in_time { Recovery::Interrupted } else { Recovery::Forced };
                if let Some(outcome) = recover::one(env, tx, recovery, Verb::Apply)? {
                    return Ok(outcome);
                }
            }
            continue;
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
            let armed = self.env.timer.arm(&tx, deadline, window).map_err(|error| Failure::Timer(error.to_string()))?;
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

    /// Decides, and puts everything on the disk; what fails takes it all back.
    fn persist_or_undo(&mut self, by: &Who, new_connection: Option<bool>) -> Result<(), ApplyError> {
        let decided = Event::Confirm { by: by.clone(), new_connection };
        if let Err(failure) = self.persist(Some(decided)) {
            self.undo_all(&failure.to_string(), by.clone())?;
        }
        Ok(())
    }

    /// Everything is where it belongs, but the last word is not in the journal: a recovery will add it.
    fn leave_open(&mut self, error: &StoreError) {
        self.progress.state = State::Persisting;
        self.progress.was_committed = false;
        self.warn(format!("{error}; everything is applied, and `preflight recover` completes the record"));
    }

    /// Writes the boot layer and commits. With `decided` the confirm is written down in the same breath as the intents;
    /// without, it was before, and this is a recovery going forward.
    pub(super) fn persist(&mut self, decided: Option<Event>) -> Result<(), Failure> {
        let boot = self.progress.on(Layer::Boot);
        let mut records: Vec<Event> = decided.into_iter().collect();
        for &step in boot.iter().filter(|step| self.progress.steps[**step].intent.is_none()) {
            let intent = self.intend(step)?;
            let planned = self.progress.steps[step].step.before_sha256.as_ref();
            if planned.is_some_and(|planned| *planned != fingerprint(intent.before.value.as_deref())) {
                return Err(Failure::Foreign { target: intent.target, found: shown(intent.before.value.as_deref()) });
            }
            records.push(Event::PersistIntent(intent));
        }
        if !records.is_empty() {
            match self.decide(records) {
                Ok(()) => {}
                // Not decided, so it goes back. If it may be there after all, a rollback that is not written down would
                // be turned round by the next recovery: `undo_all` sees to that.
                Err(Undecided::Retracted(error) | Undecided::Unknown(error)) => return Err(error.into()),
            }
        }
        self.env.watch.checkpoint("confirmed");
        for step in boot {
            self.persist_one(step)?;
            self.env.watch.checkpoint("persisted");
        }
        self.check_boot()?;
        if let Err(error) = self.log(Event::Committed).and_then(|()| self.sync()) {
            self.leave_open(&error);
            return Ok(());
        }
        self.env.watch.checkpoint("committed");
        if let Err(error) = self.finish() {
            self.warn(error.to_string());
        }
        Ok(())
    }

    fn persist_one(&mut self, step: usize) -> Result<(), Failure> {
        let progress = &self.progress.steps[step];
        let Some(intent) = progress.intent.clone().filter(|_| progress.conflict.is_none()) else { return Ok(()) };
        let wrote = progress.wrote().to_owned();
        let knob = &self.knobs[step];
        let current = knob.read()?;
        if !knob.holds(&current, &wrote) {
            if current.value != intent.before.value && knob.is_shared() {
                let target = intent.target.clone();
                self.log(Event::Conflict { step, target, expected: wrote, found: current.value })?;
                return Ok(());
            }
            knob.write(&self.progress.tx, &wrote)?;
            let found = self.knobs[step].read()?;
            if !self.knobs[step].holds(&found, &wrote) {
                let found = shown(found.value.as_deref());
                let when = "right after it was written";
                return Err(Failure::Mismatch { target: intent.target, expected: shown(Some(&wrote)), found, when });
            }
        }
        // For the log only: a recovery looks at the file itself.
        self.note(Event::Persisted { step });
        Ok(())
    }

    /// Whether the next boot will set what was just written down.
    fn check_boot(&self) -> Result<(), Failure> {
        let steps: Vec<&Step> = self.progress.steps.iter().map(|step| &step.step).collect();
        let steps: Vec<&Step> = steps.into_iter().filter(|step| step.layer == Layer::Boot).collect();
        match self.env.boot.overridden(&steps).into_iter().next() {
            Some(overridden) if !steps.is_empty() => Err(Failure::Overridden(overridden)),
            _ => Ok(()),
        }
    }
}
