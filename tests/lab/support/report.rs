//! Runs of the binary, and what they reported.

use super::process::{self, Ran};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The binary, copied to where every user and every root of these tests can run it.
pub(crate) fn installed(folder: &Path) -> PathBuf {
    let program = folder.join("preflight");
    if !program.exists() {
        fs::copy(process::program(), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    program
}

/// Runs the binary behind a prefix such as `nsenter …` or `setpriv …`, with nothing of this process's environment.
pub(crate) fn preflight(folder: &Path, prefix: &[String], environment: &[(&str, &str)], args: &[&str]) -> Ran {
    let program = installed(folder).display().to_string();
    let argv: Vec<String> =
        prefix.iter().cloned().chain([program]).chain(args.iter().map(|arg| (*arg).to_owned())).collect();
    Command::new(&argv[0])
        .args(&argv[1..])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(environment.iter().copied())
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{argv:?}: {error}"))
        .into()
}

impl Ran {
    pub(crate) fn report(&self) -> Report {
        Report { value: self.json(), code: self.code }
    }
}

/// A report as JSON.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) value: Value,
    pub(crate) code: i32,
}

impl Report {
    pub(crate) fn verdict(&self) -> &str {
        self.value["verdict"].as_str().unwrap()
    }

    pub(crate) fn findings(&self) -> &[Value] {
        self.value["findings"].as_array().unwrap()
    }

    pub(crate) fn finding(&self, id: &str) -> &Value {
        let found = self.findings().iter().find(|finding| finding["id"] == id);
        found.unwrap_or_else(|| panic!("there is no finding {id}: {}", self.value))
    }

    pub(crate) fn result(&self, id: &str) -> &str {
        self.finding(id)["result"].as_str().unwrap()
    }

    /// `RESULT OBSERVED`.
    pub(crate) fn said(&self, id: &str) -> String {
        format!("{} {}", self.result(id), self.finding(id)["observed"].as_str().unwrap_or(""))
    }

    /// All notes of a finding, in one text.
    pub(crate) fn notes(&self, id: &str) -> String {
        let notes = self.finding(id)["notes"].as_array().into_iter().flatten();
        notes.filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn results(&self) -> BTreeMap<String, String> {
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        self.findings().iter().map(|finding| (text(finding, "id"), text(finding, "result"))).collect()
    }

    pub(crate) fn with_result(&self, result: &str) -> Vec<String> {
        self.results().into_iter().filter(|(_, word)| word == result).map(|(id, _)| id).collect()
    }

    /// The report without what differs between two runs of the same facts: the times it took.
    pub(crate) fn timeless(mut self) -> Value {
        for finding in self.value["findings"].as_array_mut().unwrap() {
            finding.as_object_mut().unwrap().remove("duration_us");
        }
        self.value
    }
}
