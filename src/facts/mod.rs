//! Facts: typed observations of a host, each with its source, on up to three layers.
//!
//! A fact is *known*, *absent* (there is no such thing here, and why) or *unknown* (it could not be read, and what would
//! help). The difference between the last two is the product: an unknown is never a pass and never a failure.

pub mod absent;
pub mod compare;
pub mod input;
pub mod network;
pub mod ranges;
pub mod registry;
pub mod service;
pub mod snapshot;
pub mod value;
pub mod version;
pub mod words;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use absent::AbsentReason;
pub use value::{Kind, Value};
pub use version::Version;

/// Where a value lives: now in the kernel, after the next boot, or in a container of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    Live,
    Boot,
    Container,
}

impl Layer {
    pub const ALL: [Self; 3] = [Self::Live, Self::Boot, Self::Container];

    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Boot => "boot",
            Self::Container => "container",
        }
    }
}

/// What is known about one fact on one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was read.
    Known(Value),
    /// There is no such thing on this host. The text says why: "not on this kernel", "no file sets it".
    Absent(#[schemars(with = "String")] AbsentReason),
    /// It could not be read: the error, and what would help.
    Unknown {
        error: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        help: Option<String>,
    },
}

/// One observation: what, from where, with a remark, and how long it took to gather.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    pub state: State,
    /// The file, the file and line, the system call or the endpoint: `/etc/sysctl.d/99-x.conf:3`, `adjtimex(2)`.
    pub source: String,
    /// What a reader should know about the value: "predicted", "limited by the cgroup /x; the host has 16 GiB".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Gathering time in microseconds. Facts read in one go carry the time of the whole read.
    #[serde(default)]
    pub took_us: u64,
}

impl Fact {
    pub fn known(value: Value, source: impl Into<String>) -> Self {
        Self { state: State::Known(value), source: source.into(), note: None, took_us: 0 }
    }

    pub fn absent(why: impl Into<AbsentReason>, source: impl Into<String>) -> Self {
        Self { state: State::Absent(why.into()), source: source.into(), note: None, took_us: 0 }
    }

    pub fn unknown(error: impl Into<String>, help: Option<&str>, source: impl Into<String>) -> Self {
        let state = State::Unknown { error: error.into(), help: help.map(Into::into) };
        Self { state, source: source.into(), note: None, took_us: 0 }
    }

    /// A file that could not be read: absent with `why` when it does not exist, unknown otherwise.
    pub fn unreadable(error: &crate::host::ReadError, why: impl Into<AbsentReason>) -> Self {
        let source = error.path.display().to_string();
        if error.is_absent() {
            return Self::absent(why, source);
        }
        let help = error.is_denied().then_some("run as root");
        Self::unknown(error.to_string(), help, source)
    }

    /// A file of the kernel that could not be read: absent with `why` when this kernel does not have it. Where /proc or
    /// /sys is not mounted nothing is known about the kernel, and under a root there is none.
    pub fn unreadable_of_kernel(
        host: &crate::host::Host,
        error: &crate::host::ReadError,
        why: impl Into<AbsentReason>,
    ) -> Self {
        let source = error.path.display().to_string();
        if !error.is_absent() {
            return Self::unreadable(error, why);
        }
        if !host.is_live() {
            return Self::not_running(source);
        }
        match host.unmounted(&error.path) {
            Some(mount) => Self::unknown(format!("{mount} is not there"), Some("mount /proc and /sys"), source),
            None => Self::absent(why, source),
        }
    }

    /// A fact that comes from a system call, a socket or Docker, asked of a directory instead of a running host.
    pub fn not_running(source: impl Into<String>) -> Self {
        Self::absent(AbsentReason::NotRunning, source)
    }

    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    #[must_use]
    pub fn took(mut self, elapsed: std::time::Duration) -> Self {
        self.took_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self
    }

    pub fn value(&self) -> Option<&Value> {
        match &self.state {
            State::Known(value) => Some(value),
            State::Absent(_) | State::Unknown { .. } => None,
        }
    }
}

/// All layers of one fact. `None` = nobody looked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Fact>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Fact>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Fact>,
}

impl Layers {
    pub fn get(&self, layer: Layer) -> Option<&Fact> {
        match layer {
            Layer::Live => self.live.as_ref(),
            Layer::Boot => self.boot.as_ref(),
            Layer::Container => self.container.as_ref(),
        }
    }
}

/// All facts of one run, by id. Written and gone through in the order of the ids, so that two snapshots of one host differ
/// only where the host does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Facts(BTreeMap<String, Layers>);

impl Facts {
    pub fn insert(&mut self, id: impl Into<String>, layer: Layer, fact: Fact) {
        let layers = self.0.entry(id.into()).or_default();
        match layer {
            Layer::Live => layers.live = Some(fact),
            Layer::Boot => layers.boot = Some(fact),
            Layer::Container => layers.container = Some(fact),
        }
    }

    /// Inserts on the live layer, where most facts have their only value.
    pub fn live(&mut self, id: impl Into<String>, fact: Fact) {
        self.insert(id, Layer::Live, fact);
    }

    pub fn layers(&self, id: &str) -> Option<&Layers> {
        self.0.get(id)
    }

    pub fn get(&self, id: &str, layer: Layer) -> Option<&Fact> {
        self.0.get(id)?.get(layer)
    }

    /// The known value on the live layer.
    pub fn value(&self, id: &str) -> Option<&Value> {
        self.get(id, Layer::Live)?.value()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Layers)> {
        self.0.iter().map(|(id, layers)| (id.as_str(), layers))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes over all facts of another set; on the same id and layer the other one wins.
    pub fn extend(&mut self, other: Self) {
        for (id, layers) in other.0 {
            let known = self.0.entry(id).or_default();
            known.live = layers.live.or(known.live.take());
            known.boot = layers.boot.or(known.boot.take());
            known.container = layers.container.or(known.container.take());
        }
    }
}
