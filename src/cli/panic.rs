//! What a bug looks like to a user: what went wrong and where, how to report it, and the exit code of an internal error.

use std::backtrace::Backtrace;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::ExitCode;
use crate::host::{Host, env};
use crate::report::escape;

/// Whether any thread has panicked. A thread that waits for another one may go on without it, with unknown facts; the run
/// still ends as an internal error.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Runs the program and gives its exit code: that of an internal error when any of its threads panicked.
pub(super) fn guard(run: impl FnOnce() -> ExitCode + panic::UnwindSafe) -> ExitCode {
    panic::set_hook(Box::new(report));
    let code = panic::catch_unwind(run).unwrap_or(ExitCode::Internal);
    if PANICKED.load(Ordering::SeqCst) { ExitCode::Internal } else { code }
}

/// `preflight panic`: what an internal error looks like in this very binary, for the tests of a release. It is no subcommand, so
/// that no help, completion or manual page offers it.
pub(super) fn if_asked(mut arguments: impl Iterator<Item = OsString>) {
    let is_asked = arguments.next().is_some_and(|word| word == "panic") && arguments.next().is_none();
    assert!(!is_asked, "asked for by `preflight panic`");
}

fn report(panic: &PanicHookInfo<'_>) {
    PANICKED.store(true, Ordering::SeqCst);
    let message = panic.payload_as_str().unwrap_or("a panic without a message");
    let mut text = format!("internal error: {}\n", escape::lines(message));
    if let Some(place) = panic.location() {
        let thread = thread::current();
        let _ = writeln!(text, "  at {place}, thread `{}`", escape::lines(thread.name().unwrap_or("without a name")));
    }
    let _ = writeln!(
        text,
        "  this is a bug in preflight {}: please report these lines to its maintainers, with the command you ran\n  \
         if it was changing this host: `preflight recover` finishes or undoes what was begun",
        env!("CARGO_PKG_VERSION")
    );
    match env::var("RUST_BACKTRACE") {
        Some(value) if value != "0" => text.push_str(&backtrace()),
        _ => text.push_str("  RUST_BACKTRACE=1 adds a backtrace\n"),
    }
    // A lost stderr must not turn into another panic.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Addresses, and where the program was loaded: a release has no symbols in it, and `scripts/symbolize` finds their names in
/// the file of symbols that lies beside its archive.
fn backtrace() -> String {
    let base = Host::live().read_text("/proc/self/maps").ok().and_then(|maps| {
        // The first mapping of a file: of a static program there is no other file.
        let line = maps.lines().find(|line| line.contains('/'))?;
        u64::from_str_radix(line.split_once('-')?.0, 16).ok()
    });
    let base = base.map_or_else(|| "at an unknown address".to_owned(), |base| format!("at {base:#x}"));
    format!("  backtrace, the program loaded {base}:\n{:#}", Backtrace::force_capture())
}
