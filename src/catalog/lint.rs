//! Mistakes that need the whole catalogue: names that lead nowhere, predicates that can never decide, targets that do
//! not pass.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use super::check::{Check, Tune};
use super::definition::{Definition, ParameterKind};
use super::diagnostic::{Code, Diagnostics, suggest};
use super::os::OsProfile;
use super::parameters::Parameters;
use super::predicate::{Literal, Predicate, Term};
use crate::facts::compare;
use crate::facts::{Kind, Value, registry};

/// What `preflight tune` can do about a fact. `docs/architecture.md` says how a knob is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tuning {
    /// It can be set.
    Possible,
    /// Nothing sets it.
    Unknown,
    /// It is never set, and why.
    Never(&'static str),
}

/// The subjects know what can be set, and stand above the catalogue.
pub type CanTune = fn(&str) -> Tuning;

/// Every parameter, fact, needed check and list that a check names must exist and be of the right kind.
pub fn references(checks: &[Check], definitions: &[Definition], can_tune: CanTune, d: &mut Diagnostics) {
    let ids: HashSet<&str> = checks.iter().map(|check| &*check.id).collect();
    for check in checks {
        for need in &check.needs {
            if !ids.contains(&*need.value) {
                let hint = suggest(&need.value, ids.iter().copied()).map(|near| format!("did you mean `{near}`?"));
                let message = format!("`{}` needs `{}`, which the profile does not include", check.id, need.value);
                d.report(Code::UnknownCheck, need.place.clone(), message).hint = hint;
            }
        }
        if let Some(list) = &check.for_each {
            let definition = definitions.iter().find(|definition| definition.name == *list);
            match definition.map(|definition| definition.kind) {
                Some(ParameterKind::List(_) | ParameterKind::Ports) => {}
                Some(ParameterKind::One(_)) => {
                    let message = format!("`for_each` takes a list parameter, `{list}` is none");
                    d.report(Code::WrongType, check.place.clone(), message);
                }
                None => unknown_parameter(list, &check.place, definitions, d),
            }
        }
        if let Some(tune) = &check.tune {
            let why = match can_tune(&check.fact) {
                Tuning::Possible => None,
                Tuning::Unknown => Some(format!("no knob sets `{}`", check.fact)),
                Tuning::Never(why) => Some(why.to_owned()),
            };
            if let Some(why) = why {
                let message = format!("`{}` cannot be tuned: {why}", check.id);
                d.report(Code::NotTunable, tune.place.clone(), message);
            }
        }
        let conditions = check.when.iter().chain(check.cases.iter().flat_map(|case| &case.when));
        for condition in conditions {
            let Some(spec) = registry::spec(&condition.fact) else { continue };
            terms(&condition.predicate, spec.kind, definitions, d);
        }
        for predicate in predicates_of(check) {
            terms(predicate, check.kind, definitions, d);
        }
        if let Some(tune) = &check.tune {
            term(&tune.to, check.kind, definitions, d);
        }
    }
    needs_cycles(checks, d);
}

/// The commands that a check names must be there. One OS profile stands for all: a test asserts that they have the same.
pub fn recipes(checks: &[Check], os: &OsProfile, d: &mut Diagnostics) {
    let names = || os.remedies.keys().map(|name| &**name);
    for check in checks {
        for name in check.remedy.iter().chain(check.cases.iter().filter_map(|case| case.remedy.as_ref())) {
            if !os.remedies.contains_key(&**name) {
                let message = format!("no OS profile has commands named `{name}` for `{}`", check.id);
                d.report(Code::UnknownRecipe, check.place.clone(), message).hint = Some(match suggest(name, names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "leave out `remedy`, and say in `fix` what to do".to_owned(),
                });
            }
        }
    }
}

fn predicates_of(check: &Check) -> impl Iterator<Item = &Predicate> {
    let own = check.pass.iter().chain(&check.warn);
    let cases = check.cases.iter().flat_map(|case| case.pass.iter().chain(&case.warn));
    own.chain(cases).chain(check.tune.iter().filter_map(|tune| tune.accept.as_ref()))
}

fn terms(predicate: &Predicate, kind: Kind, definitions: &[Definition], d: &mut Diagnostics) {
    for one in predicate.terms() {
        term(one, kind, definitions, d);
    }
}

/// A parameter or fact that stands for a literal must be of the fact's kind.
fn term(term: &Term, kind: Kind, definitions: &[Definition], d: &mut Diagnostics) {
    let comparable = |other: Kind| other == kind || matches!((kind, other), (Kind::Sysctl, Kind::Int | Kind::Text));
    match &term.literal {
        Literal::Value(_) => {}
        Literal::Parameter(name) => match definitions.iter().find(|definition| definition.name == *name) {
            None => unknown_parameter(name, &term.place, definitions, d),
            Some(definition) => match definition.kind {
                ParameterKind::One(other) if comparable(other) => {}
                other => {
                    let message = format!("parameter `{name}` is a {}, the fact a {}", other.name(), kind.name());
                    d.report(Code::WrongType, term.place.clone(), message);
                }
            },
        },
        Literal::Fact(id) => match registry::spec(id) {
            None => {
                let near = suggest(id, registry::FACTS.iter().map(|spec| spec.id));
                d.report(Code::UnknownFact, term.place.clone(), format!("no probe gathers a fact `{id}`")).hint =
                    near.map(|near| format!("did you mean `{near}`?"));
            }
            Some(spec) if comparable(spec.kind) => {}
            Some(spec) => {
                let message = format!("fact `{id}` is a {}, it is compared with a {}", spec.kind.name(), kind.name());
                d.report(Code::WrongType, term.place.clone(), message);
            }
        },
    }
}

fn unknown_parameter(name: &str, place: &super::diagnostic::Place, definitions: &[Definition], d: &mut Diagnostics) {
    let near = suggest(name, definitions.iter().map(|definition| &*definition.name));
    d.report(Code::UnknownParameter, place.clone(), format!("the profile declares no parameter `{name}`")).hint =
        near.map(|near| format!("did you mean `{near}`?"));
}

/// A check that, through others, needs itself could never be judged.
fn needs_cycles(checks: &[Check], d: &mut Diagnostics) {
    let by_id: HashMap<&str, &Check> = checks.iter().map(|check| (check.id.as_str(), check)).collect();
    let mut done: HashSet<&str> = HashSet::new();
    for check in checks.iter().filter(|check| !check.needs.is_empty()) {
        if done.contains(&*check.id) {
            continue;
        }
        let mut stack: Vec<(&Check, usize)> = vec![(check, 0)];
        let mut path = vec![&*check.id];
        // The same ids, to look one up.
        let mut on_path: HashSet<&str> = path.iter().copied().collect();
        while let Some((current, next)) = stack.pop() {
            let Some(need) = current.needs.get(next) else {
                done.insert(&current.id);
                path.pop();
                on_path.remove(&*current.id);
                continue;
            };
            stack.push((current, next + 1));
            if on_path.contains(&*need.value) {
                let around = path.iter().skip_while(|id| **id != need.value);
                let around: Vec<&str> = around.copied().collect();
                let message = format!("these checks need each other: {} → {}", around.join(" → "), need.value);
                d.report(Code::NeedsCycle, need.place.clone(), message);
                return;
            }
            if let Some(parent) = by_id.get(&*need.value)
                && !done.contains(&*need.value)
            {
                stack.push((parent, 0));
                path.push(&parent.id);
                on_path.insert(&parent.id);
            }
        }
    }
}

/// Predicates with known values must leave each other something to decide.
pub fn predicates(checks: &[Check], parameters: &Parameters, d: &mut Diagnostics) {
    for check in checks {
        let Some(pass) = &check.pass else { continue };
        let known = Known { parameters };
        // A case lays its own questions over the check's; with a pass of its own it has no other warn.
        let base = (check.warn.as_ref(), pass);
        let cases = check.cases.iter().map(|case| (case.warn.as_ref(), case.pass.as_ref().unwrap_or(pass)));
        for (warn, pass) in std::iter::once(base).chain(cases) {
            let Some(warn) = warn.filter(|warn| known.implies(warn, pass) == Some(true)) else { continue };
            let message = format!("`warn` of `{}` can never decide: `pass` admits all of it", check.id);
            let place = warn.terms().first().map_or_else(|| check.place.clone(), |term| term.place.clone());
            d.report(Code::DeadWarn, place, message);
        }
        if let Some(tune) = &check.tune {
            known.tune(check, tune, pass, d);
            for pass in check.cases.iter().filter_map(|case| case.pass.as_ref()) {
                known.tune(check, tune, pass, d);
            }
        }
    }
}

struct Known<'a> {
    parameters: &'a Parameters,
}

impl Known<'_> {
    /// The value of a term that needs no facts.
    fn value(&self, term: &Term) -> Option<Value> {
        match &term.literal {
            Literal::Value(value) => Some(value.clone()),
            Literal::Parameter(name) => self.parameters.value(name).cloned(),
            Literal::Fact(_) => None,
        }
    }

    /// Whether a value satisfies a predicate; `None` when that depends on facts.
    fn admits(&self, predicate: &Predicate, value: &Value) -> Option<bool> {
        // Two known values that cannot be compared never match.
        let terms = predicate.terms().iter().map(|term| self.value(term)).collect::<Option<Vec<Value>>>()?;
        if matches!(predicate, Predicate::AtLeast(_) | Predicate::AtMost(_) | Predicate::Range(..))
            && terms.iter().any(|term| compare::order(value, term).is_none())
        {
            return Some(false);
        }
        let order = |term: &Term| compare::order(value, &self.value(term)?);
        Some(match predicate {
            Predicate::AtLeast(term) => order(term)? != Ordering::Less,
            Predicate::AtMost(term) => order(term)? != Ordering::Greater,
            Predicate::Equals(term) => compare::same(value, &self.value(term)?)?,
            Predicate::OneOf(terms) => {
                let mut any = false;
                for term in terms {
                    any |= compare::same(value, &self.value(term)?).unwrap_or(false);
                }
                any
            }
            Predicate::Range(ends) => {
                let [low, high] = ends;
                order(low)? != Ordering::Less && order(high)? != Ordering::Greater
            }
            Predicate::Includes(term) => match (value, self.value(term)?) {
                (Value::Set(present), Value::Set(wanted)) => wanted.is_subset(present),
                _ => false,
            },
        })
    }

    /// Whether every value that satisfies `narrow` satisfies `wide`; `None` when that depends on facts.
    fn implies(&self, narrow: &Predicate, wide: &Predicate) -> Option<bool> {
        match narrow {
            Predicate::Equals(term) => self.admits(wide, &self.value(term)?),
            Predicate::OneOf(terms) => {
                let mut all = true;
                for term in terms {
                    all &= self.admits(wide, &self.value(term)?)?;
                }
                Some(all)
            }
            Predicate::Range(ends) => {
                let [low, high] = ends;
                Some(self.admits(wide, &self.value(low)?)? && self.admits(wide, &self.value(high)?)? && !is_list(wide))
            }
            Predicate::AtLeast(term) => {
                Some(matches!(wide, Predicate::AtLeast(_)) && self.admits(wide, &self.value(term)?)?)
            }
            Predicate::AtMost(term) => {
                Some(matches!(wide, Predicate::AtMost(_)) && self.admits(wide, &self.value(term)?)?)
            }
            // Some larger set has the same words too, so it is never all equal to one set.
            Predicate::Includes(term) => match wide {
                Predicate::Includes(_) => self.admits(wide, &self.value(term)?),
                _ => Some(false),
            },
        }
    }

    fn tune(&self, check: &Check, tune: &Tune, pass: &Predicate, d: &mut Diagnostics) {
        if let Some(target) = self.value(&tune.to)
            && self.admits(pass, &target) == Some(false)
        {
            let message = format!("`{}` would be tuned to {target}, which does not pass", check.id);
            d.report(Code::BadTarget, tune.to.place.clone(), message);
        }
        if let Some(accept) = &tune.accept
            && self.implies(accept, pass) == Some(false)
        {
            let place = accept.terms().first().map_or_else(|| tune.place.clone(), |term| term.place.clone());
            let message = format!("`accept` of `{}` leaves values alone that `pass` does not admit", check.id);
            d.report(Code::WideAccept, place, message).hint =
                Some("accept only what passes, or the finding stays red on a tuned host".to_owned());
        }
    }
}

fn is_list(predicate: &Predicate) -> bool {
    matches!(predicate, Predicate::OneOf(_) | Predicate::Equals(_))
}
