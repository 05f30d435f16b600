//! `preflight explain ID`: what a check asks, why, and how to fix it.

use std::io::IsTerminal as _;

use super::args::ExplainArgs;
use super::{ExitCode, Stop, show, source};
use crate::catalog::check::Check;
use crate::catalog::diagnostic::suggest;
use crate::catalog::predicate::{Literal, Predicate, Term};
use crate::facts::registry;
use crate::host::Host;
use crate::report::escape;
use crate::report::terminal::DEFAULT_WIDTH;

pub(super) fn run(args: &ExplainArgs) -> Result<ExitCode, Stop> {
    let catalogue = source::catalogue(&Host::live(), &args.profile, &[])?;
    let exact = catalogue.checks.iter().find(|check| check.id == args.id);
    // `port.free.6379` is explained by `port.free`.
    let instance = || {
        catalogue.checks.iter().find(|check| check.for_each.is_some() && args.id.starts_with(&format!("{}.", check.id)))
    };
    let Some(check) = exact.or_else(instance) else {
        let near = suggest(&args.id, catalogue.checks.iter().map(|check| &*check.id));
        let hint =
            near.map_or_else(|| "`preflight list checks` shows all".into(), |near| format!("did you mean `{near}`?"));
        return Err(Stop::usage(format!("profile {} has no check `{}`\nhint: {hint}", catalogue.name, args.id)));
    };
    let is_terminal = std::io::stdout().is_terminal();
    let width = if is_terminal { show::terminal_width().min(DEFAULT_WIDTH) } else { DEFAULT_WIDTH };
    let text = text(check, width);
    show::deliver(escape::plain(escape::lines(&text), show::is_unicode(is_terminal)).as_bytes())?;
    Ok(ExitCode::Success)
}

fn text(check: &Check, width: usize) -> String {
    let mut text = format!("{} ({})\n{}\n", check.id, check.severity, check.title);
    let mut field = |name: &str, value: &str| {
        if value.is_empty() {
            return;
        }
        let options = textwrap::Options::new(width).initial_indent("  ").subsequent_indent("  ");
        text.extend(["\n", name, "\n", &textwrap::fill(value, options), "\n"]);
    };
    let spec = registry::spec(&check.fact).or_else(|| registry::spec(&format!("{}.x", check.fact)));
    let fact = spec.map(|spec| format!("{}: {}. Read from {}.", check.fact, spec.about, spec.source));
    field("Looks at", &fact.unwrap_or_else(|| check.fact.clone()));
    let one = |predicate: &Option<Predicate>| predicate.as_ref().map(words).unwrap_or_default();
    field("Passes", &one(&check.pass));
    field("Warns", &one(&check.warn));
    for case in &check.cases {
        let when: Vec<String> =
            case.when.iter().map(|when| format!("{} is {}", when.fact, words(&when.predicate))).collect();
        let parts = [
            case.pass.as_ref().map(|pass| format!("passes: {}", words(pass))),
            case.warn.as_ref().map(|warn| format!("warns: {}", words(warn))),
            case.severity.map(|severity| format!("severity: {severity}")),
            case.note.as_deref().map(str::to_owned),
            case.fix.as_ref().map(|fix| format!("Fix: {fix}")),
        ];
        field(&format!("When {}", when.join(" and ")), &joined(parts.into_iter().flatten()));
    }
    let when: Vec<String> =
        check.when.iter().map(|when| format!("{} is {}", when.fact, words(&when.predicate))).collect();
    field("Applies when", &when.join(" and "));
    let needs: Vec<&str> = check.needs.iter().map(|need| &*need.value).collect();
    field("Needs", &needs.join(", "));
    if let Some(list) = &check.for_each {
        field("For each of", list);
    }
    field("Why", &check.why);
    field("Fix", &check.fix);
    field("Costs", check.impact.as_deref().unwrap_or_default());
    if let Some(tune) = &check.tune {
        let accept = tune.accept.as_ref().map(|accept| format!("; left alone: {}", words(accept))).unwrap_or_default();
        field("Tunes to", &format!("{}{accept}", term(&tune.to)));
    }
    field("Sources", &check.sources.join("; "));
    field("As of", &check.dated);
    text
}

/// Phrases, divided by semicolons, and sentences among them.
pub(super) fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.fold(String::new(), |mut all, part| {
        if !all.is_empty() {
            all.push_str(if all.ends_with('.') { " " } else { "; " });
        }
        all.push_str(&part);
        all
    })
}

/// A predicate as it is written, for people: parameters and facts by name.
pub(super) fn words(predicate: &Predicate) -> String {
    match predicate {
        Predicate::AtLeast(one) => format!("at least {}", term(one)),
        Predicate::AtMost(one) => format!("at most {}", term(one)),
        Predicate::Equals(one) => term(one),
        Predicate::Includes(one) => format!("includes {}", term(one)),
        Predicate::Range(ends) => format!("{} to {}", term(&ends[0]), term(&ends[1])),
        Predicate::OneOf(terms) => terms.iter().map(term).collect::<Vec<_>>().join(" or "),
    }
}

pub(super) fn term(term: &Term) -> String {
    match &term.literal {
        Literal::Value(value) => value.to_string(),
        Literal::Parameter(name) => format!("the parameter {name}"),
        Literal::Fact(id) => id.clone(),
    }
}
