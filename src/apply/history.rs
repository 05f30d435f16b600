//! What was done on this host, newest first.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Env;
use super::boots::Boot;
use super::outcome::ApplyError;
use super::progress::Progress;
use super::store::StoreError;
use crate::change::id::TxId;
use crate::change::state::State;

/// One transaction in the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    #[schemars(with = "String")]
    pub tx: TxId,
    /// Null when its journal is damaged.
    pub state: Option<State>,
    /// When it began and when the last thing happened to it, in UTC.
    pub began_at: String,
    pub last_at: String,
    pub profile: String,
    pub uid: u32,
    pub sudo_user: Option<String>,
    pub ssh: Option<String>,
    /// The targets it changed or meant to change.
    pub targets: Vec<String>,
    pub conflicts: usize,
    /// Why it was taken back, or how its journal is damaged.
    pub reason: Option<String>,
    /// What was found after the boots since, the newest first.
    pub boots: Vec<Boot>,
}

/// The newest `limit` transactions. One journal is read per entry, so the length of the whole history does not matter.
pub fn history(env: &Env<'_>, limit: usize) -> Result<Vec<Entry>, ApplyError> {
    let transactions = env.store.transactions()?;
    let mut found: Vec<(u64, Entry)> = Vec::new();
    // All of the last one's second, since their names do not tell which of them are newer.
    let newest_first = transactions.iter().rev().enumerate();
    let last = transactions.iter().rev().take(limit).next_back().map(TxId::second);
    let asked = newest_first.take_while(|(index, tx)| *index < limit || last == Some(tx.second()));
    for (_, tx) in asked {
        match env.store.read(tx) {
            Ok(journal) => found.extend(journal.and_then(|journal| {
                let at_us = journal.records.first()?.boottime_us;
                Some((at_us, entry(Progress::of(&journal)?)))
            })),
            Err(StoreError::Corrupt { corrupt, .. }) => found.push((0, damaged(tx, corrupt.to_string()))),
            Err(error @ StoreError::Exposed { .. }) => found.push((0, damaged(tx, error.to_string()))),
            Err(error) => return Err(error.into()),
        }
    }
    // Two of one second are told apart by the clock of the journal, not by the word in their names.
    found.sort_by(|(one_us, one), (other_us, other)| (other.tx.second(), other_us).cmp(&(one.tx.second(), one_us)));
    let mut entries: Vec<Entry> = found.into_iter().map(|(_, entry)| entry).take(limit).collect();
    let boots = env.store.boots()?.unwrap_or_default().boots;
    for entry in &mut entries {
        entry.boots = boots.iter().rev().filter(|boot| boot.transactions.contains(&entry.tx)).cloned().collect();
    }
    Ok(entries)
}

fn entry(progress: Progress) -> Entry {
    Entry {
        conflicts: progress.conflicts(),
        targets: progress.steps.iter().map(|step| step.step.target.clone()).collect(),
        tx: progress.tx,
        state: Some(progress.state),
        began_at: progress.began_at,
        last_at: progress.last_at,
        profile: progress.profile,
        uid: progress.who.uid,
        sudo_user: progress.who.sudo_user,
        ssh: progress.who.ssh,
        reason: progress.rollback_reason,
        boots: Vec::new(),
    }
}

fn damaged(tx: &TxId, reason: String) -> Entry {
    Entry {
        tx: tx.clone(),
        state: None,
        began_at: String::new(),
        last_at: String::new(),
        profile: String::new(),
        uid: 0,
        sudo_user: None,
        ssh: None,
        targets: Vec::new(),
        conflicts: 0,
        reason: Some(reason),
        boots: Vec::new(),
    }
}
