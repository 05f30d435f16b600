//! One host, all its guards: what gets through before, with the guard, after the rollback, and after each disturbance.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use super::disturb::Disturbance;
use super::guards::Guard;
use super::own;
use super::paths::{Seen, Who};
use super::probe::Answer;
use super::world::{Iptables, Kind, Manager, World};

/// Ways that a manager's own denial does not close, because Docker publishes past it.
const PAST_THE_MANAGER: [&str; 3] = ["published", "published, remapped", "published, IPv6"];
/// Ways that end on the host itself, which every manager closes.
const ON_THE_HOST: [&str; 3] = ["host network", "host network, IPv6", "docker-proxy, IPv6"];

/// The life of a host with each of these guards in turn.
pub(crate) fn live(kind: Kind, guards: &[Guard]) {
    let mut world = World::start(kind);
    let before = world.look();
    controls_are_open(&before);
    the_manager_alone_does_not_close_it(kind.manager, &before);
    record(kind, Guard::None, "", &before);
    if kind.iptables == Iptables::Legacy {
        world.agrees(&kind.to_string(), &before);
    }
    for guard in guards {
        match guard {
            Guard::Preflight => own::live(&mut world, &before),
            _ => cell(&mut world, *guard, &before),
        }
    }
}

fn controls_are_open(seen: &Seen) {
    let closed: Vec<_> = seen.controls.iter().filter(|(_, answer)| **answer != Answer::Open).collect();
    assert!(closed.is_empty(), "these probes prove nothing: {closed:?}");
}

/// The reason for all of this: what `ufw deny` and a zone without the port do to a published port.
fn the_manager_alone_does_not_close_it(manager: Manager, before: &Seen) {
    for path in PAST_THE_MANAGER {
        assert_eq!(before.get(Who::Stranger, path), Answer::Open, "{path}");
    }
    for path in ON_THE_HOST {
        let is_open = before.get(Who::Stranger, path) == Answer::Open;
        assert_eq!(is_open, manager == Manager::None, "{path}");
    }
}

fn cell(world: &mut World, guard: Guard, before: &Seen) {
    let what = format!("{} {guard:?}", world.kind);
    let rules = world.rules();
    world.raise(guard);
    assert!(world.is_raised(guard), "{what}: it was not raised");
    let after = world.look();
    the_guard_closes_it(&what, &after, before);
    record(world.kind, guard, "", &after);
    if world.kind.iptables == Iptables::Legacy {
        world.agrees(&what, &after);
    }

    world.take_away(guard);
    let again = world.look();
    assert!(again.differences(before).is_empty(), "{what}, rolled back: {:?}", again.differences(before));
    same_rules(&what, &world.rules(), &rules);

    world.raise(guard);
    for disturbance in Disturbance::of(world.kind.manager) {
        let what = format!("{what}, {}", disturbance.name());
        world.disturb(disturbance);
        if world.is_raised(guard) && disturbance == Disturbance::NftablesService {
            // What the manager kept closed is open by now, and what the guard keeps closed is not.
            let seen = world.look();
            assert_eq!(strangers_inside(&seen), "", "{what}");
            record(world.kind, guard, disturbance.name(), &seen);
        } else if world.is_raised(guard) {
            // Docker hears of a reload and puts its own back, in its own time. The guard is there all the while.
            let seen = look_until_quiet(world, &what, &after);
            assert!(seen.differences(&after).is_empty(), "{what}: {:?}", seen.differences(&after));
            record(world.kind, guard, disturbance.name(), &seen);
        } else {
            assert!(takes_the_guard_along(disturbance, guard), "{what}: the guard is gone");
            let started = Instant::now();
            let mut seen = world.look();
            while disturbance == Disturbance::FirewalldReload
                && seen.controls != after.controls
                && started.elapsed() < Duration::from_secs(15)
            {
                seen = world.look();
            }
            record(world.kind, guard, disturbance.name(), &seen);
            world.raise(guard);
        }
    }
    world.mend();
    if world.is_raised(guard) {
        world.take_away(guard);
    }
    let end = look_until_quiet(world, &what, before);
    assert!(end.differences(before).is_empty(), "{what}, at the end: {:?}", end.differences(before));
}

/// Measured here, and told in docs/firewall.md: firewalld flushes iptables at a reload, and what is in nftables goes with
/// its rule set. A guard in iptables-legacy would outlive the latter.
fn takes_the_guard_along(disturbance: Disturbance, guard: Guard) -> bool {
    match disturbance {
        Disturbance::NftablesService => true,
        Disturbance::FirewalldReload => guard == Guard::Iptables,
        _ => false,
    }
}

pub(crate) fn same_rules(what: &str, now: &[String], before: &[String]) {
    let only = |a: &[String], b: &[String]| a.iter().filter(|rule| !b.contains(rule)).cloned().collect::<Vec<_>>();
    assert!(now == before, "{what}: other rules: new {:#?}, gone {:#?}", only(now, before), only(before, now));
}

/// Strangers are out, on every way; for everybody else, and for every other port, it is as before.
fn the_guard_closes_it(what: &str, after: &Seen, before: &Seen) {
    let mut wrong = strangers_inside(after);
    for ((who, path), answer) in &after.answers {
        if *who != Who::Stranger && *answer != before.get(*who, path) {
            let _ = write!(wrong, "{} {path}: {} -> {answer}; ", who.name(), before.get(*who, path));
        }
    }
    for (key, answer) in &after.controls {
        if *answer != before.controls[key] {
            let _ = write!(wrong, "control {key:?}: {answer}; ");
        }
    }
    assert_eq!(wrong, "", "{what}");
}

pub(crate) fn strangers_inside(seen: &Seen) -> String {
    let open = seen.answers.iter().filter(|((who, _), answer)| *who == Who::Stranger && **answer == Answer::Open);
    open.map(|((_, path), _)| format!("a stranger comes in: {path}")).collect::<Vec<_>>().join("; ")
}

/// Looks until it is as it should be. A stranger who gets in, however shortly, is never waited for.
pub(crate) fn look_until_quiet(world: &World, what: &str, wanted: &Seen) -> Seen {
    let started = Instant::now();
    loop {
        let seen = world.look();
        let strangers = strangers_inside(&seen);
        assert!(strangers.is_empty() || strangers == strangers_inside(wanted), "{what}: {strangers}");
        if seen == *wanted || seen.differences(wanted).is_empty() || started.elapsed() > Duration::from_secs(15) {
            return seen;
        }
    }
}

/// A line for the table in docs/firewall.md: `scripts/firewall-matrix` collects them.
pub(crate) fn record(kind: Kind, guard: Guard, disturbance: &str, seen: &Seen) {
    let Some(file) = std::env::var_os("PREFLIGHT_FIREWALL_MATRIX") else { return };
    let mut lines = String::new();
    for ((who, path), answer) in &seen.answers {
        let guard = guard_name(kind, guard);
        let engine = if kind.trixie { "26.1" } else { "20.10" };
        let open = if *answer == Answer::Open { "open" } else { "closed" };
        let _ = writeln!(
            lines,
            "{engine}\t{}\t{guard}\t{disturbance}\t{}\t{path}\t{open}",
            kind.manager.name(),
            who.name()
        );
    }
    let mut file = std::fs::File::options().append(true).create(true).open(file).unwrap();
    file.write_all(lines.as_bytes()).unwrap();
}

fn guard_name(kind: Kind, guard: Guard) -> &'static str {
    match (guard, kind.iptables) {
        (Guard::None, Iptables::Nft) => "none",
        (Guard::None, Iptables::Legacy) => "none, iptables-legacy",
        (Guard::Preflight, _) => "preflight",
        (Guard::Nft, _) => "nft",
        (Guard::Iptables, Iptables::Nft) => "iptables-nft",
        (Guard::Iptables, Iptables::Legacy) => "iptables-legacy",
    }
}
