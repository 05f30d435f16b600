//! From files to the catalogue of a run: the profile chain, its checks with their overrides, its parameters.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use super::check::{self, Case, Check};
use super::definition::Definition;
use super::diagnostic::{Code, Diagnostics, Place, suggest};
use super::embedded::{self, EMBEDDED};
use super::glob;
use super::library::{self, Library};
use super::lint::{self, CanTune};
use super::os;
use super::parameters::Parameters;
use super::profile::{self, Known, Profile};
use super::reader::Placed;
use crate::facts::snapshot::{SourceRole, SourceText};

/// How many profiles may extend each other.
const MAX_CHAIN: usize = 16;

/// Everything that is asked in one run.
#[derive(Debug, Clone)]
pub struct Catalogue {
    pub name: String,
    /// The file of the profile, if it is not embedded.
    pub file: Option<String>,
    pub title: String,
    pub about: String,
    /// The included checks, overrides applied, in the order of the files.
    pub checks: Vec<Check>,
    pub definitions: Vec<Definition>,
    pub parameters: Parameters,
    /// Parameters given with `--set`, as given.
    pub set: BTreeMap<String, String>,
    /// The files that are not embedded.
    pub sources: Vec<SourceText>,
}

/// Why there is no catalogue.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Mistakes in files, each with its place.
    #[error("{}", .0.list.iter().map(|one| .0.line(one)).collect::<Vec<_>>().join("\n"))]
    Files(Diagnostics),
    #[error("there is no profile `{name}`\nhint: {hint}")]
    NoProfile { name: String, hint: String },
    /// A `--set` that names no parameter or has a bad value.
    #[error("--set {0}")]
    Set(String),
}

/// Loads a profile and everything it includes.
pub fn load(
    library: &Library,
    profile: &str,
    set: &BTreeMap<String, String>,
    can_tune: CanTune,
) -> Result<Catalogue, LoadError> {
    let mut d = Diagnostics::default();
    let result = assemble(library, profile, set, true, can_tune, &mut d);
    d.forget_consequences();
    if !d.is_empty() {
        return Err(LoadError::Files(d));
    }
    result
}

/// Loads as much as possible and returns everything that is wrong, for `preflight lint`.
pub fn load_for_lint(library: &Library, profile: &str, can_tune: CanTune) -> (Option<Catalogue>, Diagnostics) {
    let mut d = Diagnostics::default();
    let catalogue = assemble(library, profile, &BTreeMap::new(), false, can_tune, &mut d).ok();
    if let Some(catalogue) = &catalogue {
        lint::recipes(&catalogue.checks, library::os_profile(os::GENERIC, &[]), &mut d);
    }
    d.forget_consequences();
    (catalogue, d)
}

/// `trusting`: files that are part of the program are not looked through for mistakes between them.
fn assemble(
    library: &Library,
    profile: &str,
    set: &BTreeMap<String, String>,
    trusting: bool,
    can_tune: CanTune,
    d: &mut Diagnostics,
) -> Result<Catalogue, LoadError> {
    let mut all: Vec<Check> = Vec::new();
    for (file, checks) in embedded::CHECKS.iter().zip(embedded::checks()) {
        // Also where another one stands for it: the places of all embedded checks count on it.
        d.add(file.source());
        if library.keeps(file) {
            all.extend(checks);
        }
    }
    // For each check whether every profile has it: those of the host's own files and of the chain itself.
    let mut local = vec![false; all.len()];
    let mut sources = Vec::new();
    for file in &library.checks {
        let (source, tree) = d.open(file.clone());
        check::read_file(source, &tree, d, &mut all);
        let (path, text) = (file.path.clone(), file.text.clone().into_owned());
        sources.push(SourceText { role: SourceRole::Checks, path, text });
    }
    local.resize(all.len(), true);
    let mut chain = Vec::new();
    descend(library, profile, None, &all, &mut Vec::new(), &mut chain, &mut sources, d)?;
    for profile in &mut chain {
        all.append(&mut profile.checks);
    }
    local.resize(all.len(), true);
    // What is embedded, and asked as it is, has no mistakes between its parts: `the_catalogue_of_the_repository_has_no_mistakes`
    // looks through it with `load_for_lint`.
    let is_known = trusting && sources.is_empty();
    if !is_known {
        unique(&all, d);
    }

    let included = include(&all, &chain, local, d);
    let mut kept = included.into_iter();
    let mut checks = all;
    checks.retain(|_| kept.next().unwrap_or(false));
    for profile in &chain {
        apply_overrides(&mut checks, profile, d);
    }
    let definitions = definitions(&mut chain);
    let mut parameters = Parameters::default();
    for definition in &definitions {
        parameters.insert(&*definition.name, definition.default.clone());
    }
    for profile in &chain {
        for (name, setting) in &profile.set {
            parameters.insert(&*name.value, setting.clone());
        }
    }
    for (name, text) in set {
        let Some(definition) = definitions.iter().find(|definition| definition.name == *name) else {
            let names = definitions.iter().map(|definition| &*definition.name);
            let hint = match suggest(name, names.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the profile's parameters are {}", names.collect::<Vec<_>>().join(", ")),
            };
            return Err(LoadError::Set(format!("{name}: the profile declares no such parameter\nhint: {hint}")));
        };
        parameters.insert(name, definition.parse(text).map_err(LoadError::Set)?);
    }
    if !(is_known && set.is_empty()) {
        lint::references(&checks, &definitions, can_tune, d);
        lint::predicates(&checks, &parameters, d);
    }
    // The chain is never empty: `descend` pushes the asked profile last.
    let (name, title, about) = chain
        .last()
        .map(|profile| (profile.name.value.clone(), profile.title.clone(), profile.about.clone()))
        .unwrap_or_default();
    let file = library.profile(profile).map(|file| file.path).filter(|path| !path.starts_with(EMBEDDED));
    Ok(Catalogue { name, file, title, about, checks, definitions, parameters, set: set.clone(), sources })
}

/// Reads a profile and, before it, the ones it extends. The chain ends with the asked profile.
#[expect(clippy::too_many_arguments, reason = "one recursive walk with its accumulators")]
fn descend(
    library: &Library,
    name: &str,
    asked_at: Option<Place>,
    checks: &[Check],
    visiting: &mut Vec<String>,
    chain: &mut Vec<Profile>,
    sources: &mut Vec<SourceText>,
    d: &mut Diagnostics,
) -> Result<(), LoadError> {
    let Some(file) = library.profile(name) else {
        let hint = match suggest(name, library.profile_names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}; a file is given by its path", library.profile_names().join(", ")),
        };
        let Some(place) = asked_at else {
            return Err(LoadError::NoProfile { name: name.to_owned(), hint });
        };
        d.report(Code::UnknownProfile, place, format!("there is no profile `{name}`")).hint = Some(hint);
        return Ok(());
    };
    if let Some(place) = asked_at
        && (visiting.iter().any(|known| known == name) || visiting.len() >= MAX_CHAIN)
    {
        let message = format!("`{}` extends itself: {} → {name}", name, visiting.join(" → "));
        d.report(Code::ExtendsCycle, place, message);
        return Ok(());
    }
    visiting.push(name.to_owned());
    let (source, tree) = d.open(file.clone());
    if let Some(parent) = profile::extends(&tree, source) {
        descend(library, &parent.value, Some(parent.place), checks, visiting, chain, sources, d)?;
    }
    let profile = profile::read(&tree, source, Known { checks, parents: chain }, d);
    if !file.path.starts_with(EMBEDDED) {
        let text = file.text.into_owned();
        sources.push(SourceText { role: SourceRole::Profile, path: file.path, text });
    }
    chain.push(profile);
    Ok(())
}

fn unique(checks: &[Check], d: &mut Diagnostics) {
    let mut seen: HashMap<&str, &Check> = HashMap::new();
    for check in checks {
        if let Some(first) = seen.insert(&check.id, check) {
            let other = d.locate(&first.place);
            let message = format!("there is another check `{}`", check.id);
            d.report(Code::DuplicateId, check.place.clone(), message).hint = Some(format!("the first is at {other}"));
        }
    }
}

/// For each check whether the chain includes it, beginning with those that are included anyway. Every glob must match something.
fn include(all: &[Check], chain: &[Profile], mut included: Vec<bool>, d: &mut Diagnostics) -> Vec<bool> {
    for profile in chain {
        for glob in &profile.include {
            let (pattern, wanted) = match glob.value.strip_prefix('!') {
                Some(pattern) => (pattern, false),
                None => (glob.value.as_str(), true),
            };
            let mut matched = false;
            for (slot, _) in included.iter_mut().zip(all).filter(|(_, check)| glob::matches(pattern, &check.id)) {
                matched = true;
                *slot = wanted;
            }
            if !matched {
                dead_include(glob, pattern, all, d);
            }
        }
    }
    // A check with a mistake was dropped, and its own mistake says so.
    if !included.contains(&true)
        && d.is_empty()
        && let Some(profile) = chain.last()
    {
        let message = "this profile includes no check: it would be green without looking at anything";
        d.report(Code::EmptyProfile, profile.name.place.clone(), message).hint =
            Some("add `checks = [\"*\"]` or `[[check]]` entries".to_owned());
    }
    included
}

fn dead_include(glob: &Placed<String>, pattern: &str, all: &[Check], d: &mut Diagnostics) {
    let near = suggest(pattern, all.iter().map(|check| &*check.id));
    d.report(Code::DeadInclude, glob.place.clone(), format!("`{pattern}` matches no check")).hint =
        near.map(|near| format!("did you mean `{near}`?"));
}

fn apply_overrides(checks: &mut [Check], profile: &Profile, d: &mut Diagnostics) {
    for entry in &profile.overrides {
        let (mut matched, mut changed) = (false, false);
        for check in checks.iter_mut().filter(|check| glob::matches(&entry.id.value, &check.id)) {
            matched = true;
            changed |= entry.pass.is_some() || entry.warn.is_some() || entry.tune.is_some();
            if let Some(severity) = entry.severity {
                // Asked for by name, it counts in every case.
                let cases = check.cases.iter().filter_map(|case| case.severity);
                changed |= cases.filter(|known| *known != severity).count() > 0 || check.severity != severity;
                let everywhere = |case: &Case| Case { severity: None, ..case.clone() };
                let cases: Vec<Case> = check.cases.iter().map(everywhere).collect();
                check.cases = cases;
                check.severity = severity;
            }
            if let Some(pass) = &entry.pass {
                // A stricter or laxer pass makes the catalogue's warn meaningless unless it is given anew.
                check.pass = Some(pass.clone());
                check.warn.clone_from(&entry.warn);
                let others = |case: &&Case| case.pass.is_none() && case.warn.is_none();
                let cases: Vec<Case> = check.cases.iter().filter(others).cloned().collect();
                check.cases = cases;
            } else if let Some(warn) = &entry.warn {
                check.warn = Some(warn.clone());
            }
            if let Some(tune) = &entry.tune {
                check.tune = Some(tune.clone());
            }
            if let Some(why) = &entry.why {
                changed |= check.why != *why;
                check.why.clone_from(why);
            }
        }
        if matched && !changed && (entry.severity.is_some() || entry.why.is_some()) {
            let message = format!("the override of `{}` changes nothing: it says what holds anyway", entry.id.value);
            d.report(Code::DeadOverride, entry.id.place.clone(), message);
        } else if !matched {
            let message = format!("the override of `{}` changes no check that this profile includes", entry.id.value);
            d.report(Code::DeadOverride, entry.id.place.clone(), message);
        }
    }
}

/// All definitions of the chain; a later one replaces an earlier one of the same name.
fn definitions(chain: &mut [Profile]) -> Vec<Definition> {
    let mut all: Vec<Definition> = Vec::new();
    for profile in chain {
        let own = mem::take(&mut profile.parameters);
        if all.is_empty() {
            all = own;
            continue;
        }
        for definition in own {
            match all.iter_mut().find(|known| known.name == definition.name) {
                Some(known) => *known = definition,
                None => all.push(definition),
            }
        }
    }
    all
}
