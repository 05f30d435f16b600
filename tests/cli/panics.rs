//! A panic says what went wrong, where, and how to report it, and ends with the exit code of an internal error.

use std::process::Command;

use super::support::program;

fn panic(backtrace: Option<&str>) -> (Option<i32>, String) {
    let mut command = Command::new(program());
    command.arg("panic").env_clear();
    if let Some(value) = backtrace {
        command.env("RUST_BACKTRACE", value);
    }
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_panic_is_an_internal_error_that_can_be_reported() {
    for backtrace in [None, Some("0")] {
        let (code, said) = panic(backtrace);
        assert_eq!(code, Some(70), "{said}");
        for part in [
            "internal error: asked for by `preflight panic`",
            "at src/cli/panic.rs:",
            "thread `main`",
            "report these lines",
        ] {
            assert!(said.contains(part), "no `{part}` in\n{said}");
        }
        assert!(said.contains("RUST_BACKTRACE=1") && !said.contains("backtrace, the program"), "{said}");
    }
}

#[test]
fn a_panic_with_a_backtrace_says_where_the_program_was_loaded() {
    for backtrace in ["1", "full"] {
        let (code, said) = panic(Some(backtrace));
        assert_eq!(code, Some(70), "{said}");
        assert!(said.contains("backtrace, the program loaded at 0x"), "{said}");
        let frames = said.lines().filter(|line| line.contains(" - ") && line.contains("0x")).count();
        assert!(frames >= 5, "{said}");
    }
}
