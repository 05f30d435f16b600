//! The release as it is shipped: the binary that `install.sh` took out of the archive, in environments that are not a
//! developer's. `tests/run release` runs the suite of the command line and that of `tune` with the same binary.
//!
//! packages: binutils bsdutils iproute2 nftables procps strace tmux tuned util-linux
//!
//! Needs root, and `PREFLIGHT_BINARY`, which `tests/run` sets.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::process::program;
use crate::tune::place::Place;

/// A way to each exit code: what is done before, the arguments, and what is said on stderr. In this order, inside a [`Place`],
/// so that none of it reaches the machine.
const ENDS: [(i32, &str, &str, &str); 12] = [
    (0, "", "--version", ""),
    (0, "", "tune", ""),
    (1, "", "check --set tcp_backlog=5000 --fail-on warn", ""),
    (2, "", "check --profile nope", "error: there is no profile `nope`"),
    (2, "printf '{\"schema\": \"preflight.snapshot/1\", ' >/run/damaged", "check --snapshot /run/damaged", "error: "),
    (3, "", "check --profile /run/lab/undecided.toml", ""),
    (4, FIGHTER, "tune --apply --settle 1s --confirm-within 0", ""),
    (7, PEACE, "tune --apply --no-wait --confirm-within 600s", ""),
    (5, "", "tune --set tcp_backlog=5000 --apply --confirm-within 0", "error: "),
    (0, "", "rollback", ""),
    (6, THEIRS, "rollback", ""),
    (70, "", "panic", "internal error: asked for by `preflight panic`"),
];

/// Another process that sets the value again and again: an apply cannot keep it.
const FIGHTER: &str = "(while [ ! -e /run/peace ]; do echo 4096 >/proc/sys/net/core/somaxconn; done) >/dev/null 2>&1 &";
const PEACE: &str = "touch /run/peace; sleep 0.2";
/// What an apply changed, and another user has changed since.
const THEIRS: &str = "$P tune --only kernel.somaxconn --set topology=host --apply --settle 0 --confirm-within 0 --yes
                      echo 777 >/proc/sys/net/core/somaxconn";

/// A requirement on a fact that no host has.
const UNDECIDED: &str = "name = \"u\"\ntitle = \"u\"\n[[check]]\nid = \"u.u\"\ntitle = \"u\"\nfact = \"sysctl.kernel.no_such_key\"\n\
                         pass = { equals = 1 }\nseverity = \"required\"\nwhy = \"u\"\nfix = \"u\"\nsources = [\"u\"]\ndated = \"2026-11-22\"\n";

/// Environments, by what a shell is given: `{}` is the program with its arguments.
const ODD: [(&str, &str); 10] = [
    ("as it comes", "{}"),
    ("a backtrace", "RUST_BACKTRACE=1 {}"),
    ("a full backtrace", "RUST_BACKTRACE=full {}"),
    ("a small stack", "ulimit -s 256; {}"),
    ("no stdin", "{} <&-"),
    ("no stdout", "{} >&-"),
    ("no stderr", "{} 2>&-"),
    ("another user", "setpriv --reuid=65534 --regid=65534 --clear-groups -- {}"),
    ("no environment", "env -i {}"),
    ("a full disk as stdout", "{} >/dev/full"),
];

/// The exit code of a command that would end with `code`.
fn wanted(odd: &str, code: i32, words: &str) -> i32 {
    match (odd, code) {
        // Not permitted, and so nothing is changed, waiting or to be undone.
        ("another user", 4..=7) => 3,
        ("another user", 0) if words == "rollback" => 3,
        // The report is lost, also that of a change.
        ("a full disk as stdout", 0 | 1 | 3 | 4 | 6 | 7) => 70,
        _ => code,
    }
}

/// Each exit code in each environment: never a signal, and never without a word where there is something to say and a place to
/// say it. The release of 0.1.0 lacked the
/// tables for unwinding: `check --profile nope` with RUST_BACKTRACE=1 ended by SIGABRT.
#[test]
fn every_exit_code_in_every_environment() {
    let mut wrong = Vec::new();
    for (odd, shell) in ODD {
        let place = Place::new();
        place.shell(&format!("mkdir -p /run/lab; cat >/run/lab/undecided.toml <<'EOF'\n{UNDECIDED}EOF"));
        for (code, before, words, said) in ENDS {
            let of_one = if words.starts_with("tune") || words.starts_with("check --set") {
                " --only kernel.somaxconn --set topology=host"
            } else {
                ""
            };
            let at_once = match (words.contains("--apply"), words.contains("--settle")) {
                (true, true) => " --yes",
                (true, false) => " --settle 0 --yes",
                (false, _) => "",
            };
            let script = shell.replace("{}", &format!("\"$P\" {words}{of_one}{at_once}"));
            let mut command = place.command("bash");
            command.args(["-c", &format!("{before}\n{script}")]).env("P", program());
            let output = command.output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            let wanted = wanted(odd, code, words);
            let is_said = odd == "no stderr" || wanted != code || stderr.contains(said);
            if output.status.code() != Some(wanted) || !is_said {
                wrong.push(format!("{odd}: {words}: {} instead of {wanted}, said\n{stderr}", output.status));
            }
        }
        place.shell("touch /run/peace");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Static, at no fixed address, without symbols, and with the tables that a panic is unwound by.
#[test]
fn the_binary_is_what_the_release_promises() {
    let elf = Command::new("readelf").args(["--wide", "--headers", program()]).output().unwrap();
    let elf = String::from_utf8(elf.stdout).unwrap();
    assert!(elf.contains("DYN (") && !elf.contains("INTERP"), "{elf}");
    assert!(elf.contains("GNU_EH_FRAME") && elf.contains(".eh_frame "), "{elf}");
    assert!(!elf.contains(".symtab"), "{elf}");
}

/// With the file of symbols beside the archive, a backtrace of the stripped binary names functions of the program. Seen failing with
/// the address of another mapping taken for that of the program.
#[test]
fn a_backtrace_can_be_read() {
    let mut command = Command::new(program());
    let output = command.arg("panic").env_clear().env("RUST_BACKTRACE", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(70));
    let symbols = std::env::var("PREFLIGHT_SYMBOLS").unwrap();
    let mut symbolize = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/symbolize"));
    let mut child = symbolize.arg(symbols).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&output.stderr).unwrap();
    let named = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(named.contains("preflight::cli::") && named.contains("src/cli/panic.rs:"), "{named}");
}
