//! Bad and hostile input: no panic, no hang, a clear error with a place, nothing raw on a terminal.

use preflight::catalog::diagnostic::Diagnostics;
use preflight::catalog::library::Library;
use preflight::catalog::{check, diagnostic, load, os, waiver};
use proptest::prelude::*;

use crate::support::{Lab, check as a_check, profile, program};

/// Names of a host end in titles, sources and notes; a terminal escape in one must never arrive.
#[test]
fn escapes_in_what_the_host_says_never_reach_the_output() {
    let lab = Lab::new();
    lab.write("root/etc/os-release", "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"evil\x1b]52;c;aGk=\x07\u{202e}name\"\n");
    lab.write("root/etc/hostname", "h\x1b[2Jost\n");
    lab.write("root/proc/sys/vm/x", "va\x1b[31mlue\u{9b}2J\n");
    let root = lab.path("root");
    let file =
        lab.write("p.toml", &profile(&a_check("a.b", "required", "fact = \"sysctl.vm.x\"\npass = { equals = 1 }")));
    for format in ["terminal", "json"] {
        let ran = lab.run([
            "check",
            "--profile",
            file.to_str().unwrap(),
            "--root",
            root.to_str().unwrap(),
            "--format",
            format,
            "-v",
            "--color",
            "never",
        ]);
        let raw: Vec<char> =
            ran.stdout.chars().filter(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}').collect();
        assert!(raw.is_empty(), "{format}: {raw:?}\n{}", ran.stdout);
        assert!(ran.stdout.contains("evil"), "{}", ran.stdout);
    }
}

#[test]
fn escapes_in_a_profile_never_reach_the_error() {
    let lab = Lab::new();
    let file = lab.write("p.toml", "name = \"x\"\ntitle = \"\\u001b[2J\"\n\"ke\\u001by\" = 1 # \u{202e}\n");
    let ran = lab.run(["lint", file.to_str().unwrap(), "--color", "never"]);
    assert!(!ran.stderr.contains(['\u{1b}', '\u{202e}']), "{:?}", ran.stderr);
    assert_eq!(ran.code, 2);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let output = std::process::Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("'{}' list facts | head -n 1; '{0}' check --fail-on never | head -n 1", program()))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
}

fn load_profile(text: &str) {
    let mut library = Library::default();
    library.profiles.push(("p".into(), diagnostic::Source::file("p.toml", text.to_owned())));
    let (_, diagnostics) = load::load_for_lint(&library, "p", preflight::subjects::planner::tuning);
    let _ = diagnostics.render(false);
    let lines: Vec<String> = diagnostics.list.iter().map(|one| diagnostics.line(one)).collect();
    assert!(lines.iter().all(|line| !line.is_empty()));
}

/// A sound profile with one piece replaced: gets past the first keys, where random text never does.
fn mutated() -> impl Strategy<Value = String> {
    let base = format!(
        "{}checks = [\"kernel.*\"]\n[[override]]\nid = \"kernel.*\"\nseverity = \"info\"\n[set]\n",
        profile(&a_check(
            "a.b",
            "required",
            "fact = \"memory.total\"\npass = { at_least = \"4 GiB\" }\nwhen = { fact = \"os.id\", equals = \"x\" }\ntune = { to = \"1 GiB\" }\n[[check.case]]\nwhen = { fact = \"os.id\", equals = \"y\" }\nnote = \"z\""
        ))
    );
    let length = base.chars().count();
    (0..length, 0..12_usize, "\\PC{0,6}").prop_map(move |(at, cut, piece)| {
        let head: String = base.chars().take(at).collect();
        let tail: String = base.chars().skip(at + cut).collect();
        format!("{head}{piece}{tail}")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_as_a_profile_is_read_or_refused(text in "\\PC{0,200}") {
        load_profile(&text);
    }

    #[test]
    fn a_damaged_profile_is_read_or_refused(text in mutated()) {
        load_profile(&text);
    }

    #[test]
    fn any_text_as_checks_waivers_or_os_profile_is_read_or_refused(text in "(\\PC|\n){0,200}") {
        let mut d = Diagnostics::default();
        let (source, tree) = d.open(diagnostic::Source::file("x", text));
        check::read_file(source, &tree, &mut d, &mut Vec::new());
        waiver::read_file(source, &tree, &mut d);
        os::read(source, &tree, &mut d);
        let _ = d.render(true);
    }
}
