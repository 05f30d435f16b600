//! What is wrong with a file that somebody wrote: a stable code, a place, and what to write instead.
//!
//! Diagnostics are values about user input and are collected, so that one run shows all of them. Errors of the machine
//! are another thing and never end up here.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::tree::{self, Node};

/// A file of the catalogue: an embedded one, one from `/etc/preflight`, or one given on the command line.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// As the user knows it: a path, or `embedded:checks/kernel.toml`.
    pub path: String,
    /// That of an embedded file stays where it is, in the binary.
    pub text: Cow<'static, str>,
}

impl Source {
    pub fn file(path: impl Into<String>, text: impl Into<Cow<'static, str>>) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}

/// A place in a source, by its index in [`Diagnostics::sources`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub source: usize,
    pub span: Range<usize>,
}

macro_rules! codes {
    ($($variant:ident $code:literal $about:literal;)*) => {
        /// The kinds of mistakes, each with a code that is never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $about] $variant),* }

        impl Code {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable, kebab-case code.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $code),* }
            }

            /// One sentence on what the code means.
            pub fn about(self) -> &'static str {
                match self { $(Self::$variant => $about),* }
            }
        }
    };
}

codes! {
    Syntax "syntax" "the file is not TOML";
    UnknownKey "unknown-key" "a key that preflight does not know";
    MissingKey "missing-key" "a key that must be there";
    WrongType "wrong-type" "a value of another type than the key takes";
    WrongUnit "wrong-unit" "a value without its unit, or with the unit of something else";
    UnknownFact "unknown-fact" "no probe gathers a fact of that name";
    UnknownParameter "unknown-parameter" "the profile declares no parameter of that name";
    UnknownCheck "unknown-check" "no check has that id";
    UnknownProfile "unknown-profile" "there is no profile of that name";
    UnknownRecipe "unknown-recipe" "no OS profile has commands under that name";
    DuplicateId "duplicate-id" "two entries share an id";
    BadId "bad-id" "an id that is not lower-case words joined by dots and hyphens";
    BadPredicate "bad-predicate" "a predicate that is empty, or more than one in the same table";
    WrongPredicate "wrong-predicate" "a predicate that cannot be asked of this kind of fact";
    EmptyRange "empty-range" "a range whose ends are the wrong way round";
    DeadOverride "dead-override" "an override of a check that the profile does not include";
    DeadInclude "dead-include" "a glob that matches no check";
    DeadWarn "dead-warn" "a warn predicate that can never decide, since pass admits the same values";
    WideAccept "wide-accept" "tune.accept admits a value that pass does not";
    BadTarget "bad-target" "tune.to is a value that pass does not admit";
    NotTunable "not-tunable" "tune on a fact that is no knob";
    OutOfRange "out-of-range" "a parameter outside its range";
    BadPort "bad-port" "not a port or a range of ports";
    ExtendsCycle "extends-cycle" "profiles that extend each other in a circle";
    EmptyProfile "empty-profile" "a profile that includes no check";
    NeedsCycle "needs-cycle" "checks that need each other in a circle";
    BadWaiver "bad-waiver" "a waiver that names no reason, owner or valid day";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub code: Code,
    pub place: Place,
    pub message: String,
    pub hint: Option<String>,
}

/// All mistakes of a load, with the sources they point into.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Diagnostics {
    pub sources: Vec<Source>,
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Registers a file and returns its index.
    pub fn add(&mut self, source: Source) -> usize {
        self.sources.push(source);
        self.sources.len() - 1
    }

    /// Registers a file and parses it; syntax errors are reported.
    pub fn open(&mut self, source: Source) -> (usize, Node) {
        let (node, errors) = tree::parse(&source.text);
        let index = self.add(source);
        for error in errors {
            self.report(Code::Syntax, Place { source: index, span: error.span }, error.message);
        }
        (index, node)
    }

    pub fn report(&mut self, code: Code, place: Place, message: impl Into<String>) -> &mut Diagnostic {
        self.list.push(Diagnostic { code, place, message: message.into(), hint: None });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// Where a profile of the chain is not known, neither are its parameters and checks: that these seem to be missing is
    /// no mistake of its own.
    pub fn forget_consequences(&mut self) {
        use Code::{DeadInclude, DeadOverride, EmptyProfile, UnknownCheck, UnknownParameter, UnknownProfile};
        if self.list.iter().any(|one| one.code == UnknownProfile) {
            let may_be_there = [UnknownParameter, UnknownCheck, DeadOverride, DeadInclude, EmptyProfile];
            self.list.retain(|one| !may_be_there.contains(&one.code));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// `path:line:column` of a place, both counted from 1, the column in characters.
    pub fn locate(&self, place: &Place) -> String {
        let Some(source) = self.sources.get(place.source) else { return String::new() };
        let (line, column) = line_column(&source.text, place.span.start);
        format!("{}:{line}:{column}", source.path)
    }

    /// For machines and for one-line messages: `path:line:column: code: message (hint)`.
    pub fn line(&self, diagnostic: &Diagnostic) -> String {
        let hint = diagnostic.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{}: {}: {}{hint}", self.locate(&diagnostic.place), diagnostic.code, diagnostic.message)
    }
}

/// Line and column of a byte offset, both counted from 1.
fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// The known word nearest to what was written, when it is near enough to be meant.
pub fn suggest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(written, word), word))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_kebab_case() {
        for (index, code) in Code::ALL.iter().enumerate() {
            assert!(Code::ALL[..index].iter().all(|other| other.name() != code.name()), "{code} twice");
            assert!(code.name().chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{code}");
            assert!(!code.about().is_empty());
        }
    }

    #[test]
    fn places_count_lines_and_characters_from_one() {
        assert_eq!(line_column("a\nüb\n", 4), (2, 2));
        assert_eq!(line_column("", 10), (1, 1));
    }
}
