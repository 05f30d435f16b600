//! Speed and memory of whole runs, as ratios to spawning `/bin/true` in the same run of this benchmark.
//!
//! `scripts/bench` builds the release binary and runs this on it; `cargo bench --bench startup` takes cargo's. A ratio travels
//! between machines where milliseconds do not; runs of the two are interleaved, so that both see the same load. A bar
//! that is missed is reported and is no failure; a case that could not run is one.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "spawns and reports by itself, outside of the product"
)]

mod cases;
mod engine;
mod history;
mod measure;
mod sockets;
mod syncs;

#[path = "../../tests/lab/tune/place.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "a part of the lab is used here; it fails by panicking")]
mod place;
#[path = "../../tests/lab/support/mod.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "a part of the lab is used here; it fails by panicking")]
mod support;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::measure::Bench;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_preflight"));
    let mut runs = 200;
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            // cargo adds it to every harness.
            Some("--bench") => {}
            Some("--binary") => binary = arguments.next().context("--binary needs a path")?.into(),
            Some("--runs") => {
                let text = arguments.next().context("--runs needs a number")?;
                runs = text.to_string_lossy().parse().context("--runs needs a number")?;
            }
            // The rest is this program calling itself.
            Some(measure::PEAK_MEMORY) => return measure::print_peak_memory(arguments),
            Some(sockets::STAGE) => return sockets::stage(arguments),
            Some(sockets::HOLD) => return sockets::hold(arguments),
            _ => bail!("unknown argument `{}`\nhint: [--binary FILE] [--runs N]", argument.display()),
        }
    }
    let mut bench = Bench::new(&binary, runs)?;
    cases::all(&mut bench)?;
    Ok(bench.close())
}
