//! The service that takes back at boot what was not confirmed when the power went: `install.sh` brings it, and a plan
//! whose changes outlive a power cut by themselves puts it first when it is not there.

use std::path::Path;

use crate::apply::knob::place::{FilePlace, LinkPlace};
use crate::apply::store::STATE_DIR;
use crate::apply::timer;
use crate::catalog::os::ServiceManager;
use crate::host::Host;
use crate::host::safe_file::Tree;
use crate::host::units;

/// The service's name.
const NAME: &str = "preflight-recover";

/// What stands for the program in the files of `units/`.
const PROGRAM: &str = "@BINARY@";

/// The service under one service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// The unit or script.
    pub file: &'static str,
    /// What makes it start at boot.
    pub link: &'static str,
    template: &'static str,
}

pub const SYSTEMD: Form = Form {
    file: "/etc/systemd/system/preflight-recover.service",
    link: "/etc/systemd/system/sysinit.target.wants/preflight-recover.service",
    template: include_str!("../../units/systemd/preflight-recover.service"),
};

pub const OPENRC: Form = Form {
    file: "/etc/init.d/preflight-recover",
    link: "/etc/runlevels/boot/preflight-recover",
    template: include_str!("../../units/openrc/preflight-recover"),
};

/// Services of ours, under every name that begins with it.
pub const FILES: &[FilePlace] = &[
    FilePlace::ours("/etc/systemd/system/preflight-*.service", 0o644),
    FilePlace::ours("/etc/init.d/preflight-*", 0o755),
    FilePlace::ours("/etc/local.d/preflight-*.start", 0o755),
];

pub const LINKS: &[LinkPlace] = &[LinkPlace::new(SYSTEMD.link, SYSTEMD.file), LinkPlace::new(OPENRC.link, OPENRC.file)];

impl Form {
    pub fn of(manager: ServiceManager) -> Self {
        match manager {
            ServiceManager::Systemd => SYSTEMD,
            ServiceManager::OpenRc => OPENRC,
        }
    }

    pub fn text(self, program: &str) -> String {
        self.template.replace(PROGRAM, program)
    }

    /// The program that a text names, when the text is this service with a program where only root puts one.
    fn program(self, text: &str) -> Option<&str> {
        let (head, tail) = self.template.split_once(PROGRAM)?;
        let program = text.strip_prefix(head)?.strip_suffix(tail)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-');
        let is_plain = program.bytes().all(plain)
            && program.split('/').skip(1).all(|part| !part.is_empty() && !part.starts_with('.'));
        let is_durable = ["/usr/", "/opt/"].iter().any(|folder| program.starts_with(folder)) || is_copy(program);
        (is_plain && is_durable).then_some(program)
    }
}

/// A copy of this program, named by its digest.
fn is_copy(program: &str) -> bool {
    let digest = program
        .strip_prefix(STATE_DIR)
        .and_then(|rest| rest.strip_prefix("/bin/"))
        .and_then(|rest| rest.strip_suffix("/preflight"));
    digest.is_some_and(|digest| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a path is the service's own file.
pub fn is_file(path: &Path) -> bool {
    [SYSTEMD, OPENRC].iter().any(|form| path == Path::new(form.file))
}

/// The program that the text of one of the files names; `None` for any other text.
pub fn program<'a>(path: &Path, text: &'a str) -> Option<&'a str> {
    [SYSTEMD, OPENRC].iter().find(|form| path == Path::new(form.file))?.program(text)
}

/// Whether the service is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It starts at boot, and its program is root's.
    InPlace,
    /// It is not there, or would not do: this program is to be named in it.
    Missing { program: String },
    /// It is not there and cannot be made.
    Impossible(String),
}

/// Looks at a running host.
pub fn look(host: &Host) -> Standing {
    if units::is_enabled(host, NAME)
        && let Ok(Some((_, text))) = units::definition(host, NAME)
        && let Some(program) = started(&text)
        && Tree::open(Path::new("/")).is_ok_and(|tree| tree.audit(Path::new(program)).is_ok())
    {
        return Standing::InPlace;
    }
    match timer::durable_path() {
        Ok(program) => Standing::Missing { program: program.display().to_string() },
        Err(error) => Standing::Impossible(error.to_string()),
    }
}

/// The program that a unit or a script runs with `recover`.
pub fn started(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let line = line.trim();
        let (program, verb) = line.strip_prefix("ExecStart=").unwrap_or(line).split_once(' ')?;
        (program.starts_with('/') && verb.trim() == "recover").then_some(program)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Seen failing with the program not looked at in `Form::program`.
    #[test]
    fn the_service_runs_a_program_of_roots_and_nothing_else() {
        let copy = format!("{STATE_DIR}/bin/{}/preflight", "0a".repeat(32));
        for form in [SYSTEMD, OPENRC] {
            for good in ["/usr/local/bin/preflight", "/opt/preflight/preflight", copy.as_str()] {
                let text = form.text(good);
                assert_eq!(program(Path::new(form.file), &text), Some(good));
                assert_eq!(started(&text), Some(good));
            }
            for bad in [
                "/tmp/preflight",
                "/usr/../tmp/x",
                "/usr/bin/sh -c reboot;",
                "/usr/bin/x\nExecStart=/bin/sh",
                "/var/lib/preflight/bin/x/preflight",
                "/usr//x",
                "",
            ] {
                assert_eq!(program(Path::new(form.file), &form.text(bad)), None, "{bad:?}");
            }
            assert_eq!(program(Path::new(form.file), "[Service]\nExecStart=/usr/bin/x recover\n"), None);
        }
        assert_eq!(program(Path::new("/etc/systemd/system/preflight-x.service"), &SYSTEMD.text("/usr/bin/x")), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(ExecStart=|/[a-z]{1,4}| recover|\n|\\PC){0,20}") {
            let _ = (started(&text), program(Path::new(SYSTEMD.file), &text));
        }
    }
}
