//! Every entry point of the fuzz targets with random and damaged input. libFuzzer looks longer and deeper; this looks at
//! every run of the tests.

use std::fs;
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::support::repository;

#[allow(unreachable_pub, reason = "the fuzz targets call them from a crate of their own")]
#[path = "../fuzz/entry_points.rs"]
mod all;

use all::{ENTRY_POINTS, EntryPoint};

/// Random and damaged inputs for each entry point and test.
const CASES: u32 = 32;

/// No input of some kilobytes may keep an entry point busy for longer; an unoptimised build needs milliseconds.
const LONGEST: Duration = Duration::from_secs(10);

fn seeds(entry: &EntryPoint) -> Vec<Vec<u8>> {
    let folder = repository().join("fuzz/seeds").join(entry.name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
}

fn survives(entry: &EntryPoint, input: &[u8]) {
    let run = entry.run;
    let started = Instant::now();
    let outcome = catch_unwind(|| run(input));
    let shown = || String::from_utf8_lossy(input).into_owned();
    assert!(outcome.is_ok(), "{} panicked on {:?}", entry.name, shown());
    assert!(started.elapsed() < LONGEST, "{} took {:?} for {:?}", entry.name, started.elapsed(), shown());
}

#[test]
fn every_entry_point_has_a_fuzz_target_and_sound_seeds() {
    let read = |name: &str| fs::read_to_string(repository().join(name)).unwrap();
    let manifest = read("fuzz/Cargo.toml");
    for entry in ENTRY_POINTS {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{}.rs\"", entry.name)), "{}", entry.name);
        assert!(read(&format!("fuzz/fuzz_targets/{}.rs", entry.name)).contains(&format!("::{}(", entry.name)));
        let seeds = seeds(entry);
        assert!(!seeds.is_empty(), "{} has no seeds", entry.name);
        for seed in &seeds {
            survives(entry, seed);
        }
    }
    assert_eq!(
        manifest.matches("[[bin]]").count(),
        ENTRY_POINTS.len() + 2 * usize::from(cfg!(not(feature = "docker")))
    );
}

/// Seen failing with `entry_points::snapshot` made to panic on a report with a failed finding.
#[test]
fn damaged_seeds_are_survived() {
    let mut runner = TestRunner::default();
    for entry in ENTRY_POINTS {
        let seeds = seeds(entry);
        for _ in 0..CASES {
            let damaged = damage(prop::sample::select(seeds.clone())).new_tree(&mut runner).unwrap().current();
            survives(entry, &damaged);
        }
    }
}

#[test]
fn any_bytes_are_survived() {
    let mut runner = TestRunner::default();
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "(\\PC|\n|\t){0,200}".prop_map(String::into_bytes),
        // Deep nesting and long runs, where recursion and quadratic time show.
        (prop::sample::select(vec!["[", "{\"a\":", "a.", "\"", "a=[", "${a}", "\\", "[[a]]\n"]), 1..4000_usize)
            .prop_map(|(piece, count)| piece.repeat(count).into_bytes()),
    ];
    for entry in ENTRY_POINTS {
        for _ in 0..CASES {
            survives(entry, &bytes.new_tree(&mut runner).unwrap().current());
        }
    }
}

/// A seed with a few pieces cut out, put in, doubled or replaced by something that parsers stumble over.
fn damage(seed: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        prop::sample::select(vec![
            "0",
            "-1",
            "18446744073709551616",
            "9223372036854775807",
            "1e999",
            "NaN",
            "\"",
            "[",
            "]",
            "{",
            "}",
            "\n",
            "=",
            "#",
            "\u{1b}[2J",
            "\u{202e}",
            "\0",
            "é",
            "4 GiB",
            "99999999 TiB",
            "null",
            "true",
            "*",
            "..",
            "%s",
            "${x}",
            "\\x",
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
    ];
    let damages = prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, pieces), 1..4);
    (seed, damages).prop_map(|(mut bytes, damages)| {
        for (at, cut, piece) in damages {
            let at = at.index(bytes.len() + 1);
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, piece);
        }
        bytes
    })
}

/// A wrong value of the right shape gets further than any damage to the text: each leaf of a snapshot in turn becomes
/// something else, and the snapshot is refused or judged.
#[test]
fn a_snapshot_with_any_value_replaced_is_survived() {
    let entry = ENTRY_POINTS.iter().find(|entry| entry.name == "snapshot").unwrap();
    let others: Vec<serde_json::Value> = serde_json::from_str(
        r#"[null, -1, 18446744073709551615, "", "\u001b[2J", "9999-99-99", [], {}, {"int": -9223372036854775808},
            {"bytes": 18446744073709551615}, {"duration_us": 18446744073709551615}, {"text": "\u202e"}, {"set": [""]},
            {"known": {"version": "0"}}, {"unknown": {"error": ""}}, {"absent": "\u0000"}]"#,
    )
    .unwrap();
    let mut replaced = 0;
    for seed in seeds(entry) {
        let snapshot: serde_json::Value = serde_json::from_slice(&seed).unwrap();
        let mut leaves = Vec::new();
        pointers(&snapshot, String::new(), &mut leaves);
        for (index, leaf) in leaves.iter().enumerate() {
            let mut changed = snapshot.clone();
            *changed.pointer_mut(leaf).unwrap() = others[index % others.len()].clone();
            survives(entry, changed.to_string().as_bytes());
            replaced += 1;
        }
    }
    assert!(replaced > 100);
}

/// JSON pointers to everything below a value.
fn pointers(value: &serde_json::Value, at: String, all: &mut Vec<String>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        serde_json::Value::Object(map) => {
            map.iter().for_each(|(key, inner)| pointers(inner, format!("{at}/{}", escaped(key)), all));
        }
        serde_json::Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, inner)| pointers(inner, format!("{at}/{index}"), all));
        }
        _ => {}
    }
    all.push(at);
}
