//! A long history: 10,000 transactions on record, and what a new one costs beside them. In a directory that stands for a
//! host (`--root`), so that the machine stays as it is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use preflight::apply::journal::{Event, line, parse};

use crate::measure::{Bench, Run, interleaved};

const TRANSACTIONS: u32 = 10_000;
const OS_RELEASE: &str = "ID=debian\nVERSION_ID=\"12\"\n";
const APPLY: [&str; 6] = ["tune", "--apply", "--confirm-within", "0", "--settle", "0"];

pub(crate) fn compare(bench: &mut Bench) -> Result<()> {
    let root = bench.scratch.path().join("root");
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join("etc/os-release"), OS_RELEASE)?;
    let at = |bench: &Bench, arguments: &[&str]| bench.run(&[arguments, &["--root", &root.to_string_lossy()]].concat());
    let (apply, rollback) = (at(bench, &APPLY), at(bench, &["rollback"]));
    run(&apply)?;
    let looks = [("history", at(bench, &["history", "--limit", "20"])), ("verify", at(bench, &["verify"]))];
    let runs = bench.runs / 4;
    let mut before = Vec::new();
    for (_, look) in &looks {
        before.push(interleaved(look, runs)?.ratio());
    }
    before.push(apply_again(&apply, &rollback, runs)?);
    multiply(&root.join("var/lib/preflight/tx"))?;
    for ((name, look), before) in looks.iter().zip(&before) {
        let after = interleaved(look, runs)?.ratio();
        bench.figure(
            &format!("{name} of {TRANSACTIONS} transactions"),
            &format!("{after:.1} × true ({before:.1} with few)"),
            "",
            None,
        );
    }
    let after = apply_again(&apply, &rollback, runs)?;
    let few = before[looks.len()];
    bench.figure(
        &format!("an apply after {TRANSACTIONS} transactions"),
        &format!("{:.2} × one after few", after / few),
        "",
        None,
    );
    Ok(())
}

fn run(run: &Run) -> Result<Duration> {
    let started = std::time::Instant::now();
    let status = run.command().status()?;
    let took = started.elapsed();
    if !status.success() {
        bail!("a run ended with {status}");
    }
    Ok(took)
}

/// Takes the transaction back and applies it again, so that there is something to do; the least time of the apply, in
/// milliseconds.
fn apply_again(apply: &Run, rollback: &Run, runs: usize) -> Result<f64> {
    let mut least = Duration::MAX;
    for _ in 0..runs.clamp(3, 20) {
        run(rollback)?;
        least = least.min(run(apply)?);
    }
    Ok(least.as_secs_f64() * 1e3)
}

/// Copies the oldest transaction until there are enough of them, each under a name of its own that is older still.
fn multiply(folder: &Path) -> Result<()> {
    let mut known: Vec<_> = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    known.sort_by_key(fs::DirEntry::file_name);
    let text = fs::read_to_string(known.first().context("a transaction")?.path().join("journal.jsonl"))?;
    let journal = parse(&text).context("its journal")?;
    for number in 0..TRANSACTIONS {
        let name = format!("20200101T{:02}{:02}{:02}Z-{number:08x}", number / 3600, number / 60 % 60, number % 60);
        let mut copy = String::new();
        for record in &journal.records {
            let mut record = record.clone();
            if let Event::Begin { tx, .. } = &mut record.event {
                *tx = name.parse()?;
            }
            copy.push_str(&line(&record)?);
        }
        fs::create_dir(folder.join(&name))?;
        fs::write(folder.join(&name).join("journal.jsonl"), copy)?;
    }
    Ok(())
}
