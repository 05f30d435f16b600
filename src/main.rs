//! The `preflight` binary: a shim around the library.

use std::process;

fn main() -> process::ExitCode {
    preflight::cli::main().into()
}
