//! What the readers of kernel settings look at together: read when the first one asks.

use std::rc::Rc;

use super::sysctl;
use super::sysctl::boot::Sources;
use super::tuned::{self, Tuned};
use crate::catalog::os::SysctlLoader;
use crate::host::{Host, ReadError};
use crate::subjects::context::Context;

/// What tuned does at boot; `None` when it is not there or does not start.
#[derive(Debug)]
pub struct TunedAtBoot(pub Result<Option<Tuned>, ReadError>);

/// The kernel's command line; empty where it cannot be read.
#[derive(Debug)]
pub struct CommandLine(pub String);

/// What the settings of the next boot come from.
#[derive(Debug)]
pub struct BootSources(pub Result<Sources, ReadError>);

/// What applies the files of `sysctl.d` and `tmpfiles.d` at boot.
#[derive(Debug)]
struct Loader(SysctlLoader);

pub fn tuned(cx: &Context<'_>) -> Rc<TunedAtBoot> {
    cx.shared(|| TunedAtBoot(tuned::load(cx.host, || cx.boot_folders())))
}

pub fn command_line(cx: &Context<'_>) -> Rc<CommandLine> {
    cx.shared(|| CommandLine(command_line_of(cx.host)))
}

pub fn boot_sources(cx: &Context<'_>) -> Rc<BootSources> {
    cx.shared(|| BootSources(sysctl::sources_of_run(cx)))
}

pub fn loader(cx: &Context<'_>) -> SysctlLoader {
    cx.shared(|| Loader(sysctl::loader(cx.host, cx.os.sysctl_loader))).0
}

/// The kernel's command line; empty where it cannot be read.
pub fn command_line_of(host: &Host) -> String {
    host.read_text("/proc/cmdline").unwrap_or_default()
}
