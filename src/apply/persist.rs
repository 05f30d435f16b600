//! After the decision: the boot layer is written, and the transaction committed.

use super::Overridden;
use super::journal::{Event, Step};
use super::outcome::ApplyError;
use super::session::{Failure, Session, Undecided, shown};
use super::store::StoreError;
use super::who::Who;
use crate::change::owner::owner_id;
use crate::change::state::State;
use crate::facts::Layer;
use crate::host::safe_file::Digest;

/// Tells two contents apart, and none from an empty one.
pub(super) fn fingerprint(value: Option<&str>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| Digest::of(value.as_bytes()).to_string())
}

impl Session<'_> {
    /// Decides, and puts everything on the disk; what fails takes it all back.
    pub(super) fn persist_or_undo(&mut self, by: &Who, new_connection: Option<bool>) -> Result<(), ApplyError> {
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
            self.warn(format!("{error}; everything is applied, and `preflight recover` completes the record"));
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

    /// Whether the next boot will set what was just written down. A winner that was allowed is told, and no failure.
    fn check_boot(&mut self) -> Result<(), Failure> {
        let steps: Vec<&Step> = self.progress.steps.iter().map(|step| &step.step).collect();
        let steps: Vec<&Step> = steps.into_iter().filter(|step| step.layer == Layer::Boot).collect();
        if steps.is_empty() {
            return Ok(());
        }
        for overridden in self.env.boot.overridden(&steps) {
            let overridden = match overridden {
                Ok(overridden) => overridden,
                Err(untold) => {
                    self.warn(format!(
                        "what {} will be at the next boot cannot be determined: {}",
                        untold.target, untold.why
                    ));
                    continue;
                }
            };
            let failure = Failure::Overridden(overridden);
            match &failure {
                Failure::Overridden(Overridden { by, .. }) if self.progress.allow.contains(&owner_id(by)) => {
                    self.warn(failure.to_string());
                }
                _ => return Err(failure),
            }
        }
        Ok(())
    }
}
