//! A parsed TOML file as a tree with places: the one form that everything above reads.
//!
//! Files of users are parsed at run time. Embedded files are parsed by `build.rs`, since parsing 70 KB of TOML costs as much as
//! spawning a process: it writes the trees of profiles as constants, and of files of checks the checks themselves. A test
//! proves that both give the same tree.

use std::borrow::Cow;
use std::ops::Range;
use std::panic::resume_unwind;
use std::thread;

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

    /// The text, borrowed from the binary where the file is a part of it.
    pub fn as_shared_text(&self) -> Option<Cow<'static, str>> {
        match &self.kind {
            Kind::Text(text) => Some(text.clone()),
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
    parse_with(text, |part| Cow::Owned(part.into_owned()))
}

/// [`parse`] of a text that stays for as long as the process runs: the tree borrows from it. A file of ten thousand checks
/// has a quarter of a million keys and texts.
pub fn parse_staying(text: &'static str) -> (Node, Vec<SyntaxError>) {
    parse_with(text, |part| part)
}

/// Keeps a part of the text, decoded where it has escapes.
type Keep<'a> = fn(Cow<'a, str>) -> Cow<'static, str>;

fn parse_with<'a>(text: &'a str, keep: Keep<'a>) -> (Node, Vec<SyntaxError>) {
    if let Some(node) = parse_in_parts(text, keep) {
        return (node, Vec::new());
    }
    let part = Part { keep, offset: 0 };
    if let Ok(table) = DeTable::parse(text) {
        (part.table(table.span(), table.into_inner()), Vec::new())
    } else {
        let (table, errors) = DeTable::parse_recoverable(text);
        let errors = errors
            .into_iter()
            .map(|error| SyntaxError {
                message: error.message().replace('\n', ", "),
                span: error.span().unwrap_or(0..0),
            })
            .collect();
        (part.table(table.span(), table.into_inner()), errors)
    }
}

/// What a large file is taken apart at: the header of its many checks, on a line of its own.
const HEADER: &str = "\n[[check]]\n";

/// How much of a large file is parsed at once. The parser's own tables take ten times the room of the text.
const PART_BYTES: usize = 64 * 1024;

/// Parses a large file piece by piece; `None` where it has to be parsed as a whole. It has to unless the first piece is
/// sound and has no `check`, and every other one is sound and has nothing else: then each header begins another element of
/// the same list, and what follows it belongs to that element. A header that stands inside a text or a list leaves the
/// piece before it open, which is unsound.
fn parse_in_parts<'a>(text: &'a str, keep: Keep<'a>) -> Option<Node> {
    if text.len() < 2 * PART_BYTES {
        return None;
    }
    let mut start = text.find(HEADER)? + 1;
    let part = Part { keep, offset: 0 };
    let head = DeTable::parse(&text[..start]).ok()?;
    let Node { start: first, end: last, kind: Kind::Table(head) } = part.table(head.span(), head.into_inner()) else {
        return None;
    };
    let mut entries = head.into_owned();
    if entries.iter().any(|entry| entry.key == LIST) {
        return None;
    }
    let mut pieces = Vec::new();
    while start < text.len() {
        let enough = text.ceil_char_boundary(start + PART_BYTES);
        // The line break before a header ends the piece before it.
        let end = text[enough..].find(HEADER).map_or(text.len(), |at| enough + at + 1);
        pieces.push(start..end);
        start = end;
    }
    let (one, other) = pieces.split_at(pieces.len() / 2);
    let (other, one) = beside(|| parse_pieces(text, other, keep), || parse_pieces(text, one, keep));
    let (one, other) = (one?, other?);
    let (mut list, items) = match (one, other) {
        (Some((list, mut items)), Some((_, more))) => {
            items.extend(more);
            (list, items)
        }
        (Some(all), None) | (None, Some(all)) => all,
        (None, None) => return None,
    };
    list.node.kind = Kind::Array(Cow::Owned(items));
    entries.push(list);
    Some(Node { start: first, end: last, kind: Kind::Table(Cow::Owned(entries)) })
}

/// The list of the first piece, emptied, and the elements that all of them add to it.
type Pieces = Option<(Entry, Vec<Node>)>;

/// The outer `None`: a piece is not sound, or has something else.
fn parse_pieces<'a>(text: &'a str, pieces: &[Range<usize>], keep: Keep<'a>) -> Option<Pieces> {
    let mut list: Pieces = None;
    for piece in pieces {
        let part = Part { keep, offset: piece.start };
        let table = DeTable::parse(&text[piece.clone()]).ok()?;
        let Node { kind: Kind::Table(table), .. } = part.table(table.span(), table.into_inner()) else { return None };
        let [mut entry] = <[Entry; 1]>::try_from(table.into_owned()).ok().filter(|[entry]| entry.key == LIST)?;
        let Kind::Array(more) = std::mem::replace(&mut entry.node.kind, Kind::Boolean(false)) else { return None };
        list.get_or_insert((entry, Vec::new())).1.extend(more.into_owned());
    }
    Some(list)
}

/// Runs `aside` on a thread of its own while `here` runs on this one; where no thread is to be had, one after the other.
fn beside<A: Send, B>(aside: impl Fn() -> A + Sync, here: impl FnOnce() -> B) -> (A, B) {
    let aside = &aside;
    thread::scope(|scope| match thread::Builder::new().name("parse".into()).spawn_scoped(scope, aside) {
        Ok(running) => {
            let done = here();
            (running.join().unwrap_or_else(|panic| resume_unwind(panic)), done)
        }
        Err(_) => (aside(), here()),
    })
}

/// The list that [`HEADER`] adds to.
const LIST: &str = "check";

/// How a piece of a file becomes a tree.
struct Part<'a> {
    keep: Keep<'a>,
    /// Where it begins in the file.
    offset: usize,
}

impl<'a> Part<'a> {
    /// Takes the parser's table apart as it goes: both trees of a large file at once would be twice the memory.
    fn table(&self, span: Range<usize>, table: DeTable<'a>) -> Node {
        let entries = table.into_iter().map(|(key, value)| {
            let (start, end) = self.place(key.span());
            Entry { key: (self.keep)(key.into_inner()), start, end, node: self.value(value) }
        });
        let mut entries: Vec<Entry> = entries.collect();
        // In the order of the file, whatever the map's order is.
        entries.sort_by_key(|entry| entry.start);
        let (start, end) = self.place(span);
        Node { start, end, kind: Kind::Table(Cow::Owned(entries)) }
    }

    fn value(&self, value: Spanned<DeValue<'a>>) -> Node {
        let span = value.span();
        let (start, end) = self.place(span.clone());
        let kind = match value.into_inner() {
            DeValue::Table(table) => return self.table(span, table),
            DeValue::Array(items) => Kind::Array(Cow::Owned(items.into_iter().map(|item| self.value(item)).collect())),
            DeValue::String(text) => Kind::Text((self.keep)(text)),
            DeValue::Boolean(flag) => Kind::Boolean(flag),
            DeValue::Integer(number) => {
                Kind::Integer(i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok())
            }
            DeValue::Float(number) => Kind::Other(Cow::Owned(number.as_str().to_owned())),
            DeValue::Datetime(date) => Kind::Other(Cow::Owned(date.to_string())),
        };
        Node { start, end, kind }
    }

    fn place(&self, span: Range<usize>) -> (u32, u32) {
        (offset(self.offset + span.start), offset(self.offset + span.end))
    }
}

/// Files of the catalogue are far below 4 GiB; in a longer one a mistake would be shown at a wrong place.
fn offset(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> Node {
        let part = Part { keep: |part| Cow::Owned(part.into_owned()), offset: 0 };
        let table = DeTable::parse(text).unwrap();
        part.table(table.span(), table.into_inner())
    }

    /// A text long enough to be taken apart, with `middle` somewhere inside.
    fn long(head: &str, middle: &str) -> String {
        let check =
            |index: usize| format!("[[check]]\nid = \"a.b-{index}\"\nwhy = \"ü\"\npass = {{ equals = {index} }}\n");
        let half: String = (0..1500).map(check).collect();
        format!("name = \"x\"\n{head}{half}{middle}{half}")
    }

    #[test]
    fn a_large_file_in_pieces_is_the_same_as_in_one() {
        for (head, middle) in [
            ("", ""),
            ("", "[[check.case]]\nnote = \"x\"\n[check.more]\na.b = 1\n"),
            ("# [[check]]\n\u{fc} = 1\n[set]\na = 1\n", "\r\n[[check]]\r\nid = \"x\"\n"),
        ] {
            let text = long(&head.replace('\u{fc}', "\"\u{fc}\""), middle);
            let node = parse_in_parts(&text, |part| Cow::Owned(part.into_owned()));
            assert_eq!(node.unwrap(), whole(&text), "{head:?} {middle:?}");
        }
    }

    /// Seen failing without the look at the first piece, and without that at what another one holds.
    #[test]
    fn what_pieces_cannot_tell_is_parsed_as_a_whole() {
        for (head, middle, is_sound) in [
            ("check = []\n", "", false),
            ("[check]\na = 1\n", "", false),
            ("check.a = 1\n", "", false),
            ("", "[set]\na = 1\n", true),
            ("[set]\na = 1\n", "[set]\nb = 1\n", false),
            ("", "[[check]]\nwhy = \"\"\"\n[[check]]\n\"\"\"\n", true),
            ("", "size = 1\n", true),
            ("", "no toml\n", false),
        ] {
            let text = long(head, middle);
            let (node, errors) = parse(&text);
            assert_eq!(errors.is_empty(), is_sound, "{head:?} {middle:?}: {errors:?}");
            if is_sound {
                assert_eq!(node, whole(&text), "{head:?} {middle:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn any_middle_is_read_as_in_one(middle in "(\\[\\[check\\]\\]\n|\\[set\\]\n|a = |\"\"\"|\n|x|1|\\[|\\]|'){0,12}\n") {
            let text = long("", &middle);
            if DeTable::parse(&text).is_ok() {
                prop_assert_eq!(parse(&text), (whole(&text), Vec::new()));
            } else {
                prop_assert!(!parse(&text).1.is_empty());
            }
        }
    }
}
