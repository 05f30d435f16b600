//! Writes the embedded TOML files as constants, so that a run reads none of them: the files of checks as checks, read and
//! proved sound by the reader of the program itself, profiles as trees.

#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "a build script reads the files that it embeds")]

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use catalog::check::{self, Case, Check, Condition, Tune};
use catalog::diagnostic::{Diagnostics, Place, Source};
use catalog::predicate::{Literal, Predicate, Term};
use catalog::reader::Text;
use catalog::tree::{self, Node};
use facts::Value;

// The program's own reader, as far as checks need it.
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the build script uses a part of it")]
#[path = "src"]
mod program {
    pub mod catalog {
        pub mod check;
        pub mod day;
        pub mod diagnostic;
        pub mod kept;
        pub mod predicate;
        pub mod reader;
        pub mod tree;
    }
    pub mod facts {
        pub mod compare;
        pub mod registry;
        pub mod value;
        pub mod version;

        pub use value::{Kind, Value};
    }
}
use program::{catalog, facts};

/// In the order in which they are embedded: a place names its file by its index (`src/catalog/embedded.rs`).
const CHECKS: [&str; 8] = ["host", "docker", "ports", "firewall", "resources", "kernel", "limits", "time"];

fn main() {
    let target = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let write =
        |name: &str, text: &str| fs::write(Path::new(&target).join(name), text).expect("OUT_DIR can be written");
    write("checks.rs", &checks());
    write("trees.rs", &trees());
}

fn checks() -> String {
    let mut out = Constants::default();
    let mut diagnostics = Diagnostics::default();
    let mut listed = CHECKS.map(|name| format!("{name}.toml"));
    listed.sort_unstable();
    assert_eq!(names("checks"), listed, "the files of checks/ are not those of CHECKS in build.rs");
    for name in CHECKS {
        let path = format!("checks/{name}.toml");
        let text = fs::read_to_string(&path).expect("an embedded file");
        let (source, tree) = diagnostics.open(Source::file(path.as_str(), text));
        let mut checks = Vec::new();
        check::read_file(source, &tree, &mut diagnostics, &mut checks);
        let checks: Vec<String> = checks.iter().map(|check| out.check(check)).collect();
        let (name, count) = (name_of(&path), checks.len());
        out.line(&format!("pub(super) static {name}: [Check; {count}] = [{}];", checks.join(",")));
    }
    let mistakes: Vec<String> = diagnostics.list.iter().map(|one| diagnostics.line(one)).collect();
    assert!(mistakes.is_empty(), "the embedded checks are not sound\n{}", mistakes.join("\n"));
    out.text
}

fn trees() -> String {
    let mut out = Constants::default();
    for folder in ["profiles", "profiles/os"] {
        for name in names(folder) {
            let path = format!("{folder}/{name}");
            let text = fs::read_to_string(&path).expect("an embedded file");
            let (root, errors) = tree::parse(&text);
            assert!(errors.is_empty(), "{path}: {errors:?}");
            let root = out.node(&root);
            out.line(&format!("pub(super) static {}: Node = {root};", name_of(&path)));
        }
    }
    out.text
}

/// The TOML files of a folder, in an order of their own, so that the same files give the same constants.
fn names(folder: &str) -> Vec<String> {
    println!("cargo::rerun-if-changed={folder}");
    let entries = fs::read_dir(folder).expect("the folder of embedded files");
    let names = entries.filter_map(|entry| entry.expect("an entry").file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "toml")).collect();
    names.sort_unstable();
    names
}

/// `CHECKS_HOST` for `checks/host.toml`.
fn name_of(path: &str) -> String {
    path.trim_end_matches(".toml").replace(['/', '-', '.'], "_").to_uppercase()
}

/// The statics written so far. Every method writes those that a value refers to and returns the expression of the value
/// itself, with the names that `src/catalog/embedded.rs` gives. Every list is a static of its own: a reference to a
/// temporary with a destructor would not live long enough.
#[derive(Default)]
struct Constants {
    text: String,
    count: usize,
}

impl Constants {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").expect("a String takes all");
    }

    /// Writes a static and returns its name.
    fn constant(&mut self, of: &str, value: &str) -> String {
        self.count += 1;
        let name = format!("C{}", self.count);
        self.line(&format!("static {name}: {of} = {value};"));
        name
    }

    fn list<T>(&mut self, of: &str, items: &[T], one: impl Fn(&mut Self, &T) -> String) -> String {
        if items.is_empty() {
            return "Kept::Constant(&[])".to_owned();
        }
        let items: Vec<String> = items.iter().map(|item| one(self, item)).collect();
        let name = self.constant(&format!("[{of}; {}]", items.len()), &format!("[{}]", items.join(",")));
        format!("Kept::Constant(&{name})")
    }

    fn check(&mut self, check: &Check) -> String {
        // Every field by its name, so that a new one is not forgotten.
        let Check {
            id,
            section,
            title,
            fact,
            kind,
            pass,
            warn,
            severity,
            why,
            fix,
            remedy,
            impact,
            sources,
            dated,
            needs,
            absent,
            when,
            for_each,
            tune,
            nominal,
            cases,
            place,
        } = check;
        let fields = [
            ("id", text(id)),
            ("section", text(section)),
            ("title", text(title)),
            ("fact", text(fact)),
            ("kind", format!("Kind::{kind:?}")),
            ("pass", option(pass.as_ref(), |pass| self.predicate(pass))),
            ("warn", option(warn.as_ref(), |warn| self.predicate(warn))),
            ("severity", format!("Severity::{severity:?}")),
            ("why", text(why)),
            ("fix", text(fix)),
            ("remedy", option(remedy.as_ref(), text)),
            ("impact", option(impact.as_ref(), text)),
            ("sources", self.list("Text", sources, |_, source| text(source))),
            ("dated", text(dated)),
            (
                "needs",
                self.list("Placed<Text>", needs, |_, need| {
                    format!("Placed{{value:{},place:{}}}", text(&need.value), at(&need.place))
                }),
            ),
            ("absent", format!("Absent::{absent:?}")),
            ("when", self.conditions(when)),
            ("for_each", option(for_each.as_ref(), text)),
            ("tune", option(tune.as_ref(), |tune| self.tune(tune))),
            ("nominal", nominal.to_string()),
            ("cases", self.list("Case", cases, Self::case)),
            ("place", at(place)),
        ];
        structure("Check", &fields)
    }

    fn case(&mut self, case: &Case) -> String {
        let Case { when, pass, warn, severity, note, fix, remedy } = case;
        let fields = [
            ("when", self.conditions(when)),
            ("pass", option(pass.as_ref(), |pass| self.predicate(pass))),
            ("warn", option(warn.as_ref(), |warn| self.predicate(warn))),
            ("severity", option(severity.as_ref(), |severity| format!("Severity::{severity:?}"))),
            ("note", option(note.as_ref(), text)),
            ("fix", option(fix.as_ref(), text)),
            ("remedy", option(remedy.as_ref(), text)),
        ];
        structure("Case", &fields)
    }

    fn conditions(&mut self, conditions: &[Condition]) -> String {
        self.list("Condition", conditions, |out, condition| {
            let Condition { fact, predicate, place } = condition;
            let fields = [("fact", text(fact)), ("predicate", out.predicate(predicate)), ("place", at(place))];
            structure("Condition", &fields)
        })
    }

    fn tune(&mut self, tune: &Tune) -> String {
        let Tune { to, accept, place } = tune;
        let accept = option(accept.as_ref(), |accept| self.predicate(accept));
        let tune = structure("Tune", &[("to", self.term(to)), ("accept", accept), ("place", at(place))]);
        format!("Kept::Constant(&{})", self.constant("Tune", &tune))
    }

    fn predicate(&mut self, predicate: &Predicate) -> String {
        match predicate {
            Predicate::AtLeast(term) => format!("Predicate::AtLeast({})", self.term(term)),
            Predicate::AtMost(term) => format!("Predicate::AtMost({})", self.term(term)),
            Predicate::Equals(term) => format!("Predicate::Equals({})", self.term(term)),
            Predicate::Includes(term) => format!("Predicate::Includes({})", self.term(term)),
            Predicate::OneOf(terms) => format!("Predicate::OneOf({})", self.list("Term", terms, Self::term)),
            Predicate::Range(ends) => format!("Predicate::Range({})", self.list("Term", &ends[..], Self::term)),
        }
    }

    fn term(&mut self, term: &Term) -> String {
        let Term { literal, place } = term;
        let literal = match literal {
            Literal::Value(value) => format!("Literal::Value({})", self.value(value)),
            Literal::Parameter(name) => format!("Literal::Parameter({})", text(name)),
            Literal::Fact(id) => format!("Literal::Fact({})", text(id)),
        };
        structure("Term", &[("literal", literal), ("place", at(place))])
    }

    fn value(&mut self, value: &Value) -> String {
        let constant = match value {
            Value::Bool(flag) => format!("Value::Bool({flag})"),
            Value::Int(number) => format!("Value::Int({number})"),
            Value::Percent(share) => format!("Value::Percent({share})"),
            Value::Bytes(bytes) => format!("Value::Bytes({bytes})"),
            Value::Duration(span) => format!("Value::Duration(Duration::from_micros({}))", span.as_micros()),
            // These allocate.
            Value::Text(text) => return self.lazy(&format!("word({text:?})")),
            Value::Version(version) => return self.lazy(&format!("version({:?})", version.to_string())),
            Value::Set(words) => return self.lazy(&format!("set(&{:?})", words.iter().collect::<Vec<_>>())),
        };
        format!("Written::Read({constant})")
    }

    fn lazy(&mut self, value: &str) -> String {
        format!("Written::Embedded(&{})", self.constant("LazyLock<Value>", &format!("LazyLock::new(|| {value})")))
    }

    fn node(&mut self, node: &Node) -> String {
        let kind = match &node.kind {
            tree::Kind::Text(text) => format!("t({:?})", text.as_ref()),
            tree::Kind::Integer(number) => format!("Kind::Integer({number:?})"),
            tree::Kind::Boolean(flag) => format!("Kind::Boolean({flag})"),
            tree::Kind::Other(text) => format!("o({:?})", text.as_ref()),
            tree::Kind::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| self.node(item)).collect();
                format!("a(&{})", self.constant(&format!("[Node; {}]", items.len()), &format!("[{}]", items.join(","))))
            }
            tree::Kind::Table(entries) => {
                let entries: Vec<String> = entries
                    .iter()
                    .map(|entry| {
                        let value = self.node(&entry.node);
                        format!("e({:?},{},{},{value})", entry.key.as_ref(), entry.start, entry.end)
                    })
                    .collect();
                let list = format!("[{}]", entries.join(","));
                format!("b(&{})", self.constant(&format!("[Entry; {}]", entries.len()), &list))
            }
        };
        format!("n({},{},{kind})", node.start, node.end)
    }
}

fn structure(name: &str, fields: &[(&str, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key}:{value}")).collect();
    format!("{name}{{{}}}", fields.join(","))
}

fn text(text: &Text) -> String {
    format!("t({:?})", text.as_ref())
}

fn option<T>(value: Option<T>, one: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "None".to_owned(), |value| format!("Some({})", one(value)))
}

fn at(place: &Place) -> String {
    format!("p({},{},{})", place.source, place.span.start, place.span.end)
}
