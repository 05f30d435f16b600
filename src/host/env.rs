//! The environment, read in one place so that nothing deep inside depends on it.

use std::ffi::OsString;
use std::path::PathBuf;

/// A variable that is set and not empty.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn var(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// A variable as text; a value that is not UTF-8 is treated as unset.
pub fn text(name: &str) -> Option<String> {
    var(name).and_then(|value| value.into_string().ok())
}

/// A variable as a path.
pub fn path(name: &str) -> Option<PathBuf> {
    var(name).map(PathBuf::from)
}

/// The file of the running program, as the kernel names it.
pub fn program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}
