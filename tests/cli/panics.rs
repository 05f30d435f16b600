//! A panic ends with the exit code of an internal error, also in a release, which does not unwind.

use std::path::Path;
use std::process::{Command, Output};

use super::support::repository;

/// No way to make preflight panic is known, so the library is a stand-in that does; the program is the real `src/main.rs`,
/// built as a release is (`panic = "abort"` in Cargo.toml).
const LIBRARY: &str = "
    pub mod cli {
        pub enum ExitCode { Internal = 70 }
        impl From<ExitCode> for std::process::ExitCode {
            fn from(code: ExitCode) -> Self { (code as u8).into() }
        }
        pub fn run() -> ExitCode {
            if std::env::args().count() > 1 {
                let _ = std::thread::spawn(|| panic!(\"in a thread\")).join();
                std::process::exit(0);
            }
            panic!(\"in the main thread\")
        }
    }";

fn rustc(folder: &Path, strategy: &str, arguments: &[&str]) {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(compiler);
    command.current_dir(folder).args(["--edition=2024", "-C", &format!("panic={strategy}"), "-L", "."]);
    let built = command.args(arguments).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

fn build(strategy: &str) -> impl Fn(&[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("lib.rs"), LIBRARY).unwrap();
    rustc(folder.path(), strategy, &["--crate-type=rlib", "--crate-name=preflight", "lib.rs"]);
    let main = repository().join("src/main.rs");
    let with = ["--crate-name=program", "--extern=preflight=libpreflight.rlib", main.to_str().unwrap()];
    rustc(folder.path(), strategy, &with);
    move |arguments| Command::new(folder.path().join("program")).args(arguments).output().unwrap()
}

/// Seen failing without the hook of `main`: the process is ended by SIGABRT and has no exit code.
#[test]
fn a_panic_of_a_release_is_an_internal_error() {
    let program = build("abort");
    for (arguments, said) in [(&[][..], "in the main thread"), (&["x"], "in a thread")] {
        let output = program(arguments);
        assert_eq!(output.status.code(), Some(70), "{said}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{output:?}");
    }
}

/// Seen failing with `catch_unwind` left out of `main`: 101. Whoever waits for a thread hears of its panic and goes on.
#[test]
fn a_panic_of_a_build_that_unwinds_is_one_too() {
    let program = build("unwind");
    assert_eq!(program(&[]).status.code(), Some(70));
    assert_eq!(program(&["x"]).status.code(), Some(0));
}
