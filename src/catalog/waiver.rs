//! Waivers: accepted findings, each with an owner, a reason and a last day. The real result stays visible.

use std::collections::HashMap;

use super::day::is_day;
use super::diagnostic::{Code, Diagnostics, Place, suggest};
use super::glob;
use super::reader::Fields;
use super::tree::Node;

/// One accepted finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiver {
    /// The id of the finding or its check. No globs: what is accepted is accepted by name.
    pub id: String,
    pub owner: String,
    pub reason: String,
    /// The last day it holds, `YYYY-MM-DD`.
    pub expires: String,
    pub place: Place,
}

/// Reads `[[waiver]]` entries.
pub fn read_file(source: usize, tree: &Node, d: &mut Diagnostics) -> Vec<Waiver> {
    let mut fields = Fields::new(tree.as_table().unwrap_or_default(), "file of waivers", Place { source, span: 0..1 });
    let waivers: Vec<Waiver> = fields.tables("waiver", d).into_iter().map(|entry| read(entry, d)).collect();
    fields.finish(d);
    duplicates(&waivers, d);
    waivers
}

/// Two waivers of one finding: which of the two days and reasons would hold?
fn duplicates(waivers: &[Waiver], d: &mut Diagnostics) {
    let mut seen: HashMap<&str, &Waiver> = HashMap::new();
    for waiver in waivers {
        if let Some(first) = seen.insert(&waiver.id, waiver) {
            let hint = format!("the first is at {}", d.locate(&first.place));
            d.report(Code::DuplicateId, waiver.place.clone(), format!("`{}` is waived twice", waiver.id)).hint =
                Some(hint);
        }
    }
}

fn read(mut fields: Fields<'_>, d: &mut Diagnostics) -> Waiver {
    let id = fields.required_text("id", d);
    let owner = fields.required_text("owner", d).value;
    let reason = fields.required_text("reason", d).value;
    let expires = fields.required_text("expires", d);
    if !expires.value.is_empty() && !is_day(&expires.value) {
        let message = format!("`{}` is not a day like 2026-11-22", expires.value);
        d.report(Code::BadWaiver, expires.place.clone(), message);
    }
    if id.value.contains(['*', '?']) {
        d.report(Code::BadWaiver, id.place.clone(), "a waiver names one finding: no globs");
    }
    fields.finish(d);
    Waiver { id: id.value, owner, reason, expires: expires.value, place: id.place }
}

/// A waiver for an id that no check has would be dead, or worse, a typing mistake.
pub fn check_ids<'a>(waivers: &[Waiver], ids: &(impl Iterator<Item = &'a str> + Clone), d: &mut Diagnostics) {
    for waiver in waivers {
        let known = ids.clone().any(|id| waiver.id == id || glob::matches(&format!("{id}.*"), &waiver.id));
        if !known {
            let near = suggest(&waiver.id, ids.clone()).map(|near| format!("did you mean `{near}`?"));
            let message = format!("no check of the profile has the id `{}`", waiver.id);
            d.report(Code::UnknownCheck, waiver.place.clone(), message).hint = near;
        }
    }
}
