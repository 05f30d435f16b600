//! A profile as its file says it: parameters, the checks it includes, overrides, checks of its own.

use std::collections::HashSet;

use super::check::{self, Check, Severity, Tune};
use super::definition::{self, Definition};
use super::diagnostic::{Code, Diagnostics, Place, suggest};
use super::glob;
use super::parameters::Setting;
use super::predicate::{self, Predicate};
use super::reader::{Fields, Placed};
use super::tree::Node;
use crate::facts::Kind;

/// `[[override]]`: what a profile changes about checks that it includes.
#[derive(Debug, Clone)]
pub struct Override {
    /// An id or a glob over ids.
    pub id: Placed<String>,
    pub severity: Option<Severity>,
    pub pass: Option<Predicate>,
    pub warn: Option<Predicate>,
    pub tune: Option<Tune>,
    pub why: Option<String>,
}

/// One profile file.
#[derive(Debug, Clone)]
pub struct Profile {
    pub name: Placed<String>,
    pub title: String,
    pub about: String,
    /// Globs over check ids; `!glob` leaves out what was included before.
    pub include: Vec<Placed<String>>,
    pub parameters: Vec<Definition>,
    pub set: Vec<(Placed<String>, Setting)>,
    pub overrides: Vec<Override>,
    /// Checks declared in the profile itself; they belong to it without being listed.
    pub checks: Vec<Check>,
}

/// What an entry of a profile may refer to: the checks of the catalogue and what the extended profiles declare.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub checks: &'a [Check],
    pub parents: &'a [Profile],
}

impl Known<'_> {
    fn checks(&self) -> impl Iterator<Item = &Check> + Clone {
        self.checks.iter().chain(self.parents.iter().flat_map(|parent| &parent.checks))
    }

    fn definitions(&self) -> impl Iterator<Item = &Definition> + Clone {
        self.parents.iter().flat_map(|parent| &parent.parameters)
    }
}

/// The section of checks that a profile declares without naming one.
const OWN_SECTION: &str = "CHECKS OF THE PROFILE";

/// The name of the profile that this one extends. Looked at before everything else, since what a profile may refer to
/// depends on it.
pub fn extends(table: &Node, source: usize) -> Option<Placed<String>> {
    let value = table.get("extends")?;
    let name = value.as_text()?;
    Some(Placed { value: name.to_owned(), place: Place { source, span: value.span.clone() } })
}

/// Reads a parsed profile file.
pub fn read(table: &Node, source: usize, known: Known<'_>, d: &mut Diagnostics) -> Profile {
    let mut fields = Fields::new(table.as_table().unwrap_or_default(), "profile", Place { source, span: 0..1 });
    let name = fields.required_text("name", d);
    let title = fields.required_text("title", d).value;
    let about = fields.text("about", d).map(|text| text.value).unwrap_or_default();
    // The type of `extends` is checked here, its meaning by the loader.
    let _ = fields.text("extends", d);
    let include = fields.texts("checks", d).unwrap_or_default();
    let parameters: Vec<Definition> =
        fields.tables("parameter", d).into_iter().filter_map(|entry| definition::read(entry, d)).collect();
    let mut names: HashSet<&str> = HashSet::new();
    for definition in parameters.iter().filter(|definition| !names.insert(&definition.name)) {
        let message = format!("parameter `{}` is declared twice", definition.name);
        d.report(Code::DuplicateId, definition.place.clone(), message);
    }
    let section = fields.text("section", d).map_or_else(|| OWN_SECTION.to_owned(), |text| text.value);
    let mut checks = Vec::new();
    check::read_all(&mut fields, &section, d, &mut checks);
    let mut set = Vec::new();
    for entry in fields.tables("set", d) {
        for (name, value) in entry.entries() {
            let mut declared = known.definitions().chain(&parameters);
            let Some(definition) = declared.find(|definition| definition.name == name.value) else {
                let names = known.definitions().chain(&parameters).map(|definition| &*definition.name);
                let hint = suggest(&name.value, names).map(|near| format!("did you mean `{near}`?"));
                let message = format!("no profile of this chain declares a parameter `{}`", name.value);
                d.report(Code::UnknownParameter, name.place, message).hint = hint;
                continue;
            };
            let place = Place { source, span: value.span.clone() };
            let Some(setting) = definition::setting(value, definition.kind, source, d) else { continue };
            if let Err(message) = definition.admit(&setting) {
                d.report(Code::OutOfRange, place, message);
            }
            set.push((name, setting));
        }
    }
    let overrides: Vec<Override> = fields
        .tables("override", d)
        .into_iter()
        .filter_map(|entry| read_override(entry, known.checks().chain(&checks), d))
        .collect();
    let mut seen: HashSet<&str> = HashSet::new();
    for entry in overrides.iter().filter(|entry: &&Override| !seen.insert(&entry.id.value)) {
        let message = format!("`{}` is overridden twice: write one override", entry.id.value);
        d.report(Code::DuplicateId, entry.id.place.clone(), message);
    }
    fields.finish(d);
    Profile { name, title, about, include, parameters, set, overrides, checks }
}

fn read_override<'c>(
    mut fields: Fields<'_>,
    checks: impl Iterator<Item = &'c Check> + Clone,
    d: &mut Diagnostics,
) -> Option<Override> {
    let source = fields.source();
    let id = fields.required_text("id", d);
    let mut kinds: Vec<Kind> = Vec::new();
    for check in checks.clone().filter(|check| glob::matches(&id.value, &check.id)) {
        if !kinds.contains(&check.kind) {
            kinds.push(check.kind);
        }
    }
    let severity = check::optional_severity(&mut fields, d);
    let (pass, warn, tune) = (fields.take("pass"), fields.take("warn"), fields.take("tune"));
    let why = fields.text("why", d).map(|text| text.value);
    fields.finish(d);
    if id.value.is_empty() {
        return None;
    }
    let asks = pass.is_some() || warn.is_some() || tune.is_some();
    if !asks && severity.is_none() && why.is_none() {
        d.report(Code::DeadOverride, id.place.clone(), format!("the override of `{}` changes nothing", id.value));
    }
    let kind = match kinds.as_slice() {
        [kind] => *kind,
        [] => {
            let near = suggest(&id.value, checks.map(|check| &*check.id));
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            d.report(Code::UnknownCheck, id.place, format!("no check has the id `{}`", id.value)).hint = hint;
            return None;
        }
        several if asks => {
            let names: Vec<&str> = several.iter().map(|kind| kind.name()).collect();
            let message = format!("`{}` covers facts of several kinds ({})", id.value, names.join(", "));
            d.report(Code::WrongPredicate, id.place, message).hint = Some("write one override per kind".to_owned());
            return None;
        }
        [first, ..] => *first,
    };
    Some(Override {
        severity,
        pass: pass.and_then(|value| predicate::read(value, "pass", kind, source, d)),
        warn: warn.and_then(|value| predicate::read(value, "warn", kind, source, d)),
        tune: tune.and_then(|value| check::read_tune(value, kind, source, d)),
        why,
        id,
    })
}
