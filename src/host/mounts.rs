//! `/proc/self/mountinfo`: what is mounted where (proc_pid_mountinfo(5)).
//!
//! procfs-core reads this file too, but leaves `\040` in paths and refuses the whole file for one odd line.

use std::path::{Path, PathBuf};

use crate::host::{Host, ReadError};

/// Where the mounts of this process are listed.
pub const MOUNTINFO: &str = "/proc/self/mountinfo";

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    /// `MAJOR:MINOR` of files on it; major 0 where no block device is behind it.
    pub device: String,
    /// The folder of the file system that is mounted: `/` but for bind mounts and cgroup namespaces.
    pub root: String,
    pub mount_point: PathBuf,
    pub filesystem: String,
    /// Options of the file system, comma-separated; controllers for a cgroup v1 hierarchy.
    pub super_options: String,
}

/// The mount table of this process; empty where there is none.
pub fn read(host: &Host) -> Result<Vec<Mount>, ReadError> {
    Ok(host.read_optional(MOUNTINFO)?.map(|text| parse(&text)).unwrap_or_default())
}

/// All mounts in the order they were made. A line that is not a mount is skipped.
pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    let id = fields.next()?.parse().ok()?;
    let device = fields.nth(1)?.to_owned();
    let root = unescape(fields.next()?);
    let mount_point = unescape(fields.next()?).into();
    // Its options, then fields of which there may be any number, up to a lone hyphen.
    fields.by_ref().skip(1).find(|field| *field == "-")?;
    let filesystem = fields.next()?.to_owned();
    let super_options = fields.nth(1).unwrap_or_default().to_owned();
    Some(Mount { id, device, root, mount_point, filesystem, super_options })
}

/// Blanks, newlines and backslashes in paths are printed as `\040` and so on (`mangle_path` in `fs/seq_file.c`).
fn unescape(text: &str) -> String {
    if !text.as_bytes().contains(&b'\\') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\').and_then(|digits| {
            digits
                .iter()
                .try_fold(0_u16, |sum, digit| (b'0'..=b'7').contains(digit).then(|| sum * 8 + u16::from(digit - b'0')))
        });
        let escaped = octal.and_then(|number| u8::try_from(number).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The mount that holds a resolved path: by its id where that is known, else the longest mount point above the path, the
/// last one where several are mounted there.
pub fn holding<'a>(mounts: &'a [Mount], path: &Path, id: Option<u64>) -> Option<&'a Mount> {
    let by_id = id.and_then(|id| mounts.iter().find(|mount| mount.id == id));
    by_id.or_else(|| {
        mounts
            .iter()
            .filter(|mount| path.starts_with(&mount.mount_point))
            .max_by_key(|mount| mount.mount_point.components().count())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:25 / /mnt/with\\040blank ro shared:7 master:2 - tmpfs tmpfs ro,size=4k
31 27 8:1 /sub /var rw - xfs /dev/sda1 rw
32 27 8:2 / /var rw - ext4 /dev/sda2 rw
nonsense
33 27 0:40 / /srv rw - overlay  rw
";

    #[test]
    fn mounts_are_read_and_found() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 5);
        assert_eq!(mounts[1].mount_point, Path::new("/mnt/with blank"));
        assert_eq!((&*mounts[2].root, &*mounts[2].device), ("/sub", "8:1"));
        let device = |path: &str, id| holding(&mounts, Path::new(path), id).unwrap().device.as_str();
        assert_eq!(device("/var/lib/redis", None), "8:2", "the last of two mounts at one point covers the first");
        assert_eq!(device("/variable", None), "254:0", "a prefix of the name is not an ancestor");
        assert_eq!(device("/var/lib", Some(31)), "8:1");
        assert_eq!(device("/srv", Some(999)), "0:40");
        assert!(holding(&[], Path::new("/"), None).is_none());
    }

    #[test]
    fn escapes_are_undone_and_other_backslashes_kept() {
        for (text, path) in
            [("\\040", " "), ("a\\134b", "a\\b"), ("\\04", "\\04"), ("\\999", "\\999"), ("\\777", "\\777"), ("é", "é")]
        {
            assert_eq!(unescape(text), path);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "([0-9: /\\\\-]|\\PC|\n| - ){0,60}") {
            for mount in parse(&text) {
                holding(std::slice::from_ref(&mount), Path::new("/"), None);
            }
        }
    }
}
