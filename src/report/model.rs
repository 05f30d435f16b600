//! The report as data: what every renderer gets, and the JSON contract `preflight.report/1`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::catalog::check::Severity;
use crate::facts::Value;
use crate::facts::snapshot::HostIdentity;

/// The name and version of the report format.
pub const SCHEMA: &str = "preflight.report/1";

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Pass,
    Warn,
    Fail,
    /// It could not be determined. Neither green nor red.
    Unknown,
    /// It makes no sense on this host, or something it needs did not pass. The reason says which.
    NotApplicable,
    /// It did not pass, and somebody accepted that by name and with a reason.
    Waived,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
            Self::NotApplicable => "not applicable",
            Self::Waived => "waived",
        }
    }

    /// How bad it is when several layers of one finding differ: fail, then unknown, then warn.
    pub fn badness(self) -> u8 {
        match self {
            Self::Fail => 4,
            Self::Unknown => 3,
            Self::Warn => 2,
            Self::Pass => 1,
            Self::Waived | Self::NotApplicable => 0,
        }
    }
}

/// The answer to "is this host ready?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ready,
    ReadyWithWarnings,
    NotReady,
    /// Something that decides could not be determined, or nothing applied.
    CannotTell,
}

impl Verdict {
    pub fn words(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::ReadyWithWarnings => "READY WITH WARNINGS",
            Self::NotReady => "NOT READY",
            Self::CannotTell => "CANNOT TELL",
        }
    }
}

/// One layer of a finding: what is there, and whether it decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerView {
    /// What this layer alone would come to; `not_applicable` when the layer has no value.
    pub result: Outcome,
    /// Whether the layer counts for this finding.
    pub decides: bool,
    /// The value, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// The value, or why there is none, in words.
    pub text: String,
    /// Where it was read: a path, a path and line, a system call.
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How to fix a finding on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Remedy {
    pub text: String,
    /// Exact commands or file contents for this OS, line by line.
    #[serde(default)]
    pub commands: Vec<String>,
    /// What it costs: a restart, a short outage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impact: Option<String>,
}

/// The waiver that covers, or used to cover, a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaiverView {
    pub owner: String,
    pub reason: String,
    /// The last day it holds, `YYYY-MM-DD`.
    pub expires: String,
    /// It no longer holds: the finding counts again.
    pub expired: bool,
    /// What the check really came to.
    pub result: Outcome,
}

/// One check on one host, or one instance of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The check's id, with the instance appended: `port.free.6379`.
    pub id: String,
    pub check: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    pub section: String,
    pub result: Outcome,
    pub severity: Severity,
    pub title: String,
    /// What passes, in words: `at least 4 GiB`.
    pub expected: String,
    /// What is there, in words.
    pub observed: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<LayerView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Box<LayerView>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Box<LayerView>>,
    /// Where the deciding value was read.
    pub source: String,
    /// What a reader should know: which case decided, why it is unknown or not applicable, who holds the port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What would make an unknown known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    pub why: String,
    /// How to fix it; only when it is not a pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiver: Option<WaiverView>,
    /// How long gathering the fact took, in microseconds.
    pub duration_us: u64,
}

/// How many findings came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    pub total: usize,
    pub pass: usize,
    pub warn: usize,
    pub fail: usize,
    pub unknown: usize,
    pub not_applicable: usize,
    pub waived: usize,
}

impl Summary {
    pub fn of(findings: &[Finding]) -> Self {
        let mut summary = Self { total: findings.len(), ..Self::default() };
        for finding in findings {
            let slot = match finding.result {
                Outcome::Pass => &mut summary.pass,
                Outcome::Warn => &mut summary.warn,
                Outcome::Fail => &mut summary.fail,
                Outcome::Unknown => &mut summary.unknown,
                Outcome::NotApplicable => &mut summary.not_applicable,
                Outcome::Waived => &mut summary.waived,
            };
            *slot += 1;
        }
        summary
    }
}

/// The profile a report is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileView {
    pub name: String,
    pub title: String,
    /// Parameters given with `--set`, as given.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// The file that it is from; missing for a profile of preflight's own. A profile of a file may bear the name of one
    /// of preflight's own, and then is another one all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// All files of checks and profiles that were read besides preflight's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

/// Host identity, findings, verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// `preflight.report/1`.
    pub schema: String,
    /// The version of preflight that judged.
    pub preflight: String,
    /// When the facts were gathered, in UTC: `2026-11-22T10:15:00Z`.
    pub taken_at: String,
    pub verdict: Verdict,
    pub host: HostIdentity,
    pub profile: ProfileView,
    pub summary: Summary,
    pub findings: Vec<Finding>,
}

impl Report {
    /// The verdict over findings: a fail on a blocker or required check decides first, then what is unknown, then
    /// warnings. Info never counts, nor does what is not applicable or waived; where nothing else is left, nothing was
    /// looked at, and that is not ready.
    pub fn verdict_of(findings: &[Finding]) -> Verdict {
        let any = |test: &dyn Fn(&Finding) -> bool| findings.iter().any(|f| f.severity != Severity::Info && test(f));
        let weighty = |f: &Finding| f.severity >= Severity::Required;
        let looked_at = any(&|f| f.result != Outcome::NotApplicable);
        if any(&|f| weighty(f) && f.result == Outcome::Fail) {
            Verdict::NotReady
        } else if !looked_at || any(&|f| weighty(f) && f.result == Outcome::Unknown) {
            Verdict::CannotTell
        } else if any(&|f| matches!(f.result, Outcome::Warn | Outcome::Fail | Outcome::Unknown)) {
            Verdict::ReadyWithWarnings
        } else {
            Verdict::Ready
        }
    }
}
