//! Judging: requirement × fact → finding. Pure: no I/O, no clock, no environment.

mod evaluate;
mod layers;
mod remedy;
pub mod wish;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::catalog::Catalogue;
use crate::catalog::check::{Case, Check, Condition, Severity};
use crate::catalog::os::OsProfile;
use crate::catalog::parameters::{Parameters, Port, Protocol, Setting};
use crate::catalog::predicate::Predicate;
use crate::catalog::waiver::Waiver;
use crate::facts::snapshot::Snapshot;
use crate::facts::{Fact, Facts, Layer, Layers, State, words};
use crate::report::model::{Finding, Outcome, ProfileView, Report, Summary, WaiverView};

/// Computes a derived fact by its id, for a day written `YYYY-MM-DD`. The subjects know how.
pub type Derive = fn(&str, &Facts, &Parameters, &OsProfile, &str) -> Fact;

/// What judging looks at besides the catalogue.
#[derive(Debug)]
pub(crate) struct Resolver<'a> {
    facts: &'a Facts,
    parameters: &'a Parameters,
    os: &'a OsProfile,
    /// `YYYY-MM-DD`, from the snapshot.
    today: &'a str,
    derive: Derive,
    derived: RefCell<HashMap<String, Rc<Fact>>>,
}

/// A fact as it was found: gathered, with all its layers, or derived, with the live one.
pub(crate) enum Found<'a> {
    Gathered(Option<&'a Layers>),
    Derived(Rc<Fact>),
}

impl Found<'_> {
    fn get(&self, layer: Layer) -> Option<&Fact> {
        match self {
            Self::Gathered(layers) => layers.and_then(|layers| layers.get(layer)),
            Self::Derived(fact) => (layer == Layer::Live).then_some(fact),
        }
    }
}

impl Resolver<'_> {
    /// A fact; a derived one is computed when it is first asked for.
    fn find(&self, id: &str) -> Found<'_> {
        if !id.starts_with("derived.") {
            return Found::Gathered(self.facts.layers(id));
        }
        let known = self.derived.borrow().get(id).cloned();
        Found::Derived(known.unwrap_or_else(|| {
            let fact = Rc::new((self.derive)(id, self.facts, self.parameters, self.os, self.today));
            self.derived.borrow_mut().insert(id.to_owned(), Rc::clone(&fact));
            fact
        }))
    }
}

/// One instance of a check.
#[derive(Debug)]
pub struct Instance<'a> {
    /// What is appended to the ids of check and fact; `None` where the check has no instances.
    pub name: Option<String>,
    port: Option<&'a Port>,
}

/// The instances of a check: one unnamed, or one per element of its list parameter.
pub fn instances<'a>(check: &Check, parameters: &'a Parameters) -> impl Iterator<Item = Instance<'a>> {
    let unnamed = check.for_each.is_none().then_some(Instance { name: None, port: None });
    let (words, ports): (&[String], _) = match check.for_each.as_ref().and_then(|list| parameters.get(list)) {
        Some(Setting::List(words)) => (words, None),
        Some(Setting::Ports(_)) => (&[], Some(parameters.ports())),
        Some(Setting::One(_)) | None => (&[], None),
    };
    let words = words.iter().map(|word| Instance { name: Some(word.clone()), port: None });
    let ports = ports.into_iter().flatten().map(|port| Instance { name: Some(port.instance()), port: Some(port) });
    unnamed.into_iter().chain(words).chain(ports)
}

/// The fact of an instance: the check's fact with the instance appended.
pub fn instance_fact(check: &Check, instance: Option<&str>) -> String {
    with_instance(&check.fact, instance)
}

/// The id of a finding.
pub fn finding_id(check: &Check, instance: Option<&str>) -> String {
    with_instance(&check.id, instance)
}

fn with_instance(id: &str, instance: Option<&str>) -> String {
    match instance {
        Some(instance) => format!("{id}.{instance}"),
        None => id.to_owned(),
    }
}

/// Judges a snapshot by a catalogue: what is found, and what is wished for.
#[derive(Debug)]
pub struct Judge<'a> {
    catalogue: &'a Catalogue,
    snapshot: &'a Snapshot,
    by_id: HashMap<&'a str, &'a Check>,
    resolver: Resolver<'a>,
    /// What needed checks came to, so that each is judged once.
    needs: RefCell<HashMap<&'a str, Outcome>>,
}

/// What a check asks on this host, after its cases.
struct Question<'c> {
    pass: Option<&'c Predicate>,
    warn: Option<&'c Predicate>,
    severity: Severity,
    note: Option<&'c str>,
    fix: &'c str,
    remedy: Option<&'c str>,
}

impl<'c> Question<'c> {
    fn of(check: &'c Check) -> Self {
        Self {
            pass: check.pass.as_ref(),
            warn: check.warn.as_ref(),
            severity: check.severity,
            note: None,
            fix: &check.fix,
            remedy: check.remedy.as_deref(),
        }
    }
}

/// Whether conditions hold, or why that cannot be determined.
enum Holds<'c> {
    Yes,
    /// The first that does not.
    No(&'c Condition),
    CannotTell {
        error: String,
        help: Option<String>,
    },
}

/// The day that dates are judged by: the snapshot's, so that judging it later gives the same.
fn day_of(snapshot: &Snapshot) -> &str {
    snapshot.taken_at.get(..10).unwrap_or("")
}

impl<'a> Judge<'a> {
    pub fn new(catalogue: &'a Catalogue, snapshot: &'a Snapshot, os: &'a OsProfile, derive: Derive) -> Self {
        let resolver = Resolver {
            facts: &snapshot.facts,
            parameters: &catalogue.parameters,
            os,
            today: day_of(snapshot),
            derive,
            derived: RefCell::default(),
        };
        let by_id = catalogue.checks.iter().map(|check| (check.id.as_str(), check)).collect();
        Self { catalogue, snapshot, by_id, resolver, needs: RefCell::default() }
    }

    /// The report. `select` says which findings are wanted, by finding id and check id; the checks that a wanted one needs are
    /// judged all the same, but not reported.
    pub fn report(&self, waivers: &[Waiver], select: &dyn Fn(&str, &str) -> bool) -> Report {
        let (catalogue, snapshot) = (self.catalogue, self.snapshot);
        let today = day_of(snapshot);
        let mut findings = Vec::new();
        for check in &catalogue.checks {
            let expected = self.expected(check, check.pass.as_ref());
            for instance in instances(check, &catalogue.parameters) {
                let id = finding_id(check, instance.name.as_deref());
                if select(&id, &check.id) {
                    let mut finding = self.finding(check, instance, id, &expected);
                    waive(&mut finding, waivers, today);
                    findings.push(finding);
                }
            }
        }
        Report {
            schema: crate::report::model::SCHEMA.to_owned(),
            preflight: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at: snapshot.taken_at.clone(),
            verdict: Report::verdict_of(&findings),
            host: snapshot.host.clone(),
            profile: ProfileView {
                name: catalogue.name.clone(),
                title: catalogue.title.clone(),
                set: catalogue.set.clone(),
                file: catalogue.file.clone(),
                files: catalogue.sources.iter().map(|source| source.path.clone()).collect(),
            },
            summary: Summary::of(&findings),
            findings,
        }
    }

    /// What would pass, in words.
    fn expected(&self, check: &Check, pass: Option<&Predicate>) -> String {
        let words = |pass| evaluate::words(pass, &check.fact, check.nominal, evaluate::Notation::Signs, &self.resolver);
        pass.map(words).unwrap_or_default()
    }

    fn finding(&self, check: &'a Check, instance: Instance<'_>, id: String, expected: &str) -> Finding {
        let fact_id = instance_fact(check, instance.name.as_deref());
        let mut finding = blank(check, instance, id, expected);
        if let Some(reason) = self.missing_need(check) {
            finding.notes.push(reason);
            return finding;
        }
        match self.all(&check.when) {
            Holds::Yes => {}
            Holds::No(condition) => {
                finding.notes.push(self.unmet(condition));
                return finding;
            }
            Holds::CannotTell { error, help } => {
                finding.notes.push(format!("cannot determine whether this applies: {error}"));
                finding.help = help;
                finding.result = Outcome::Unknown;
                return finding;
            }
        }
        // A fact that could not be read is its own story: cases that look at it would only blur it.
        let found = self.resolver.find(&fact_id);
        let deciding = layers::deciding(&fact_id, self.resolver.parameters);
        let own = found.get(deciding[0]);
        let question = if matches!(own.map(|fact| &fact.state), Some(State::Unknown { .. })) {
            Ok(Question::of(check))
        } else {
            self.question(check)
        };
        let question = match question {
            Ok(question) => question,
            Err((error, help)) => {
                finding.notes.push(format!("cannot determine which case applies: {error}"));
                finding.help = help;
                finding.result = Outcome::Unknown;
                return finding;
            }
        };
        finding.severity = question.severity;
        finding.notes.extend(question.note.map(Into::into));
        if question.pass != check.pass.as_ref() {
            finding.expected = self.expected(check, question.pass);
        }
        layers::judge(&mut finding, check, (&fact_id, &found, deciding), &question, &self.resolver);
        if !matches!(finding.result, Outcome::Pass | Outcome::NotApplicable) {
            finding.remedy = Some(remedy::remedy(check, &question, &finding, &self.resolver));
        }
        finding
    }

    /// The first needed check that neither passed nor merely warned.
    fn missing_need(&self, check: &'a Check) -> Option<String> {
        check.needs.iter().find_map(|need| {
            let outcome = self.outcome_of(&need.value);
            match outcome {
                Outcome::Pass | Outcome::Warn => None,
                other => Some(format!("needs {}, whose result is: {}", need.value, other.name())),
            }
        })
    }

    /// What a needed check came to. What it needs itself is judged before it, not inside it: a long chain in somebody's
    /// profile must not use up the stack.
    fn outcome_of(&self, id: &str) -> Outcome {
        let Some(check) = self.by_id.get(id).copied() else { return Outcome::Unknown };
        let settled = |check: &Check| self.needs.borrow().get(&*check.id).copied();
        let mut pending = vec![check];
        let mut opened: HashSet<&str> = HashSet::new();
        while let Some(next) = pending.last().copied() {
            // Opened a second time, all that it needs is settled; the loader has refused circles.
            if settled(next).is_none() && opened.insert(&next.id) {
                let needs = next.needs.iter().filter_map(|need| self.by_id.get(&*need.value).copied());
                pending.extend(needs.filter(|need| settled(need).is_none() && !opened.contains(&*need.id)));
                continue;
            }
            pending.pop();
            if settled(next).is_none() {
                self.settle(next);
            }
        }
        settled(check).unwrap_or(Outcome::Unknown)
    }

    fn settle(&self, check: &'a Check) {
        let expected = self.expected(check, check.pass.as_ref());
        let outcomes = instances(check, self.resolver.parameters).map(|instance| {
            let id = finding_id(check, instance.name.as_deref());
            self.finding(check, instance, id, &expected).result
        });
        let worst = outcomes.max_by_key(|outcome| outcome.badness()).unwrap_or(Outcome::NotApplicable);
        self.needs.borrow_mut().insert(&*check.id, worst);
    }

    /// Whether all conditions hold.
    fn all<'c>(&self, conditions: &'c [Condition]) -> Holds<'c> {
        for condition in conditions {
            match self.one(condition) {
                Holds::Yes => {}
                other => return other,
            }
        }
        Holds::Yes
    }

    fn one<'c>(&self, condition: &'c Condition) -> Holds<'c> {
        let found = self.resolver.find(&condition.fact);
        let Some(fact) = found.get(self.seen(condition)) else {
            return Holds::CannotTell { error: format!("{} was not gathered", condition.fact), help: None };
        };
        match &fact.state {
            State::Known(value) => match evaluate::holds(&condition.predicate, value, false, &self.resolver) {
                Ok(true) => Holds::Yes,
                Ok(false) => Holds::No(condition),
                Err(error) => Holds::CannotTell { error, help: None },
            },
            State::Absent(_) => Holds::No(condition),
            State::Unknown { error, help } => {
                Holds::CannotTell { error: format!("{}: {error}", condition.fact), help: help.clone() }
            }
        }
    }

    /// The layer that a condition asks: what the workload sees.
    fn seen(&self, condition: &Condition) -> Layer {
        layers::deciding(&condition.fact, self.resolver.parameters)[0]
    }

    /// A condition that does not hold, in words.
    fn unmet(&self, condition: &Condition) -> String {
        let wanted =
            evaluate::words(&condition.predicate, &condition.fact, false, evaluate::Notation::Words, &self.resolver);
        let here = match self.resolver.find(&condition.fact).get(self.seen(condition)).map(|fact| &fact.state) {
            Some(State::Known(value)) => format!(", here it is {}", words::words(&condition.fact, value)),
            Some(State::Absent(why)) => format!(": {why}"),
            Some(State::Unknown { .. }) | None => String::new(),
        };
        format!("applies when {} is {wanted}{here}", condition.fact)
    }

    /// The check's question with the first case that holds laid over it.
    fn question<'c>(&self, check: &'c Check) -> Result<Question<'c>, (String, Option<String>)> {
        let base = Question::of(check);
        for case in &check.cases {
            match self.all(&case.when) {
                Holds::Yes => return Ok(overlay(&base, case)),
                Holds::No(_) => {}
                Holds::CannotTell { error, help } => return Err((error, help)),
            }
        }
        Ok(base)
    }
}

/// The finding of a check that does not apply.
fn blank(check: &Check, instance: Instance<'_>, id: String, expected: &str) -> Finding {
    let title = match &instance {
        Instance { port: Some(port), .. } => {
            let udp = if port.protocol == Protocol::Udp { "/udp" } else { "" };
            format!("{} {}{udp} ({})", check.title, port.port, port.name)
        }
        Instance { name: Some(name), .. } => format!("{} ({name})", check.title),
        Instance { name: None, .. } => check.title.clone(),
    };
    Finding {
        id,
        check: check.id.clone(),
        instance: instance.name,
        section: check.section.clone(),
        result: Outcome::NotApplicable,
        severity: check.severity,
        title,
        expected: expected.to_owned(),
        observed: String::new(),
        live: None,
        boot: None,
        container: None,
        source: String::new(),
        notes: Vec::new(),
        help: None,
        why: check.why.clone(),
        remedy: None,
        waiver: None,
        duration_us: 0,
    }
}

/// A case with a pass of its own but no warn has no warn: the base's would no longer fit.
fn overlay<'c>(base: &Question<'c>, case: &'c Case) -> Question<'c> {
    Question {
        pass: case.pass.as_ref().or(base.pass),
        warn: case.warn.as_ref().or(if case.pass.is_some() { None } else { base.warn }),
        severity: case.severity.unwrap_or(base.severity),
        note: case.note.as_deref(),
        fix: case.fix.as_deref().unwrap_or(base.fix),
        remedy: case.remedy.as_deref().or(base.remedy),
    }
}

/// Applies the waiver of a finding. An expired one is shown and does not count.
fn waive(finding: &mut Finding, waivers: &[Waiver], today: &str) {
    if matches!(finding.result, Outcome::Pass | Outcome::NotApplicable) {
        return;
    }
    let exact = waivers.iter().find(|waiver| waiver.id == finding.id);
    let Some(waiver) = exact.or_else(|| waivers.iter().find(|waiver| waiver.id == finding.check)) else { return };
    let expired = today.is_empty() || waiver.expires.as_str() < today;
    finding.waiver = Some(WaiverView {
        owner: waiver.owner.clone(),
        reason: waiver.reason.clone(),
        expires: waiver.expires.clone(),
        expired,
        result: finding.result,
    });
    if expired {
        finding.notes.push(format!("the waiver of {} expired on {}", waiver.owner, waiver.expires));
    } else {
        finding.result = Outcome::Waived;
    }
}
