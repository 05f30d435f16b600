//! Journals that an earlier preflight wrote on an image (see tests/fixtures/journals/README.md), carried on by this one. Those
//! of a running host are carried on by `src/apply/old_journals_tests.rs`.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use insta::assert_snapshot;

use crate::support::{Lab, json, repository};
use crate::tune::on;

const DROP_IN: &str = "root/etc/sysctl.d/99-zz-preflight.conf";

fn names() -> Vec<String> {
    let entries = fs::read_dir(repository().join("tests/fixtures/journals/image")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 13, "the journals were not found: {names:?}");
    names
}

/// The image as it was when the process was killed, and the name of the transaction.
fn image(lab: &Lab, name: &str) -> (PathBuf, String) {
    let from = repository().join("tests/fixtures/journals/image").join(name);
    lab.write("root/etc/os-release", "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian of the test\"\n");
    lab.write("root/proc/sys/vm/swappiness", "60\n");
    fs::create_dir_all(lab.path("root/etc/sysctl.d")).unwrap();
    let text = fs::read_to_string(from.join("journal.jsonl")).unwrap();
    let tx = json(text.lines().next().unwrap())["tx"].as_str().unwrap().to_owned();
    let private = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    private(&lab.write(&format!("root/var/lib/preflight/tx/{tx}/journal.jsonl"), &text));
    if let Ok(managed) = fs::read_to_string(from.join("managed.json")) {
        private(&lab.write("root/var/lib/preflight/managed.json", &managed));
    }
    let host = json(&fs::read_to_string(from.join("host.json")).unwrap());
    if host["marked"].as_bool().unwrap() {
        lab.write(&format!("root/var/lib/preflight/open-{tx}"), "");
    }
    if let Some(text) = host["values"]["file:/etc/sysctl.d/99-zz-preflight.conf"].as_str() {
        lab.write(DROP_IN, text);
    }
    (lab.path("root"), tx)
}

fn carry_on(verb: &str) -> String {
    let mut table = String::new();
    for name in names() {
        let lab = Lab::new();
        let (root, tx) = image(&lab, &name);
        let ran = on(&lab, verb, &root, &[]);
        let said = format!("{}{}", ran.stdout, ran.stderr).replace(&tx, "TX");
        let file = match fs::read_to_string(lab.path(DROP_IN)) {
            Ok(text) if text.ends_with("\nvm.swappiness = 1\n") => "the file is there",
            Ok(_) => "the file holds something else",
            Err(_) => "no file",
        };
        let _ = writeln!(table, "{name}: exit {}, {file}", ran.code);
        for line in said.lines() {
            let _ = writeln!(table, "    {line}");
        }
        if verb == "recover" {
            let again = on(&lab, verb, &root, &[]);
            assert_eq!((again.code, again.stdout.as_str()), (0, "nothing to do\n"), "{name}");
        }
    }
    table
}

/// This and the next ones: seen failing for each journal without the assignments to `state` in `Progress::take`, and with
/// `tag = "kind"` on `Event`.
#[test]
fn old_journals_are_confirmed() {
    assert_snapshot!(carry_on("confirm"), @"
    begin: exit 4, no file
        transaction TX: rolled back
          because the process that carried it out ended before it was done
          file:/etc/sysctl.d/99-zz-preflight.conf: untouched
    committed: exit 2, the file is there
        error: no transaction waits for a confirm
    committed-marked: exit 0, the file is there
        transaction TX: committed
          file:/etc/sysctl.d/99-zz-preflight.conf: done
    persist_intent: exit 0, the file is there
        transaction TX: committed
          file:/etc/sysctl.d/99-zz-preflight.conf: done
    persist_intent-file: exit 0, the file is there
        transaction TX: committed
          file:/etc/sysctl.d/99-zz-preflight.conf: done
    persisted-file: exit 0, the file is there
        transaction TX: committed
          file:/etc/sysctl.d/99-zz-preflight.conf: done
    rolled_back: exit 2, no file
        error: no transaction waits for a confirm
    rolled_back-marked: exit 4, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    rolling_back-file: exit 4, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    undo_intent: exit 4, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    undo_intent-file: exit 4, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    undone: exit 4, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    verified: exit 4, no file
        transaction TX: rolled back
          because the process that carried it out ended before it was done
          file:/etc/sysctl.d/99-zz-preflight.conf: untouched
    ");
}

/// As the test of confirm.
#[test]
fn old_journals_are_rolled_back() {
    assert_snapshot!(carry_on("rollback"), @"
    begin: exit 0, no file
        transaction TX: rolled back
          because the process that carried it out ended before it was done
          file:/etc/sysctl.d/99-zz-preflight.conf: untouched
    committed: exit 0, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    committed-marked: exit 0, no file
        transaction TX: committed
          file:/etc/sysctl.d/99-zz-preflight.conf: done
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    persist_intent: exit 0, no file
        transaction TX: committed
          file:/etc/sysctl.d/99-zz-preflight.conf: done
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    persist_intent-file: exit 0, no file
        transaction TX: committed
          file:/etc/sysctl.d/99-zz-preflight.conf: done
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    persisted-file: exit 0, no file
        transaction TX: committed
          file:/etc/sysctl.d/99-zz-preflight.conf: done
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    rolled_back: exit 0, no file
        nothing to do
    rolled_back-marked: exit 0, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    rolling_back-file: exit 0, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    undo_intent: exit 0, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    undo_intent-file: exit 0, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    undone: exit 0, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    verified: exit 0, no file
        transaction TX: rolled back
          because the process that carried it out ended before it was done
          file:/etc/sysctl.d/99-zz-preflight.conf: untouched
    ");
}

/// As the test of confirm.
#[test]
fn old_journals_are_recovered() {
    assert_snapshot!(carry_on("recover"), @"
    begin: exit 0, no file
        transaction TX: rolled back
          because the process that carried it out ended before it was done
          file:/etc/sysctl.d/99-zz-preflight.conf: untouched
    committed: exit 0, the file is there
        nothing to do
    committed-marked: exit 0, the file is there
        transaction TX: committed
          file:/etc/sysctl.d/99-zz-preflight.conf: done
    persist_intent: exit 0, the file is there
        transaction TX: committed
          file:/etc/sysctl.d/99-zz-preflight.conf: done
    persist_intent-file: exit 0, the file is there
        transaction TX: committed
          file:/etc/sysctl.d/99-zz-preflight.conf: done
    persisted-file: exit 0, the file is there
        transaction TX: committed
          file:/etc/sysctl.d/99-zz-preflight.conf: done
    rolled_back: exit 0, no file
        nothing to do
    rolled_back-marked: exit 0, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    rolling_back-file: exit 0, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    undo_intent: exit 0, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    undo_intent-file: exit 0, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    undone: exit 0, no file
        transaction TX: rolled back
          because it was asked for
          file:/etc/sysctl.d/99-zz-preflight.conf: as before
    verified: exit 0, no file
        transaction TX: rolled back
          because the process that carried it out ended before it was done
          file:/etc/sysctl.d/99-zz-preflight.conf: untouched
    ");
}

/// As the test of confirm.
#[test]
fn what_old_journals_say_is_verified() {
    assert_snapshot!(carry_on("verify"), @"
    begin: exit 1, no file
        unfinished: transaction TX was begun and did not end: `preflight recover` ends it
    committed: exit 0, the file is there
        1 of 1 as applied
    committed-marked: exit 0, the file is there
        1 of 1 as applied
    persist_intent: exit 1, no file
        unfinished: transaction TX was begun and did not end: `preflight recover` ends it
    persist_intent-file: exit 1, the file is there
        unfinished: transaction TX was begun and did not end: `preflight recover` ends it
    persisted-file: exit 1, the file is there
        unfinished: transaction TX was begun and did not end: `preflight recover` ends it
    rolled_back: exit 0, no file
        nothing to verify: preflight keeps no change on this host
    rolled_back-marked: exit 0, no file
        nothing to verify: preflight keeps no change on this host
    rolling_back-file: exit 1, the file is there
        unfinished: transaction TX was begun and did not end: `preflight recover` ends it
        1 of 1 as applied
    undo_intent: exit 1, no file
        drift: file:/etc/sysctl.d/99-zz-preflight.conf: the file is gone [kernel.swappiness, TX]
        unfinished: transaction TX was begun and did not end: `preflight recover` ends it
        0 of 1 as applied
    undo_intent-file: exit 1, the file is there
        unfinished: transaction TX was begun and did not end: `preflight recover` ends it
        1 of 1 as applied
    undone: exit 1, no file
        drift: file:/etc/sysctl.d/99-zz-preflight.conf: the file is gone [kernel.swappiness, TX]
        unfinished: transaction TX was begun and did not end: `preflight recover` ends it
        0 of 1 as applied
    verified: exit 1, no file
        unfinished: transaction TX was begun and did not end: `preflight recover` ends it
    ");
}

/// As the test of confirm.
#[test]
fn old_journals_are_history() {
    assert_snapshot!(carry_on("history"), @"
    begin: exit 0, no file
        TX  unfinished
          2026-12-01T02:30:35Z by operator, profile redis-sentinel
          file:/etc/sysctl.d/99-zz-preflight.conf
    committed: exit 0, the file is there
        TX  committed
          2026-12-01T02:30:35Z by operator, profile redis-sentinel
          file:/etc/sysctl.d/99-zz-preflight.conf
    committed-marked: exit 0, the file is there
        TX  committed
          2026-12-01T02:30:35Z by operator, profile redis-sentinel
          file:/etc/sysctl.d/99-zz-preflight.conf
    persist_intent: exit 0, no file
        TX  unfinished
          2026-12-01T02:30:44Z by operator, profile redis-sentinel
          file:/etc/sysctl.d/99-zz-preflight.conf
    persist_intent-file: exit 0, the file is there
        TX  unfinished
          2026-12-01T02:30:35Z by operator, profile redis-sentinel
          file:/etc/sysctl.d/99-zz-preflight.conf
    persisted-file: exit 0, the file is there
        TX  unfinished
          2026-12-01T02:30:35Z by operator, profile redis-sentinel
          file:/etc/sysctl.d/99-zz-preflight.conf
    rolled_back: exit 0, no file
        TX  rolled back
          2026-12-01T02:30:48Z by operator, profile redis-sentinel
          file:/etc/sysctl.d/99-zz-preflight.conf
          it was asked for
    rolled_back-marked: exit 0, no file
        TX  rolled back
          2026-12-01T02:30:47Z by operator, profile redis-sentinel
          file:/etc/sysctl.d/99-zz-preflight.conf
          it was asked for
    rolling_back-file: exit 0, the file is there
        TX  unfinished
          2026-12-01T02:30:47Z by operator, profile redis-sentinel
          file:/etc/sysctl.d/99-zz-preflight.conf
          it was asked for
    undo_intent: exit 0, no file
        TX  unfinished
          2026-12-01T02:30:47Z by operator, profile redis-sentinel
          file:/etc/sysctl.d/99-zz-preflight.conf
          it was asked for
    undo_intent-file: exit 0, the file is there
        TX  unfinished
          2026-12-01T02:30:48Z by operator, profile redis-sentinel
          file:/etc/sysctl.d/99-zz-preflight.conf
          it was asked for
    undone: exit 0, no file
        TX  unfinished
          2026-12-01T02:30:47Z by operator, profile redis-sentinel
          file:/etc/sysctl.d/99-zz-preflight.conf
          it was asked for
    verified: exit 0, no file
        TX  applied, waiting for the confirm
          2026-12-01T02:30:35Z by operator, profile redis-sentinel
          file:/etc/sysctl.d/99-zz-preflight.conf
    ");
}
