//! One builder for all runs: environment scrubbed, stdout and stderr apart, temporary paths replaced.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A folder of the test with files in it, and runs of preflight beside it.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
}

/// What a run printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file below the folder, with the folders above it.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        self.run_with_input(args, "")
    }

    pub(crate) fn run_with_input<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &str,
    ) -> Ran {
        let mut child = Command::new(program())
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A run that does not read its input has closed it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).expect("output is UTF-8");
            text.replace(&self.folder.path().display().to_string(), "@LAB@")
        };
        Ran { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Writes a profile with one check of `sysctl.kernel.x` style facts under a fixture root, for tests of judging.
    pub(crate) fn root(&self) -> PathBuf {
        let root = self.path("root");
        self.write("root/etc/os-release", "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian of the test\"\n");
        self.write("root/etc/hostname", "lab\n");
        self.write("root/proc/sys/kernel/osrelease", "6.1.0\n");
        root
    }
}

/// A profile that holds just the given checks.
pub(crate) fn profile(checks: &str) -> String {
    format!("name = \"lab\"\ntitle = \"a profile of the test\"\n{checks}")
}

/// A complete check; `rest` gives fact and predicates.
pub(crate) fn check(id: &str, severity: &str, rest: &str) -> String {
    format!(
        "[[check]]\nid = \"{id}\"\ntitle = \"{id} is right\"\nseverity = \"{severity}\"\nwhy = \"because\"\nfix = \"mend it\"\n{rest}\n"
    )
}

pub(crate) fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program under test: the one that cargo built, or the one that `tests/run release` installed from the archive.
pub(crate) fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        std::env::var("PREFLIGHT_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_preflight").to_owned())
    })
}
