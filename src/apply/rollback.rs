//! Taking back what was committed, or what still waits for its confirm. Always newest first: what an older transaction
//! wrote lies under what a newer one wrote.

use super::outcome::{ApplyError, Outcome, Verb};
use super::recover::{self, Recovery};
use super::session::Session;
use super::store::StoreError;
use super::{Env, LOCK_PATIENCE};
use crate::change::id::TxId;
use crate::change::state::State;

/// What is to be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The newest.
    Newest,
    /// This one, which must be the newest.
    Only(TxId),
    /// This one and everything newer.
    DownTo(TxId),
    All,
}

/// Takes transactions back. Nothing left to take back is an empty list, not an error.
pub fn rollback(env: &Env<'_>, selection: &Selection) -> Result<Vec<Outcome>, ApplyError> {
    let Some(_lock) = env.lock.take(env.clock, LOCK_PATIENCE)? else {
        return Err(ApplyError::Locked(env.store.unfinished()?.pop()));
    };
    let mut outcomes = Vec::new();
    for tx in env.store.unfinished()?.iter().rev() {
        let waits =
            matches!(Session::reopen(env, tx)?, Some(session) if session.progress.state == State::PendingConfirm);
        // What waits is the newest; taking it back may be all that was asked for.
        let asked = match selection {
            Selection::Newest | Selection::All => true,
            Selection::Only(named) | Selection::DownTo(named) => named == tx,
        };
        if waits && !asked && matches!(selection, Selection::Only(_)) {
            return Err(ApplyError::Refused(format!("transaction {tx} is newer and waits for its confirm")));
        }
        let outcome = recover::one(env, tx, Recovery::Forced, Verb::Rollback)?;
        // Also what a killed run left and what goes back anyhow: whoever asked once wants one taken back, not two.
        let is_back = outcome.as_ref().is_some_and(|outcome| outcome.state != Some(State::Committed));
        outcomes.extend(outcome);
        if is_back && asked && *selection != Selection::All {
            return Ok(outcomes);
        }
    }
    if outcomes.iter().any(|outcome| outcome.state == Some(State::RollbackFailed)) {
        return Ok(outcomes);
    }
    for tx in select(&env.store.managed()?.transactions, selection, env)? {
        let outcome = one(env, &tx)?;
        let stuck = outcome.state == Some(State::RollbackFailed);
        outcomes.push(outcome);
        if stuck {
            break;
        }
    }
    Ok(outcomes)
}

/// Which of the committed ones, newest first.
fn select(committed: &[TxId], selection: &Selection, env: &Env<'_>) -> Result<Vec<TxId>, ApplyError> {
    let position = |tx: &TxId| match committed.iter().position(|known| known == tx) {
        Some(position) => Ok(position),
        None if env.store.read(tx)?.is_none() => Err(ApplyError::Store(StoreError::NoTransaction(tx.clone()))),
        None => Err(ApplyError::Refused(format!("transaction {tx} holds nothing: it was rolled back already"))),
    };
    let from = match selection {
        Selection::All => 0,
        Selection::Newest => committed.len().saturating_sub(1),
        Selection::DownTo(tx) => position(tx)?,
        Selection::Only(tx) => {
            let position = position(tx)?;
            if let Some(newer) = committed.get(position + 1) {
                return Err(ApplyError::Refused(format!(
                    "transaction {newer} is newer\nhint: `preflight rollback --to {tx}` rolls back both"
                )));
            }
            position
        }
    };
    Ok(committed.iter().skip(from).rev().cloned().collect())
}

fn one(env: &Env<'_>, tx: &TxId) -> Result<Outcome, ApplyError> {
    // The marker first: from the first undone step on, a recovery must find this.
    env.store.mark(tx)?;
    let Some(mut session) = Session::reopen(env, tx)? else {
        return Err(StoreError::NoTransaction(tx.clone()).into());
    };
    session.undo_all("it was asked for", env.who.clone())?;
    Ok(session.outcome(Verb::Rollback))
}
