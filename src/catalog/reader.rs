//! Reading a TOML table key by key: types checked, places kept, unknown keys reported with a suggestion.
//!
//! Serde stops at the first mistake and loses places under `flatten` and `untagged`; this walks the parsed table
//! instead, so that one run reports everything that is wrong with a file.

use std::borrow::Cow;
use std::ops::Range;

use super::diagnostic::{Code, Diagnostics, Place, suggest};
use super::tree::{Entry, Kind, Node};

/// A text of a file, borrowed from the binary where the file is a part of it.
pub type Text = Cow<'static, str>;

/// A text with the place it was written at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<T> {
    pub value: T,
    pub place: Place,
}

impl Placed<Text> {
    fn owned(self) -> Placed<String> {
        Placed { value: self.value.into_owned(), place: self.place }
    }
}

/// The keys of one table, taken one after the other.
#[derive(Debug)]
pub struct Fields<'a> {
    table: &'a [Entry],
    /// What the table is, for messages: `check`, `profile`.
    what: &'static str,
    pub place: Place,
    known: Cow<'static, [&'static str]>,
    /// One bit per entry that was taken, for the first 64.
    taken: u64,
    /// The [`mark`]s of all keys.
    marks: u64,
}

/// One of 64 bits for a key. Most keys that are asked for are not there, and most of those have a bit of their own: whether
/// a table has a key is then told without comparing it with all of them.
const fn mark(key: &[u8]) -> u64 {
    let first = if key.is_empty() { 0 } else { key[0] as usize };
    1 << ((first + 7 * key.len()) % 64)
}

/// As many keys as a check has: the list of known ones grows once, and not before the first is asked for.
const USUAL_KEYS: usize = 24;

impl<'a> Fields<'a> {
    pub fn new(table: &'a [Entry], what: &'static str, place: Place) -> Self {
        let marks = table.iter().fold(0, |marks, entry| marks | mark(entry.key.as_bytes()));
        Self { table, what, place, known: Cow::Borrowed(&[]), taken: 0, marks }
    }

    /// The fields of a value that must be a table.
    pub fn of(value: &'a Node, what: &'static str, source: usize, diagnostics: &mut Diagnostics) -> Option<Self> {
        let place = Place { source, span: value.span() };
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
        if self.known.is_empty() {
            self.known = Cow::Owned(Vec::with_capacity(USUAL_KEYS));
        }
        self.known.to_mut().push(key);
        self.find(key)
    }

    /// The keys of a table that holds one of several: the first that is there, with its value, and the names of the others.
    pub fn take_among(
        &mut self,
        keys: &'static [&'static str],
    ) -> (Option<(&'static str, &'a Node)>, Vec<&'static str>) {
        if self.known.is_empty() {
            self.known = Cow::Borrowed(keys);
        } else {
            self.known.to_mut().extend(keys);
        }
        let (mut first, mut others) = (None, Vec::new());
        for key in keys {
            if let Some(value) = self.find(key) {
                match first {
                    None => first = Some((*key, value)),
                    Some(_) => others.push(*key),
                }
            }
        }
        (first, others)
    }

    fn find(&mut self, key: &str) -> Option<&'a Node> {
        if self.marks & mark(key.as_bytes()) == 0 {
            return None;
        }
        // Most keys stand in the order in which they are asked for.
        let is = |at: &usize| self.table.get(*at).is_some_and(|entry| entry.key.len() == key.len() && entry.key == key);
        let next = (u64::BITS - self.taken.leading_zeros()) as usize;
        let at = Some(next).filter(is).or_else(|| (0..self.table.len()).find(is))?;
        self.taken |= u32::try_from(at).ok().and_then(|at| 1_u64.checked_shl(at)).unwrap_or(0);
        Some(&self.table[at].node)
    }

    pub fn text(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<String>> {
        self.prose(key, diagnostics).map(Placed::owned)
    }

    /// A text of some length, which is not copied out of an embedded file.
    pub fn prose(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Placed<Text>> {
        let value = self.take(key)?;
        self.as_prose(key, value, diagnostics)
    }

    fn as_prose(&self, key: &str, value: &Node, diagnostics: &mut Diagnostics) -> Option<Placed<Text>> {
        let place = self.at(value.span());
        if let Some(text) = value.as_shared_text() {
            Some(Placed { value: text, place })
        } else {
            wrong_type(diagnostics, place, key, "text in quotes", value);
            None
        }
    }

    /// A text that must be there and hold something. A missing one is reported at the table.
    pub fn required_text(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Placed<String> {
        self.required_prose(key, diagnostics).owned()
    }

    /// [`Fields::prose`] that must be there and hold something.
    pub fn required_prose(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Placed<Text> {
        let value = self.take(key);
        let nothing = || Placed { value: Text::default(), place: self.place.clone() };
        let Some(value) = value else {
            let what = self.what;
            diagnostics.report(Code::MissingKey, head(&self.place), format!("this {what} has no `{key}`"));
            return nothing();
        };
        match self.as_prose(key, value, diagnostics) {
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
        wrong_type(diagnostics, self.at(value.span()), key, "true or false", value);
        None
    }

    /// A list of texts; a single text is not accepted as a list.
    pub fn texts(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Vec<Placed<String>>> {
        Some(self.proses(key, diagnostics)?.into_iter().map(Placed::owned).collect())
    }

    /// [`Fields::texts`], each of some length.
    pub fn proses(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Vec<Placed<Text>>> {
        let value = self.take(key)?;
        let Some(items) = value.as_array() else {
            wrong_type(diagnostics, self.at(value.span()), key, "a list of texts", value);
            return None;
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            let place = self.at(item.span());
            match item.as_shared_text() {
                Some(text) => texts.push(Placed { value: text, place }),
                None => wrong_type(diagnostics, place, key, "text in quotes", item),
            }
        }
        Some(texts)
    }

    /// The tables of an array of tables (`[[check]]`), or a single inline table.
    pub fn tables(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Vec<Self> {
        let Some(value) = self.take(key) else { return Vec::new() };
        match &value.kind {
            Kind::Table(table) => vec![Fields::new(table, key, self.at(value.span()))],
            Kind::Array(items) => {
                let mut tables = Vec::with_capacity(items.len());
                tables.extend(items.iter().filter_map(|item| Fields::of(item, key, self.source(), diagnostics)));
                tables
            }
            _ => {
                wrong_type(diagnostics, self.at(value.span()), key, "a table or a list of tables", value);
                Vec::new()
            }
        }
    }

    /// All entries of a table whose keys are free names, such as `[set]` and `[remedy]`.
    pub fn entries(&self) -> impl Iterator<Item = (Placed<Text>, &'a Node)> + use<'a> {
        let (source, table) = (self.place.source, self.table);
        table.iter().map(move |entry| {
            let place = Place { source, span: entry.span() };
            (Placed { value: entry.key.clone(), place }, &entry.node)
        })
    }

    /// Reports every key that nobody took.
    pub fn finish(self, diagnostics: &mut Diagnostics) {
        if self.taken.count_ones() as usize == self.table.len() {
            return;
        }
        for entry in self.table {
            let name = entry.key.as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let place = self.at(entry.span());
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
