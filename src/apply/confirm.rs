//! The user's word that the host is still reachable, and what it must prove.

use super::outcome::{ApplyError, Outcome, Verb};
use super::progress::Progress;
use super::recover::{self, Recovery};
use super::session::Session;
use super::store::StoreError;
use super::transaction::is_in_time;
use super::who::Who;
use super::{Env, LOCK_PATIENCE};
use crate::change::id::TxId;
use crate::change::state::State;
use crate::facts::Layer;

/// What a confirm must come over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Another one than the apply's, where the plan can cut connections.
    New,
    /// Any.
    Any,
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
    // Kept is what was applied; what somebody made of it since, such as a flush of all rules, is not.
    if session.progress.state == State::Committed
        && let Err(failure) = session.check(Layer::Live, "at the confirm")
    {
        session.warn(format!("{failure}; `preflight tune --apply` sets it again"));
    }
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
