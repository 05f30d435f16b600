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

/// The life of each host with this manager and this writer of the guard: with one of the engines, so that all tests together
/// have every pair of values; with `PREFLIGHT_EVERY=1` with each of them.
pub(crate) fn lives(manager: Manager, guard: Writer) {
    let is_every = std::env::var_os("PREFLIGHT_EVERY").is_some_and(|every| every == "1");
    let kinds = if is_every { every_kind() } else { pairwise(every_kind()) };
    let wanted: Vec<Kind> = kinds.into_iter().filter(|kind| (kind.manager, kind.guard) == (manager, guard)).collect();
    assert!(!wanted.is_empty(), "no host with {manager:?} and {guard:?}");
    wanted.into_iter().for_each(live);
}

/// Every combination that there is. Debian 13's engine wants an `iptables` over nf_tables.
fn every_kind() -> Vec<Kind> {
    let guards = [Writer::Nft, Writer::Iptables(Variant::Nft), Writer::Iptables(Variant::Legacy)];
    let mut kinds = Vec::new();
    for guard in guards {
        for manager in [Manager::None, Manager::Ufw, Manager::Firewalld] {
            for trixie in [false, true] {
                if !trixie || guard != Writer::Iptables(Variant::Legacy) {
                    kinds.push(Kind { manager, guard, trixie });
                }
            }
        }
    }
    kinds
}

/// So many of them that every pair of values that two dimensions have together is among them: each time the one with the
/// most pairs that are still missing, the first of those that have as many.
fn pairwise(mut kinds: Vec<Kind>) -> Vec<Kind> {
    let mut missing: Vec<Pair> = kinds.iter().copied().flat_map(pairs).collect();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let gain = |kind: &Kind| pairs(*kind).iter().filter(|pair| missing.contains(pair)).count();
        let most = kinds.iter().map(gain).max().unwrap();
        let kind = kinds.remove(kinds.iter().position(|kind| gain(kind) == most).unwrap());
        missing.retain(|pair| !pairs(kind).contains(pair));
        chosen.push(kind);
    }
    chosen
}

/// The values of two dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pair {
    Guarded(Manager, Writer),
    Managed(Manager, bool),
    Written(Writer, bool),
}

fn pairs(kind: Kind) -> [Pair; 3] {
    let Kind { manager, guard, trixie } = kind;
    [Pair::Guarded(manager, guard), Pair::Managed(manager, trixie), Pair::Written(guard, trixie)]
}

/// The life of a host without a guard and with that of preflight.
fn live(kind: Kind) {
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

/// Seen failing with the loop of `pairwise` ended after eight, and with `missing` without the pairs of guard and engine.
#[test]
fn every_pair_of_values_is_taken() {
    let taken: Vec<Pair> = pairwise(every_kind()).into_iter().flat_map(pairs).collect();
    for kind in every_kind() {
        for pair in pairs(kind) {
            assert!(taken.contains(&pair), "{pair:?} is in none of {taken:?}");
        }
    }
    // Nine pairs of manager and guard, and no host more than those.
    assert_eq!((every_kind().len(), pairwise(every_kind()).len()), (15, 9));
}
