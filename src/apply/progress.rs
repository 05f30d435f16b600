//! How far a transaction has come: the fold of its journal. The engine keeps it while it works, and a recovery gets the
//! very same by replaying what is on the disk.

use super::journal::{Event, Intent, Journal, Record, Step, UndoneBy};
use super::who::Who;
use crate::change::id::TxId;
use crate::change::state::State;
use crate::facts::Layer;
use std::collections::BTreeMap;

/// One step, as far as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct StepProgress {
    pub step: Step,
    /// Written down before the change; `None`: the knob was never touched.
    pub intent: Option<Intent>,
    /// The boot time of the intent is in this boot; after another boot a live change is forgotten.
    pub intent_boot_id: String,
    pub done: bool,
    /// When it was done: the boot, and microseconds of `CLOCK_BOOTTIME`.
    pub done_at: Option<(String, u64)>,
    /// What the knob said after the change.
    pub observed: Option<String>,
    pub footprint_after: BTreeMap<String, String>,
    pub undone: Option<UndoneBy>,
    /// Expected and found.
    pub conflict: Option<(String, Option<String>)>,
    /// What an object of ours held that somebody had edited.
    pub drifted: Option<String>,
}

impl StepProgress {
    /// What was or would be written.
    pub fn wrote(&self) -> &str {
        self.intent.as_ref().and_then(|intent| intent.write.as_deref()).unwrap_or(&self.step.after)
    }

    /// Whether a rollback has still to look at it.
    pub fn is_to_undo(&self) -> bool {
        self.intent.is_some() && self.undone.is_none() && self.conflict.is_none()
    }
}

/// The whole transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    pub tx: TxId,
    pub state: State,
    pub profile: String,
    pub who: Who,
    /// The conflicts that were allowed.
    pub allow: Vec<String>,
    pub began_at: String,
    /// When the last record was written.
    pub last_at: String,
    pub steps: Vec<StepProgress>,
    /// `CLOCK_BOOTTIME` in microseconds and the boot it belongs to.
    pub deadline: Option<(u64, String)>,
    /// The timer, as recorded: its kind and its name.
    pub timer: Option<(String, String)>,
    pub is_verified: bool,
    pub is_confirmed: bool,
    /// It was committed once, even if it is being taken back now.
    pub was_committed: bool,
    /// The boot in which it was committed.
    pub committed_boot: Option<String>,
    /// Why it is or was taken back.
    pub rollback_reason: Option<String>,
}

impl Progress {
    /// Replays a journal; `None` for one without a `begin`.
    pub fn of(journal: &Journal) -> Option<Self> {
        let (first, rest) = journal.records.split_first()?;
        let mut progress = Self::begin(first)?;
        for record in rest {
            progress.take(record);
        }
        Some(progress)
    }

    fn begin(record: &Record) -> Option<Self> {
        let Event::Begin { tx, profile, who, allow, steps, .. } = &record.event else { return None };
        let step = |step: &Step| StepProgress {
            step: step.clone(),
            intent: None,
            intent_boot_id: String::new(),
            done: false,
            done_at: None,
            observed: None,
            footprint_after: BTreeMap::new(),
            undone: None,
            conflict: None,
            drifted: None,
        };
        Some(Self {
            tx: tx.clone(),
            state: State::Planned,
            profile: profile.clone(),
            who: who.clone(),
            allow: allow.clone(),
            began_at: record.at.clone(),
            last_at: record.at.clone(),
            steps: steps.iter().map(step).collect(),
            deadline: None,
            timer: None,
            is_verified: false,
            is_confirmed: false,
            was_committed: false,
            committed_boot: None,
            rollback_reason: None,
        })
    }

    /// Takes in one more record. Total: a record that makes no sense in this state changes as little as it can.
    pub fn take(&mut self, record: &Record) {
        self.last_at.clone_from(&record.at);
        match &record.event {
            Event::Begin { .. } | Event::Recovered { .. } => {}
            Event::Armed { deadline_us, timer, name } => {
                self.deadline = Some((*deadline_us, record.boot_id.clone()));
                self.timer = Some((timer.clone(), name.clone()));
                self.state = State::Armed;
            }
            Event::Intent(intent) => {
                self.intend(intent, &record.boot_id);
                self.state = State::Applying;
            }
            Event::PersistIntent(intent) => self.intend(intent, &record.boot_id),
            Event::Done { step, observed, footprint } => {
                if let Some(step) = self.steps.get_mut(*step) {
                    step.done = true;
                    step.done_at = Some((record.boot_id.clone(), record.boottime_us));
                    step.observed.clone_from(observed);
                    step.footprint_after.clone_from(footprint);
                }
            }
            Event::Verified { .. } => {
                self.is_verified = true;
                self.state = State::PendingConfirm;
            }
            Event::Confirm { .. } => {
                self.is_confirmed = true;
                self.state = State::Persisting;
            }
            Event::Persisted { step } => {
                if let Some(step) = self.steps.get_mut(*step) {
                    step.done = true;
                    step.done_at = Some((record.boot_id.clone(), record.boottime_us));
                }
            }
            Event::Committed => {
                self.committed_boot = Some(record.boot_id.clone());
                self.was_committed = true;
                self.state = State::Committed;
            }
            Event::RollingBack { reason, .. } => {
                self.rollback_reason = Some(reason.clone());
                self.state = State::RollingBack;
            }
            Event::UndoIntent { step, drifted } => {
                if let (Some(step), Some(_)) = (self.steps.get_mut(*step), drifted) {
                    step.drifted.clone_from(drifted);
                }
            }
            Event::Undone { step, by } => {
                if let Some(step) = self.steps.get_mut(*step) {
                    step.undone = Some(*by);
                }
            }
            Event::Conflict { step, expected, found, .. } => {
                if let Some(step) = self.steps.get_mut(*step) {
                    step.conflict = Some((expected.clone(), found.clone()));
                }
            }
            Event::RollbackFailed { .. } => self.state = State::RollbackFailed,
            Event::RolledBack { conflicts: 0 } => self.state = State::RolledBack,
            Event::RolledBack { .. } => self.state = State::RolledBackWithConflicts,
        }
    }

    fn intend(&mut self, intent: &Intent, boot_id: &str) {
        if let Some(step) = self.steps.get_mut(intent.step) {
            step.intent = Some(intent.clone());
            boot_id.clone_into(&mut step.intent_boot_id);
        }
    }

    /// Whether a recovery finishes it rather than takes it back.
    pub fn goes_forward(&self) -> bool {
        self.is_confirmed && self.rollback_reason.is_none()
    }

    pub fn is_connectivity_risk(&self) -> bool {
        self.steps.iter().any(|step| step.step.connectivity_risk)
    }

    /// The indexes of the steps on a layer, in order.
    pub fn on(&self, layer: Layer) -> Vec<usize> {
        self.steps.iter().enumerate().filter(|(_, step)| step.step.layer == layer).map(|(index, _)| index).collect()
    }

    pub fn conflicts(&self) -> usize {
        self.steps.iter().filter(|step| step.conflict.is_some()).count()
    }
}
