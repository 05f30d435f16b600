//! Many ports at once. Who holds a port is the subject of the lab.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{json, program};

/// The findings of a run without root's rights, without what tells how they came about.
fn findings(ports: &str) -> Vec<Value> {
    let preflight = program();
    let mut command = Command::new(preflight);
    if nix::unistd::geteuid().is_root() {
        command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", preflight]);
    }
    command.args(["check", "--only", "port.free", "--format", "json", "--set", ports]);
    let output = command.current_dir("/").stdin(Stdio::null()).output().unwrap();
    let report = json(&String::from_utf8(output.stdout).unwrap());
    let mut findings = report["findings"].as_array().unwrap().clone();
    for finding in &mut findings {
        let finding = finding.as_object_mut().unwrap();
        finding.retain(|key, _| !["duration_us", "source"].contains(&key.as_str()));
    }
    findings
}

/// Privileged ports, which an ordinary user may not ask for, and one that is held. A way of asking that is cheaper for
/// many ports must not call one of them free that it was not permitted to ask for. Seen failing where every port that no
/// socket has, by a dump of sock_diag, was called free.
#[test]
fn a_port_among_many_is_judged_as_by_itself() {
    let holder = TcpListener::bind("0.0.0.0:0").unwrap();
    let held = holder.local_addr().unwrap().port();
    let many = findings(&format!("ports=low:300-599,held:{held}"));
    assert_eq!(many.len(), 301);
    for (alone, at) in [("low:300".to_owned(), 0), ("low:599".to_owned(), 299), (format!("held:{held}"), 300)] {
        assert_eq!(findings(&format!("ports={alone}")), [many[at].clone()], "{alone}");
    }
    assert_ne!(many[300]["result"], "pass");
}
