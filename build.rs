//! Writes the trees of the embedded TOML files as constants, so that a run parses none of them.

#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "a build script reads the files that it embeds")]

#[allow(dead_code, unreachable_pub, reason = "the build script uses a part of it")]
#[path = "src/catalog/tree.rs"]
mod tree;

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use tree::{Kind, Node};

fn main() {
    let mut out = String::new();
    let mut count = 0;
    for folder in ["checks", "profiles", "profiles/os"] {
        println!("cargo::rerun-if-changed={folder}");
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("the folder of embedded files")
            .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
            .filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "toml"))
            .collect();
        names.sort();
        for name in names {
            let path = format!("{folder}/{name}");
            let text = fs::read_to_string(&path).expect("an embedded file");
            let (root, errors) = tree::parse(&text);
            assert!(errors.is_empty(), "{path}: {errors:?}");
            let constant = path.trim_end_matches(".toml").replace(['/', '-', '.'], "_").to_uppercase();
            let root = node(&root, &mut out, &mut count);
            writeln!(out, "pub(super) static {constant}: Node = {root};").expect("a String takes all");
        }
    }
    println!("cargo::rerun-if-changed=src/catalog/tree.rs");
    let target = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&target).join("trees.rs"), out).expect("OUT_DIR can be written");
}

/// Writes the constants that a node refers to and returns the expression of the node itself. Every list is a static of its
/// own: a reference to a temporary with a destructor would not live long enough.
fn node(node_: &Node, out: &mut String, count: &mut usize) -> String {
    let kind = match &node_.kind {
        Kind::Text(text) => format!("t({:?})", text.as_ref()),
        Kind::Integer(number) => format!("Kind::Integer({number:?})"),
        Kind::Boolean(flag) => format!("Kind::Boolean({flag})"),
        Kind::Other(text) => format!("o({:?})", text.as_ref()),
        Kind::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| node(item, out, count)).collect();
            format!("a(&{})", list("Node", &items, out, count))
        }
        Kind::Table(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|entry| {
                    let value = node(&entry.node, out, count);
                    format!("e({:?},{},{},{value})", entry.key.as_ref(), entry.start, entry.end)
                })
                .collect();
            format!("b(&{})", list("Entry", &entries, out, count))
        }
    };
    format!("n({},{},{kind})", node_.start, node_.end)
}

fn list(of: &str, items: &[String], out: &mut String, count: &mut usize) -> String {
    *count += 1;
    let name = format!("L{count}");
    writeln!(out, "static {name}: [{of}; {}] = [{}];", items.len(), items.join(",")).expect("a String takes all");
    name
}
