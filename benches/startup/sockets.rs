//! 50,000 open sockets, in a network namespace of their own, held by a process of their own.
//!
//! The holder is apart because what spawns must not hold them: each spawn copies the table of open files.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};

use crate::measure::{Bench, Run, interleaved};

pub(crate) const STAGE: &str = "--in-own-network";
pub(crate) const HOLD: &str = "--hold-sockets";

const SOCKETS: usize = 50_000;
const WHAT: &str = "check with 50,000 sockets open, against none";

pub(crate) fn compare(bench: &mut Bench) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bench.not_run(WHAT, "needs root for a network namespace of its own");
        return Ok(());
    }
    let mut stage = Command::new(std::env::current_exe()?);
    stage.arg(STAGE).arg(&bench.binary).arg((bench.runs / 2).to_string()).stdin(Stdio::null());
    let output = stage.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut ratios = said.split_whitespace().filter_map(|text| text.parse::<f64>().ok());
    if let (Some(without), Some(with)) = (ratios.next(), ratios.next()) {
        let value = format!("{:.2} × ({without:.2}, {with:.2})", with / without);
        bench.figure(WHAT, &value, "≤ 1.5 ×", Some(with / without <= 1.5));
    } else {
        bench.not_run(WHAT, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Prints the ratio to `/bin/true` without and with the sockets, both in the same namespace.
pub(crate) fn stage(mut arguments: impl Iterator<Item = OsString>) -> Result<ExitCode> {
    let binary = PathBuf::from(arguments.next().context("a binary")?);
    let runs: usize = arguments.next().context("a number of runs")?.to_string_lossy().parse()?;
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("ip(8)")?;
    if !up.success() {
        bail!("the loopback interface could not be set up");
    }
    let check = Run::new(&binary, &["check"]);
    let without = interleaved(&check, runs)?;

    let mut holder = Command::new(std::env::current_exe()?);
    let mut holder = holder.arg(HOLD).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut ready = String::new();
    BufReader::new(holder.stdout.take().context("the holder's output")?).read_line(&mut ready)?;
    let with =
        if ready == "ready\n" { interleaved(&check, runs) } else { Err(anyhow::anyhow!("the sockets did not open")) };
    // It ends at the end of its input.
    drop(holder.stdin.take());
    holder.wait()?;
    println!("{} {}", without.ratio(), with?.ratio());
    Ok(ExitCode::SUCCESS)
}

/// Opens connections to itself, says so, and holds them until its input ends.
pub(crate) fn hold(_: impl Iterator<Item = OsString>) -> Result<ExitCode> {
    let files = SOCKETS as u64 + 100;
    setrlimit(Resource::RLIMIT_NOFILE, files, files).context("room for that many open files")?;
    // Each side of a connection is a socket. Two listeners, because the local ports of one would just about suffice.
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let mut held = Vec::with_capacity(SOCKETS);
    for number in 0..SOCKETS / 2 {
        let listener = &listeners[number % 2];
        held.push(TcpStream::connect(listener.local_addr()?)?);
        held.push(listener.accept()?.0);
    }
    println!("ready");
    std::io::stdout().flush()?;
    std::io::stdin().read_line(&mut String::new())?;
    drop(held);
    Ok(ExitCode::SUCCESS)
}
