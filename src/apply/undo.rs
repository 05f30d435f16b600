//! Taking back: newest step first, each decided by its own knob. Killed and run again, it comes to the same end.

use super::journal::{Event, UndoneBy};
use super::progress::StepProgress;
use super::session::{Session, shown};
use super::store::StoreError;
use super::who::Who;
use crate::change::knob::{KnobError, Undo, Undoing};
use crate::facts::Layer;

impl Session<'_> {
    /// Takes back every step that was begun. Where the direction turns, the turn must be on the disk first: a confirmed
    /// transaction that goes back without a word of it would be finished by the next recovery, and a committed one
    /// would stay half undone. Before the confirm, back is where it goes anyhow.
    pub(super) fn undo_all(&mut self, reason: &str, by: Who) -> Result<(), StoreError> {
        if self.progress.rollback_reason.is_none() {
            let event = Event::RollingBack { reason: reason.to_owned(), by };
            if let Err(error) = self.log(event).and_then(|()| self.sync()) {
                if self.progress.was_committed {
                    return Err(error);
                }
                self.warn(error.to_string());
                if self.progress.is_confirmed {
                    self.warn(
                        "confirmed, and neither finished nor rolled back: `preflight recover` does it".to_owned(),
                    );
                    return Ok(());
                }
            }
        }
        self.env.watch.checkpoint("rolling back");
        let mut failed: Vec<String> = Vec::new();
        for step in (0..self.progress.steps.len()).rev() {
            let is_kept = !failed.is_empty() && self.knobs[step].is_for_recovery();
            if self.progress.steps[step].is_to_undo()
                && !is_kept
                && let Err(error) = self.undo_one(step)
            {
                failed.push(error.to_string());
            }
            self.env.watch.checkpoint("one undone");
        }
        self.tell_drift();
        if !failed.is_empty() {
            for error in &failed {
                self.warn(error.clone());
            }
            self.note(Event::RollbackFailed { error: failed.join("; ") });
            return Ok(());
        }
        self.note(Event::RolledBack { conflicts: self.progress.conflicts() });
        if let Err(error) = self.sync().and_then(|()| self.finish()) {
            self.warn(format!("{error}; everything is rolled back, and `preflight recover` completes the record"));
        }
        Ok(())
    }

    /// What is ours alone goes back whatever became of it, and that is said. From the journal, so that a recovery tells it too.
    fn tell_drift(&mut self) {
        let is_drifted = |step: &&StepProgress| step.drifted.is_some() && step.undone.is_some();
        let tx = self.tx();
        let say = |step: &StepProgress| {
            let target = &step.step.target;
            format!(
                "{target} was not as preflight had left it; it is preflight's alone and is as before all the same, and what it was is kept in the journal of {tx}"
            )
        };
        let told: Vec<String> = self.progress.steps.iter().filter(is_drifted).map(say).collect();
        for warning in told {
            self.warn(warning);
        }
    }

    fn undo_one(&mut self, step: usize) -> Result<(), KnobError> {
        let progress = &self.progress.steps[step];
        let Some(intent) = progress.intent.clone() else { return Ok(()) };
        let knob = &self.knobs[step];
        // The kernel forgot it. Only before a confirm: after one, the boot may have set it from our own file.
        let forgotten = progress.step.layer == Layer::Live
            && !self.progress.is_confirmed
            && !knob.capabilities().persists_as_it_applies
            && progress.intent_boot_id != self.env.clock.boot_id();
        if forgotten {
            self.note(Event::Undone { step, by: UndoneBy::Reboot });
            return Ok(());
        }
        let current = knob.read()?;
        let case = Undoing {
            before: &intent.before,
            wrote: progress.wrote(),
            observed: progress.observed.as_deref(),
            current: &current,
        };
        match knob.undo(case) {
            Undo::Already => self.note(Event::Undone { step, by: UndoneBy::Already }),
            Undo::Conflict { expected } => {
                let target = knob.target().to_owned();
                self.warn(format!(
                    "{target} is {}, neither what it was nor what preflight made it: left alone",
                    shown(current.value.as_deref())
                ));
                self.note(Event::Conflict { step, target, expected, found: current.value });
            }
            Undo::Restore { to, drifted } => {
                let is_drifted = drifted.is_some();
                self.note(Event::UndoIntent { step, drifted });
                if is_drifted && let Err(error) = self.sync() {
                    self.warn(error.to_string());
                }
                let moved = self.footprint(step)?;
                self.knobs[step].restore(&self.progress.tx, &to)?;
                self.env.watch.checkpoint("restored");
                self.restore_footprint(step, &moved)?;
                self.note(Event::Undone { step, by: UndoneBy::Restored });
            }
        }
        Ok(())
    }

    /// What the kernel moved along goes back too, unless somebody else set it since: then it keeps their value, also
    /// where our own write just moved it again.
    fn restore_footprint(
        &mut self,
        step: usize,
        before_undo: &std::collections::BTreeMap<String, String>,
    ) -> Result<(), KnobError> {
        let progress = &self.progress.steps[step];
        let Some(intent) = &progress.intent else { return Ok(()) };
        let now = self.footprint(step)?;
        let mut warnings = Vec::new();
        for (target, old) in &intent.footprint {
            let (Some(now), Some(found)) = (now.get(target), before_undo.get(target)) else { continue };
            let want = match progress.footprint_after.get(target) {
                Some(left) if left == found => old,
                Some(_) => found,
                // Killed between the write and its record: whose value it is cannot be determined.
                None if now == old => old,
                None => {
                    warnings.push(format!("{target} is {now}; it was {old} before"));
                    continue;
                }
            };
            if now != want {
                let knob = self.env.knobs.resolve(target)?;
                knob.restore(&self.progress.tx, &crate::change::knob::Reading::of(want.clone()))?;
            }
        }
        for warning in warnings {
            self.warn(warning);
        }
        Ok(())
    }
}
