//! 50,000 open sockets, in a network namespace of their own, held by a process of their own.
//!
//! The holder is apart because what spawns must not hold them: each spawn copies the table of open files.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::measure::{Bench, Run, interleaved};

pub(crate) const STAGE: &str = "--in-own-network";
pub(crate) const HOLD: &str = "--hold-sockets";

const SOCKETS: usize = 50_000;
/// Files that a holder needs besides: its own, the listeners.
const SPARE_FILES: usize = 100;
const WHAT: &str = "check with 50,000 sockets open, against none";

pub(crate) fn compare(bench: &mut Bench) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bench.not_run(WHAT, "needs root for a network namespace of its own");
        return Ok(());
    }
    let mut stage = Command::new(std::env::current_exe()?);
    stage.arg(STAGE).arg(&bench.binary).arg((bench.runs / 2).to_string()).stdin(Stdio::null());
    stage.env("RUST_BACKTRACE", "0");
    let output = stage.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut ratios = said.split_whitespace().filter_map(|text| text.parse::<f64>().ok());
    if let (Some(without), Some(with)) = (ratios.next(), ratios.next()) {
        let value = format!("{:.2} × ({without:.2}, {with:.2})", with / without);
        bench.figure(WHAT, &value, "≤ 1.5 ×", Some(with / without <= 1.5));
    } else {
        bench.not_run(WHAT, &String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" "));
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

    // Where nofile cannot be raised, several processes share the sockets.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let each = usize::try_from(most)?.saturating_sub(SPARE_FILES).min(SOCKETS) & !1;
    if each == 0 {
        bail!("at most {most} open files are allowed");
    }
    let mut holders = Vec::new();
    let mut left = SOCKETS;
    while left > 0 {
        let share = left.min(each);
        holders.push(Holder::start(share)?);
        left -= share;
    }
    let with = interleaved(&check, runs)?;
    for holder in holders {
        holder.end()?;
    }
    println!("{} {}", without.ratio(), with.ratio());
    Ok(ExitCode::SUCCESS)
}

/// A process that holds open sockets until its input ends.
struct Holder(Child);

impl Holder {
    fn start(sockets: usize) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(HOLD).arg(sockets.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut ready = String::new();
        BufReader::new(child.stdout.take().context("the holder's output")?).read_line(&mut ready)?;
        if ready != "ready\n" {
            child.wait()?;
            bail!("the sockets did not open");
        }
        Ok(Self(child))
    }

    fn end(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        self.0.wait()?;
        Ok(())
    }
}

/// Opens connections to itself, says so, and holds them until its input ends.
pub(crate) fn hold(mut arguments: impl Iterator<Item = OsString>) -> Result<ExitCode> {
    let sockets: usize = arguments.next().context("a number of sockets")?.to_string_lossy().parse()?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("room for that many open files")?;
    // Each side of a connection is a socket. Two listeners, because the local ports of one would just about suffice.
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let mut held = Vec::with_capacity(sockets);
    for number in 0..sockets / 2 {
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
