//! Who the host is: the four lines at the top of a report. For people; nothing is judged by it.

use std::io::Read as _;

use sysinfo::System;

use crate::facts::snapshot::HostIdentity;
use crate::facts::{Facts, Value};
use crate::host::Host;
use crate::subjects::os::kernel;

/// What is shown for a part that nothing tells.
const UNKNOWN: &str = "unknown";

/// Programs that an installed system has at least one of; their ELF header tells the architecture of an image.
const PROGRAMS: [&str; 6] = ["/usr/bin/env", "/bin/sh", "/usr/bin/bash", "/bin/busybox", "/sbin/init", "/usr/bin/cat"];

/// As much of an ELF file as holds `e_machine`.
const ELF_HEAD_BYTES: usize = 20;

/// Names the host, its OS as the facts have it; parts that cannot be determined are `unknown`.
pub fn read(host: &Host, facts: &Facts) -> HostIdentity {
    let os = match facts.value("os.name") {
        Some(Value::Text(name)) => name.clone(),
        _ => UNKNOWN.to_owned(),
    };
    let kernel = kernel::release(host).map_or_else(|_| UNKNOWN.to_owned(), |(release, _)| release);
    let (name, arch) = if host.is_live() {
        (System::host_name().ok(), Some(System::cpu_arch()))
    } else {
        (host.read_text("/etc/hostname").ok().and_then(|text| hostname(&text)), installed_arch(host))
    };
    let or_unknown = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| UNKNOWN.to_owned());
    HostIdentity { name: or_unknown(name), os, kernel, arch: or_unknown(arch) }
}

/// The name in hostname(5): the first line that is neither empty nor a comment.
pub fn hostname(text: &str) -> Option<String> {
    text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).map(Into::into)
}

fn installed_arch(host: &Host) -> Option<String> {
    PROGRAMS.iter().find_map(|program| {
        let mut head = [0; ELF_HEAD_BYTES];
        host.open(program.as_ref()).ok()?.read_exact(&mut head).ok()?;
        elf_machine(&head).map(Into::into)
    })
}

/// The machine of an ELF header (`e_machine` of elf(5)) in the words of uname(2).
pub fn elf_machine(head: &[u8]) -> Option<&'static str> {
    let [0x7f, b'E', b'L', b'F', class, order, ..] = head else { return None };
    let pair: [u8; 2] = head.get(18..20)?.try_into().ok()?;
    let machine = if *order == 2 { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) };
    Some(match (machine, class, order) {
        (3, ..) => "i686",
        (21, _, 1) => "ppc64le",
        (21, ..) => "ppc64",
        (22, ..) => "s390x",
        (40, ..) => "armv7l",
        (62, ..) => "x86_64",
        (183, ..) => "aarch64",
        (243, 2, _) => "riscv64",
        (258, ..) => "loongarch64",
        _ => return None,
    })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the roots they read")]
mod tests {
    use super::*;
    use crate::subjects::context::Want;
    use crate::subjects::os::os_release;
    use proptest::prelude::*;
    use std::fs;

    fn identity(host: &Host) -> HostIdentity {
        let mut facts = Facts::default();
        os_release::probe(host, &Want::new(["os.name".to_owned()]), &mut facts);
        read(host, &facts)
    }

    #[test]
    fn the_live_host_is_named_like_uname_names_it() {
        let uname = nix::sys::utsname::uname().unwrap();
        let identity = identity(&Host::live());
        assert_eq!(identity.name, uname.nodename().to_str().unwrap());
        assert_eq!(identity.kernel, uname.release().to_str().unwrap());
        assert_eq!(identity.arch, uname.machine().to_str().unwrap());
    }

    #[test]
    fn an_image_is_named_by_its_files() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at_root(root.path());
        let nobody = identity(&host);
        assert_eq!([nobody.name, nobody.os, nobody.kernel, nobody.arch], [UNKNOWN; 4]);

        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        fs::create_dir_all(root.path().join("usr/lib/modules/6.1.0-13-amd64")).unwrap();
        fs::write(root.path().join("etc/hostname"), "# set by hand\n\n db1 \n").unwrap();
        fs::write(root.path().join("etc/os-release"), "PRETTY_NAME=\"Debian 12\"").unwrap();
        let mut elf = vec![0; 64];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        elf[18] = 183;
        fs::write(root.path().join("usr/bin/bash"), elf).unwrap();
        let image = identity(&host);
        assert_eq!(
            [&*image.name, &*image.os, &*image.kernel, &*image.arch],
            ["db1", "Debian 12", "6.1.0-13-amd64", "aarch64"]
        );
    }

    proptest! {
        #[test]
        fn any_head_is_survived(head in proptest::collection::vec(any::<u8>(), 0..30), text in "\\PC{0,20}") {
            elf_machine(&head);
            hostname(&text);
        }
    }
}
