//! A parsed TOML file as a tree with places: the one form that everything above reads.
//!
//! Files of users are parsed at run time. Embedded files are parsed by `build.rs`, which writes their trees as constants,
//! since parsing 70 KB of TOML costs as much as spawning a process. A test proves that both give the same tree.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What stands at a place.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Text(Cow<'static, str>),
    /// A whole number; `None` when it does not fit into 64 bits.
    Integer(Option<i64>),
    Boolean(bool),
    Array(Cow<'static, [Node]>),
    Table(Cow<'static, [Entry]>),
    /// A fraction or a date: nothing in the catalogue takes one. As written.
    Other(Cow<'static, str>),
}

/// A value with its place: byte offsets into the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub start: u32,
    pub end: u32,
    pub kind: Kind,
}

/// A key with its place, and the value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: Cow<'static, str>,
    pub start: u32,
    pub end: u32,
    pub node: Node,
}

impl Node {
    pub fn span(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&[Self]> {
        match &self.kind {
            Kind::Array(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_table(&self) -> Option<&[Entry]> {
        match &self.kind {
            Kind::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a key of a table.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_table()?.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// What it is, for messages.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Text(_) => "text",
            Kind::Integer(_) => "a whole number",
            Kind::Boolean(_) => "true or false",
            Kind::Array(_) => "a list",
            Kind::Table(_) => "a table",
            Kind::Other(_) => "a fraction or a date",
        }
    }
}

impl Entry {
    pub fn span(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A syntax error: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    pub message: String,
    pub span: Range<usize>,
}

/// Parses TOML. On errors, what could be read is still returned, so that other mistakes show too.
pub fn parse(text: &str) -> (Node, Vec<SyntaxError>) {
    if let Ok(table) = DeTable::parse(text) {
        (of_table(table.span(), table.get_ref()), Vec::new())
    } else {
        let (table, errors) = DeTable::parse_recoverable(text);
        let errors = errors
            .into_iter()
            .map(|error| SyntaxError {
                message: error.message().replace('\n', ", "),
                span: error.span().unwrap_or(0..0),
            })
            .collect();
        (of_table(table.span(), table.get_ref()), errors)
    }
}

fn of_table(span: Range<usize>, table: &DeTable<'_>) -> Node {
    let entries = table.iter().map(|(key, value)| {
        let (start, end) = offsets(key.span());
        Entry { key: Cow::Owned(key.get_ref().to_string()), start, end, node: of(value) }
    });
    let mut entries: Vec<Entry> = entries.collect();
    // In the order of the file, whatever the map's order is.
    entries.sort_by_key(|entry| entry.start);
    let (start, end) = offsets(span);
    Node { start, end, kind: Kind::Table(Cow::Owned(entries)) }
}

fn of(value: &Spanned<DeValue<'_>>) -> Node {
    let kind = match value.get_ref() {
        DeValue::Table(table) => return of_table(value.span(), table),
        DeValue::Array(items) => Kind::Array(Cow::Owned(items.iter().map(of).collect())),
        DeValue::String(text) => Kind::Text(Cow::Owned(text.to_string())),
        DeValue::Boolean(flag) => Kind::Boolean(*flag),
        DeValue::Integer(number) => {
            Kind::Integer(i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok())
        }
        DeValue::Float(number) => Kind::Other(Cow::Owned(number.as_str().to_owned())),
        DeValue::Datetime(date) => Kind::Other(Cow::Owned(date.to_string())),
    };
    let (start, end) = offsets(value.span());
    Node { start, end, kind }
}

/// Files of the catalogue are far below 4 GiB; in a longer one a mistake would be shown at a wrong place.
fn offsets(span: Range<usize>) -> (u32, u32) {
    let clip = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
    (clip(span.start), clip(span.end))
}
