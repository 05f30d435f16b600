//! What preflight holds on this host: the desired value of every knob, and which transaction asked for it.
//!
//! Per knob a stack, the newest on top, as saptune keeps it: a rollback takes its own layer off and the one below shows.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::progress::Progress;
use crate::change::id::TxId;
use crate::facts::Layer;

const SCHEMA: &str = "preflight.managed/1";

/// One layer of one knob's stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Held {
    #[schemars(with = "String")]
    pub tx: TxId,
    /// The check that asked for it.
    pub id: String,
    pub layer: Layer,
    /// The value, or the whole content of a file.
    pub desired: String,
}

/// The summary of all committed transactions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Managed {
    schema: String,
    /// Committed and not taken back, in the order of their commits.
    pub transactions: Vec<TxId>,
    /// By target.
    pub knobs: BTreeMap<String, Vec<Held>>,
}

impl Default for Managed {
    fn default() -> Self {
        Self { schema: SCHEMA.to_owned(), transactions: Vec::new(), knobs: BTreeMap::new() }
    }
}

impl Managed {
    /// `None` for anything that is not such a summary.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|managed: &Self| managed.schema == SCHEMA)
    }

    pub fn to_text(&self) -> String {
        // Nothing in here can fail to serialise: strings, lists and maps with text keys.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Takes in a transaction that was committed. Doing so twice is doing so once.
    pub fn committed(&mut self, progress: &Progress) {
        self.taken_back(&progress.tx);
        self.transactions.push(progress.tx.clone());
        for step in progress.steps.iter().filter(|step| step.intent.is_some() && step.conflict.is_none()) {
            let step = &step.step;
            self.knobs.entry(step.target.clone()).or_default().push(Held {
                tx: progress.tx.clone(),
                id: step.id.clone(),
                layer: step.layer,
                desired: step.after.clone(),
            });
        }
    }

    /// Lets go of everything a transaction held.
    pub fn taken_back(&mut self, tx: &TxId) {
        self.transactions.retain(|known| known != tx);
        for stack in self.knobs.values_mut() {
            stack.retain(|held| held.tx != *tx);
        }
        self.knobs.retain(|_, stack| !stack.is_empty());
    }

    /// What should be the case now: the top of every stack.
    pub fn desired(&self) -> impl Iterator<Item = (&str, &Held)> {
        self.knobs.iter().filter_map(|(target, stack)| Some((target.as_str(), stack.last()?)))
    }

    /// Whether preflight holds nothing on this host.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }
}
