//! The one runner of other programs: an absolute path, no shell, a clean environment, a deadline, the group killed whole.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How much of each output stream is kept. A version string needs a hundred bytes; a rule set of a firewall, a megabyte.
pub const MAX_OUTPUT_BYTES: u64 = 4 * 1024 * 1024;

/// How much of stderr is shown in an error.
const STDERR_TAIL_BYTES: usize = 1024;

/// How often a running child is looked at. Short, since the fast path waits here for the Compose version.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// What a program printed and how it ended.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Why a program gave no usable answer. Every variant names the program and its arguments.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("cannot run {argv}: {}", super::describe(.source))]
    Spawn { argv: String, source: io::Error },
    #[error("{argv} did not answer within {} ms and was killed", .deadline.as_millis())]
    Deadline { argv: String, deadline: Duration },
    #[error("{argv} ended with {status}{}", tail(.stderr))]
    Failed { argv: String, status: String, stderr: String },
    #[error("cannot read the output of {argv}: {}", super::describe(.source))]
    Output { argv: String, source: io::Error },
}

/// One program to run. stdin is `/dev/null` unless there is something to say, the environment is emptied but for a fixed PATH, `LC_ALL=C` and `HOME=/`.
#[derive(Debug)]
pub struct Runner {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    input: Option<Vec<u8>>,
    deadline: Duration,
}

impl Runner {
    /// `program` must be an absolute path: nothing is searched in the caller's PATH.
    pub fn new(program: impl AsRef<Path>, deadline: Duration) -> Self {
        Self { program: program.as_ref().to_owned(), args: Vec::new(), env: Vec::new(), input: None, deadline }
    }

    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// What the program reads from its stdin.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Runs to the end and returns what was printed, whatever the exit code.
    pub fn run(&self) -> Result<Output, CommandError> {
        let argv = self.argv();
        if !self.program.is_absolute() {
            let source = io::Error::other("not an absolute path");
            return Err(CommandError::Spawn { argv, source });
        }
        let mut child = self.spawn().map_err(|source| CommandError::Spawn { argv: argv.clone(), source })?;
        feed(child.stdin.take(), self.input.clone());
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let started = Instant::now();
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if started.elapsed() >= self.deadline => {
                    kill_group(&mut child);
                    return Err(CommandError::Deadline { argv, deadline: self.deadline });
                }
                Ok(None) => thread::sleep(POLL_INTERVAL),
                Err(source) => {
                    kill_group(&mut child);
                    return Err(CommandError::Output { argv, source });
                }
            }
        };
        // A grandchild may still hold the pipe: the rest of the deadline is all it gets.
        let left = self.deadline.saturating_sub(started.elapsed()).max(POLL_INTERVAL);
        let collect = |stream: mpsc::Receiver<io::Result<Vec<u8>>>| match stream.recv_timeout(left) {
            Ok(Ok(bytes)) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Ok(Err(source)) => Err(CommandError::Output { argv: argv.clone(), source }),
            Err(_) => Err(CommandError::Deadline { argv: argv.clone(), deadline: self.deadline }),
        };
        let (stdout, stderr) = (collect(stdout), collect(stderr));
        if stdout.is_err() || stderr.is_err() {
            kill_group(&mut child);
        }
        Ok(Output { status, stdout: stdout?, stderr: stderr? })
    }

    /// Runs to the end; anything but exit code 0 is an error that carries the tail of stderr.
    pub fn run_checked(&self) -> Result<Output, CommandError> {
        let output = self.run()?;
        if output.status.success() {
            return Ok(output);
        }
        let status = match (output.status.code(), output.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => output.status.to_string(),
        };
        Err(CommandError::Failed { argv: self.argv(), status, stderr: output.stderr })
    }

    fn spawn(&self) -> io::Result<Child> {
        #[expect(clippy::disallowed_methods, reason = "this is the one runner")]
        Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("HOME", "/")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
    }

    fn argv(&self) -> String {
        let mut text = format!("`{}", self.program.display());
        for arg in &self.args {
            text.push(' ');
            text.push_str(&arg.to_string_lossy());
        }
        text.push('`');
        text
    }
}

/// Writes on a thread of its own, so that a program that does not read holds nobody up. One that ends early has said
/// why by its exit code.
fn feed<W: io::Write + Send + 'static>(stream: Option<W>, input: Option<Vec<u8>>) {
    if let (Some(mut stream), Some(input)) = (stream, input) {
        thread::spawn(move || {
            let _ = stream.write_all(&input);
        });
    }
}

/// Reads a stream on its own thread, so that a full pipe of one stream never blocks the other.
fn drain<R: Read + Send + 'static>(stream: Option<R>) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let result = match stream {
            Some(stream) => stream.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes).map(|_| bytes),
            None => Ok(bytes),
        };
        // The receiver is gone only after its deadline; nobody wants the bytes then.
        drop(sender.send(result));
    });
    receiver
}

/// Ends the child and everything it started, then reaps it.
fn kill_group(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // ESRCH: the group ended by itself in the meantime.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    drop(child.wait());
}

/// The last bytes of stderr as a suffix of an error message.
fn tail(stderr: &str) -> String {
    let text = stderr.trim();
    if text.is_empty() {
        return String::new();
    }
    let mut start = text.len().saturating_sub(STDERR_TAIL_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    format!(": {}", &text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_group_ends_at_the_deadline() {
        let started = Instant::now();
        let error =
            Runner::new("/bin/sh", Duration::from_millis(200)).args(["-c", "sleep 30 & sleep 30"]).run().unwrap_err();
        assert!(matches!(error, CommandError::Deadline { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10), "the deadline did not bind");
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipe_does_not_hang_the_caller() {
        let started = Instant::now();
        let result = Runner::new("/bin/sh", Duration::from_millis(300)).args(["-c", "sleep 30 & echo done"]).run();
        assert!(matches!(result, Err(CommandError::Deadline { .. })), "{result:?}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_failure_names_the_program_its_status_and_its_last_words() {
        let error = Runner::new("/bin/sh", Duration::from_secs(5))
            .args(["-c", "echo oh no >&2; exit 3"])
            .run_checked()
            .unwrap_err();
        assert_eq!(error.to_string(), "`/bin/sh -c echo oh no >&2; exit 3` ended with exit code 3: oh no");
    }

    #[test]
    fn the_environment_of_the_caller_does_not_reach_the_child() {
        let output = Runner::new("/usr/bin/env", Duration::from_secs(5)).env("GIVEN", "1").run_checked().unwrap();
        let mut names: Vec<&str> = output.stdout.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["GIVEN", "HOME", "LC_ALL", "PATH"]);
    }
}
