//! An open transaction: its journal, its knobs, and how far it has come. The journal leads: nothing is done that it does
//! not say first.

use std::collections::BTreeMap;

use super::clock::{compact_utc, micros};
use super::journal::{Event, FORMAT, Intent, Record, Step, line};
use super::outcome::{ApplyError, Outcome, Verb};
use super::progress::Progress;
use super::store::{Held, StoreError, Writer};
use super::transaction::Options;
use super::{Env, Overridden};
use crate::change::id::TxId;
use crate::change::knob::{Knob, KnobError, Reading};
use crate::change::state::State;
use crate::facts::Layer;

/// Why a transaction stopped and goes back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Knob(#[from] KnobError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{target} is {found} {when}, not {expected}")]
    Mismatch { target: String, expected: String, found: String, when: &'static str },
    #[error("{target} was changed by another process or user meanwhile: it is {found}")]
    Foreign { target: String, found: String },
    #[error("at the next boot {} will be {}, not {}: {} wins", .0.target, .0.found, .0.expected, .0.by)]
    Overridden(Overridden),
    #[error("the timer that takes it back cannot be set: {0}")]
    Timer(String),
    #[error("interrupted")]
    Interrupted,
    #[error("the time for the confirm ran out")]
    Deadline,
}

/// Why a decision could not be written down.
#[derive(Debug)]
pub(crate) enum Undecided {
    /// It is certainly not in the journal.
    Retracted(StoreError),
    /// It may be there.
    Unknown(StoreError),
}

/// A value in a message; files are not printed whole.
pub(crate) fn shown(value: Option<&str>) -> String {
    match value {
        None => "absent".to_owned(),
        Some("") => "empty".to_owned(),
        Some(value) if value.len() > 60 || value.contains('\n') => format!("{} bytes of other content", value.len()),
        Some(value) => value.to_owned(),
    }
}

/// One transaction in this process, under the lock.
#[derive(Debug)]
pub(crate) struct Session<'e> {
    pub(super) env: &'e Env<'e>,
    pub(super) progress: Progress,
    pub(super) knobs: Vec<Box<dyn Knob + 'e>>,
    pub(super) warnings: Vec<String>,
    writer: Writer,
    next: u64,
}

impl<'e> Session<'e> {
    /// Begins a transaction. Its knobs are resolved already, one per step.
    pub(super) fn begin(
        env: &'e Env<'e>,
        options: &Options,
        plan_sha256: String,
        steps: Vec<Step>,
        knobs: Vec<Box<dyn Knob + 'e>>,
    ) -> Result<Self, ApplyError> {
        let tx = TxId::new(&compact_utc(env.clock.wall())).map_err(|error| ApplyError::Refused(error.to_string()))?;
        let writer = env.store.create(&tx, reserve(&steps)).map_err(ApplyError::NotBegun)?;
        let event = Event::Begin {
            format: FORMAT.to_owned(),
            tx: tx.clone(),
            preflight: env!("CARGO_PKG_VERSION").to_owned(),
            profile: options.profile.clone(),
            allow: options.allow.clone(),
            plan_sha256,
            who: env.who.clone(),
            steps,
        };
        let record = stamp(env, 0, event);
        let progress = Progress::of(&super::journal::Journal { records: vec![record.clone()], valid_bytes: 0 })
            .ok_or_else(|| ApplyError::Refused("the transaction does not begin".to_owned()))?;
        let mut session = Self { env, progress, knobs, warnings: Vec::new(), writer, next: 1 };
        let text = line(&record).map_err(|error| ApplyError::Refused(error.to_string()))?;
        session.writer.append(&text).inspect_err(|_| drop(env.store.discard(&tx))).map_err(ApplyError::NotBegun)?;
        Ok(session)
    }

    /// Opens a transaction of another process; `None`: it never began, and its traces are removed.
    pub(super) fn reopen(env: &'e Env<'e>, tx: &TxId) -> Result<Option<Self>, ApplyError> {
        let Some(held) = env.store.hold(tx)? else {
            env.store.discard(tx)?;
            return Ok(None);
        };
        Self::resume(env, tx, held)
    }

    /// The same with a journal that is held open already, whether or not it is still where it was.
    pub(super) fn resume(env: &'e Env<'e>, tx: &TxId, held: Held) -> Result<Option<Self>, ApplyError> {
        let journal = env.store.read_held(tx, &held)?;
        let Some(progress) = Progress::of(&journal) else {
            env.store.discard(tx)?;
            return Ok(None);
        };
        let steps: Vec<Step> = progress.steps.iter().map(|step| step.step.clone()).collect();
        let knobs = resolve(env, &steps)?;
        let reserve_bytes = if progress.state.is_terminal() { 1 } else { reserve(&steps) };
        let writer = held.writer(&journal, reserve_bytes)?;
        let next = journal.records.len() as u64;
        Ok(Some(Self { env, progress, knobs, warnings: Vec::new(), writer, next }))
    }

    /// Writes records down, in one write, and takes them in. They are taken in even when the journal fails: what was
    /// begun is then taken back from memory.
    pub(super) fn log_all(&mut self, events: Vec<Event>) -> Result<(), StoreError> {
        let mut text = String::new();
        for event in events {
            let record = stamp(self.env, self.next, event);
            self.next += 1;
            self.progress.take(&record);
            // Serialising fails for nothing that a record holds; an empty line would be noticed by the reader.
            text.push_str(&line(&record).unwrap_or_default());
        }
        self.writer.append(&text)
    }

    pub(super) fn log(&mut self, event: Event) -> Result<(), StoreError> {
        self.log_all(vec![event])
    }

    /// Writes down what can no longer change the course: a failure is a warning.
    pub(super) fn note(&mut self, event: Event) {
        if let Err(error) = self.log(event) {
            self.warn(error.to_string());
        }
    }

    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        self.writer.sync()
    }

    /// Writes down a decision, durably or not at all.
    pub(super) fn decide(&mut self, events: Vec<Event>) -> Result<(), Undecided> {
        let (position, before) = (self.writer.position(), self.progress.clone());
        let Err(error) = self.log_all(events).and_then(|()| self.sync()) else { return Ok(()) };
        if self.writer.retract(position).is_err() {
            return Err(Undecided::Unknown(error));
        }
        self.progress = before;
        Err(Undecided::Retracted(error))
    }

    pub(super) fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    pub(super) fn tx(&self) -> TxId {
        self.progress.tx.clone()
    }

    /// The intent for a step, from what is there now.
    pub(super) fn intend(&self, step: usize) -> Result<Intent, KnobError> {
        let knob = &self.knobs[step];
        let before = knob.read()?;
        let after = &self.progress.steps[step].step.after;
        let write = Some(knob.merge(&before, after)).filter(|write| write != after);
        Ok(Intent { step, target: knob.target().to_owned(), footprint: self.footprint(step)?, before, write })
    }

    /// The other knobs that the kernel may move along with a step, as they are.
    pub(super) fn footprint(&self, step: usize) -> Result<BTreeMap<String, String>, KnobError> {
        let mut found = BTreeMap::new();
        for target in self.knobs[step].capabilities().footprint {
            if let Some(value) = self.env.knobs.resolve(&target)?.read()?.value {
                found.insert(target, value);
            }
        }
        Ok(found)
    }

    /// Carries out one live step whose intent is durable: the value must still be what the intent says.
    pub(super) fn carry_out(&mut self, step: usize) -> Result<(), Failure> {
        let Some(intent) = self.progress.steps[step].intent.clone() else { return Ok(()) };
        let wrote = self.progress.steps[step].wrote().to_owned();
        let knob = &self.knobs[step];
        let current = knob.read()?;
        if current.value != intent.before.value && knob.is_shared() {
            return Err(Failure::Foreign { target: intent.target, found: shown(current.value.as_deref()) });
        }
        knob.write(&self.progress.tx, &wrote)?;
        self.env.watch.checkpoint("written");
        let knob = &self.knobs[step];
        let observed = knob.read()?;
        let holds = knob.holds(&observed, &wrote);
        let footprint = self.footprint(step)?;
        self.log(Event::Done { step, observed: observed.value.clone(), footprint })?;
        if holds { Ok(()) } else { Err(self.mismatch(step, &wrote, &observed, "right after it was written")) }
    }

    /// Whether every step on a layer holds.
    pub(super) fn check(&self, layer: Layer, when: &'static str) -> Result<(), Failure> {
        for step in self.progress.on(layer) {
            let wrote = self.progress.steps[step].wrote();
            let found = self.knobs[step].read()?;
            if !self.knobs[step].holds(&found, wrote) {
                return Err(self.mismatch(step, wrote, &found, when));
            }
        }
        Ok(())
    }

    fn mismatch(&self, step: usize, expected: &str, found: &Reading, when: &'static str) -> Failure {
        let target = self.knobs[step].target().to_owned();
        let found = shown(found.value.as_deref());
        Failure::Mismatch { target, expected: shown(Some(expected)), found, when }
    }

    /// After the last record: staged files go, whatever becomes of the rest; the summary is brought up to date, the timer
    /// goes, and last the marker.
    pub(super) fn finish(&mut self) -> Result<(), StoreError> {
        let tx = self.tx();
        let left: Vec<String> =
            self.knobs.iter().filter_map(|knob| knob.unstage(&tx).err()).map(|error| error.to_string()).collect();
        for warning in left {
            self.warn(warning);
        }
        let saved = self.env.store.saved_managed()?;
        let mut managed = match &saved {
            Some(managed) => managed.clone(),
            None => self.env.store.managed()?,
        };
        if self.progress.state == State::Committed {
            // A transaction that is finished twice keeps its place.
            if !managed.transactions.contains(&self.progress.tx) {
                managed.committed(&self.progress);
            }
        } else {
            managed.taken_back(&self.progress.tx);
        }
        if saved.as_ref() != Some(&managed) {
            self.env.store.save_managed(&managed)?;
        }
        self.env.watch.checkpoint("summarised");
        if let Some((kind, name)) = &self.progress.timer {
            self.env.timer.disarm(kind, name);
        }
        self.env.store.unmark(&tx)
    }

    pub(super) fn outcome(self, verb: Verb) -> Outcome {
        let now = micros(self.env.clock.boottime());
        let mut outcome = Outcome::of(verb, &self.progress, now);
        outcome.warnings = self.warnings;
        outcome
    }
}

fn stamp(env: &Env<'_>, seq: u64, event: Event) -> Record {
    Record {
        seq,
        at: env.clock.wall().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        boot_id: env.clock.boot_id(),
        boottime_us: micros(env.clock.boottime()),
        event,
    }
}

/// An adapter for every step. A journal that names something unknown is not carried out at all.
pub(super) fn resolve<'e>(env: &'e Env<'e>, steps: &[Step]) -> Result<Vec<Box<dyn Knob + 'e>>, ApplyError> {
    let resolve = |step: &Step| {
        let knob = env.knobs.resolve(&step.target).map_err(|error| ApplyError::Refused(error.to_string()))?;
        if knob.layer() == step.layer {
            return Ok(knob);
        }
        let (is, named) = (knob.layer().name(), step.layer.name());
        Err(ApplyError::Refused(format!("`{}` is on the {is} layer, not on the {named} layer", step.target)))
    };
    steps.iter().map(resolve).collect()
}

/// What the journal of these steps can need: both contents of every file, escaped, and a dozen records per step.
fn reserve(steps: &[Step]) -> u64 {
    let contents: usize = steps.iter().map(|step| step.after.len() * 6 + 4096).sum();
    16 * 1024 + contents as u64
}
