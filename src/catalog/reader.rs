//! Reading a TOML table key by key: types checked, places kept, unknown keys reported with a suggestion.
//!
//! Serde stops at the first mistake and loses places under `flatten` and `untagged`; this walks the parsed table
//! instead, so that one run reports everything that is wrong with a file.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Code, Diagnostics, Place, suggest};

/// A text with the place it was written at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<T> {
    pub value: T,
    pub place: Place,
}

/// Parses a source. A syntax error is reported; what could be read is still returned, so that other mistakes show too.
pub fn parse<'i>(source: usize, text: &'i str, diagnostics: &mut Diagnostics) -> Spanned<DeTable<'i>> {
    match DeTable::parse(text) {
        Ok(table) => table,
        Err(_) => {
            let (table, errors) = DeTable::parse_recoverable(text);
            for error in errors {
                let span = error.span().unwrap_or(0..0);
                diagnostics.report(Code::Syntax, Place { source, span }, error.message().replace('\n', ", "));
            }
            table
        }
    }
}

/// The keys of one table, taken one after the other.
#[derive(Debug)]
pub struct Fields<'a, 'i> {
    table: &'a DeTable<'i>,
    /// What the table is, for messages: `check`, `profile`.
    what: &'static str,
    pub place: Place,
    known: Vec<&'static str>,
}

impl<'a, 'i> Fields<'a, 'i> {
    pub fn new(table: &'a DeTable<'i>, what: &'static str, place: Place) -> Self {
        Self { table, what, place, known: Vec::new() }
    }

    /// The fields of a value that must be a table.
    pub fn of(
        value: &'a Spanned<DeValue<'i>>,
        what: &'static str,
        source: usize,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let place = Place { source, span: value.span() };
        match value.get_ref().as_table() {
            Some(table) => Some(Self::new(table, what, place)),
            None => {
                wrong_type(diagnostics, place, what, "a table", value.get_ref());
                None
            }
        }
    }

    pub fn source(&self) -> usize {
        self.place.source
    }

    fn at(&self, span: Range<usize>) -> Place {
        Place { source: self.place.source, span }
    }

    /// The raw value of a key.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.known.push(key);
        self.table.get(key)
    }

    pub fn text(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<String>> {
        let value = self.take(key)?;
        let place = self.at(value.span());
        match value.get_ref().as_str() {
            Some(text) => Some(Placed { value: text.to_owned(), place }),
            None => {
                wrong_type(diagnostics, place, key, "text in quotes", value.get_ref());
                None
            }
        }
    }

    /// A text that must be there and hold something. A missing one is reported at the table.
    pub fn required_text(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Placed<String> {
        let place = self.place.clone();
        let nothing = Placed { value: String::new(), place: place.clone() };
        if self.table.get(key).is_none() {
            self.known.push(key);
            let what = self.what;
            diagnostics.report(Code::MissingKey, head(place), format!("this {what} has no `{key}`"));
            return nothing;
        }
        match self.text(key, diagnostics) {
            Some(text) if text.value.trim().is_empty() => {
                diagnostics.report(Code::MissingKey, text.place.clone(), format!("`{key}` is empty"));
                text
            }
            Some(text) => text,
            None => nothing,
        }
    }

    pub fn flag(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<bool> {
        let value = self.take(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            wrong_type(diagnostics, self.at(value.span()), key, "true or false", value.get_ref());
        }
        flag
    }

    /// A list of texts; a single text is not accepted as a list.
    pub fn texts(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Vec<Placed<String>>> {
        let value = self.take(key)?;
        let Some(items) = value.get_ref().as_array() else {
            wrong_type(diagnostics, self.at(value.span()), key, "a list of texts", value.get_ref());
            return None;
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            let place = self.at(item.span());
            match item.get_ref().as_str() {
                Some(text) => texts.push(Placed { value: text.to_owned(), place }),
                None => wrong_type(diagnostics, place, key, "text in quotes", item.get_ref()),
            }
        }
        Some(texts)
    }

    /// The tables of an array of tables (`[[check]]`), or a single inline table.
    pub fn tables(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Vec<Self> {
        let Some(value) = self.take(key) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Table(table) => vec![Fields::new(table, key, self.at(value.span()))],
            DeValue::Array(items) => {
                items.iter().filter_map(|item| Fields::of(item, key, self.source(), diagnostics)).collect()
            }
            other => {
                wrong_type(diagnostics, self.at(value.span()), key, "a table or a list of tables", other);
                Vec::new()
            }
        }
    }

    /// All entries of a table whose keys are free names, such as `[set]` and `[remedy]`.
    pub fn entries(&self) -> impl Iterator<Item = (Placed<String>, &'a Spanned<DeValue<'i>>)> {
        let source = self.place.source;
        self.table.iter().map(move |(key, value)| {
            let place = Place { source, span: key.span() };
            (Placed { value: key.get_ref().to_string(), place }, value)
        })
    }

    /// Reports every key that nobody took.
    pub fn finish(self, diagnostics: &mut Diagnostics) {
        for (key, _) in self.table.iter() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let place = self.at(key.span());
            let near = suggest(name, self.known.iter().copied());
            let diagnostic = diagnostics.report(Code::UnknownKey, place, format!("a {} has no key `{name}`", self.what));
            diagnostic.hint = Some(match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known keys: {}", self.known.join(", ")),
            });
        }
    }
}

/// The first line of a table's place: a caret under a whole `[[check]]` helps nobody.
fn head(place: Place) -> Place {
    let end = place.span.end.min(place.span.start + 1).max(place.span.start);
    Place { span: place.span.start..end, ..place }
}

pub fn wrong_type(diagnostics: &mut Diagnostics, place: Place, key: &str, expected: &str, found: &DeValue<'_>) {
    let found = match found {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    diagnostics.report(Code::WrongType, place, format!("`{key}` takes {expected}, this is {found}"));
}
