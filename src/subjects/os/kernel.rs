//! Which kernel runs, or is installed under a root.

use std::time::Instant;

use sysinfo::System;

use crate::facts::{Fact, Facts, Value, Version};
use crate::host::Host;
use crate::subjects::context::Context;

const OSRELEASE: &str = "/proc/sys/kernel/osrelease";

/// Where kernels install their modules: merged-usr first.
const MODULE_DIRS: [&str; 2] = ["/usr/lib/modules", "/lib/modules"];

/// The kernel's release string and its source; an unknown or absent fact otherwise. Under a root: the one whose
/// `/proc` is there, else the only one installed.
pub fn release(host: &Host) -> Result<(String, &'static str), Fact> {
    if host.is_live() {
        return System::kernel_version()
            .map(|release| (release, "uname(2)"))
            .map_err(|error| Fact::unknown(error.to_string(), None, "uname(2)"));
    }
    match host.read_optional(OSRELEASE) {
        Ok(Some(text)) if !text.trim().is_empty() => return Ok((text.trim().to_owned(), OSRELEASE)),
        Ok(_) => {}
        Err(error) => return Err(Fact::unreadable(&error, "")),
    }
    for dir in MODULE_DIRS {
        let names = host.list(dir).map_err(|error| Fact::unreadable(&error, ""))?;
        let mut kernels = names.iter().filter_map(|name| name.to_str()).filter(|name| Version::parse(name).is_ok());
        match (kernels.next(), kernels.next()) {
            (Some(only), None) => return Ok((only.to_owned(), dir)),
            (Some(_), Some(_)) => return Err(Fact::absent("several kernels are installed and none runs", dir)),
            (None, _) => {}
        }
    }
    Err(Fact::absent("no kernel runs or is installed here", OSRELEASE))
}

/// The release string of the kernel that runs: this one, or the one whose `/proc` is under a root.
pub fn running(host: &Host) -> Option<String> {
    if host.is_live() {
        return System::kernel_version().ok();
    }
    host.read_text(OSRELEASE).ok().map(|text| text.trim().to_owned())
}

/// Inserts `kernel.release` and `kernel.version`.
pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    if !cx.want.any("kernel.") {
        return;
    }
    let started = Instant::now();
    let release = release(cx.host);
    for id in ["kernel.release", "kernel.version"] {
        if !cx.want.has(id) {
            continue;
        }
        let fact = match &release {
            Err(fact) => fact.clone(),
            Ok((text, source)) => {
                let fact = if id == "kernel.release" {
                    Fact::known(Value::Text(text.clone()), *source)
                } else {
                    match Version::parse(text) {
                        Ok(version) => Fact::known(Value::Version(version), *source),
                        Err(error) => Fact::unknown(error.to_string(), None, *source),
                    }
                };
                if MODULE_DIRS.contains(source) { fact.note("installed, not running") } else { fact }
            }
        };
        facts.live(id, fact.took(started.elapsed()));
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the roots they read")]
mod tests {
    use super::*;
    use crate::facts::State;
    use std::fs;

    #[test]
    fn a_root_tells_its_running_kernel_or_the_only_installed_one() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at_root(root.path());
        assert!(matches!(release(&host).unwrap_err().state, State::Absent(_)));
        fs::create_dir_all(root.path().join("lib/modules/5.14.0-427.el9.x86_64")).unwrap();
        fs::create_dir_all(root.path().join("lib/modules/extras")).unwrap();
        assert_eq!(release(&host).unwrap(), ("5.14.0-427.el9.x86_64".to_owned(), "/lib/modules"));
        fs::create_dir_all(root.path().join("lib/modules/5.14.0-503.el9.x86_64")).unwrap();
        assert!(matches!(release(&host).unwrap_err().state, State::Absent(_)), "guessed between two kernels");
        fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        fs::write(root.path().join("proc/sys/kernel/osrelease"), "5.14.0-503.el9.x86_64\n").unwrap();
        assert_eq!(release(&host).unwrap(), ("5.14.0-503.el9.x86_64".to_owned(), OSRELEASE));
    }
}
