//! Finishing what a killed process left: back before the confirm, forward after it. The same code runs at boot, in the
//! timer, before the next apply, and for the deadline.

use super::journal::Event;
use super::outcome::{ApplyError, Outcome, Verb};
use super::session::{Failure, Session};
use super::store::Held;
use super::transaction::is_in_time;
use super::{Env, LOCK_PATIENCE};
use crate::change::id::TxId;
use crate::change::state::State;
use crate::facts::Layer;

/// What is to be recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Whatever has no living owner: what waits for its confirm in time is left to its user.
    Unfinished,
    /// Also what waits for its confirm: its time ran out, or somebody asked.
    Forced,
    /// The apply that waits was asked to stop.
    Interrupted,
}

/// Recovers every unfinished transaction, or one. Doing it twice is doing it once.
///
/// The timer and the boot unit call this with [`Recovery::Unfinished`]: after the deadline a waiting transaction has no
/// owner any more.
pub fn recover(env: &Env<'_>, tx: Option<&TxId>, recovery: Recovery) -> Result<Vec<Outcome>, ApplyError> {
    let Some(_lock) = env.lock.take(env.clock, LOCK_PATIENCE)? else {
        return Err(ApplyError::Locked(env.store.unfinished()?.pop()));
    };
    match tx {
        None => under_lock(env, recovery),
        Some(tx) if env.store.unfinished()?.contains(tx) => {
            Ok(one(env, tx, recovery, Verb::Recover)?.into_iter().collect())
        }
        Some(_) => Ok(Vec::new()),
    }
}

/// Ends what a killed run left before a plan is made, which else would be of a state that is about to go. What waits for its
/// confirm in time is left alone, and whoever is at work is not waited for.
pub fn clear(env: &Env<'_>) -> Result<Vec<Outcome>, ApplyError> {
    if env.store.unfinished()?.is_empty() {
        return Ok(Vec::new());
    }
    let Some(_lock) = env.lock.try_take().map_err(ApplyError::NotBegun)? else { return Ok(Vec::new()) };
    let mut outcomes = under_lock(env, Recovery::Unfinished)?;
    outcomes.retain(|outcome| outcome.state != Some(State::PendingConfirm));
    Ok(outcomes)
}

/// Newest first: an older one can only be open because its own rollback was cut short.
pub(super) fn under_lock(env: &Env<'_>, recovery: Recovery) -> Result<Vec<Outcome>, ApplyError> {
    let mut outcomes = Vec::new();
    for tx in env.store.unfinished()?.iter().rev() {
        outcomes.extend(one(env, tx, recovery, Verb::Recover)?);
    }
    Ok(outcomes)
}

/// Recovers one open transaction; `None`: it never began.
pub(super) fn one(env: &Env<'_>, tx: &TxId, recovery: Recovery, verb: Verb) -> Result<Option<Outcome>, ApplyError> {
    let Some(session) = Session::reopen(env, tx)? else { return Ok(None) };
    end(session, recovery, verb).map(Some)
}

/// The same for whoever watches over a transaction and holds its journal: neither a move nor a removal of the state keeps
/// it from being taken back.
pub(super) fn held(
    env: &Env<'_>,
    tx: &TxId,
    held: Held,
    recovery: Recovery,
    verb: Verb,
) -> Result<Option<Outcome>, ApplyError> {
    let Some(_lock) = env.lock.take(env.clock, LOCK_PATIENCE)? else {
        return Err(ApplyError::Locked(Some(tx.clone())));
    };
    let Some(session) = Session::resume(env, tx, held)? else { return Ok(None) };
    end(session, recovery, verb).map(Some)
}

fn end(mut session: Session<'_>, recovery: Recovery, verb: Verb) -> Result<Outcome, ApplyError> {
    let env = session.env;
    let state = session.progress.state;
    if state.is_terminal() {
        session.finish()?;
        return Ok(session.outcome(verb));
    }
    let in_time = is_in_time(env, &session.progress);
    if state == State::PendingConfirm && in_time && recovery == Recovery::Unfinished {
        return Ok(session.outcome(verb));
    }
    let reason = match (state, recovery) {
        (_, Recovery::Interrupted) => Failure::Interrupted.to_string(),
        (State::PendingConfirm, _) if in_time => "it was asked for".to_owned(),
        // The last records of a lost boot need not have reached the disk: it may have waited, and not say so.
        (State::Armed | State::Applying | State::Verifying | State::PendingConfirm, _) if is_other_boot(&session) => {
            "the machine was restarted before the confirm".to_owned()
        }
        (State::PendingConfirm, _) if session.progress.deadline.is_some() => Failure::Deadline.to_string(),
        _ => "the process that carried it out ended before it was done".to_owned(),
    };
    session.note(Event::Recovered { reason: reason.clone(), by: env.who.clone() });
    if session.progress.goes_forward() {
        if let Err(failure) = session.forward() {
            session.undo_all(&failure.to_string(), env.who.clone())?;
        }
    } else {
        session.undo_all(&reason, env.who.clone())?;
    }
    Ok(session.outcome(verb))
}

fn is_other_boot(session: &Session<'_>) -> bool {
    session.progress.deadline.as_ref().is_some_and(|(_, boot_id)| *boot_id != session.env.clock.boot_id())
}

impl Session<'_> {
    /// Confirmed: the kernel's values, which a reboot may have taken, then the disk.
    fn forward(&mut self) -> Result<(), Failure> {
        for step in self.progress.on(Layer::Live) {
            let progress = &self.progress.steps[step];
            let Some(intent) = progress.intent.clone().filter(|_| progress.conflict.is_none()) else { continue };
            let wrote = progress.wrote().to_owned();
            let knob = &self.knobs[step];
            let current = knob.read()?;
            if knob.holds(&current, &wrote) {
                continue;
            }
            if current.value == intent.before.value {
                knob.write(&self.progress.tx, &wrote)?;
                self.env.watch.checkpoint("redone");
                continue;
            }
            let target = intent.target.clone();
            self.log(Event::Conflict { step, target, expected: wrote, found: current.value })?;
        }
        self.persist(None)
    }
}
