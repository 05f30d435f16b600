//! A parsed TOML file as a tree with places: the one form that everything above reads.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What stands at a place.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Text(String),
    /// A whole number; `None` when it does not fit into 64 bits.
    Integer(Option<i64>),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Vec<Entry>),
    /// A fraction or a date: nothing in the catalogue takes one. As written.
    Other(String),
}

/// A value with its place: byte offsets into the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub span: Range<usize>,
    pub kind: Kind,
}

/// A key with its place, and the value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    pub span: Range<usize>,
    pub node: Node,
}

impl Node {
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

/// A syntax error: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    pub message: String,
    pub span: Range<usize>,
}

/// Parses TOML. On errors, what could be read is still returned, so that other mistakes show too.
pub fn parse(text: &str) -> (Node, Vec<SyntaxError>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let errors = errors
        .into_iter()
        .map(|error| SyntaxError { message: error.message().replace('\n', ", "), span: error.span().unwrap_or(0..0) })
        .collect();
    (of_table(table.span(), table.into_inner()), errors)
}

/// Takes the parser's table apart as it goes: both trees of a large file at once would be twice the memory.
fn of_table(span: Range<usize>, table: DeTable<'_>) -> Node {
    let entries = table.into_iter().map(|(key, value)| Entry {
        span: key.span(),
        key: key.into_inner().into_owned(),
        node: of_value(value),
    });
    let mut entries: Vec<Entry> = entries.collect();
    // In the order of the file, whatever the map's order is.
    entries.sort_by_key(|entry| entry.span.start);
    Node { span, kind: Kind::Table(entries) }
}

fn of_value(value: Spanned<DeValue<'_>>) -> Node {
    let span = value.span();
    let kind = match value.into_inner() {
        DeValue::Table(table) => return of_table(span, table),
        DeValue::Array(items) => Kind::Array(items.into_iter().map(of_value).collect()),
        DeValue::String(text) => Kind::Text(text.into_owned()),
        DeValue::Boolean(flag) => Kind::Boolean(flag),
        DeValue::Integer(number) => {
            Kind::Integer(i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok())
        }
        DeValue::Float(number) => Kind::Other(number.as_str().to_owned()),
        DeValue::Datetime(date) => Kind::Other(date.to_string()),
    };
    Node { span, kind }
}
