//! The transaction engine on real settings: per-namespace sysctls in a network namespace of each test's own, real files
//! under a folder that stands for `/etc`, real kills. Needs root, strace and nothing else; leaves no trace.

mod host;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::process::eventually;
use host::{DROP_IN, Lab, PORTS, SOMAXCONN};
use preflight::apply::{Options, Recovery, Selection, State, apply, confirm, recover, rollback};
use preflight::exit::ExitCode;

/// G3 and G7: killed at each system call from `begin` on, and recovered twice, everything is old or everything is new.
///
/// Seen failing with the intents written after the change instead of before it, and with `Store::mark` left out of a
/// rollback.
#[test]
fn a_kill_at_any_system_call_leaves_all_old_or_all_new() {
    for verb in ["apply", "confirm", "rollback"] {
        let points = host::sweep(verb, &["signal=SIGKILL"]);
        println!("{verb}: {points} points killed");
        assert!(points >= 35, "only {points} points");
    }
}

/// The same for calls that fail, and whoever then reports a success or a rollback must mean it.
#[test]
fn an_error_at_any_system_call_leaves_all_old_or_all_new() {
    for verb in ["apply", "confirm", "rollback"] {
        let points = host::sweep(verb, &["error=ENOSPC", "error=EROFS", "error=EPERM", "error=EIO"]);
        println!("{verb}: {points} points failed");
        assert!(points >= 140, "only {points} points");
    }
}

/// At most 2 syncs per change and 8 per transaction, also for the first transaction of a host, which makes the folders.
#[test]
fn an_apply_syncs_no_more_than_it_says() {
    let lab = Lab::new();
    for (verb, changes) in [("apply", 4), ("apply-live", 1), ("apply-file", 1)] {
        let calls = lab.trace(verb, &["fsync", "fdatasync", "sync_file_range", "syncfs", "sync"]);
        let syncs: usize = calls.values().sum();
        println!("{verb}: {syncs} syncs for {changes} changes: {calls:?}");
        assert!(syncs <= 2 * changes + 8, "{verb}: {syncs} syncs: {calls:?}");
        assert!(syncs >= 5, "{verb}: only {syncs} syncs: something is not durable");
    }
}

#[test]
fn real_settings_change_and_come_back() {
    let lab = Lab::new();
    lab.run(|env| {
        let outcome =
            apply(&lab.plan(), &Options { settle: Duration::from_millis(50), ..Options::default() }, env).unwrap();
        assert_eq!(outcome.exit(), ExitCode::Success, "{outcome:?}");
    });
    assert!(lab.is_new(), "{:?}", lab.values());
    // Somebody else reserves a port meanwhile, and edits our file.
    lab.set(PORTS, "6379-6381,9000");
    lab.run(|env| {
        let outcomes = rollback(env, &Selection::Newest).unwrap();
        assert_eq!(outcomes[0].exit(), ExitCode::Success, "{outcomes:?}");
    });
    assert_eq!(lab.values()[PORTS], "9000", "only ours is given back");
    assert_eq!(lab.values()[SOMAXCONN], "4096");
    assert_eq!(lab.values()[DROP_IN], "(absent)");
}

/// Without the comparison in `Knob::undo` the value of the other one is overwritten.
#[test]
fn a_setting_that_somebody_changed_since_is_left_alone_and_named() {
    let lab = Lab::new();
    lab.run(|env| drop(apply(&lab.plan(), &host::at_once(), env).unwrap()));
    lab.set(SOMAXCONN, "777");
    lab.run(|env| {
        let outcomes = rollback(env, &Selection::Newest).unwrap();
        assert_eq!(outcomes[0].exit(), ExitCode::Conflicts);
        assert_eq!(outcomes[0].conflicts[0].target, SOMAXCONN);
        assert_eq!(outcomes[0].conflicts[0].found.as_deref(), Some("777"));
    });
    assert_eq!(lab.values()[SOMAXCONN], "777");
    assert_eq!((lab.values()[PORTS].as_str(), lab.values()[DROP_IN].as_str()), ("", "(absent)"));
}

/// A full disk under the state, a read-only `/etc`, a read-only `/proc/sys`: all three show before the first change.
#[test]
fn what_cannot_be_written_shows_before_anything_changes() {
    use nix::mount::{MsFlags, mount};
    let none: Option<&str> = None;
    for case in ["full", "etc", "proc"] {
        let lab = Lab::new();
        host::private_mounts();
        let state = lab.root().join("var/lib/preflight");
        std::fs::create_dir_all(&state).unwrap();
        let remount_read_only = |path: &std::path::Path| {
            mount(Some(path), path, none, MsFlags::MS_BIND, none).unwrap();
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, path, none, flags, none).unwrap();
        };
        let mounted = match case {
            "full" => {
                mount(Some("tmpfs"), &state, Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=700")).unwrap();
                let fill = std::fs::write(state.join("fill"), vec![0; 128 * 1024]);
                assert!(fill.is_err(), "the disk is not full");
                state.clone()
            }
            "etc" => {
                remount_read_only(&lab.root().join("etc"));
                lab.root().join("etc")
            }
            _ => {
                remount_read_only("/proc/sys".as_ref());
                "/proc/sys".into()
            }
        };
        lab.run(|env| match apply(&lab.plan(), &host::at_once(), env) {
            Ok(outcome) => {
                assert_eq!(outcome.exit(), ExitCode::RolledBack, "{case}: {outcome:?}");
                assert!(outcome.changes.iter().all(|change| change.before.is_none()), "{case}: a change was begun");
            }
            Err(error) => assert_eq!(error.exit(), ExitCode::RolledBack, "{case}: {error}"),
        });
        nix::mount::umount(&mounted).unwrap();
        assert!(lab.is_old(), "{case}: {:?}", lab.values());
    }
}

/// G4 without systemd: the whole session of the apply is killed, and the watchdog takes the change back in time.
/// With `setsid` left out of `timer::watch` the kill takes the watchdog along, and the change stays.
#[test]
fn the_watchdog_outlives_the_session_that_was_killed() {
    let lab = Lab::new();
    let window = Duration::from_secs(4);
    let started = Instant::now();
    let mut child = lab.start("wait", &[("PREFLIGHT_LAB_WINDOW_MS", window.as_millis().to_string())], true);
    eventually("the apply waits for its confirm", Duration::from_secs(20), || lab.is_pending());
    assert_eq!(lab.values()[SOMAXCONN], "65535");
    assert_eq!(lab.values()[DROP_IN], "(absent)", "on the disk before the confirm");
    let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGHUP).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "the hang-up ended the apply");
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    eventually("the watchdog rolls back", Duration::from_secs(20), || lab.newest_state() == Some(State::RolledBack));
    assert!(lab.is_old(), "{:?}", lab.values());
    // By the journal's own clock, not by ours: other tests may hold the machine up.
    let late = lab.rolled_back_after_deadline();
    println!("back {late:?} after the deadline, {:?} after the start", started.elapsed());
    assert!(late <= Duration::from_secs(2), "{late:?} after the deadline");
}

/// Without the look at `Watch::is_interrupted` in `transaction::wait` the signal is ignored until the deadline.
#[test]
fn a_waiting_apply_that_is_asked_to_stop_takes_everything_back() {
    let lab = Lab::new();
    let mut child = lab.start("wait", &[("PREFLIGHT_LAB_WINDOW_MS", "60000".to_owned())], true);
    eventually("the apply waits for its confirm", Duration::from_secs(20), || lab.is_pending());
    let process = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(host::code(ExitCode::RolledBack)));
    assert!(lab.is_old(), "{:?}", lab.values());
    // The watchdog looks every second, and leaves when there is nothing to watch.
    let watchdog = lab.newest().unwrap().timer.unwrap().1;
    eventually("the watchdog ends", Duration::from_secs(10), || {
        !std::path::Path::new("/proc").join(&watchdog).exists()
    });
}

/// Ten at once: one wins, the others exit 5 and name the transaction.
#[test]
fn of_ten_applies_at_once_one_wins() {
    let lab = Lab::new();
    let window = [("PREFLIGHT_LAB_WINDOW_MS", "60000".to_owned())];
    let children: Vec<_> = (0..10).map(|_| lab.start("no-wait", &window, false)).collect();
    let mut exits: BTreeMap<i32, usize> = BTreeMap::new();
    for mut child in children {
        *exits.entry(child.wait().unwrap().code().unwrap()).or_default() += 1;
    }
    assert_eq!(exits, BTreeMap::from([(host::code(ExitCode::Pending), 1), (host::code(ExitCode::Busy), 9)]));
    lab.run(|env| {
        assert_eq!(preflight::apply::history(env, 100).unwrap().len(), 1, "more than one journal");
        let error = apply(&lab.other_plan(), &host::at_once(), env).unwrap_err();
        let tx = env.store.unfinished().unwrap().pop().unwrap();
        assert!(error.to_string().contains(tx.as_str()), "{error}");
        let outcome = confirm(env, None, preflight::apply::Connection::Any).unwrap();
        assert_eq!(outcome.exit(), ExitCode::Success);
    });
    assert!(lab.is_new());
}

/// Journals of ten thousand transactions do not slow the next command down.
#[test]
fn ten_thousand_transactions_do_not_slow_the_next_one() {
    let lab = Lab::new();
    lab.run(|env| drop(apply(&lab.plan(), &host::at_once(), env).unwrap()));
    lab.run(|env| drop(rollback(env, &Selection::Newest).unwrap()));
    lab.multiply_history(10_000);
    lab.run(|env| {
        let started = Instant::now();
        assert_eq!(recover(env, None, Recovery::Unfinished).unwrap().len(), 0);
        let entries = preflight::apply::history(env, 20).unwrap();
        let took = started.elapsed();
        assert_eq!(entries.len(), 20);
        println!("recover and the newest 20 of 10,000: {took:?}");
        assert!(took < Duration::from_millis(500), "{took:?}");
    });
}
