//! Entries in a real ufw and a real firewalld, and what they let in: real connections between namespaces. Needs root.
//!
//! packages: dbus firewalld iproute2 iptables nftables procps python3 strace ufw util-linux

use crate::support::wired::{ALLOWED, PROGRAM, Place, STRANGER};

const UFW_TARGETS: [&str; 4] = [
    "ufw:tcp 26379-26381 from 172.20.0.0/16",
    "ufw:tcp 26379-26381 from fd20::/16",
    "ufw:tcp 6379-6381 from 172.20.0.0/16",
    "ufw:tcp 6379-6381 from fd20::/16",
];

const SERVICE: [&str; 2] = [
    "file:/etc/systemd/system/preflight-recover.service",
    "link:/etc/systemd/system/sysinit.target.wants/preflight-recover.service",
];

/// One life of an entry of ufw, with a colleague in between. Seen failing with `ufw::delete` naming another port: the
/// rollback says so, with exit 6.
#[test]
fn ufw_lets_the_allowed_in_and_forgets_exactly_that() {
    let place = Place::with_ufw();
    place.assert_open_to_the_allowed(false, "before");
    let before = place.rules();
    assert_eq!(place.targets(), [&SERVICE[..], &UFW_TARGETS[..]].concat());
    for format in ["terminal", "markdown", "script", "json"] {
        let plan = place.tune(&["--format", format]).stdout.replace("\n     ", " ");
        let command = "ufw allow proto tcp from 172.20.0.0/16 to any port 6379:6381 comment preflight";
        assert!(plan.contains(command), "{format}: {plan}");
    }
    assert_eq!(place.rules(), before, "planning changed something");

    let applied = place.apply(&[]);
    assert_eq!((applied.code, applied.stderr.as_str()), (0, ""), "{applied:?}");
    place.assert_open_to_the_allowed(true, "applied");
    assert!(place.shell("ufw status").contains("# preflight"));
    assert_eq!(place.targets(), [""; 0], "G2");
    let again = place.apply(&[]);
    assert_eq!((again.code, &again.json()["changed"]), (0, &false.into()), "{again:?}");
    place.shell("ufw reload");
    place.assert_open_to_the_allowed(true, "after ufw reload");
    assert_eq!(place.run(&["verify"]).code, 0);

    // Somebody empties the kernel's rules; the entries stand in ufw's files all the same. Seen failing with only the files
    // looked at: `verify` was content while the allowed were kept out.
    place.shell("nft flush ruleset");
    let told = place.run(&["verify"]);
    assert_eq!(told.code, 1, "{told:?}");
    assert!(UFW_TARGETS.iter().all(|target| told.stdout.contains(&format!("{target}: is `kept, and not in force`"))));
    place.shell("ufw disable && ufw --force enable");
    assert_eq!(place.run(&["verify"]).code, 0);

    place.shell("ufw allow 8080/tcp && ufw insert 1 deny from 198.51.100.0/24");
    let rollback = place.run(&["rollback", "--format", "json"]);
    assert_eq!(rollback.code, 0, "{rollback:?}");
    place.assert_open_to_the_allowed(false, "taken back");
    let after = place.rules();
    assert!(after.contains("--dport 8080") && after.contains("198.51.100.0/24"), "{after}");
    place.shell("ufw delete allow 8080/tcp && ufw delete deny from 198.51.100.0/24");
    assert_eq!(place.rules(), before);
}

/// Debian's ip6tables-legacy finds a rule by other ports of the same source, in `-C` and in `-D`: what ufw deletes may be
/// another entry than it names. Seen failing with `Ufw::is_in_kernel` asking by `-C`: the rollback ended with exit 6.
#[test]
fn ufw_over_the_old_iptables_loses_no_entry_of_somebody_else() {
    let place = Place::with_ufw_of("legacy");
    // The same source and as many ports; first, so that it is the one that such a search finds.
    let theirs = "-A ufw6-user-input -s fd20::/16 -p tcp -m multiport --dports 9000:9002 -j ACCEPT";
    place.shell("ufw allow proto tcp from fd20::/16 to any port 9000:9002");
    let before = place.rules();
    assert!(before.contains(theirs), "{before}");
    let applied = place.apply(&[]);
    assert_eq!((applied.code, applied.stderr.as_str()), (0, ""), "{applied:?}");
    place.assert_open_to_the_allowed(true, "applied");
    assert_eq!(place.run(&["verify"]).code, 0);
    // Somebody takes ours out of the kernel.
    place.shell(&format!("ip6tables -F ufw6-user-input && ip6tables {theirs}"));
    let told = place.run(&["verify"]);
    assert_eq!(told.code, 1, "{told:?}");
    place.shell("ufw reload");
    let rollback = place.run(&["rollback"]);
    assert_eq!(rollback.code, 0, "{rollback:?}");
    assert_eq!(place.rules(), before);
}

/// Seen failing with `ufw::found` blind to comments: the colleague's entry was deleted.
#[test]
fn an_entry_of_somebody_else_stays() {
    let place = Place::with_ufw();
    place.shell("ufw allow proto tcp from 172.20.0.0/16 to any port 6379:6381 comment mine");
    assert!(!place.targets().contains(&UFW_TARGETS[2].to_owned()));
    assert_eq!(place.apply(&[]).code, 0);
    // Somebody takes over another one in the meantime.
    place.shell("ufw allow proto tcp from 172.20.0.0/16 to any port 26379:26381 comment theirs");
    let rollback = place.run(&["rollback", "--format", "json"]);
    assert_eq!(rollback.code, 6, "{rollback:?}");
    assert_eq!(rollback.json()[0]["conflicts"][0]["target"], UFW_TARGETS[0]);
    let status = place.shell("ufw status");
    assert!(status.contains("# mine") && status.contains("# theirs") && !status.contains("# preflight"), "{status}");
}

/// Never enabled, no default touched. Seen failing with the two questions left out of `Ufw::stage`.
#[test]
fn a_ufw_that_is_not_active_is_left_alone() {
    let place = Place::with_ufw();
    place.shell("ufw disable");
    let disabled = place.rules();
    assert_eq!(place.targets(), [""; 0]);
    assert_eq!(place.apply(&[]).code, 0);
    assert_eq!(place.rules(), disabled);
    assert!(place.reaches(STRANGER, 6379), "something was enabled");
    // Enabled by its file, and its rules were never loaded.
    place.shell(
        "sed -i s/ENABLED=no/ENABLED=yes/ /etc/ufw/ufw.conf; iptables -F; iptables -X; ip6tables -F; ip6tables -X",
    );
    let unloaded = place.rules();
    let refused = place.apply(&[]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stdout.contains("its rules are not in the kernel"), "{refused:?}");
    assert_eq!(place.rules(), unloaded);
}

/// G5 for what is on the disk at once: the service that the plan installed takes it back at the next boot, before ufw
/// starts, and does not keep ufw from starting. Seen failing with the service left out of the plan, and with
/// `Ufw::restore` reloading ufw without chains.
#[test]
fn a_power_cut_in_the_window_is_taken_back_by_the_service() {
    let place = Place::with_ufw();
    let before = place.rules();
    let applied = place.apply(&["--no-wait", "--confirm-within", "600s"]);
    assert_eq!(applied.code, 7, "{applied:?}");
    place.assert_open_to_the_allowed(true, "in the window");
    let start =
        place.shell("sed -n s/^ExecStart=//p /etc/systemd/system/sysinit.target.wants/preflight-recover.service");
    assert_eq!(start.trim(), format!("{PROGRAM} recover"));
    // What a boot does: another boot id, an empty kernel, nothing in /run, no process of before.
    place.shell(
        "cat /proc/sys/kernel/random/uuid > /run/boot_id && mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
         for tool in iptables ip6tables; do $tool -F; $tool -X; $tool -P INPUT ACCEPT; done; rm -f /run/ufw.lock",
    );
    let recovered = place.shell(&start);
    assert!(recovered.contains("the machine was restarted before the confirm"), "{recovered}");
    let kernel = place.shell("iptables -S; ip6tables -S");
    assert!(!kernel.contains("ufw"), "ufw would believe that it runs: {kernel}");
    place.shell("/lib/ufw/ufw-init start");
    place.assert_open_to_the_allowed(false, "after the boot");
    let order = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(order(&place.rules()), order(&before));
}

/// As long as an entry could not be taken back, what would take it back at the next boot stays. Seen failing without
/// `is_for_recovery` in `Session::undo_all`.
#[test]
fn the_service_stays_while_an_entry_is_left() {
    let place = Place::with_ufw();
    let before = place.rules();
    assert_eq!(place.apply(&[]).code, 0);
    place.shell(
        "printf '#!/bin/sh\\nexit 1\\n' > /run/ufw && chmod 755 /run/ufw && mount --bind /run/ufw /usr/sbin/ufw",
    );
    let failed = place.run(&["rollback"]);
    assert_eq!(failed.code, 6, "{failed:?}");
    assert!(place.rules().contains("preflight-recover.service"), "{}", place.rules());
    place.shell("umount /usr/sbin/ufw");
    assert_eq!(place.run(&["recover"]).code, 0);
    assert_eq!(place.rules(), before);
}

/// What a ufw leaves that was killed between its files and the kernel. Seen failing with `Ufw::read` not asking the kernel.
#[test]
fn what_only_the_kernel_has_goes_too() {
    let place = Place::with_ufw();
    let before = place.rules();
    // Of one family: for an entry of the other, ufw would load the files of both again.
    let tune = ["tune", "--only", "firewall.entries", "--set", "allow=172.20.0.0/16", "--apply", "--settle", "0"];
    assert_eq!(place.run(&tune).code, 0);
    place.shell("sed -i '/172.20.0.0/d' /etc/ufw/user.rules");
    assert!(place.reaches(ALLOWED, 6379), "the kernel forgot it by itself");
    assert_eq!(place.run(&["verify"]).code, 1, "in force, and gone with the next reload");
    let rollback = place.run(&["rollback"]);
    assert_eq!(rollback.code, 0, "{rollback:?}");
    place.assert_open_to_the_allowed(false, "taken back");
    assert_eq!(place.rules(), before);
}

/// Killed while it waits for ufw, which goes on alone and writes its entry a moment later. Seen failing with
/// `tool::wait_for` not waiting.
#[test]
fn a_ufw_that_outlives_the_kill_is_waited_for() {
    let place = Place::with_ufw();
    let old = place.rules();
    let tune = ["tune", "--only", "firewall.entries", "--set", "allow=172.20.0.0/16", "--apply", "--settle", "0"];
    let mut alone = 0;
    for when in (0..12).map(|step| 20 + 40 * step) {
        let inject = format!("inject=clock_nanosleep:signal=SIGKILL:when={when}");
        let mut strace = place.command("strace");
        strace.args(["-qq", "-o", "/run/trace", "-e", &inject, PROGRAM]).args(tune).output().unwrap();
        alone += usize::from(place.command("pgrep").args(["-f", "ufw allow proto"]).output().unwrap().status.success());
        let recovered = place.run(&["recover"]);
        assert_eq!(recovered.code, 0, "{when}: {recovered:?}");
        place.eventually("ufw ends what it began", "! pgrep -f 'ufw (allow|delete)'");
        if place.rules() != old {
            // It was done already, and committed.
            assert_eq!(place.run(&["rollback", "--all"]).code, 0, "{when}");
        }
        assert_eq!(place.rules(), old, "{when}");
    }
    println!("{alone} were left alone");
    assert!(alone > 1, "no ufw outlived its preflight");
}

/// G3: killed at every k-th call, with and without the programs that it had started, and recovered twice. Seen failing
/// with `StepProgress::is_to_undo` asking for a `done` record.
#[test]
fn a_kill_leaves_no_half_entry() {
    const CALLS: [&str; 6] = ["write", "fdatasync", "renameat", "unlinkat", "openat2", "execve"];
    let every: usize = std::env::var("PREFLIGHT_EVERY").map_or(9, |it| it.parse().unwrap());
    let place = Place::with_ufw();
    let old = place.rules();
    let tune = ["tune", "--only", "firewall.entries", "--set", "allow=172.20.0.0/16", "--apply", "--settle", "0"];
    let strace = |options: &[&str]| {
        let mut command = place.command("strace");
        command.args(["-qq", "-o", "/run/trace"]).args(options).arg(PROGRAM).args(tune);
        let output = command.output().unwrap();
        (output, place.shell("cat /run/trace"))
    };
    let (output, text) = strace(&["-e", &format!("trace={}", CALLS.join(","))]);
    assert!(output.status.success(), "{output:?}");
    let new = place.rules();
    assert_ne!(new, old);
    assert_eq!(place.run(&["rollback", "--all"]).code, 0);
    assert_eq!(place.rules(), old);
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    let mut points = Vec::new();
    let mut is_begun = false;
    for line in text.lines() {
        is_begun |= line.contains("/var/lib/preflight") || line.contains("journal");
        let Some(call) = CALLS.iter().find(|call| line.starts_with(&format!("{call}("))) else { continue };
        *counts.entry(call).or_default() += 1;
        if is_begun {
            points.push((*call, counts[call]));
        }
    }
    assert!(points.len() >= 20, "only {} points: {text}", points.len());
    let (mut killed, mut olds, mut tried) = (0, 0, 0);
    for children in [false, true] {
        for (call, when) in points.iter().skip(usize::from(children) * every / 2).step_by(every) {
            let inject = format!("inject={call}:signal=SIGKILL:when={when}");
            let options: &[&str] = if children { &["-f", "-e", &inject] } else { &["-e", &inject] };
            let (output, _) = strace(options);
            killed += usize::from(output.status.code().is_none());
            for _ in 0..2 {
                let recovered = place.run(&["recover"]);
                assert_eq!(recovered.code, 0, "{call} {when}: {recovered:?}");
            }
            let found = place.rules();
            assert!(found == old || found == new, "{call} {when} {children}: half:\n{found}\nnot\n{old}");
            olds += usize::from(found == old);
            tried += 1;
            assert_eq!(place.run(&["rollback", "--all"]).code, 0);
            assert_eq!(place.rules(), old, "{call} {when}");
        }
    }
    println!("{tried} of {} points, {killed} killed, {olds} all old, {} all new", 2 * points.len(), tried - olds);
    assert!(killed > 2, "nothing was killed");
}

/// In the running firewall before the confirm, in its files after. Seen failing with the permanent entry on the live layer.
#[test]
fn firewalld_lets_the_allowed_in_and_keeps_it_after_the_confirm() {
    let place = Place::with_firewalld();
    place.assert_open_to_the_allowed(false, "before");
    let before = place.zones();
    let targets = place.targets();
    assert_eq!(targets.len(), 8, "{targets:?}");
    assert!(targets.contains(&"firewalld:public/tcp 6379-6381 from fd20::/16".to_owned()), "{targets:?}");
    let script = place.tune(&["--format", "script"]).stdout;
    let command =
        "firewall-cmd --permanent --zone=public --add-rich-rule='rule family=\"ipv4\" source address=\"172.20.0.0/16\"";
    assert!(script.contains(command), "{script}");

    let waiting = place.apply(&["--no-wait", "--confirm-within", "600s"]);
    assert_eq!(waiting.code, 7, "{waiting:?}");
    place.assert_open_to_the_allowed(true, "in the window");
    assert!(!place.shell("firewall-cmd --permanent --list-rich-rules").contains("6379"), "kept before the confirm");
    assert_eq!(place.run(&["rollback"]).code, 0);
    place.assert_open_to_the_allowed(false, "taken back");
    assert_eq!(place.zones(), before);

    assert_eq!(place.apply(&["--no-wait", "--confirm-within", "600s"]).code, 7);
    let confirmed = place.run(&["confirm", "--same-connection-ok"]);
    assert_eq!(confirmed.code, 0, "{confirmed:?}");
    assert_eq!(place.targets(), [""; 0], "G2");
    place.shell("firewall-cmd --reload");
    place.assert_open_to_the_allowed(true, "after firewall-cmd --reload");
    assert_eq!(place.run(&["verify"]).code, 0);
    let theirs = "'rule family=\"ipv4\" source address=\"10.0.0.0/8\" port port=\"22\" protocol=\"tcp\" accept'";
    place.shell(&format!("firewall-cmd --permanent --add-rich-rule={theirs} && firewall-cmd --add-rich-rule={theirs}"));
    let rollback = place.run(&["rollback"]);
    assert_eq!(rollback.code, 0, "{rollback:?}");
    place.assert_open_to_the_allowed(false, "taken back");
    assert_eq!(place.shell("firewall-cmd --list-rich-rules --permanent").lines().count(), 1);
    place.shell(&format!(
        "firewall-cmd --permanent --remove-rich-rule={theirs} && firewall-cmd --remove-rich-rule={theirs}"
    ));
    assert_eq!(place.zones(), before);
}

/// A network that a zone is bound to is let in by that zone, whichever interface it comes by. Seen failing with the interfaces
/// alone looked at: the entry went to `public`, and nobody came in.
#[test]
fn firewalld_lets_in_the_network_that_a_zone_is_bound_to() {
    let place = Place::with_firewalld();
    place.shell(
        "firewall-cmd --permanent --zone=work --add-source=172.20.0.0/16
         firewall-cmd --permanent --zone=work --add-port=7000/tcp
         firewall-cmd --reload",
    );
    let targets = place.targets();
    assert!(targets.contains(&"firewalld:work/tcp 6379-6381 from 172.20.0.0/16".to_owned()), "{targets:?}");
    assert!(!targets.iter().any(|target| target.contains(":public/") && target.contains("172.20.")), "{targets:?}");
    let applied = place.apply(&["--confirm-within", "0"]);
    assert_eq!(applied.code, 0, "{applied:?}");
    place.assert_open_to_the_allowed(true, "applied");
    assert_eq!(place.targets(), [""; 0], "G2");
    assert_eq!(place.run(&["rollback"]).code, 0);
    place.assert_open_to_the_allowed(false, "taken back");
}

/// Where firewalld runs otherwise than its files say, an entry would be in the wrong zone now, or after the next reload: none
/// is planned, and `check` says which zone it is.
#[test]
fn firewalld_that_runs_otherwise_than_its_files_say_gets_no_entry() {
    let place = Place::with_firewalld();
    let judged = || {
        let check =
            ["check", "--only", "firewall.entries", "--set", "allow=172.20.0.0/16,fd20::/16", "--format", "json"];
        let finding = place.run(&check).json()["findings"][0].clone();
        (finding["result"].as_str().unwrap().to_owned(), finding.to_string())
    };
    let is_unknown = |words: &str| {
        let (result, finding) = judged();
        assert!(result == "unknown" && finding.contains(words), "{words}: {finding}");
        let applied = place.apply(&["--confirm-within", "0"]);
        assert_eq!(place.targets(), [""; 0], "{applied:?}");
        place.assert_open_to_the_allowed(false, words);
    };
    place.shell("firewall-cmd --zone=work --change-interface=outside && firewall-cmd --zone=work --add-port=7000/tcp");
    is_unknown("outside is in the zone work now, and in public by the files");
    place.shell("firewall-cmd --reload");
    assert_eq!(judged().0, "fail", "the interface is back where the files have it, and there is no entry");
    place.shell("firewall-cmd --zone=work --add-source=172.20.0.0/16 && firewall-cmd --zone=work --add-port=7000/tcp");
    is_unknown("172.20.0.0/16 is in the zone work now, and not by the files");
    place.shell("firewall-cmd --reload");
    let applied = place.apply(&["--confirm-within", "0"]);
    assert_eq!(applied.code, 0, "{applied:?}");
    place.assert_open_to_the_allowed(true, "applied");
    // Entries that are there do not help who is taken for another zone: `verify` finds them, `check` says what is wrong.
    place.shell("firewall-cmd --zone=work --add-source=172.20.0.0/16");
    assert!(!place.reaches(ALLOWED, 6379), "it is in the zone work, which has no entry");
    let (result, finding) = judged();
    assert!(result == "unknown" && finding.contains("172.20.0.0/16 is in the zone work now"), "{finding}");
    place.shell("firewall-cmd --reload");
    place.assert_open_to_the_allowed(true, "after firewall-cmd --reload");
    assert_eq!((judged().0.as_str(), place.run(&["verify"]).code), ("pass", 0));
}

/// Its files can be put back without it. Seen failing without `firewall-offline-cmd`.
#[test]
fn what_a_stopped_firewalld_keeps_is_taken_back_all_the_same() {
    let mut place = Place::with_firewalld();
    let before = place.zones();
    assert_eq!(place.apply(&[]).code, 0);
    place.stop();
    let rollback = place.run(&["rollback"]);
    assert_eq!(rollback.code, 0, "{rollback:?}");
    assert_eq!(place.targets(), [""; 0], "not running: nothing is planned, and it is not started");
    place.start("firewalld", &["--nofork"]);
    place.eventually("firewalld answers", "firewall-cmd --state");
    assert_eq!(place.zones(), before);
}
