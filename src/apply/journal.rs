//! The journal: what a transaction means to do, durable before it is done, and what came of it. It is the audit log too.
//!
//! One JSON object per line, its last member the crc32c of everything before it. A last line that does not hold is a
//! torn write and is dropped; a bad line anywhere else means that the file is not what was written: then nothing is
//! changed, and a person has to look.

use std::collections::BTreeMap;

use crc::{CRC_32_ISCSI, Crc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::who::Who;
use crate::change::id::TxId;
use crate::change::knob::Reading;
use crate::facts::Layer;

/// The name and version of the journal format, in every `begin`.
pub const FORMAT: &str = "preflight.journal/1";

const CASTAGNOLI: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// 0 for `begin`, then one more each.
    pub seq: u64,
    /// The calendar, for people: `2026-11-22T10:15:00Z`.
    pub at: String,
    pub boot_id: String,
    /// `CLOCK_BOOTTIME`, in microseconds; comparable within one `boot_id`.
    pub boottime_us: u64,
    #[serde(flatten)]
    pub event: Event,
}

/// A change as the transaction keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The check that asked for it.
    pub id: String,
    pub layer: Layer,
    /// Resolved through an adapter whenever it is used; never a path to be trusted.
    pub target: String,
    pub after: String,
    /// The content, as a digest, that the plan was made for: of a file that others write too, and only on the boot layer,
    /// since between plan and confirm they may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restarts: Vec<String>,
    #[serde(default)]
    pub connectivity_risk: bool,
}

/// What is about to be done to one knob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// Which of the steps of `begin`.
    pub step: usize,
    pub target: String,
    /// The state to which a rollback returns.
    pub before: Reading,
    /// What is written, where it is not the step's `after`: a set takes the union.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<String>,
    /// Other knobs that the kernel may move along, as they are before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub footprint: BTreeMap<String, String>,
}

/// How a step came back to its old state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UndoneBy {
    /// We wrote the old state.
    Restored,
    /// It was in its old state: not yet changed, or put back by somebody.
    Already,
    /// The machine was restarted, and the change was only in the kernel.
    Reboot,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    Begin {
        format: String,
        tx: TxId,
        /// The version of preflight.
        preflight: String,
        profile: String,
        /// The plan as shown, to tell two plans apart.
        plan_sha256: String,
        who: Who,
        /// The conflicts that were allowed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        allow: Vec<String>,
        steps: Vec<Step>,
    },
    /// The timer that takes everything back runs.
    Armed {
        /// `systemd` or `watchdog`.
        timer: String,
        /// The unit, or the process.
        name: String,
        /// `CLOCK_BOOTTIME` of this boot, in microseconds.
        deadline_us: u64,
    },
    Intent(Intent),
    Done {
        step: usize,
        /// What the knob said afterwards.
        observed: Option<String>,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        footprint: BTreeMap<String, String>,
    },
    /// Everything live holds: at once, and again after the settle time.
    Verified {
        settle_ms: u64,
    },
    /// Decided: from here on a recovery goes forward.
    Confirm {
        by: Who,
        /// Whether the confirm came over another connection than the apply; null where none was asked for.
        new_connection: Option<bool>,
    },
    PersistIntent(Intent),
    Persisted {
        step: usize,
    },
    Committed,
    /// Decided: from here on a recovery goes back, confirmed or not.
    RollingBack {
        reason: String,
        by: Who,
    },
    UndoIntent {
        step: usize,
        /// What was found in an object of ours that somebody had edited; it is removed nevertheless.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        drifted: Option<String>,
    },
    Undone {
        step: usize,
        by: UndoneBy,
    },
    /// A shared value that is neither what it was nor what we made it: somebody else's, left alone.
    Conflict {
        step: usize,
        target: String,
        expected: String,
        found: Option<String>,
    },
    /// Something stood in the way of the rollback. The transaction stays open; the next recovery tries again.
    RollbackFailed {
        error: String,
    },
    RolledBack {
        conflicts: usize,
    },
    /// A recovery took over.
    Recovered {
        reason: String,
        by: Who,
    },
}

/// A journal that holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Journal {
    pub records: Vec<Record>,
    /// How many bytes of the file these records are. What follows is a torn write.
    pub valid_bytes: u64,
}

/// Why a journal cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the journal is damaged: {reason}")]
pub struct Corrupt {
    /// From 1.
    pub line: usize,
    pub reason: String,
}

/// A record as a line, crc and newline included.
pub fn line(record: &Record) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string(record)?;
    text.pop();
    let crc = CASTAGNOLI.checksum(text.as_bytes());
    Ok(format!("{text}{CRC_KEY}{crc:08x}\"}}\n"))
}

const CRC_KEY: &str = ",\"crc\":\"";
const CRC_TAIL: usize = CRC_KEY.len() + 8 + "\"}".len();

/// Reads a journal. An empty one has no records: its transaction never began.
pub fn parse(text: &str) -> Result<Journal, Corrupt> {
    let mut records: Vec<Record> = Vec::new();
    let mut valid_bytes = 0;
    let mut lines = text.split_inclusive('\n').enumerate().peekable();
    while let Some((index, raw)) = lines.next() {
        let record = match parse_line(raw) {
            Ok(record) => record,
            Err(_) if lines.peek().is_none() && !holds_an_end(raw) => break,
            Err(reason) => return Err(Corrupt { line: index + 1, reason }),
        };
        // From here on the crc holds: what is wrong now was written so, and no torn write explains it.
        check_order(&records, &record).map_err(|reason| Corrupt { line: index + 1, reason })?;
        valid_bytes += raw.len() as u64;
        records.push(record);
    }
    Ok(Journal { records, valid_bytes })
}

/// Whether a whole record ends inside the line: then two lines ran into one, and no torn write does that. Inside a
/// record the key cannot appear, since JSON escapes the quotes of texts.
fn holds_an_end(raw: &str) -> bool {
    raw.match_indices(CRC_KEY).any(|(at, _)| at + CRC_TAIL < raw.trim_end_matches('\n').len())
}

fn parse_line(raw: &str) -> Result<Record, String> {
    let text = raw.strip_suffix('\n').ok_or("it has no end")?;
    let body = text.len().checked_sub(CRC_TAIL).filter(|at| text.is_char_boundary(*at)).ok_or("it is too short")?;
    let (body, tail) = text.split_at(body);
    let given = tail.strip_prefix(CRC_KEY).and_then(|rest| rest.strip_suffix("\"}")).ok_or("it has no crc")?;
    if given != format!("{:08x}", CASTAGNOLI.checksum(body.as_bytes())) {
        return Err("its crc does not match".to_owned());
    }
    serde_json::from_str(&format!("{body}}}")).map_err(|error| error.to_string())
}

fn check_order(records: &[Record], record: &Record) -> Result<(), String> {
    if record.seq != records.len() as u64 {
        return Err(format!("it is number {}, expected {}", record.seq, records.len()));
    }
    let Some(first) = records.first() else {
        return match &record.event {
            Event::Begin { format, .. } if format == FORMAT => Ok(()),
            Event::Begin { format, .. } => Err(format!("its format is `{format}`, this preflight knows `{FORMAT}`")),
            _ => Err("the first record is not `begin`".to_owned()),
        };
    };
    let Event::Begin { steps, .. } = &first.event else {
        return Err("the first record is not `begin`".to_owned());
    };
    let (step, target) = match &record.event {
        Event::Begin { .. } => return Err("a second `begin`".to_owned()),
        Event::Intent(intent) | Event::PersistIntent(intent) => (intent.step, Some(&intent.target)),
        Event::Conflict { step, target, .. } => (*step, Some(target)),
        Event::Done { step, .. }
        | Event::Persisted { step }
        | Event::UndoIntent { step, .. }
        | Event::Undone { step, .. } => (*step, None),
        _ => return Ok(()),
    };
    let Some(known) = steps.get(step) else {
        return Err(format!("it names step {step} of {}", steps.len()));
    };
    match target {
        Some(target) if *target != known.target => Err(format!("step {step} is `{}`, not `{target}`", known.target)),
        _ => Ok(()),
    }
}

impl Journal {
    /// The first record's transaction.
    pub fn tx(&self) -> Option<&TxId> {
        match &self.records.first()?.event {
            Event::Begin { tx, .. } => Some(tx),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
