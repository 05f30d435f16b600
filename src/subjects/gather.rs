//! One run: which facts are needed, who gathers them, and in what order, so that waiting overlaps.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::docker::{self, Docker};
use super::{firewall, kernel, limits, os, resources, time};
use crate::catalog::check::Check;
use crate::catalog::os::OsProfile;
use crate::catalog::predicate::{Literal, Predicate};
use crate::catalog::{Catalogue, library};
use crate::facts::snapshot::{self, Snapshot};
use crate::facts::{Fact, Facts, Value};
use crate::host::{Host, ReadError};
use crate::judge;
use crate::subjects::context::{Context, Probe, Want};
use crate::subjects::derive as derived;
use crate::subjects::docker::containers::Containers;
use crate::subjects::kernel::shared::BootSources;
use crate::subjects::kernel::sysctl::boot::Sources;
use crate::subjects::os::{identity, os_release};
use crate::subjects::ports as port;
use crate::subjects::resources::deep;

/// Facts that every snapshot holds: the OS profile is chosen by them.
const ALWAYS: [&str; 4] = ["os.id", "os.like", "os.name", "os.version"];

/// The family of facts that take time to measure.
const DEEP: &str = "deep.";

/// What one look at a host brings.
#[derive(Debug)]
pub struct Gathered {
    pub snapshot: Snapshot,
    /// What the settings of the next boot come from, as the facts of the snapshot do; `None` where none of them was wanted.
    pub boot_sources: Option<Result<Sources, ReadError>>,
}

/// Gathers what the selected checks need and nothing else.
pub fn gather(host: &Host, catalogue: &Catalogue, select: &dyn Fn(&str, &str) -> bool, deep: bool) -> Gathered {
    let want = wanted(catalogue, select);
    let taken_at = now();
    let (facts, boot_sources) = facts(host, catalogue, &want, deep);
    let snapshot = Snapshot {
        schema: snapshot::SCHEMA.to_owned(),
        preflight: env!("CARGO_PKG_VERSION").to_owned(),
        taken_at,
        host: identity::read(host, &facts),
        profile: catalogue.name.clone(),
        set: catalogue.set.clone(),
        sources: catalogue.sources.clone(),
        facts,
    };
    Gathered { snapshot, boot_sources }
}

/// The subjects whose readers need nothing from each other.
const READERS: [&[Probe]; 7] = [
    os::READERS,
    docker::READERS,
    kernel::READERS,
    limits::READERS,
    resources::READERS,
    firewall::READERS,
    time::READERS,
];

fn facts(host: &Host, catalogue: &Catalogue, want: &Want, deep: bool) -> (Facts, Option<Result<Sources, ReadError>>) {
    let mut facts = Facts::default();
    // The OS comes first: its profile tells the others how this family does things.
    os_release::probe(host, want, &mut facts);
    let os = os_of(&facts);
    let cx = Context::new(host, want, &catalogue.parameters, os);
    // Docker is asked while everything else is gathered; what it says about containers is used at the end.
    let docker = docker::start(&cx);
    let ports = port::bind_all(&cx);
    for probe in READERS.into_iter().flatten() {
        probe(&cx, &mut facts);
    }
    if deep {
        deep::probe(&cx, &mut facts);
    } else {
        for id in want.family(DEEP) {
            facts.live(format!("{DEEP}{id}"), Fact::absent("measured only with --deep", "not measured"));
        }
    }
    let Docker { facts: answers, containers } = docker.finish();
    facts.extend(answers);
    port::conclude(&cx, ports, &containers, &mut facts);
    firewall::read::entries::conclude(&cx, &mut facts);
    firewall::read::ruleset::conclude(&cx, &containers, &mut facts);
    if let Containers::Known(list) = &containers {
        docker::container_layer(&cx, list, &mut facts);
    }
    (facts, cx.take_shared::<BootSources>().map(|sources| sources.0))
}

/// Now, in UTC, to the second.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The OS profile for the facts of a snapshot.
pub fn os_of(facts: &Facts) -> &'static OsProfile {
    let id = match facts.value("os.id") {
        Some(Value::Text(id)) => id.as_str(),
        _ => "",
    };
    let like: Vec<&str> = match facts.value("os.like") {
        Some(Value::Text(words)) => words.split_whitespace().collect(),
        _ => Vec::new(),
    };
    library::os_profile(id, &like)
}

/// The ids that the selected checks, and those they need, look at.
pub fn wanted(catalogue: &Catalogue, select: &dyn Fn(&str, &str) -> bool) -> Want {
    let mut pending: Vec<&Check> = Vec::new();
    for check in &catalogue.checks {
        let mut instances = judge::instances(check, &catalogue.parameters);
        if instances.any(|instance| select(&judge::finding_id(check, instance.name.as_deref()), &check.id)) {
            pending.push(check);
        }
    }
    let mut ids: BTreeSet<String> = ALWAYS.map(str::to_owned).into();
    let mut needed: HashSet<&str> = HashSet::new();
    let by_id: HashMap<&str, &Check> = catalogue.checks.iter().map(|check| (check.id.as_str(), check)).collect();
    while let Some(check) = pending.pop() {
        for need in &check.needs {
            if let Some(parent) = by_id.get(need.value.as_str()).copied()
                && needed.insert(&parent.id)
            {
                pending.push(parent);
            }
        }
        for instance in judge::instances(check, &catalogue.parameters) {
            add(&judge::instance_fact(check, instance.name.as_deref()), &mut ids);
        }
        let conditions = check.when.iter().chain(check.cases.iter().flat_map(|case| &case.when));
        for condition in conditions {
            add(&condition.fact, &mut ids);
            literals(&condition.predicate, &mut ids);
        }
        let cases = check.cases.iter().flat_map(|case| case.pass.iter().chain(&case.warn));
        for predicate in check.pass.iter().chain(&check.warn).chain(cases) {
            literals(predicate, &mut ids);
        }
    }
    // Who is a stranger depends on Docker's networks where `allow` names them.
    if ids.iter().any(|id| {
        id.starts_with("firewall.exposure.") || matches!(id.as_str(), "firewall.ipv6-parity" | "firewall.other-ports")
    }) {
        ids.insert(docker::NETWORKS.to_owned());
    }
    Want::new(ids)
}

/// Adds an id; a derived fact adds what it is computed from.
fn add(id: &str, ids: &mut BTreeSet<String>) {
    if id.starts_with("derived.") {
        ids.extend(derived::inputs(id));
    } else {
        ids.insert(id.to_owned());
    }
}

fn literals(predicate: &Predicate, ids: &mut BTreeSet<String>) {
    for term in predicate.terms() {
        if let Literal::Fact(id) = &term.literal {
            add(id, ids);
        }
    }
}
