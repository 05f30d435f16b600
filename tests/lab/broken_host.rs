//! Hosts with something missing, each in a mount namespace of its own: what cannot be seen is unknown, never a pass and
//! never "does not apply". Needs root.

use crate::support::process::program;
use std::process::Command;

/// What one finding comes to after `setup` in a private mount namespace.
fn result(setup: &str, id: &str) -> String {
    let script = format!("{setup}\nexec \"$0\" check --format json --only {id} --set data_dir=/srv/data");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-euc", &script, program()])
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    report["findings"][0]["result"].as_str().unwrap().to_owned()
}

/// Seen failing with `not_applicable`: "not on this kernel".
#[test]
fn without_proc_kernel_settings_are_unknown() {
    for id in
        ["kernel.overcommit", "limits.nr-open", "kernel.conntrack", "port.ephemeral-overlap", "resource.memory-fit"]
    {
        assert_eq!(result("mount -t tmpfs none /proc", id), "unknown", "{id}");
    }
}

/// A limit and a table that only /proc tells of are not ruled out without it. Seen failing with `warn` (the CPUs of the whole
/// machine, whatever the quota of the control group) and with `pass` (as if the old iptables had no rules).
#[test]
fn without_proc_no_limit_and_no_table_is_ruled_out() {
    for id in ["resource.cpu", "firewall.backend-mixed", "firewall.docker-user-dead"] {
        assert_eq!(result("mount -t tmpfs none /proc", id), "unknown", "{id}");
    }
}

/// Seen failing with `pass`: "this kernel has no transparent huge pages".
#[test]
fn without_sys_huge_pages_are_unknown() {
    for id in ["kernel.thp", "kernel.thp-sizes", "kernel.clocksource"] {
        assert_eq!(result("mount -t tmpfs none /sys", id), "unknown", "{id}");
    }
}

/// Seen failing with `pass`: the room of the disk counted, though nobody could write there.
#[test]
fn a_read_only_disk_has_no_room() {
    let setup = "mount --bind /srv /srv && mount -o remount,ro,bind /srv";
    assert_eq!(result(setup, "resource.data-space"), "fail");
}
