//! Reading a TOML table key by key: types checked, places kept, unknown keys reported with a suggestion.
//!
//! Serde stops at the first mistake and loses places under `flatten` and `untagged`; this walks the parsed table
//! instead, so that one run reports everything that is wrong with a file.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::diagnostic::{Code, Diagnostics, Place, suggest};
use super::tree::{Entry, Kind, Node};

/// A text with the place it was written at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed<T> {
    pub value: T,
    pub place: Place,
}

/// The keys of one table, taken one after the other.
#[derive(Debug)]
pub struct Fields<'a> {
    table: &'a [Entry],
    /// What the table is, for messages: `check`, `profile`.
    what: &'static str,
    pub place: Place,
    /// The keys that were asked for, in that order.
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub fn new(table: &'a [Entry], what: &'static str, place: Place) -> Self {
        Self { table, what, place, known: Vec::new() }
    }

    /// The fields of a value that must be a table.
    pub fn of(value: &'a Node, what: &'static str, source: usize, diagnostics: &mut Diagnostics) -> Option<Self> {
        let place = Place { source, span: value.span.clone() };
        if let Some(table) = value.as_table() {
            Some(Self::new(table, what, place))
        } else {
            wrong_type(diagnostics, place, what, "a table", value);
            None
        }
    }

    pub fn source(&self) -> usize {
        self.place.source
    }

    fn at(&self, span: Range<usize>) -> Place {
        Place { source: self.place.source, span }
    }

    /// The raw value of a key.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        self.table.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    pub fn text(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<String>> {
        let value = self.take(key)?;
        self.as_text(key, value, diagnostics)
    }

    fn as_text(&self, key: &str, value: &Node, diagnostics: &mut Diagnostics) -> Option<Placed<String>> {
        let place = self.at(value.span.clone());
        if let Some(text) = value.as_text() {
            Some(Placed { value: text.to_owned(), place })
        } else {
            wrong_type(diagnostics, place, key, "text in quotes", value);
            None
        }
    }

    /// A text that must be there and hold something. A missing one is reported at the table.
    pub fn required_text(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Placed<String> {
        let value = self.take(key);
        let nothing = || Placed { value: String::new(), place: self.place.clone() };
        let Some(value) = value else {
            let what = self.what;
            diagnostics.report(Code::MissingKey, head(&self.place), format!("this {what} has no `{key}`"));
            return nothing();
        };
        match self.as_text(key, value, diagnostics) {
            Some(text) if text.value.trim().is_empty() => {
                diagnostics.report(Code::MissingKey, text.place.clone(), format!("`{key}` is empty"));
                text
            }
            Some(text) => text,
            None => nothing(),
        }
    }

    pub fn flag(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<bool> {
        let value = self.take(key)?;
        if let Kind::Boolean(flag) = value.kind {
            return Some(flag);
        }
        wrong_type(diagnostics, self.at(value.span.clone()), key, "true or false", value);
        None
    }

    /// A list of texts; a single text is not accepted as a list.
    pub fn texts(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Vec<Placed<String>>> {
        let value = self.take(key)?;
        let Some(items) = value.as_array() else {
            wrong_type(diagnostics, self.at(value.span.clone()), key, "a list of texts", value);
            return None;
        };
        let mut texts = Vec::new();
        for item in items {
            let place = self.at(item.span.clone());
            match item.as_text() {
                Some(text) => texts.push(Placed { value: text.to_owned(), place }),
                None => wrong_type(diagnostics, place, key, "text in quotes", item),
            }
        }
        Some(texts)
    }

    /// The tables of an array of tables (`[[check]]`), or a single inline table.
    pub fn tables(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Vec<Self> {
        let Some(value) = self.take(key) else { return Vec::new() };
        match &value.kind {
            Kind::Table(table) => vec![Fields::new(table, key, self.at(value.span.clone()))],
            Kind::Array(items) => {
                items.iter().filter_map(|item| Fields::of(item, key, self.source(), diagnostics)).collect()
            }
            _ => {
                wrong_type(diagnostics, self.at(value.span.clone()), key, "a table or a list of tables", value);
                Vec::new()
            }
        }
    }

    /// All entries of a table whose keys are free names, such as `[set]` and `[remedy]`.
    pub fn entries(&self) -> impl Iterator<Item = (Placed<String>, &'a Node)> + use<'a> {
        let (source, table) = (self.place.source, self.table);
        table.iter().map(move |entry| {
            let place = Place { source, span: entry.span.clone() };
            (Placed { value: entry.key.clone(), place }, &entry.node)
        })
    }

    /// Reports every key that nobody took.
    pub fn finish(self, diagnostics: &mut Diagnostics) {
        for entry in self.table {
            let name = entry.key.as_str();
            if self.known.contains(&name) {
                continue;
            }
            let place = self.at(entry.span.clone());
            let near = suggest(name, self.known.iter().copied());
            let diagnostic =
                diagnostics.report(Code::UnknownKey, place, format!("a {} has no key `{name}`", self.what));
            diagnostic.hint = Some(match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known keys: {}", self.known.join(", ")),
            });
        }
    }
}

/// The first line of a table's place: a caret under a whole `[[check]]` helps nobody.
fn head(place: &Place) -> Place {
    let end = place.span.end.min(place.span.start + 1).max(place.span.start);
    Place { span: place.span.start..end, source: place.source }
}

pub fn wrong_type(diagnostics: &mut Diagnostics, place: Place, key: &str, expected: &str, found: &Node) {
    let message = format!("`{key}` takes {expected}, this is {}", found.type_name());
    diagnostics.report(Code::WrongType, place, message);
}
