//! A program that outlives its caller: started with nothing of the terminal, and believed only after it has spoken.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Starts `program` and waits until it has written `word` to its standard output, which is the sign that it stands on
/// its own feet. Returns its process id.
pub fn start(
    program: &Path,
    args: &[OsString],
    env: &[(OsString, OsString)],
    word: &str,
    patience: Duration,
) -> io::Result<u32> {
    #[expect(clippy::disallowed_methods, reason = "the runner kills its children; this one must live on")]
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .env("HOME", "/")
        .envs(env.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let Some(mut stdout) = child.stdout.take() else { return Err(io::Error::other("it has no output")) };
    let wanted = word.as_bytes().to_owned();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut said = Vec::new();
        let mut byte = [0];
        // One byte at a time: what comes after the word is none of our business, and there is none.
        while !said.ends_with(&wanted) && matches!(stdout.read(&mut byte), Ok(1)) {
            said.push(byte[0]);
        }
        // The receiver is gone only after its patience.
        let _ = sender.send(said.ends_with(&wanted));
    });
    if receiver.recv_timeout(patience) == Ok(true) {
        return Ok(child.id());
    }
    drop(child.kill());
    let status = child.wait()?;
    Err(io::Error::other(format!("it did not answer `{}` ({status})", word.trim())))
}
