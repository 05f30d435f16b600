//! The reference pages `docs/checks.md` and `docs/facts.md`, written from the catalogue and the registry. A test asserts
//! that the published pages are these.

use std::fmt::Write as _;

use super::explain;
use crate::catalog::Catalogue;
use crate::catalog::check::{Case, Check, Condition};
use crate::facts::registry::{self, Scope, Spec};

/// Every check of a profile.
pub(super) fn checks(catalogue: &Catalogue) -> String {
    let mut page = format!(
        "# Checks of the profile `{0}`\n\n\
        Written by `preflight generate checks`; do not edit. {1} checks, in the order of a report. How to read them, and how \
        to write your own: [catalogue.md](catalogue.md). What each fact is: [facts.md](facts.md).\n\n\
        A `blocker` or `required` check that fails makes the verdict NOT READY, one that cannot be determined CANNOT TELL; \
        `recommended` ones only warn; `info` never counts.\n",
        catalogue.name,
        catalogue.checks.len(),
    );
    let mut section = "";
    for check in &catalogue.checks {
        if check.section != section {
            section = &check.section;
            line(&mut page, &format!("\n## {section}\n\n| check | severity | what is checked |\n|---|---|---|"));
            for other in catalogue.checks.iter().filter(|other| other.section == section) {
                let anchor = other.id.replace('.', "");
                line(
                    &mut page,
                    &format!("| [`{}`](#{anchor}) | {} | {} |", other.id, other.severity, cell(&other.title)),
                );
            }
        }
        one(&mut page, check);
    }
    page
}

fn one(page: &mut String, check: &Check) {
    line(page, &format!("\n### {}\n\n**{}** ({})\n\n{}\n", check.id, check.title, check.severity, check.why));
    let mut item = |name: &str, text: &str| {
        if !text.is_empty() {
            line(page, &format!("- **{name}**: {text}"));
        }
    };
    item("looks at", &format!("`{}`", check.fact));
    if let Some(list) = &check.for_each {
        item("once for each of", &format!("`{list}`; the finding's id is `{}.` and the element", check.id));
    }
    item("needs", &check.needs.iter().map(|need| format!("`{}`", need.value)).collect::<Vec<_>>().join(", "));
    item("applies when", &conditions(&check.when));
    let nominal = if check.nominal { " (nominal: 93 % of it suffices)" } else { "" };
    item("passes", &check.pass.as_ref().map(|pass| format!("{}{nominal}", explain::words(pass))).unwrap_or_default());
    item("warns", &check.warn.as_ref().map(explain::words).unwrap_or_default());
    item("where there is no such thing", absent(check));
    for case in &check.cases {
        item(&format!("when {}", conditions(&case.when)), &outcome(case));
    }
    if let Some(tune) = &check.tune {
        let accept = tune.accept.as_ref().map(|accept| format!("; {} is left alone", explain::words(accept)));
        item("`preflight tune` sets", &format!("{}{}", explain::term(&tune.to), accept.unwrap_or_default()));
    }
    item("fix", &check.fix);
    item("costs", check.impact.as_deref().unwrap_or_default());
    let dated = if check.dated.is_empty() { String::new() } else { format!(" (as of {})", check.dated) };
    item("sources", &format!("{}{dated}", check.sources.join("; ")));
}

fn absent(check: &Check) -> &'static str {
    use crate::catalog::check::Absent;
    match check.absent {
        Absent::Pass => "passes",
        Absent::Fail => "fails",
        Absent::NotApplicable => "",
    }
}

fn conditions(conditions: &[Condition]) -> String {
    let one = |condition: &Condition| format!("`{}` is {}", condition.fact, explain::words(&condition.predicate));
    conditions.iter().map(one).collect::<Vec<_>>().join(" and ")
}

fn outcome(case: &Case) -> String {
    let parts = [
        case.pass.as_ref().map(|pass| format!("passes: {}", explain::words(pass))),
        case.warn.as_ref().map(|warn| format!("warns: {}", explain::words(warn))),
        case.severity.map(|severity| format!("severity {severity}")),
        case.note.as_deref().map(str::to_owned),
        case.fix.as_ref().map(|fix| format!("Fix: {fix}")),
    ];
    let told = explain::joined(parts.into_iter().flatten());
    if told.is_empty() { "other commands are shown".to_owned() } else { told }
}

/// Every fact of the registry, by family.
pub(super) fn facts() -> String {
    let mut page = format!(
        "# Facts\n\n\
        Written by `preflight generate facts`; do not edit. {} facts and families of facts (`.*`: any name, port or instance \
        stands there). The kind says which literals and predicates fit: [catalogue.md](catalogue.md). \"Decides\" says which \
        layer of the fact a finding is made of.\n",
        registry::FACTS.len(),
    );
    let mut family = "";
    for spec in registry::FACTS {
        let own = spec.id.split('.').next().unwrap_or_default();
        if own != family {
            family = own;
            line(
                &mut page,
                &format!("\n## {family}\n\n| fact | kind | decides | meaning | read from |\n|---|---|---|---|---|"),
            );
        }
        line(&mut page, &row(spec));
    }
    page
}

fn row(spec: &Spec) -> String {
    let decides = match (spec.id, spec.scope) {
        // A setting's scope goes by its name; the registry's entry is that of the host-wide ones.
        ("sysctl.*", _) => "live and boot; `net.*` of a namespace: container, or live and boot with `topology` host",
        (_, Scope::Live) => "live",
        (_, Scope::Host) => "live and boot",
        (_, Scope::Network) => "container, or live and boot with `topology` host",
        (_, Scope::Container) => "container",
    };
    let (about, source) = (cell(spec.about), cell(spec.source));
    format!("| `{}` | {} | {decides} | {about} | {source} |", spec.id, spec.kind.name())
}

/// Text within a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn line(page: &mut String, text: &str) {
    let _ = writeln!(page, "{text}");
}
