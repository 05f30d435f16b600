//! The `preflight` binary: a shim around the library.

use std::panic;
use std::process;

use preflight::cli::{self, ExitCode};

fn main() -> process::ExitCode {
    // A panic is an internal error with its own exit code; Rust's 101 would be none of the documented ones. A release does
    // not unwind (Cargo.toml), so there the code must be given before the process is aborted.
    if cfg!(panic = "abort") {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            told(panic);
            #[expect(clippy::disallowed_methods, reason = "nothing runs after this hook")]
            process::exit(ExitCode::Internal as i32);
        }));
    }
    panic::catch_unwind(cli::run).unwrap_or(ExitCode::Internal).into()
}
