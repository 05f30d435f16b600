//! A snapshot: all facts of one run, with what they were gathered for. Judging one gives the same findings anywhere.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Facts;

/// The name and version of the snapshot format.
pub const SCHEMA: &str = "preflight.snapshot/1";

/// Who the host is. For people; nothing is judged by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostIdentity {
    /// The node name, as in uname(2) or etc/hostname under a root.
    pub name: String,
    /// The distribution as people call it.
    pub os: String,
    /// The kernel release.
    pub kernel: String,
    /// The architecture: `x86_64`, `aarch64`.
    pub arch: String,
}

/// What a file of the catalogue is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceRole {
    Checks,
    Profile,
}

/// A catalogue or profile file that is not part of the binary, carried along so that the snapshot can be judged where
/// the file is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceText {
    /// What the file is read as.
    pub role: SourceRole,
    pub path: String,
    pub text: String,
}

/// What a run wrote down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// `preflight.snapshot/1`.
    pub schema: String,
    /// The version of preflight that gathered it.
    pub preflight: String,
    /// When, in UTC: `2026-11-22T10:15:00Z`. End-of-life dates and waivers are judged by this day.
    pub taken_at: String,
    pub host: HostIdentity,
    /// The profile the facts were gathered for.
    pub profile: String,
    /// Parameters given with `--set`, as given.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Files of the profile and its checks that are not embedded in the binary.
    #[serde(default)]
    pub sources: Vec<SourceText>,
    pub facts: Facts,
}
