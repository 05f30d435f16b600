//! The guard on a host that is reached by ssh, through a port that the guard closes: who locks himself out, and what is left
//! of a guard when its apply, its confirm or its rollback is cut off. Needs root.
//!
//! packages: iproute2 iptables nftables openssh-client openssh-server procps python3 strace util-linux

mod ssh;
mod sweep;

use std::time::Duration;

use crate::support::wired::{ALLOWED, ALLOWED6, PROGRAM, STRANGER, STRANGER6};
use ssh::{Host, PORT};

/// The guard alone, for the two allowed networks; sshd listens on one of its ports.
const GUARD: &str = "tune --only 'firewall.*' --set allow=172.20.0.0/16,fd20::/16 --color never --settle 0 --apply";

/// What a person has to say who closes the port that he came in by.
const CONSENT: &str = "--allow firewall.sshd-port --allow firewall.cut-peers";

/// A guard on sshd's own port is refused, with the port named, until somebody says that it is meant. Seen failing with
/// `peers::sshd` finding nothing.
#[test]
fn the_port_of_sshd_is_closed_only_when_it_is_meant() {
    let host = Host::new();
    let before = host.state();
    let session = host.connect(STRANGER);
    for allow in ["", "--allow firewall.cut-peers"] {
        let refused = session.run(&format!("preflight {GUARD} {allow}"));
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains("firewall.sshd-port"), "{refused:?}");
        assert_eq!(host.state(), before);
    }
    let plan = host.place.shell(&format!("{PROGRAM} {} --format json", GUARD.replace("--settle 0 --apply", "")));
    assert!(plan.contains(&format!("sshd listens on {PORT}")), "{plan}");
    assert!(plan.contains("203.0.113.9 (port 6380)"), "who would be cut off is not named: {plan}");
    // Nobody is asked where the guard leaves sshd alone.
    let other = session.run(&format!("preflight {GUARD} --set ports=redis:6379 --no-wait --confirm-within 600s"));
    assert_eq!(other.code, 7, "{other:?}");
    assert!(host.login(STRANGER, "true").code == 0 && !host.place.reaches(STRANGER, 6379));
    assert_eq!(session.run("preflight rollback").code, 0);
    assert_eq!(host.state(), before);
}

/// G4 for somebody who locks himself out: no new connection gets in, and one does again by the deadline and two seconds,
/// with nobody there to help. Seen failing with `timer::watch` leaving before its deadline.
#[test]
fn who_locks_himself_out_gets_in_again_by_the_deadline() {
    for address in [STRANGER, STRANGER6] {
        let host = Host::new();
        let before = host.state();
        let session = host.connect(address);
        let applied = session.run(&format!("preflight {GUARD} {CONSENT} --no-wait --confirm-within 12s --format json"));
        assert_eq!(applied.code, 7, "{applied:?}");
        let deadline = Duration::from_micros(applied.json()["deadline_us"].as_u64().unwrap());
        let knocks = host.knock(address);
        // The old connection goes on, and proves nothing.
        let refused = session.run("preflight confirm");
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains("--same-connection-ok"), "{refused:?}");
        assert_ne!(host.login(address, "true").code, 0, "a new connection got in");
        assert!(host.login(ALLOWED, "true").code == 0, "the allowed are shut out too");
        ssh::wait_until_past(deadline + Duration::from_secs(2));
        let login = host.login(address, "true");
        assert_eq!(login.code, 0, "{login:?}");
        assert_eq!(host.state(), before);

        let knocks = knocks.heard();
        let closed: Vec<_> = knocks.iter().filter(|knock| knock.at + Duration::from_secs(1) < deadline).collect();
        assert!(closed.len() > 10 && closed.iter().all(|knock| !knock.answered), "{knocks:?}");
        let open = knocks.iter().find(|knock| knock.answered).expect("sshd never answered again").at;
        println!("{address}: open again {:+.2} s from the deadline", open.as_secs_f64() - deadline.as_secs_f64());
        assert!(open <= deadline + Duration::from_secs(2), "{knocks:?}");
        assert!(knocks.iter().filter(|knock| knock.at > open).all(|knock| knock.answered), "{knocks:?}");
    }
}

/// The word of a connection that was there before proves nothing; that of a new one, which only the allowed can make, does.
/// Seen failing with `confirm::proof` taking any connection.
#[test]
fn only_a_new_connection_of_the_allowed_confirms() {
    let host = Host::new();
    let before = host.state();
    let session = host.connect(STRANGER);
    let applied = session.run(&format!("preflight {GUARD} {CONSENT} --no-wait --confirm-within 600s"));
    assert_eq!(applied.code, 7, "{applied:?}");
    for command in ["preflight confirm", "env -i /usr/local/sbin/preflight confirm", "setsid -w preflight confirm"] {
        let refused = session.run(command);
        assert_eq!(refused.code, 2, "{command}: {refused:?}");
        assert!(refused.stderr.contains("--same-connection-ok"), "{refused:?}");
    }
    assert_ne!(host.login(STRANGER, "preflight confirm").code, 0);
    let confirmed = host.login(ALLOWED, "preflight confirm --format json");
    assert_eq!((confirmed.code, &confirmed.json()["state"]), (0, &"committed".into()), "{confirmed:?}");
    for (address, gets_in) in [(ALLOWED, true), (ALLOWED6, true), (STRANGER, false), (STRANGER6, false)] {
        assert_eq!(host.login(address, "true").code == 0, gets_in, "{address}");
        assert!(host.place.reaches(address, 7000), "the control is closed for {address}");
    }
    assert_eq!(session.run("preflight verify").code, 0);
    let rollback = session.run("preflight rollback");
    assert_eq!(rollback.code, 0, "{rollback:?}");
    assert_eq!(host.login(STRANGER, "true").code, 0);
    assert_eq!(host.state(), before);
}
