//! What an attack on the finished program found, each thing by the command that showed it.

use std::fmt::Write as _;
use std::process::Command;

use crate::support::{Lab, check, json, profile, program};

fn shell(script: &str) -> (i32, String) {
    let output = Command::new("bash").arg("-c").arg(script).env("PREFLIGHT", program()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// Seen failing with 0: `set -o pipefail; preflight check | head` let a host through that is not ready.
#[test]
fn a_reader_who_leaves_does_not_change_the_verdict() {
    let lab = Lab::new();
    lab.root();
    lab.write("root/proc/sys/vm/x", "7");
    let mut checks = String::new();
    for number in 0..3000 {
        checks.push_str(&check(&format!("a.b{number}"), "required", "fact = \"sysctl.vm.x\"\npass = { equals = 8 }"));
    }
    lab.write("p.toml", &profile(&checks));
    let folder = lab.path("").display().to_string();
    let (code, text) = shell(&format!(
        "cd {folder} && set -o pipefail; \"$PREFLIGHT\" check --profile ./p.toml --root root | head -n 1; exit \"${{PIPESTATUS[0]}}\""
    ));
    assert_eq!(code, 1, "{text}");
}

/// Seen failing with /dev/stdout replaced by the report, as root for the whole machine. Here a link of our own in /proc.
#[test]
fn a_report_into_a_descriptor_goes_through_it() {
    let lab = Lab::new();
    let root = lab.root().display().to_string();
    let folder = lab.path("").display().to_string();
    let (_, text) = shell(&format!(
        "cd {folder} && echo before > out && \"$PREFLIGHT\" check --root {root} --only 'os.*' -o /proc/self/fd/3 3>> out; \
         \"$PREFLIGHT\" check --root {root} --only 'os.*' -o -; ls"
    ));
    let file = std::fs::read_to_string(lab.path("out")).unwrap();
    assert!(file.starts_with("before\npreflight "), "{file}\n{text}");
    assert!(text.contains("os.") || text.contains("HOST AND TOOLS"), "{text}");
    assert!(!lab.path("-").exists(), "`-` is standard output");
}

/// Seen failing with "resource temporarily unavailable".
#[test]
fn a_pipe_is_waited_for_and_one_without_writers_is_not() {
    let lab = Lab::new();
    let root = lab.root().display().to_string();
    let (code, text) = shell(&format!(
        "\"$PREFLIGHT\" check --only os.kernel --snapshot <(sleep 0.3; \"$PREFLIGHT\" facts --only os.kernel --root {root})"
    ));
    assert_eq!(code, 0, "{text}");
    let fifo = lab.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let ran = lab.run(["check", "--snapshot", "fifo"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

/// A replaced byte may change what is asked. Seen failing with READY.
#[test]
fn bytes_that_are_not_utf8_are_refused_with_their_line() {
    let lab = Lab::new();
    let file = lab.write("p.toml", "");
    std::fs::write(&file, b"name = \"p\"\ntitle = \"t\xff\"\nchecks = [\"os.*\"]\n").unwrap();
    let ran = lab.run(["check", "--profile", "./p.toml"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("line 2 is not UTF-8"), "{}", ran.stderr);
}

/// Seen failing with a stack overflow (2,000) and with minutes of work (the others).
#[test]
fn long_chains_many_mistakes_and_all_ports_are_answered_soon() {
    let lab = Lab::new();
    lab.root();
    lab.write("root/proc/sys/vm/x", "7");
    let mut chain = String::new();
    for number in 0..5000 {
        let needs = if number < 4999 { format!("\nneeds = [\"a.b{}\"]", number + 1) } else { String::new() };
        let rest = format!("fact = \"sysctl.vm.x\"\npass = {{ equals = 7 }}{needs}");
        chain.push_str(&check(&format!("a.b{number}"), "required", &rest));
    }
    lab.write("chain.toml", &profile(&chain));
    let ran = lab.run(["check", "-q", "--profile", "./chain.toml", "--root", "root"]);
    assert!(ran.stdout.contains("READY: 5000 pass"), "{}{}", ran.stdout, ran.stderr);

    let mut mistakes = profile("");
    for number in 0..5000 {
        writeln!(mistakes, "k{number} = 1").unwrap();
    }
    lab.write("mistakes.toml", &mistakes);
    let ran = lab.run(["lint", "mistakes.toml"]);
    assert!(ran.stdout.contains("5000 mistakes") && ran.stderr.contains("more"), "{}", ran.stdout);

    let ran = lab.run(["check", "-q", "--root", "root", "--only", "port.*", "--set", "ports=a:1-65535"]);
    assert!(ran.stdout.contains("65536 not applicable"), "{}{}", ran.stdout, ran.stderr);
}

/// Seen failing with a pass: the live layer alone decided.
#[test]
fn a_boot_layer_that_was_not_gathered_is_a_warning() {
    let lab = Lab::new();
    let root = lab.root().display().to_string();
    lab.write("root/proc/sys/vm/overcommit_memory", "1\n");
    lab.write("root/etc/sysctl.d/x.conf", "vm.overcommit_memory = 1\n");
    let facts = lab.run(["facts", "--root", &root, "--only", "kernel.overcommit"]);
    let judge = |text: &str| {
        let args = ["check", "--snapshot", "-", "--format", "json", "--only", "kernel.overcommit"];
        json(&lab.run_with_input(args, text).stdout)["findings"][0]["result"].as_str().unwrap().to_owned()
    };
    assert_eq!(judge(&facts.stdout), "pass");
    let mut snapshot = json(&facts.stdout);
    snapshot["facts"]["sysctl.vm.overcommit_memory"].as_object_mut().unwrap().remove("boot").unwrap();
    assert_eq!(judge(&snapshot.to_string()), "warn");
}

/// Seen failing with the snapshot's own profile judged instead, without a word.
#[test]
fn a_profile_asked_for_beside_a_snapshot_is_the_one_that_is_judged() {
    let lab = Lab::new();
    let root = lab.root().display().to_string();
    let facts = lab.run(["facts", "--root", &root, "--profile", "docker-host"]);
    let name = |args: &[&str]| {
        let ran = lab.run_with_input([&["check", "--snapshot", "-", "-f", "json"], args].concat(), &facts.stdout);
        json(&ran.stdout)["profile"]["name"].as_str().unwrap().to_owned()
    };
    assert_eq!(name(&["--profile", "redis-sentinel"]), "redis-sentinel");
    assert_eq!(name(&[]), "docker-host");
}

/// Seen failing with the waiver still holding: as text, 20260101 is after 2026-11-22.
#[test]
fn a_day_is_written_in_one_way_only() {
    let lab = Lab::new();
    let root = lab.root().display().to_string();
    lab.write("w.toml", "[[waiver]]\nid = \"kernel.thp\"\nowner = \"o\"\nreason = \"r\"\nexpires = \"20260101\"\n");
    let ran = lab.run(["check", "--root", &root, "--waivers", "w.toml"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("is not a day"), "{}", ran.stderr);
    let facts = lab.run(["facts", "--root", &root, "--only", "os.*"]);
    let mut snapshot = json(&facts.stdout);
    snapshot["taken_at"] = "2026-11-22T23:30:00-05:00".into();
    let ran = lab.run_with_input(["check", "--snapshot", "-", "-f", "json", "--only", "os.*"], &snapshot.to_string());
    assert_eq!(json(&ran.stdout)["taken_at"], "2026-11-23T04:30:00Z");
}

/// Seen failing with 11 GiB of room below a file.
#[test]
fn there_is_no_room_below_a_file() {
    let lab = Lab::new();
    let file = lab.write("file", "").display().to_string();
    let data_dir = format!("data_dir={file}/data");
    let ran = lab.run(["check", "-f", "json", "--only", "resource.data-space", "--set", &data_dir]);
    assert_eq!((json(&ran.stdout)["findings"][0]["result"].as_str(), ran.code), (Some("unknown"), 3), "{}", ran.stdout);
}

/// Facts of a host hold names that others chose. Seen failing with U+202E on standard output.
#[test]
fn facts_hold_nothing_that_steers_a_terminal() {
    let lab = Lab::new();
    let root = lab.root().display().to_string();
    lab.write("root/etc/os-release", "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"evil\u{202e}\u{9b}2J\"\n");
    let ran = lab.run(["facts", "--root", &root, "--only", "os.*"]);
    assert!(ran.stdout.contains("evil"), "{}", ran.stdout);
    assert!(!ran.stdout.chars().any(|c| c == '\u{202e}' || (c.is_control() && c != '\n')), "{:?}", ran.stdout);
}

/// The override of a severity counts in the check's cases too. Seen failing with `recommended`.
#[test]
fn a_severity_asked_for_by_name_counts_in_every_case() {
    let lab = Lab::new();
    let root = lab.root().display().to_string();
    lab.write("root/proc/sys/vm/overcommit_memory", "0\n");
    lab.write(
        "p.toml",
        "name = \"p\"\ntitle = \"t\"\nextends = \"redis-sentinel\"\n[[override]]\nid = \"kernel.overcommit\"\nseverity = \"blocker\"\n",
    );
    let ran = lab.run(["check", "--root", &root, "-p", "./p.toml", "-f", "json", "--only", "kernel.overcommit"]);
    assert_eq!(json(&ran.stdout)["findings"][0]["severity"], "blocker", "{}", ran.stderr);
}

/// Each was `no mistakes`.
#[test]
fn lint_finds_what_it_passed_over() {
    let knob = |rest: &str| check("a.b", "required", &format!("fact = \"sysctl.vm.swappiness\"\n{rest}"));
    let extends = "extends = \"redis-sentinel\"\n";
    for (code, text) in [
        ("unknown-recipe", profile(&knob("pass = { equals = 1 }\nremedy = \"no-such\""))),
        (
            "wide-accept",
            profile(&knob(
                "pass = { at_most = 10 }\ntune = { to = 5, accept = { at_most = 10 } }\n[[check.case]]\nwhen = { fact = \"os.id\", equals = \"x\" }\npass = { equals = 5 }",
            )),
        ),
        (
            "wide-accept",
            profile(&check(
                "a.b",
                "required",
                "fact = \"thp.always-sizes\"\npass = { equals = [] }\ntune = { to = [], accept = { includes = [] } }",
            )),
        ),
        ("bad-target", profile(&knob("pass = { at_most = 10 }\ntune = { to = \"x\" }"))),
        ("wrong-type", profile(&knob("pass = { at_least = \"ten\" }"))),
        ("wrong-type", profile(&knob("pass = { equals = 1 }\nnominal = true"))),
        ("bad-predicate", profile(&knob("pass = { equals = 1 }\nwhen = []"))),
        (
            "dead-warn",
            profile(&knob(
                "pass = { at_least = 1 }\n[[check.case]]\nwhen = { fact = \"os.id\", equals = \"x\" }\nwarn = { at_least = 2 }",
            )),
        ),
        ("dead-override", profile(&format!("{extends}[[override]]\nid = \"os.kernel\"\nseverity = \"required\"\n"))),
        (
            "duplicate-id",
            profile(&format!(
                "{extends}[[override]]\nid = \"os.kernel\"\nseverity = \"info\"\n[[override]]\nid = \"os.kernel\"\nwhy = \"x\"\n"
            )),
        ),
        ("duplicate-id", profile(&format!("{extends}[set]\npublish_address = [\"::\", \"::\"]\n"))),
        (
            "duplicate-id",
            profile(&format!(
                "{extends}[[parameter]]\nname = \"x\"\nkind = \"number\"\ndefault = 1\nabout = \"a\"\n[[parameter]]\nname = \"x\"\nkind = \"number\"\ndefault = 2\nabout = \"a\"\n"
            )),
        ),
        (
            "duplicate-id",
            "[[waiver]]\nid = \"kernel.thp\"\nowner = \"o\"\nreason = \"r\"\nexpires = \"2027-01-01\"\n".repeat(2),
        ),
    ] {
        let lab = Lab::new();
        let file = lab.write("p.toml", &text);
        let ran = lab.run(["lint", file.to_str().unwrap(), "--color", "never"]);
        assert!(ran.stderr.contains(&format!("error[{code}]")), "{code}\n{text}\n{}", ran.stderr);
        assert_eq!(ran.stderr.matches("error[").count(), 1, "told once: {}", ran.stderr);
        assert_eq!(ran.code, 2);
    }
}

/// A reader who left is no error, and no success either. Seen failing with 0 for each: drift, mistakes, a host not ready.
#[test]
fn a_reader_who_left_before_the_end_changes_no_exit_code() {
    let lab = Lab::new();
    let root = lab.root().display().to_string();
    let (_, applied) = shell(&format!(
        "\"$PREFLIGHT\" tune --root {root} --apply --only kernel.overcommit; \"$PREFLIGHT\" history --root {root}"
    ));
    assert!(applied.contains("committed"), "{applied}");
    lab.write("root/etc/sysctl.d/99-zz-preflight.conf", "vm.overcommit_memory = 2\n");
    lab.write("bad.toml", "section = 1\n");
    for (args, code) in [
        (vec!["verify", "--root", &root], 1),
        (vec!["verify", "--root", &root, "--format", "json"], 1),
        (vec!["lint", lab.path("bad.toml").to_str().unwrap()], 2),
        (vec!["check", "--root", &root, "--fail-on", "warn"], 1),
        (vec!["list", "checks"], 0),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = Command::new(program()).args(&args).stdout(writer).status().unwrap();
        assert_eq!(ended.code(), Some(code), "{args:?}");
    }
}

/// A wrong `--root` in a pipeline that builds images is no ready machine. Seen failing with READY WITH WARNINGS and 0, and
/// with a drop-in written into an empty folder.
#[test]
fn a_root_without_a_system_is_refused() {
    let lab = Lab::new();
    std::fs::create_dir(lab.path("empty")).unwrap();
    lab.write("file", "");
    for (root, reason) in [
        ("empty", "it holds no system: neither etc nor usr"),
        ("/proc", "it holds no system: neither etc nor usr"),
        ("file", "not a directory"),
        ("gone", "no such file or directory"),
    ] {
        for command in [&["check"][..], &["facts"], &["tune"], &["tune", "--apply"]] {
            let ran = lab.run(command.iter().chain(&["--root", root]));
            let told = format!("error: --root {root}: {reason}\n");
            assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr), (2, "", told), "{command:?}");
        }
    }
    assert_eq!(std::fs::read_dir(lab.path("empty")).unwrap().count(), 0);
}

/// What an image puts in the place of a file is no empty file. Seen failing with "0 (kernel default)", as if no file set it.
#[test]
fn a_fifo_of_an_image_is_unknown() {
    let lab = Lab::new();
    let root = lab.root().display().to_string();
    lab.write("root/etc/sysctl.d/empty.conf", "");
    let fifo = lab.path("root/etc/sysctl.d/99-z.conf");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let ran = lab.run(["check", "--root", &root, "--only", "kernel.overcommit"]);
    let told = "cannot read /etc/sysctl.d/99-z.conf: it is a device, a FIFO or a socket";
    assert!(ran.stdout.split_whitespace().collect::<Vec<_>>().join(" ").contains(told), "{}", ran.stdout);
}

/// Seen failing with "no port is in the way" for a variable that was not set, with an empty history, and with a type of Rust.
#[test]
fn what_was_meant_to_be_given_is_asked_for() {
    let lab = Lab::new();
    let root = lab.root().display().to_string();
    lab.write("snapshot.json", &lab.run(["facts", "--root", &root, "--only", "os.*"]).stdout);
    for (args, told) in [
        (
            &["check", "--root", &root, "--set", "ports="][..],
            "--set ports: expected at least one port, such as redis:6379",
        ),
        (&["history", "--root", &root, "--limit", "0"], "expected a number of 1 or more"),
        (
            &["report", "render", "snapshot.json"],
            "snapshot.json: not a report: its schema is `preflight.snapshot/1`, not `preflight.report/1`",
        ),
    ] {
        let ran = lab.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}");
        assert!(ran.stderr.contains(told), "{args:?}: {}", ran.stderr);
    }
}
