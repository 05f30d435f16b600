//! The order of the rooms, held: imports go down the list, never up, and a subject imports only earlier subjects.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};

use super::support::repository;

/// From the lowest to the highest. What is above imports what is below.
const ROOMS: [&str; 9] = ["exit", "host", "facts", "catalog", "report", "judge", "change", "apply", "drift"];

/// The room above all subjects.
const TOP: [&str; 2] = ["cluster", "cli"];

/// Imports that still go up, as `room -> room`. Only to be made shorter; one that is gone must go from here, too.
const LEFT: [&str; 0] = [];

/// The subjects and the files beside them, in the order in which `src/subjects/mod.rs` names them: their rank.
fn subjects() -> Vec<String> {
    let text = fs::read_to_string(repository().join("src/subjects/mod.rs")).unwrap();
    let file = syn::parse_file(&text).unwrap();
    let modules = file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) => Some(format!("subjects/{}", module.ident)),
        _ => None,
    });
    modules.collect()
}

fn ranks() -> BTreeMap<String, usize> {
    let rooms = ROOMS.iter().map(|room| (*room).to_owned());
    let rooms = rooms.chain(subjects()).chain(TOP.iter().map(|room| (*room).to_owned()));
    rooms.enumerate().map(|(rank, room)| (room, rank)).collect()
}

/// The room of a path below the crate, such as `subjects::docker::client`.
fn room(path: &[String]) -> Option<String> {
    match path {
        [first, second, ..] if first == "subjects" => Some(format!("subjects/{second}")),
        [first, ..] => Some(first.clone()),
        [] => None,
    }
}

/// Collects every path of a file that begins at the crate, or leaves its module by `super`.
struct Paths {
    module: Vec<String>,
    found: Vec<Vec<String>>,
}

impl Paths {
    fn add(&mut self, mut path: Vec<String>) {
        let mut base = match path.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("self" | "super") => self.module.clone(),
            _ => return,
        };
        if path[0] == "super" {
            while path.first().is_some_and(|word| word == "super") {
                base.pop();
                path.remove(0);
            }
        } else {
            path.remove(0);
        }
        base.extend(path);
        self.found.push(base);
    }

    fn tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |word: &syn::Ident| [before, &[word.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(with(&name.ident)),
            syn::UseTree::Rename(rename) => self.add(with(&rename.ident)),
            syn::UseTree::Glob(_) => self.add(before.to_vec()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(before, item)),
        }
    }

    /// Paths in the arguments of macros, which are only tokens.
    fn tokens(&mut self, tokens: proc_macro2::TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                proc_macro2::TokenTree::Ident(word) if path.is_empty() || colons == 2 => {
                    path.push(word.to_string());
                    colons = 0;
                }
                proc_macro2::TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
                other => {
                    self.add(std::mem::take(&mut path));
                    colons = 0;
                    match other {
                        proc_macro2::TokenTree::Group(group) => self.tokens(group.stream()),
                        proc_macro2::TokenTree::Ident(word) => path.push(word.to_string()),
                        _ => {}
                    }
                }
            }
        }
        self.add(path);
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string().contains("test"))
    })
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if is_for_tests(&module.attrs) {
            return;
        }
        self.module.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.tree(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
    }
}

/// Every file of the program, with the module that it is.
fn files(folder: &Path, module: &[String], found: &mut Vec<(String, Vec<String>)>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            files(&entry.path(), &[module, &[name]].concat(), found);
        } else if let Some(stem) = name.strip_suffix(".rs") {
            let is_test = stem == "tests" || stem.ends_with("_tests");
            let is_top = module.is_empty() && ["lib", "main"].contains(&stem);
            let own: &[String] = if stem == "mod" { &[] } else { &[stem.to_owned()] };
            // What only tests have: an imitated machine.
            let is_imitation = module == ["apply"] && stem == "world";
            if !is_test && !is_top && !is_imitation {
                let path = entry.path().display().to_string();
                found.push((path, [module, own].concat()));
            }
        }
    }
}

/// The imports that go up, as `from -> to`, with the files that have them.
fn upward() -> BTreeMap<String, BTreeSet<String>> {
    let ranks = ranks();
    let mut all = Vec::new();
    files(&repository().join("src"), &[], &mut all);
    assert!(all.len() > 150, "only {} files", all.len());
    let mut wrong: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut looked_at = 0;
    for (file, module) in all {
        let text = fs::read_to_string(&file).unwrap();
        let mut paths = Paths { module: module.clone(), found: Vec::new() };
        paths.visit_file(&syn::parse_file(&text).unwrap_or_else(|error| panic!("{file}: {error}")));
        let Some(own) = room(&module) else { continue };
        for to in paths.found.iter().filter_map(|path| room(path)).filter(|to| *to != own) {
            looked_at += 1;
            let (Some(mine), Some(theirs)) = (ranks.get(&own), ranks.get(&to)) else {
                // `src/subjects/mod.rs` itself holds no code.
                panic!("{file}: the room `{own}` or `{to}` has no rank: name it in tests/cli/house.rs");
            };
            if theirs > mine {
                let file = file.rsplit_once("/src/").map_or(file.as_str(), |(_, rest)| rest).to_owned();
                wrong.entry(format!("{own} -> {to}")).or_default().insert(file);
            }
        }
    }
    assert!(looked_at > 500, "only {looked_at} imports were found");
    wrong
}

/// Seen failing with the sixteen imports that went up when the rooms were made.
#[test]
fn imports_go_down_the_list_of_rooms() {
    let wrong = upward();
    let left: BTreeSet<String> = LEFT.iter().map(|edge| (*edge).to_owned()).collect();
    let new: Vec<String> = wrong
        .iter()
        .filter(|(edge, _)| !left.contains(*edge))
        .map(|(edge, files)| format!("{edge}: {}", files.iter().cloned().collect::<Vec<_>>().join(", ")))
        .collect();
    assert!(new.is_empty(), "imports that go up:\n{}", new.join("\n"));
    let gone: Vec<&String> = left.iter().filter(|edge| !wrong.contains_key(*edge)).collect();
    assert!(gone.is_empty(), "no longer there, so take them out of LEFT: {gone:?}");
}
