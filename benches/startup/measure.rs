//! Spawning, timing, counting.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use tempfile::TempDir;

pub(crate) const PEAK_MEMORY: &str = "--peak-memory";

/// What a run under measurement may exit with: ready, not ready, cannot tell. 2 and 70 mean that it measured nothing.
const VERDICTS: [i32; 3] = [0, 1, 3];

/// A program with its arguments, run in an environment that is the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    program: PathBuf,
    arguments: Vec<OsString>,
    docker_host: String,
}

impl Run {
    pub(crate) fn new(program: &Path, arguments: &[&str]) -> Self {
        let docker_host = "unix:///nonexistent/docker.sock".to_owned();
        Self { program: program.to_owned(), arguments: arguments.iter().map(Into::into).collect(), docker_host }
    }

    pub(crate) fn docker_host(mut self, socket: &Path) -> Self {
        self.docker_host = format!("unix://{}", socket.display());
        self
    }

    pub(crate) fn command(&self) -> Command {
        self.within(&self.program, &[])
    }

    /// The same run as the last arguments of another program.
    pub(crate) fn under(&self, program: impl AsRef<OsStr>, arguments: &[&OsStr]) -> Command {
        let mut all = arguments.to_vec();
        all.push(self.program.as_os_str());
        self.within(program, &all)
    }

    fn within(&self, program: impl AsRef<OsStr>, before: &[&OsStr]) -> Command {
        let mut command = Command::new(program);
        command.args(before).args(&self.arguments).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/nonexistent");
        command.env("DOCKER_HOST", &self.docker_host);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn timed(&self) -> Result<Duration> {
        let mut command = self.command();
        let started = Instant::now();
        let status = command.status().with_context(|| format!("{}", self.program.display()))?;
        let took = started.elapsed();
        if status.code().is_none_or(|code| !VERDICTS.contains(&code)) {
            bail!("{} ended with {status}", self.program.display());
        }
        Ok(took)
    }

    /// Why this cannot be measured, if so: the exit code and the first words on standard error.
    pub(crate) fn trial(&self) -> Result<(), String> {
        let output = self.command().stderr(Stdio::piped()).output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("without a word").trim().to_owned();
        match (output.status.code(), output.status.signal()) {
            (Some(code), _) if VERDICTS.contains(&code) => Ok(()),
            (Some(code), _) => Err(format!("exit code {code}: {said}")),
            (None, signal) => Err(format!("signal {}: {said}", signal.unwrap_or_default())),
        }
    }
}

/// Times of one program, of many runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) least: Duration,
    pub(crate) median: Duration,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self { least: times[0], median: times[times.len() / 2] }
    }
}

/// Times of two programs that took turns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) floor: Times,
    pub(crate) run: Times,
}

impl Pair {
    /// Of the fastest runs: what the programs themselves cost. What is more is what else the machine did meanwhile; a bar
    /// judged by the median is missed on a busy machine by the longer run alone, which is interrupted more often.
    pub(crate) fn ratio(&self) -> f64 {
        self.run.least.as_secs_f64() / self.floor.least.as_secs_f64()
    }

    pub(crate) fn median_ratio(&self) -> f64 {
        self.run.median.as_secs_f64() / self.floor.median.as_secs_f64()
    }
}

/// `/bin/true` and a run, turn by turn; the first of each warms the page cache and is not counted.
pub(crate) fn interleaved(run: &Run, runs: usize) -> Result<Pair> {
    let floor = Run::new(Path::new("/bin/true"), &[]);
    let (mut floors, mut took) = (Vec::new(), Vec::new());
    for round in 0..=runs.max(1) {
        let (one, other) = (floor.timed()?, run.timed()?);
        if round > 0 {
            floors.push(one);
            took.push(other);
        }
    }
    Ok(Pair { floor: Times::of(floors), run: Times::of(took) })
}

/// Runs a command and prints the largest resident set among its processes, in KiB. In a process of its own: the kernel
/// hands the caller's own size down to what it spawns (`exec_mmap` keeps the high-water mark of the memory it replaces).
pub(crate) fn print_peak_memory(mut arguments: impl Iterator<Item = OsString>) -> Result<ExitCode> {
    let mut command = Command::new(arguments.next().context("a program")?);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    println!("{}", getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss());
    Ok(ExitCode::SUCCESS)
}

/// The report, line by line as it is measured.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) binary: PathBuf,
    pub(crate) runs: usize,
    pub(crate) scratch: TempDir,
    /// Holds the binary.
    _installed: TempDir,
    not_run: usize,
    missed: usize,
}

impl Bench {
    pub(crate) fn new(binary: &Path, runs: usize) -> Result<Self> {
        let built = binary.canonicalize().with_context(|| format!("{}", binary.display()))?;
        // A copy, as `install.sh` makes one: what a linker writes page by page through a mapping also lies page by page in the
        // page cache, and costs more to map in than a file that was written or read in one go, as every installed one is.
        let installed = TempDir::new_in(built.parent().context("the folder of the binary")?)?;
        let binary = installed.path().join("preflight");
        fs::copy(&built, &binary).with_context(|| format!("{}", binary.display()))?;
        println!("{:<46} {:>10} {:>7} {:>11} {:>7}   bar", "what", "least", "× true", "median", "× true");
        Ok(Self { binary, runs, scratch: TempDir::new()?, _installed: installed, not_run: 0, missed: 0 })
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        Run::new(&self.binary, arguments)
    }

    /// Times a run against `/bin/true` and prints it; `None` when it could not run.
    pub(crate) fn time(
        &mut self,
        what: &str,
        run: &Run,
        runs: usize,
        bar: Option<f64>,
        note: &str,
    ) -> Result<Option<Pair>> {
        if let Err(why) = run.trial() {
            self.not_run(what, &why);
            return Ok(None);
        }
        let pair = interleaved(run, runs)?;
        let bar = bar.map_or_else(String::new, |bar| format!("≤ {bar} × {}", self.judge(pair.ratio() <= bar)));
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{what:<46} {:>7.2} ms {:>7.2} {:>8.2} ms {:>7.2}   {bar}{note}",
            milliseconds(pair.run.least),
            pair.ratio(),
            milliseconds(pair.run.median),
            pair.median_ratio()
        );
        Ok(Some(pair))
    }

    /// Prints one figure that is not a time.
    pub(crate) fn figure(&mut self, what: &str, value: &str, bar: &str, met: Option<bool>) {
        let verdict = met.map_or_else(String::new, |met| self.judge(met).to_owned());
        println!("{what:<46} {value:>38}   {bar}{verdict}");
    }

    pub(crate) fn not_run(&mut self, what: &str, why: &str) {
        self.not_run += 1;
        println!("{what:<46} NOT MEASURED: {why}");
    }

    fn judge(&mut self, met: bool) -> &'static str {
        self.missed += usize::from(!met);
        if met { " met" } else { " MISSED" }
    }

    /// Peak resident memory of a run in KiB.
    pub(crate) fn peak_memory(run: &Run) -> Result<u64> {
        let myself = std::env::current_exe()?;
        let output = run.under(myself, &[OsStr::new(PEAK_MEMORY)]).stdout(Stdio::piped()).output()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().context("the peak memory")
    }

    /// How many processes and threads a run starts, and how many programs beyond its own, as strace sees it.
    pub(crate) fn spawned(&self, run: &Run) -> Result<(usize, usize, usize)> {
        let log = self.scratch.path().join("strace");
        let options = ["-f", "-qq", "-s", "0", "-e", "trace=process", "-o"].map(OsStr::new);
        run.under("strace", &[&options[..], &[log.as_os_str()]].concat()).status().context("strace")?;
        let log = fs::read_to_string(log)?;
        let is_clone =
            |line: &&str| [" clone(", " clone3(", " fork(", " vfork("].iter().any(|call| line.contains(call));
        let threads = log.lines().filter(is_clone).filter(|line| line.contains("CLONE_THREAD")).count();
        let processes = log.lines().filter(is_clone).count() - threads;
        let programs = log.lines().filter(|line| line.contains(" execve(")).count();
        if programs == 0 {
            bail!("strace saw nothing: it may not be allowed to trace here");
        }
        Ok((processes, threads, programs - 1))
    }

    pub(crate) fn close(self) -> ExitCode {
        println!("\n{} bars missed, {} cases not measured", self.missed, self.not_run);
        if self.not_run == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
