//! Drop-in directories: which files of `/etc/x.d`, `/run/x.d`, … are read, and in which order.
//!
//! systemd (`conf_files_list_strv` in `src/basic/conf-files.c`) and procps (`PreloadSystem` in `src/sysctl.c`) agree: the
//! first directory that has a name owns it, a link to /dev/null (or to nothing) under that name silences the others,
//! and the names are then read in the order of their bytes, whatever their directory.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::host::{Host, ReadError};

/// One file that is read, in the order of reading.
#[derive(Debug)]
pub struct ConfFile {
    pub path: String,
    /// Its text; empty when it is masked. An error means that somebody else may read it, but not this user.
    pub text: Result<String, ReadError>,
}

/// The directories, most important first, as absolute paths: `/etc/sysctl.d`, `/run/sysctl.d`, ….
pub fn directories(host: &Host, name: &str) -> Vec<String> {
    let mut found: Vec<String> =
        ["/etc", "/run", "/usr/local/lib", "/usr/lib"].map(|top| format!("{top}/{name}")).into();
    // Where /lib is a link to usr/lib, its names are known already.
    if host.link_target("/lib").is_none() {
        found.push(format!("/lib/{name}"));
    }
    found
}

/// Whether a file is looked at. systemd skips hidden files, procps does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    Skipped,
    Read,
}

/// Which file each name stands for, in the order of reading: index of the directory and name.
pub fn order(listings: &[Vec<OsString>], hidden: Hidden) -> Vec<(usize, &OsStr)> {
    let mut owners: BTreeMap<&[u8], (usize, &OsStr)> = BTreeMap::new();
    for (index, names) in listings.iter().enumerate() {
        for name in names {
            let bytes = name.as_bytes();
            if bytes.ends_with(b".conf") && (hidden == Hidden::Read || !bytes.starts_with(b".")) {
                owners.entry(bytes).or_insert((index, name));
            }
        }
    }
    owners.into_values().collect()
}

/// Reads the files that count. `Err` when a directory itself may not be listed.
pub fn read(host: &Host, directories: &[String], hidden: Hidden) -> Result<Vec<ConfFile>, ReadError> {
    let listings = directories.iter().map(|directory| host.list(directory)).collect::<Result<Vec<_>, _>>()?;
    let files = order(&listings, hidden).into_iter().filter_map(|(index, name)| {
        let directory = directories.get(index)?;
        let path = format!("{directory}/{}", name.to_string_lossy());
        let text = match name.to_str() {
            Some(_) => host.read_text(&path),
            None => host.read_text(Path::new(directory).join(name)),
        };
        Some(ConfFile { path, text: silence(text) })
    });
    Ok(files.collect())
}

/// What nobody can read silences its name like a mask: a link to nothing, a directory.
fn silence(text: Result<String, ReadError>) -> Result<String, ReadError> {
    match text {
        Err(error) if error.is_absent() || error.source.kind() == ErrorKind::IsADirectory => Ok(String::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(list: &[&str]) -> Vec<OsString> {
        list.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_first_directory_owns_a_name_and_names_order_the_rest() {
        let listings =
            [names(&["90-b.conf"]), names(&["10-a.conf", "90-b.conf"]), names(&["README", "forward.conf", ".h.conf"])];
        let read = order(&listings, Hidden::Skipped);
        let wanted = [(1, "10-a.conf"), (0, "90-b.conf"), (2, "forward.conf")];
        assert_eq!(read, wanted.map(|(index, name)| (index, OsStr::new(name))));
        assert_eq!(order(&listings, Hidden::Read)[0], (2, OsStr::new(".h.conf")));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test builds the root it reads")]
    fn a_link_to_nothing_masks_and_a_stray_directory_is_nothing() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["etc/sysctl.d/20-dir.conf", "usr/lib/sysctl.d"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        std::fs::write(root.path().join("usr/lib/sysctl.d/10-x.conf"), "a=1\n").unwrap();
        std::os::unix::fs::symlink("/dev/null", root.path().join("etc/sysctl.d/10-x.conf")).unwrap();
        let host = Host::at_root(root.path());
        let files = read(&host, &directories(&host, "sysctl.d"), Hidden::Skipped).unwrap();
        let shown: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.text.as_deref().unwrap())).collect();
        assert_eq!(shown, [("/etc/sysctl.d/10-x.conf", ""), ("/etc/sysctl.d/20-dir.conf", "")]);
    }

    proptest! {
        #[test]
        fn every_name_is_read_once(lists in prop::collection::vec(prop::collection::vec("[a-c.]{1,2}\\.conf", 0..5), 0..4)) {
            let listings: Vec<Vec<OsString>> = lists.iter().map(|list| list.iter().map(OsString::from).collect()).collect();
            let read = order(&listings, Hidden::Read);
            prop_assert!(read.windows(2).all(|pair| pair[0].1.as_bytes() < pair[1].1.as_bytes()));
        }
    }
}
