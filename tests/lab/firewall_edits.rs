//! What others make of the guard, and of the host around it: real tables in a network namespace. Needs root.
//!
//! packages: iproute2 nftables python3 util-linux

use crate::support::process::Ran;
use std::io::Write as _;

use crate::support::wired::{Place, STRANGER};

const ALLOW: &str = "allow=172.20.0.0/16,fd20::/16";

const GUARD: [&str; 7] = ["tune", "--only", "firewall.guard", "--set", ALLOW, "--color", "never"];

fn apply(place: &Place) -> Ran {
    place.run(&[&GUARD[..], &["--apply", "--settle", "0", "--confirm-within", "0", "--format", "json"]].concat())
}

fn load(place: &Place, text: &str) {
    let mut nft = place.command("nft").args(["-f", "-"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "{text}");
}

/// What a check observes.
fn observed(place: &Place, check: &str) -> String {
    let report = place.run(&["check", "--only", check, "--set", ALLOW, "--format", "json"]).json();
    report["findings"][0]["observed"].as_str().unwrap().to_owned()
}

/// One word of the table is changed by hand, and strangers come in. With a `Guard::read` that only looked at which fields
/// a rule asks about, and not for what, most of these were seen `as planned`, and an apply changed nothing.
#[test]
fn a_guard_with_one_word_changed_is_not_as_planned() {
    let place = Place::new();
    let applied = apply(&place);
    assert_eq!(applied.code, 0, "{applied:?}");
    assert_eq!(observed(&place, "firewall.guard"), "as planned");
    assert!(!place.reaches(STRANGER, 6379) && place.reaches(STRANGER, 7000));
    let ours = place.shell("nft list table inet preflight");
    for (from, to) in [
        ("iifname \"lo\"", "iifname \"outside\""),
        ("iifname \"lo\"", "iifname != \"lo\""),
        ("ct state established,related", "ct state established,new"),
        ("fib daddr type local", "fib daddr type unicast"),
        ("tcp dport @tcp_ports", "udp dport @tcp_ports"),
        ("tcp dport @tcp_ports", "meta nfproto ipv6 tcp dport @tcp_ports"),
        ("ip saddr @allow4", "ip saddr != @allow4"),
        ("ip saddr @allow4", "ip daddr != @allow4"),
    ] {
        assert!(ours.contains(from), "{from}: {ours}");
        load(&place, &format!("delete table inet preflight\n{}", ours.replace(from, to)));
        assert!(place.reaches(STRANGER, 6379), "{to}: nobody comes in by that");
        assert_eq!(observed(&place, "firewall.guard"), "differs", "{to}");
        let again = apply(&place);
        assert_eq!((again.code, &again.json()["changed"]), (0, &true.into()), "{to}: {again:?}");
        assert!(!place.reaches(STRANGER, 6379), "{to}");
    }
}

/// Somebody has a table of this name, with a text in it that no journal may load again. Seen failing without the look at
/// it in `NftGuard::stage`: the apply was committed, and the rollback ended with 6 and left the guard.
#[test]
fn a_table_that_could_not_be_put_back_is_not_taken_away() {
    let place = Place::new();
    load(&place, "table inet preflight {\nchain x {\ntcp dport 22 accept comment \"ssh # of Berta\"\n}\n}\n");
    let theirs = place.shell("nft list ruleset");
    let applied = apply(&place);
    assert_eq!(applied.code, 4, "{applied:?}");
    assert!(applied.stdout.contains("could not be put back"), "{applied:?}");
    assert_eq!(place.shell("nft list ruleset"), theirs);
    place.shell("test ! -e /etc/preflight");
    // One that can be is exchanged, and put back.
    load(&place, "delete table inet preflight\ntable inet preflight {\nchain x {\ntcp dport 22 accept\n}\n}\n");
    let theirs = place.shell("nft list ruleset");
    assert_eq!(apply(&place).code, 0);
    assert_ne!(place.shell("nft list ruleset"), theirs);
    assert_eq!(place.run(&["rollback"]).code, 0);
    assert_eq!(place.shell("nft list ruleset"), theirs);
}

/// A table that belongs to a program which runs: only that may change it. Seen failing without the look in
/// `NftGuard::stage`: "Operation not permitted", and nothing of whom to ask.
#[test]
fn a_table_that_belongs_to_a_program_is_told() {
    let place = Place::new();
    let (piped, null) = (std::process::Stdio::piped(), std::process::Stdio::null());
    let mut nft = place.command("nft").arg("-i").stdin(piped).stdout(null).spawn().unwrap();
    let mut stdin = nft.stdin.take().unwrap();
    stdin.write_all(b"add table inet preflight { flags owner; }\n").unwrap();
    place.shell("for i in $(seq 100); do nft list table inet preflight && exit; sleep 0.05; done; exit 1");
    let plan = place.run(&[&GUARD[..], &["--format", "json"]].concat()).json();
    let before = plan["changes"][0]["before"].as_str().unwrap().to_owned();
    assert!(before.contains("is somebody else's"), "{before}");
    let applied = apply(&place);
    assert_eq!(applied.code, 4, "{applied:?}");
    assert!(applied.stdout.contains("belongs to a program that runs"), "{applied:?}");
    drop(stdin);
    nft.wait().unwrap();
}
