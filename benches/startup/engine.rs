//! Beside a Docker Engine that answers: a real dockerd, in namespaces of its own.

use std::path::Path;

use anyhow::Result;

use crate::measure::Bench;
use crate::support::docker as lab;

const WHAT: &str = "check beside a Docker Engine that answers";

pub(crate) fn compare(bench: &mut Bench) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bench.not_run(WHAT, "needs root for an engine of its own");
        return Ok(());
    }
    if !Path::new("/usr/sbin/dockerd").exists() {
        bench.not_run(WHAT, "needs docker.io");
        return Ok(());
    }
    let engine = lab::Engine::start(&lab::Options::default());
    let check = bench.run(&["check"]).docker_host(&engine.socket);
    let runs = bench.runs;
    bench.time(WHAT, &check, runs, None, "")?;
    match bench.spawned(&check) {
        Ok((processes, threads, programs)) => {
            let value = format!("{processes} forks, {programs} execs, {threads} threads");
            bench.figure("what it starts", &value, "Compose alone, where it is installed", Some(programs <= 1));
        }
        Err(error) => bench.not_run("what it starts", &format!("{error:#}")),
    }
    Ok(())
}
