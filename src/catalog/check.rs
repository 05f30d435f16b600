//! A check: one requirement, declared once, that is checked, explained, fixed, verified and undone under one id.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::day;
use super::diagnostic::{Code, Diagnostics, Place, suggest};
use super::predicate::{self, Predicate, Term};
use super::reader::{Fields, Placed};
use super::tree::Node;
use crate::facts::{Kind, registry};

/// How much a check matters. The order is that of weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Never counts; it is there to be known.
    Info,
    /// The workload runs, with a risk or a loss.
    Recommended,
    /// The workload will misbehave.
    Required,
    /// The workload will not start, or will lose data.
    Blocker,
}

impl Severity {
    pub const ALL: [Self; 4] = [Self::Blocker, Self::Required, Self::Recommended, Self::Info];

    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Recommended => "recommended",
            Self::Required => "required",
            Self::Blocker => "blocker",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an absent fact means for the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Absent {
    Pass,
    Fail,
    #[default]
    NotApplicable,
}

/// `when = { fact = "…", <predicate> }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    pub fact: String,
    pub predicate: Predicate,
    pub place: Place,
}

/// `[[check.case]]`: what holds instead when its conditions do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    pub when: Vec<Condition>,
    pub pass: Option<Predicate>,
    pub warn: Option<Predicate>,
    pub severity: Option<Severity>,
    /// Shown with the finding when the case decided.
    pub note: Option<String>,
    /// What fixes it in this case.
    pub fix: Option<String>,
    /// The name of other commands in the OS profile.
    pub remedy: Option<String>,
}

/// `tune = { to = 65535, accept = { at_least = 65535 } }`: where `preflight tune` brings the knob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tune {
    pub to: Term,
    /// Values that are left alone; by default exactly the target.
    pub accept: Option<Predicate>,
    pub place: Place,
}

/// A requirement. Field by field as in the file; see `docs/catalogue.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub id: String,
    pub section: String,
    pub title: String,
    pub fact: String,
    pub kind: Kind,
    pub pass: Option<Predicate>,
    pub warn: Option<Predicate>,
    pub severity: Severity,
    pub why: String,
    pub fix: String,
    /// The name of the commands in the OS profile.
    pub remedy: Option<String>,
    /// What the fix costs.
    pub impact: Option<String>,
    pub sources: Vec<String>,
    pub dated: String,
    pub needs: Vec<Placed<String>>,
    pub absent: Absent,
    pub when: Vec<Condition>,
    /// A list parameter: one finding per instance.
    pub for_each: Option<String>,
    pub tune: Option<Tune>,
    /// Sizes are nominal: a "4 GiB" machine shows less, so 93 % of the literal suffices.
    pub nominal: bool,
    pub cases: Vec<Case>,
    pub place: Place,
}

/// The part of a nominal size that must be there: firmware and kernel keep the rest. A 2,000 MB machine of a cloud was
/// seen with 1.86 GiB, a 4 GiB one with 3.8 GiB.
pub const NOMINAL_PERCENT: u64 = 93;

/// Reads one `[[check]]`. Every mistake is reported; a check without a usable fact is dropped.
pub fn read(mut fields: Fields<'_>, section: &str, diagnostics: &mut Diagnostics) -> Option<Check> {
    let d = diagnostics;
    let source = fields.source();
    let id = fields.required_text("id", d);
    check_id(&id, d);
    let title = fields.required_text("title", d).value;
    let fact = fields.required_text("fact", d);
    let for_each = fields.text("for_each", d).map(|text| text.value);
    let kind = fact_kind(&fact, for_each.is_some(), d);
    // Without a kind the predicates cannot be read; they are taken all the same, so that they are not "unknown keys".
    let question = |fields: &mut Fields<'_>, key: &'static str, d: &mut Diagnostics| {
        let value = fields.take(key)?;
        predicate::read(value, key, kind?, source, d)
    };
    let has_pass = fields.take("pass").is_some();
    let pass = question(&mut fields, "pass", d);
    let warn = question(&mut fields, "warn", d);
    let weight = severity(&mut fields, d);
    let why = fields.required_text("why", d).value;
    let fix = fields.required_text("fix", d).value;
    let remedy = fields.text("remedy", d).map(|text| text.value);
    let impact = fields.text("impact", d).map(|text| text.value);
    let sources: Vec<String> =
        fields.texts("sources", d).unwrap_or_default().into_iter().map(|text| text.value).collect();
    let dated = fields.text("dated", d);
    if let Some(day) = &dated
        && !day::is_day(&day.value)
    {
        d.report(Code::WrongType, day.place.clone(), format!("`{}` is not a day like 2026-11-22", day.value));
    }
    let needs = fields.texts("needs", d).unwrap_or_default();
    let absent = match fields.text("absent", d) {
        None => Absent::default(),
        Some(word) => match word.value.as_str() {
            "pass" => Absent::Pass,
            "fail" => Absent::Fail,
            "not_applicable" => Absent::NotApplicable,
            other => {
                let message = format!("`absent` is pass, fail or not_applicable, not `{other}`");
                d.report(Code::WrongType, word.place, message);
                Absent::default()
            }
        },
    };
    let when = conditions(&mut fields, d);
    let tune = match (fields.take("tune"), kind) {
        (Some(value), Some(kind)) => read_tune(value, kind, source, d),
        _ => None,
    };
    let nominal = fields.flag("nominal", d).unwrap_or(false);
    if nominal && kind.is_some_and(|kind| kind != Kind::Bytes) {
        let message = "`nominal` only says something about sizes";
        d.report(Code::WrongType, id.place.clone(), message);
    }
    let cases: Vec<Case> = fields
        .tables("case", d)
        .into_iter()
        .map(|mut case| {
            Case {
                when: conditions(&mut case, d),
                pass: question(&mut case, "pass", d),
                warn: question(&mut case, "warn", d),
                severity: optional_severity(&mut case, d),
                note: case.text("note", d).map(|text| text.value),
                fix: case.text("fix", d).map(|text| text.value),
                remedy: case.text("remedy", d).map(|text| text.value),
            }
            .checked(case, d)
        })
        .collect();
    // One that is there and wrong was reported by itself.
    if !has_pass {
        let message = format!("`{}` has no `pass`: it could never be green", id.value);
        d.report(Code::MissingKey, id.place.clone(), message);
    }
    fields.finish(d);
    let kind = kind?;
    Some(Check {
        id: id.value,
        section: section.to_owned(),
        title,
        fact: fact.value,
        kind,
        pass,
        warn,
        severity: weight,
        why,
        fix,
        remedy,
        impact,
        sources,
        dated: dated.map(|day| day.value).unwrap_or_default(),
        needs,
        absent,
        when,
        for_each,
        tune,
        nominal,
        cases,
        place: id.place,
    })
}

impl Case {
    /// A case that changes nothing, or that always holds, is a mistake.
    fn checked(self, fields: Fields<'_>, d: &mut Diagnostics) -> Self {
        let place = fields.place.clone();
        fields.finish(d);
        if self.when.is_empty() {
            d.report(Code::MissingKey, place.clone(), "this case has no `when`: it would always hold");
        }
        let changes = self.severity.is_some() || self.note.is_some() || self.fix.is_some() || self.remedy.is_some();
        if self.pass.is_none() && self.warn.is_none() && !changes {
            let message = "this case changes nothing: give it pass, warn, severity, note, fix or remedy";
            d.report(Code::BadPredicate, place, message);
        }
        self
    }
}

fn check_id(id: &Placed<String>, d: &mut Diagnostics) {
    let word = |word: &str| {
        !word.is_empty()
            && !word.starts_with('-')
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    let good = id.value.contains('.') && id.value.split('.').all(word) && id.value.len() <= 100;
    if !good && !id.value.is_empty() {
        let message = format!("`{}` is no id", id.value);
        d.report(Code::BadId, id.place.clone(), message).hint =
            Some("lower-case words joined by hyphens, at least two of them joined by dots: `kernel.overcommit`".into());
    }
}

/// The registered kind of a fact; a mistake with the nearest known fact otherwise.
pub fn fact_kind(fact: &Placed<String>, each: bool, d: &mut Diagnostics) -> Option<Kind> {
    if fact.value.is_empty() {
        return None;
    }
    // With `for_each` the instance is appended: the fact named is the family.
    let of_instance = each.then(|| format!("{}.x", fact.value));
    if let Some(spec) = registry::spec(of_instance.as_deref().unwrap_or(&fact.value)) {
        return Some(spec.kind);
    }
    if each && registry::spec(&fact.value).is_some() {
        let message = format!("with `for_each` the fact is a family, `{}` is one fact", fact.value);
        d.report(Code::UnknownFact, fact.place.clone(), message).hint =
            Some("families end in `.*` in `preflight list facts`".to_owned());
        return None;
    }
    let known = registry::FACTS.iter().map(|spec| spec.id.trim_end_matches(".*"));
    let near = suggest(&fact.value, known);
    d.report(Code::UnknownFact, fact.place.clone(), format!("no probe gathers a fact `{}`", fact.value)).hint =
        Some(match near {
            Some(near) => format!("did you mean `{near}`? `preflight list facts` shows all"),
            None => "`preflight list facts` shows all".to_owned(),
        });
    None
}

fn severity(fields: &mut Fields<'_>, d: &mut Diagnostics) -> Severity {
    let word = fields.required_text("severity", d);
    if let Some(severity) = Severity::ALL.into_iter().find(|severity| severity.name() == word.value) {
        severity
    } else {
        if !word.value.is_empty() {
            let names = Severity::ALL.map(Severity::name);
            let near = suggest(&word.value, names);
            d.report(Code::WrongType, word.place, format!("`{}` is no severity", word.value)).hint = Some(match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("one of {}", names.join(", ")),
            });
        }
        Severity::Required
    }
}

/// `when = {…}` or `when = [{…}, {…}]`; a list is AND.
fn conditions(fields: &mut Fields<'_>, d: &mut Diagnostics) -> Vec<Condition> {
    let when = fields.tables("when", d);
    if let Some(empty) = fields.take("when").filter(|value| value.as_array().is_some_and(<[Node]>::is_empty)) {
        let place = Place { source: fields.source(), span: empty.span.clone() };
        d.report(Code::BadPredicate, place, "`when` is an empty list: it asks nothing");
    }
    let read = |mut condition: Fields<'_>| {
        let fact = condition.required_text("fact", d);
        let place = fact.place.clone();
        let kind = fact_kind(&fact, false, d)?;
        let predicate = predicate::take(&mut condition, "when", kind, d);
        condition.finish(d);
        Some(Condition { fact: fact.value, predicate: predicate?, place })
    };
    when.into_iter().filter_map(read).collect()
}

/// `tune = { to = …, accept = {…} }`, in a check or an override.
pub fn read_tune(value: &Node, kind: Kind, source: usize, d: &mut Diagnostics) -> Option<Tune> {
    let mut fields = Fields::of(value, "tune", source, d)?;
    let place = fields.place.clone();
    let to = if let Some(to) = fields.take("to") {
        predicate::term(to, kind, source, d)
    } else {
        d.report(Code::MissingKey, place.clone(), "this tune has no `to`");
        None
    };
    let accept = match fields.take("accept") {
        Some(accept) => predicate::read(accept, "accept", kind, source, d),
        None => None,
    };
    fields.finish(d);
    Some(Tune { to: to?, accept, place })
}

/// Reads the severity of an override, where it is optional.
pub fn optional_severity(fields: &mut Fields<'_>, d: &mut Diagnostics) -> Option<Severity> {
    fields.take("severity")?;
    Some(severity(fields, d))
}

/// The `[[check]]` of a file.
pub fn read_all(fields: &mut Fields<'_>, section: &str, d: &mut Diagnostics, checks: &mut Vec<Check>) {
    checks.extend(fields.tables("check", d).into_iter().filter_map(|table| read(table, section, d)));
}

/// A whole file of checks: `section = "…"` and `[[check]]`.
pub fn read_file(source: usize, tree: &Node, d: &mut Diagnostics, checks: &mut Vec<Check>) {
    let place = Place { source, span: 0..1 };
    let mut fields = Fields::new(tree.as_table().unwrap_or_default(), "file of checks", place);
    let section = fields.required_text("section", d).value;
    read_all(&mut fields, &section, d, checks);
    fields.finish(d);
}
