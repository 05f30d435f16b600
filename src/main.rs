//! The `preflight` binary: a shim around the library.

use std::panic;
use std::process;

use preflight::cli::{self, ExitCode};

fn main() -> process::ExitCode {
    // A panic is an internal error with its own exit code; Rust's 101 would be none of the documented ones.
    panic::catch_unwind(cli::run).unwrap_or(ExitCode::Internal).into()
}
