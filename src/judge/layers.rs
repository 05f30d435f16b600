//! Which layer decides: live, boot, container, and the worst of those that count.

use super::{Found, Question, Resolver, evaluate};
use crate::catalog::check::{Absent, Check};
use crate::catalog::parameters::Parameters;
use crate::facts::registry::{self, Scope};
use crate::facts::{AbsentReason, Fact, Layer, State, words};
use crate::report::model::{Finding, LayerView, Outcome};

/// The layers that decide for a fact, the first being the one that is always there.
pub(super) fn deciding(fact: &str, parameters: &Parameters) -> &'static [Layer] {
    // Containers on the host's network use its settings; all others start from the kernel's defaults.
    let on_host_network = || parameters.text("topology") == Some("host");
    match registry::scope(fact) {
        Scope::Live => &[Layer::Live],
        Scope::Network if !on_host_network() => &[Layer::Container],
        Scope::Host | Scope::Network => &[Layer::Live, Layer::Boot],
        Scope::Container => &[Layer::Container],
    }
}

/// Judges every layer that was gathered and settles the finding.
pub(super) fn judge(
    finding: &mut Finding,
    check: &Check,
    (fact_id, found, deciding): (&str, &Found<'_>, &[Layer]),
    question: &Question<'_>,
    resolver: &Resolver<'_>,
) {
    let mut worst: Option<(Layer, Outcome)> = None;
    for layer in Layer::ALL {
        let decides = deciding.contains(&layer);
        let Some(fact) = found.get(layer) else {
            if decides {
                let missing = Fact::unknown(format!("{fact_id} was not gathered"), None, "snapshot");
                let outcome = at_most(layer, Outcome::Unknown);
                set_view(finding, layer, view(fact_id, &missing, outcome, true));
                if worst.is_none_or(|(_, known)| outcome.badness() > known.badness()) {
                    worst = Some((layer, outcome));
                }
            }
            continue;
        };
        finding.duration_us = finding.duration_us.max(fact.took_us);
        let outcome = outcome(fact, layer, check, question, resolver);
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                finding.notes.push(error);
                Outcome::Unknown
            }
        };
        let outcome = at_most(layer, outcome);
        let counts = decides && !(layer != deciding[0] && outcome == Outcome::NotApplicable);
        set_view(finding, layer, view(fact_id, fact, outcome, counts));
        if counts && worst.is_none_or(|(_, known)| outcome.badness() > known.badness()) {
            worst = Some((layer, outcome));
        }
    }
    let Some((layer, outcome)) = worst else { return };
    finding.result = outcome;
    let view = match layer {
        Layer::Live => finding.live.as_ref(),
        Layer::Boot => finding.boot.as_deref(),
        Layer::Container => finding.container.as_deref(),
    };
    let Some(view) = view else { return };
    let observed = match (&view.value, &finding.live) {
        (Some(_), _) if layer == Layer::Boot => format!("{} after the next boot", view.text),
        // The value of now is known and right; that of the next boot is not known, and its own line says why.
        (None, Some(now)) if layer == Layer::Boot => format!("{} now, unknown after the next boot", now.text),
        _ => view.text.clone(),
    };
    finding.notes.extend(view.note.clone());
    finding.source = view.source.clone();
    finding.observed = observed;
    if let Some(State::Unknown { help, .. }) = found.get(layer).map(|fact| &fact.state) {
        finding.help.clone_from(help);
    }
}

/// Only what the next boot brings is wrong or not known: the host works now, so it is a warning at most.
fn at_most(layer: Layer, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Fail | Outcome::Unknown if layer == Layer::Boot => Outcome::Warn,
        other => other,
    }
}

/// What one layer alone comes to.
fn outcome(
    fact: &Fact,
    layer: Layer,
    check: &Check,
    question: &Question<'_>,
    resolver: &Resolver<'_>,
) -> Result<Outcome, String> {
    let value = match &fact.state {
        State::Known(value) => value,
        State::Unknown { .. } => return Ok(Outcome::Unknown),
        // A layer that says nothing about the next boot does not count, whatever an absent fact means.
        State::Absent(_) if layer == Layer::Boot => return Ok(Outcome::NotApplicable),
        // A directory that looks like a root says nothing about what only a running host has.
        State::Absent(AbsentReason::NotRunning) => return Ok(Outcome::NotApplicable),
        State::Absent(_) => {
            return Ok(match check.absent {
                Absent::Pass => Outcome::Pass,
                Absent::Fail => Outcome::Fail,
                Absent::NotApplicable => Outcome::NotApplicable,
            });
        }
    };
    let Some(pass) = question.pass else { return Err("the check has no question".to_owned()) };
    if evaluate::holds(pass, value, check.nominal, resolver)? {
        return Ok(Outcome::Pass);
    }
    match question.warn {
        Some(warn) if evaluate::holds(warn, value, check.nominal, resolver)? => Ok(Outcome::Warn),
        _ => Ok(Outcome::Fail),
    }
}

fn view(id: &str, fact: &Fact, result: Outcome, decides: bool) -> LayerView {
    let (value, text) = match &fact.state {
        State::Known(value) => (Some(value.clone()), words::words(id, value).into_owned()),
        State::Absent(why) => (None, why.to_string()),
        State::Unknown { error, .. } => (None, error.clone()),
    };
    LayerView { result, decides, value, text, source: fact.source.clone(), note: fact.note.clone() }
}

fn set_view(finding: &mut Finding, layer: Layer, view: LayerView) {
    match layer {
        Layer::Live => finding.live = Some(view),
        Layer::Boot => finding.boot = Some(Box::new(view)),
        Layer::Container => finding.container = Some(Box::new(view)),
    }
}
