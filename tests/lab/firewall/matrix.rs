//! What gets through a host before it has a guard, and what the looks at it have in common.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use preflight::subjects::firewall::model::iptables::Variant;
use preflight::subjects::firewall::model::writer::Writer;

use super::disturb::Disturbance;
use super::own;
use super::paths::{Seen, Who};
use super::probe::Answer;
use super::world::{Kind, Manager, World};

/// Ways that a manager's own denial does not close, because Docker publishes past it.
const PAST_THE_MANAGER: [&str; 3] = ["published", "published, remapped", "published, IPv6"];
/// Ways that end on the host itself, which every manager closes.
const ON_THE_HOST: [&str; 3] = ["host network", "host network, IPv6", "docker-proxy, IPv6"];

/// The life of a host without a guard and with that of preflight.
pub(crate) fn live(kind: Kind) {
    let mut world = World::start(kind);
    let before = world.look();
    controls_are_open(&before);
    the_manager_alone_does_not_close_it(kind.manager, &before);
    record(kind, None, "", &before);
    own::live(&mut world, &before);
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

/// Measured here, and told in docs/firewall.md: firewalld flushes iptables at a reload, by either variant, and what is in
/// nftables goes with its rule set.
pub(crate) fn takes_the_guard_along(disturbance: Disturbance, guard: Writer) -> bool {
    match disturbance {
        Disturbance::NftablesService => guard != Writer::Iptables(Variant::Legacy),
        Disturbance::FirewalldReload => guard != Writer::Nft,
        _ => false,
    }
}

pub(crate) fn same_rules(what: &str, now: &[String], before: &[String]) {
    let only = |a: &[String], b: &[String]| a.iter().filter(|rule| !b.contains(rule)).cloned().collect::<Vec<_>>();
    assert!(now == before, "{what}: other rules: new {:#?}, gone {:#?}", only(now, before), only(before, now));
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

/// Looks until every control is as it was: Docker hears of a reload and puts its own back, in its own time.
pub(crate) fn look_when_published(world: &World, wanted: &Seen) -> Seen {
    let started = Instant::now();
    loop {
        let seen = world.look();
        if seen.controls == wanted.controls || started.elapsed() > Duration::from_secs(15) {
            return seen;
        }
    }
}

/// A line for each answer, for the tables in docs/firewall.md: `scripts/firewall-matrix` collects them.
pub(crate) fn record(kind: Kind, guard: Option<Writer>, disturbance: &str, seen: &Seen) {
    let Some(file) = std::env::var_os("PREFLIGHT_FIREWALL_MATRIX") else { return };
    let guard = match (guard, kind.guard) {
        (Some(guard), _) => guard.name(),
        (None, Writer::Iptables(Variant::Legacy)) => "none, iptables-legacy",
        (None, _) => "none",
    };
    let engine = if kind.trixie { "26.1" } else { "20.10" };
    let manager = kind.manager.name();
    let mut lines = String::new();
    for ((who, path), answer) in &seen.answers {
        let open = if *answer == Answer::Open { "open" } else { "closed" };
        let _ = writeln!(lines, "{engine}\t{manager}\t{guard}\t{disturbance}\t{}\t{path}\t{open}", who.name());
    }
    let mut file = std::fs::File::options().append(true).create(true).open(file).unwrap();
    file.write_all(lines.as_bytes()).unwrap();
}
