//! What `tune` says of a transaction that has not ended, on images: its journal is cut off as a kill would.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Lab, json};
use crate::tune::{image, on, tune};

/// An image on which a transaction was cut short after so many of its records; its name.
fn cut(lab: &Lab, records: usize) -> (PathBuf, String) {
    let root = image(lab, "debian-12");
    assert_eq!(tune(lab, &root, &["--apply"]).code, 0);
    let state = root.join("var/lib/preflight");
    let name = fs::read_dir(state.join("tx")).unwrap().next().unwrap().unwrap().file_name();
    let tx = name.to_str().unwrap().to_owned();
    let journal = state.join("tx").join(&tx).join("journal.jsonl");
    let text = fs::read_to_string(&journal).unwrap();
    let kept: String = text.split_inclusive('\n').take(records).collect();
    fs::write(&journal, kept).unwrap();
    fs::remove_file(state.join("managed.json")).unwrap();
    fs::write(state.join(format!("open-{tx}")), "").unwrap();
    (root, tx)
}

fn all_forms(lab: &Lab, root: &Path) -> [String; 4] {
    ["terminal", "markdown", "script", "json"].map(|format| {
        let ran = tune(lab, root, &["--format", format]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{format}");
        // In one line, wherever it was wrapped.
        if format == "terminal" { ran.stdout.split_whitespace().collect::<Vec<_>>().join(" ") } else { ran.stdout }
    })
}

/// Seen failing with `plan::unfinished::look` finding nothing.
#[test]
fn a_plan_names_what_was_cut_short_and_what_to_do() {
    let lab = Lab::new();
    let (root, tx) = cut(&lab, 2);
    let forms = all_forms(&lab, &root);
    for form in &forms {
        for words in [tx.as_str(), "unfinished", "preflight recover"] {
            assert!(form.contains(words), "{words}: {form}");
        }
    }
    let [terminal, _, script, plan] = forms;
    let place = terminal.find("UNFINISHED").unwrap();
    assert!(place < terminal.find("1. boot").or_else(|| terminal.find("Nothing to do")).unwrap(), "{terminal}");
    assert!(script.lines().filter(|line| line.contains(&tx)).all(|line| line.starts_with('#')), "{script}");
    assert_eq!(json(&plan)["unfinished"][0]["tx"], tx.as_str());
    assert_eq!(on(&lab, "recover", &root, &[]).code, 0);
    for form in all_forms(&lab, &root) {
        assert!(!form.contains(&tx), "{form}");
    }
}

#[test]
fn what_cannot_be_told_is_said() {
    let lab = Lab::new();
    let (root, tx) = cut(&lab, 2);
    let state = root.join("var/lib/preflight");
    fs::write(state.join("tx").join(&tx).join("journal.jsonl"), "{}\n{}\n").unwrap();
    for form in all_forms(&lab, &root) {
        assert!(form.contains(&tx) && form.contains("cannot be determined") && form.contains("line 1"), "{form}");
    }
    // Not a folder at all.
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "").unwrap();
    let [terminal, .., plan] = all_forms(&lab, &root);
    assert!(terminal.contains("cannot be determined"), "{terminal}");
    assert_eq!(json(&plan)["unfinished"][0]["tx"], serde_json::Value::Null);
}
