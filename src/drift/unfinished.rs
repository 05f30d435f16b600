//! What has not ended yet and may change the host under a plan: whoever plans on top of it should know.

use std::path::Path;

use crate::apply::clock::micros;
use crate::apply::progress::Progress;
use crate::apply::store::StoreError;
use crate::apply::{Machine, State, TxId};
use crate::change::Unfinished;
use crate::host::Host;

/// Looks at preflight's own records, and at a journal only where one is open. Where they cannot be read that is said too.
pub fn look(host: &Host, state_dir: Option<&Path>) -> Vec<Unfinished> {
    all(host, state_dir).unwrap_or_else(|error| vec![untold(&error)])
}

fn all(host: &Host, state_dir: Option<&Path>) -> Result<Vec<Unfinished>, StoreError> {
    let machine = Machine::open(host, state_dir)?;
    let (store, clock) = (machine.store(), machine.clock());
    let mut found = Vec::new();
    for tx in store.unfinished()? {
        match store.read(&tx) {
            Ok(journal) => found.extend(journal.as_ref().and_then(Progress::of).and_then(|progress| {
                let (boot_id, now_us) = (clock.boot_id(), micros(clock.boottime()));
                open(&progress, &boot_id, now_us)
            })),
            Err(error) => found.push(damaged(&tx, &error)),
        }
    }
    Ok(found)
}

/// `None`: it has ended, and only its marker was left over.
fn open(progress: &Progress, boot_id: &str, now_us: u64) -> Option<Unfinished> {
    let (tx, state) = (&progress.tx, progress.state);
    if state.is_terminal() {
        return None;
    }
    let deadline = progress.deadline.as_ref().filter(|(at_us, boot)| boot == boot_id && *at_us > now_us);
    let left_s =
        deadline.filter(|_| state == State::PendingConfirm).map(|(at_us, _)| (at_us - now_us).div_ceil(1_000_000));
    let (reason, next) = match (state, left_s) {
        (State::PendingConfirm, Some(left_s)) => (
            format!("it is rolled back in {left_s} s unless it is confirmed, and with it what this plan found"),
            format!("`preflight confirm {tx}` keeps it, `preflight rollback {tx}` takes it back; then plan anew"),
        ),
        (State::PendingConfirm, None) if progress.deadline.is_some() => (
            "its time for the confirm ran out, and it is not rolled back yet".to_owned(),
            "`preflight recover` takes it back; then plan anew".to_owned(),
        ),
        (State::RollbackFailed, _) => (
            "something stood in the way, and it is half there".to_owned(),
            "`preflight recover` tries again and says what it is; then plan anew".to_owned(),
        ),
        _ => {
            let where_to = if progress.goes_forward() { "finished" } else { "rolled back" };
            (
                format!(
                    "it is being carried out, or was cut short; in that case it is {where_to} by the next recovery"
                ),
                "`preflight recover` waits for whoever is at work, and ends it; then plan anew".to_owned(),
            )
        }
    };
    Some(Unfinished { tx: Some(tx.to_string()), state: Some(state), deadline_in_s: left_s, reason, next })
}

fn damaged(tx: &TxId, error: &StoreError) -> Unfinished {
    Unfinished {
        tx: Some(tx.to_string()),
        state: None,
        deadline_in_s: None,
        reason: format!("whether something is left to roll back cannot be determined: {error}"),
        next: "nothing is applied before an administrator has looked at its journal".to_owned(),
    }
}

fn untold(error: &StoreError) -> Unfinished {
    let next = if error.is_denied() && !nix::unistd::geteuid().is_root() {
        "root sees it: `sudo preflight tune`"
    } else {
        "nothing is applied before that is fixed"
    };
    Unfinished {
        tx: None,
        state: None,
        deadline_in_s: None,
        reason: format!("whether a transaction waits for its confirm, or was cut short, cannot be determined: {error}"),
        next: next.to_owned(),
    }
}
