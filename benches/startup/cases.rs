//! What is measured, and the bar that each was promised to stay under.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::measure::{Bench, Pair, Run};
use crate::{engine, history, sockets, syncs};

/// The deadline of the Docker probe, and what may come on top of it for everything else.
const DOCKER_DEADLINE: Duration = Duration::from_secs(2);
const BESIDE_THE_DEADLINE: Duration = Duration::from_millis(100);

const MEMORY_BAR_KIB: u64 = 12 * 1024;
const SIZE_BAR_BYTES: u64 = 12 * 1024 * 1024;

pub(crate) fn all(bench: &mut Bench) -> Result<()> {
    let runs = bench.runs;
    let check = bench.run(&["check"]);
    let binary = bench.binary.clone();

    bench.time("/bin/true, against itself", &Run::new(Path::new("/bin/true"), &[]), runs, None, "")?;
    bench.time("--version", &bench.run(&["--version"]), runs, None, "")?;
    let checked = bench.time("check, Docker not answering", &check, runs, Some(4.5), ", the aim is 3.5")?;
    let planned = bench.time("tune, the plan", &bench.run(&["tune"]), runs, None, "")?;
    if let (Some(checked), Some(planned)) = (checked, planned) {
        let more = planned.ratio() / checked.ratio();
        bench.figure("  a plan against a check", &format!("{more:.2} ×"), "≤ 1.8 ×", Some(more <= 1.8));
    }
    let ports = ["check", "--set", "ports=bench:20000-20999"];
    let half = bench.run(&["check", "--set", "ports=bench:20000-20499"]);
    let half = bench.time("check of 500 ports", &half, runs / 4, None, "")?;
    let whole = bench.time("check of 1,000 ports", &bench.run(&ports), runs / 4, Some(40.0), "")?;
    linear(bench, "  1,000 ports against 500", half, whole);
    let free = bench.run(&[&ports[..], &["--only", "port.free"]].concat());
    bench.time("  of them, only whether they are free", &free, runs / 4, None, "")?;

    let profile = |count| many_checks(bench.scratch.path(), count);
    let (half, whole) = (profile(5_000)?, profile(10_000)?);
    let many = |bench: &Bench, path: &PathBuf| bench.run(&["check", "--profile", &path.to_string_lossy()]);
    let half = bench.time("check of 5,000 checks over 1,000 facts", &many(bench, &half), runs / 10, None, "")?;
    let whole =
        bench.time("check of 10,000 checks over 1,000 facts", &many(bench, &whole), runs / 10, Some(250.0), "")?;
    linear(bench, "  10,000 checks against 5,000", half, whole);

    hanging_socket(bench)?;
    sockets::compare(bench)?;
    engine::compare(bench)?;
    syncs::compare(bench);
    history::compare(bench)?;

    memory_and_processes(bench, &check);
    let size = fs::metadata(&binary)?.len();
    let linked = if is_static(&fs::read(&binary)?) { "static" } else { "dynamic: use scripts/bench for the release" };
    bench.figure(
        "size of the binary",
        &format!("{size} bytes"),
        &format!("≤ 12 MiB, {linked}"),
        Some(size <= SIZE_BAR_BYTES),
    );
    Ok(())
}

/// Twice as much work: at most twice the time is linear, and a little is left for noise.
fn linear(bench: &mut Bench, what: &str, half: Option<Pair>, whole: Option<Pair>) {
    if let (Some(half), Some(whole)) = (half, whole) {
        let growth = whole.run.least.as_secs_f64() / half.run.least.as_secs_f64();
        bench.figure(what, &format!("{growth:.2} ×"), "≤ 2.2 ×, linear", Some(growth <= 2.2));
    }
}

/// What one check takes and starts; of a run that ended early this would say nothing.
fn memory_and_processes(bench: &mut Bench, check: &Run) {
    if let Err(why) = check.trial() {
        bench.not_run("memory and processes of check", &why);
        return;
    }
    match (Bench::peak_memory(check), Bench::peak_memory(&Run::new(Path::new("/bin/true"), &[]))) {
        (Ok(peak), Ok(floor)) => {
            let value = format!("{peak} KiB (true: {floor})");
            bench.figure("peak resident memory of check", &value, "≤ 12 MiB", Some(peak <= MEMORY_BAR_KIB));
        }
        (Err(error), _) | (_, Err(error)) => bench.not_run("peak resident memory of check", &error.to_string()),
    }
    match bench.spawned(check) {
        Ok((processes, threads, programs)) => {
            let value = format!("{processes} forks, {programs} execs");
            bench.figure("processes that check starts", &value, "0 and 0", Some(processes + programs == 0));
            bench.figure("threads that check starts", &threads.to_string(), "", None);
        }
        Err(error) => bench.not_run("processes that check starts", &format!("{error:#}")),
    }
}

/// A dynamic program names its loader; a static one has none to name.
fn is_static(binary: &[u8]) -> bool {
    let head = &binary[..binary.len().min(4096)];
    !head.windows(8).any(|part| part == b"/ld-linu")
}

/// A daemon that takes the connection and never says a word.
fn hanging_socket(bench: &mut Bench) -> Result<()> {
    let what = "check with a Docker socket that hangs";
    let path = bench.scratch.path().join("hanging.sock");
    let _listener = UnixListener::bind(&path)?;
    let run = bench.run(&["check"]).docker_host(&path);
    let mut slowest = Duration::ZERO;
    for _ in 0..3 {
        let started = Instant::now();
        let status = run.command().status()?;
        if !matches!(status.code(), Some(0 | 1 | 3)) {
            bench.not_run(what, &status.to_string());
            return Ok(());
        }
        slowest = slowest.max(started.elapsed());
    }
    let bar = DOCKER_DEADLINE + BESIDE_THE_DEADLINE;
    let value = format!("{:.2} s", slowest.as_secs_f64());
    bench.figure(what, &value, &format!("≤ {:.1} s, one deadline", bar.as_secs_f64()), Some(slowest <= bar));
    Ok(())
}

/// A profile of its own checks, over 1,000 kernel settings that hold one whole number.
fn many_checks(folder: &Path, count: usize) -> Result<PathBuf> {
    let mut settings = Vec::new();
    numbers_below(Path::new("/proc/sys"), &mut settings);
    settings.sort_unstable();
    settings.truncate(1_000);
    // Where there are fewer, the rest is looked for and not found.
    for missing in settings.len()..1_000 {
        settings.push(format!("vm.bench_{missing}"));
    }
    let mut text = "name = \"bench\"\ntitle = \"bench\"\nabout = \"bench\"\n".to_owned();
    for index in 0..count {
        let setting = &settings[index % settings.len()];
        write!(
            text,
            "[[check]]\nid = \"bench.check-{index}\"\ntitle = \"number {index}\"\nfact = \"sysctl.{setting}\"\n\
             pass = {{ at_least = {index} }}\nseverity = \"info\"\nwhy = \"measured\"\nfix = \"none\"\n\
             sources = [\"none\"]\ndated = \"2026-11-22\"\n",
        )?;
    }
    let path = folder.join(format!("bench-{count}.toml"));
    fs::write(&path, text)?;
    Ok(path)
}

fn numbers_below(folder: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.strip_prefix("/proc/sys").unwrap_or(&path).to_string_lossy().into_owned();
        if path.is_dir() {
            numbers_below(&path, found);
        } else if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-/".contains(&byte))
            && fs::read_to_string(&path).is_ok_and(|text| text.trim().parse::<i64>().is_ok())
        {
            found.push(name.replace('/', "."));
        }
    }
}
