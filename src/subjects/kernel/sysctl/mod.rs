//! `sysctl.*`: kernel settings live, after the next boot, and as a new container would get them.

pub mod boot;
pub mod files;
pub mod glob;
pub mod kernel;
pub mod live;
pub mod winner;

use std::time::Instant;

use self::boot::Sources;
use self::winner::SettingsFile;
use super::tuned::{self, Tuned};
use crate::catalog::os::SysctlLoader;
use crate::facts::registry::{self, Scope};
use crate::facts::{AbsentReason, Fact, Facts, Layer, State, Version};
use crate::host::conf_dirs;
use crate::host::conf_dirs::{ConfFile, Hidden};
use crate::host::{Host, ReadError};
use crate::subjects::context::Context;
use crate::subjects::kernel::shared;

const FAMILY: &str = "sysctl.";
const SYSCTL_CONF: &str = "/etc/sysctl.conf";

pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    if !cx.want.any(FAMILY) {
        return;
    }
    let started = Instant::now();
    let sources = shared::boot_sources(cx);
    let sources = sources.0.as_ref();
    let reading = started.elapsed();
    for key in cx.want.family(FAMILY) {
        let id = format!("{FAMILY}{key}");
        let now = live::read(cx.host, key);
        let boot = match (sources, &now.state) {
            // What the kernel does not have, no file gives it.
            (_, State::Absent(why)) if cx.host.is_live() => Fact::absent(why.clone(), now.source.clone()),
            (Ok(sources), _) => boot::decide(sources, key, now.value()),
            (Err(error), _) => Fact::unknown(error.to_string(), Some("run as root"), error.path.display().to_string()),
        };
        if registry::scope(&id) == Scope::Network {
            let (kernel, entries) = sources
                .as_ref()
                .map_or((None, None), |sources| (sources.kernel.as_ref(), sources.tcp_ehash_entries.as_deref()));
            let predicted = boot::predicted_in_container(key, kernel, entries);
            facts.insert(&id, Layer::Container, predicted.unwrap_or_else(|| not_predicted(cx.host, &now)));
        }
        facts.insert(&id, Layer::Boot, boot.took(reading));
        facts.insert(id, Layer::Live, now);
    }
}

/// No container of the workload runs that could be asked, and the default of a new network namespace is not known: the
/// setting is not in the table, or the kernel is not known.
fn not_predicted(host: &Host, now: &Fact) -> Fact {
    match &now.state {
        // An image without a kernel: there is nothing to start the workload on.
        _ if !host.is_live() => Fact::not_running("kernel default"),
        State::Absent(AbsentReason::NotOnThisKernel) => Fact::absent(AbsentReason::NotOnThisKernel, now.source.clone()),
        _ => Fact::unknown(
            "what a new container gets cannot be predicted",
            Some("start the workload, or set it under `sysctls` in its Compose file"),
            "kernel default",
        ),
    }
}

/// What applies the files: systemd where it is there, else what the OS profile says.
pub fn loader(host: &Host, otherwise: SysctlLoader) -> SysctlLoader {
    let systemd = ["/run/systemd/system", "/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl"];
    if systemd.iter().any(|path| host.exists(path)) { SysctlLoader::Systemd } else { otherwise }
}

/// The kernel that runs, or under a root the newest one installed there.
pub fn kernel_version(host: &Host) -> Option<Version> {
    if let Some(release) = crate::subjects::os::kernel::running(host) {
        return Version::parse(&release).ok();
    }
    let releases = host.list("/lib/modules").unwrap_or_default();
    let versions = releases.iter().filter_map(|name| Version::parse(name.to_str()?).ok());
    versions.max_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))
}

/// The boot files that this loader reads, in its order.
pub fn boot_files(host: &Host, loader: SysctlLoader) -> Result<Vec<ConfFile>, ReadError> {
    let directories = conf_dirs::directories(host, "sysctl.d");
    let hidden = if loader == SysctlLoader::Systemd { Hidden::Skipped } else { Hidden::Read };
    let mut files = conf_dirs::read(host, &directories, hidden)?;
    // systemd knows it only as /etc/sysctl.d/99-sysctl.conf, an ordinary name.
    if loader == SysctlLoader::Procps {
        files.extend(sysctl_conf(host));
    }
    Ok(files)
}

fn sysctl_conf(host: &Host) -> Option<ConfFile> {
    let text = host.read_optional(SYSCTL_CONF).transpose()?;
    Some(ConfFile { path: SYSCTL_CONF.into(), text })
}

/// Reads everything that has a say about the boot values.
pub fn sources(host: &Host, loader: SysctlLoader) -> Result<Sources, ReadError> {
    sources_with(host, loader, tuned::load_alone(host), shared::command_line_of(host))
}

/// The same of what this run has read already, for [`shared::boot_sources`].
pub(crate) fn sources_of_run(cx: &Context<'_>) -> Result<Sources, ReadError> {
    let tuned = shared::tuned(cx).0.clone();
    sources_with(cx.host, shared::loader(cx), tuned, shared::command_line(cx).0.clone())
}

fn sources_with(
    host: &Host,
    loader: SysctlLoader,
    tuned: Result<Option<Tuned>, ReadError>,
    command_line: String,
) -> Result<Sources, ReadError> {
    let (files, unreadable) = parsed(boot_files(host, loader)?, loader);
    let tuned = tuned.map_err(|error| error.to_string());
    let reapplied = match &tuned {
        Ok(Some(tuned)) if tuned.reapply => reapplied(host)?,
        _ => Vec::new(),
    };
    Ok(Sources {
        loader,
        loader_off: (loader == SysctlLoader::Procps && is_off(host))
            .then(|| "the sysctl service is in no runlevel: boot files are not applied".to_owned()),
        files,
        unreadable,
        command_line,
        tuned,
        reapplied,
        kernel: kernel_version(host),
        tcp_ehash_entries: host.read_text("/proc/sys/net/ipv4/tcp_ehash_entries").ok(),
    })
}

/// The same sources as they would be with this text at this path, which lies in `/etc/sysctl.d`.
#[must_use]
pub fn with_file(mut sources: Sources, path: &str, text: &str) -> Sources {
    let loader = sources.loader;
    let unreadable = sources.unreadable.iter().map(|(at, error)| (sources.files[*at].path.clone(), error.clone()));
    let unreadable: Vec<(String, String)> = unreadable.collect();
    place(&mut sources.files, SettingsFile::parse(path.to_owned(), text, loader));
    // The places of the others have moved.
    let at = |path: &str| sources.files.iter().position(|file| file.path == path);
    sources.unreadable = unreadable.into_iter().filter_map(|(path, error)| Some((at(&path)?, error))).collect();
    if matches!(&sources.tuned, Ok(Some(tuned)) if tuned.reapply) {
        place(&mut sources.reapplied, SettingsFile::parse(path.to_owned(), text, loader));
    }
    sources
}

/// Puts a file where its name belongs; `/etc/sysctl.conf`, where it is read, stays last.
fn place(files: &mut Vec<SettingsFile>, file: SettingsFile) {
    fn name(file: &SettingsFile) -> &str {
        file.path.rsplit('/').next().unwrap_or(&file.path)
    }
    files.retain(|known| name(known) != name(&file));
    let at = files.iter().position(|known| known.path == SYSCTL_CONF || name(known) > name(&file));
    files.insert(at.unwrap_or(files.len()), file);
}

fn parsed(files: Vec<ConfFile>, loader: SysctlLoader) -> (Vec<SettingsFile>, Vec<(usize, String)>) {
    let mut unreadable = Vec::new();
    let parse = |(place, file): (usize, ConfFile)| match file.text {
        Ok(text) => SettingsFile::parse(file.path, &text, loader),
        Err(error) => {
            unreadable.push((place, error.to_string()));
            SettingsFile { path: file.path, lines: Vec::new() }
        }
    };
    let files = files.into_iter().enumerate().map(parse).collect();
    (files, unreadable)
}

/// `_apply_system_sysctl` of tuned: /run before /etc for the same name, /usr never.
fn reapplied(host: &Host) -> Result<Vec<SettingsFile>, ReadError> {
    let directories = ["/run/sysctl.d", "/etc/sysctl.d"].map(str::to_owned);
    let mut files = conf_dirs::read(host, &directories, Hidden::Read)?;
    files.extend(sysctl_conf(host));
    // The releases with this folder (2.23) are the ones that read names the other way; 2.20 and 2.25 were tried.
    let swap = host.exists("/usr/lib/tuned/profiles");
    let parse = |file: ConfFile| Ok(SettingsFile { lines: files::parse_as_tuned(&file.text?, swap), path: file.path });
    files.into_iter().map(parse).collect()
}

/// OpenRC with its `sysctl` service in no runlevel.
fn is_off(host: &Host) -> bool {
    let runlevels = host.list("/etc/runlevels").unwrap_or_default();
    let links = |name: &std::ffi::OsString| {
        let path = std::path::Path::new("/etc/runlevels").join(name).join("sysctl");
        host.link_target(&path).is_some() || host.exists(&path)
    };
    !runlevels.is_empty() && !runlevels.iter().any(links)
}
