//! The files of the boot layer that are preflight's own: their names, what stands in them, and how they read back.

use std::collections::BTreeMap;

use crate::facts::service;

/// Sorts after everything that distributions and people use; never anybody else's file.
pub const SYSCTL: &str = "/etc/sysctl.d/99-zz-preflight.conf";
/// In tmpfiles.d the first line for a path wins.
pub const TMPFILES: &str = "/etc/tmpfiles.d/00-preflight-thp.conf";
/// Run by OpenRC before Docker.
pub const OPENRC: &str = "/etc/init.d/preflight-thp";
/// Where OpenRC finds that it is to run it; `rc-update` makes one of them.
pub const OPENRC_LINKS: [&str; 3] = [
    "/etc/runlevels/boot/preflight-thp",
    "/etc/runlevels/default/preflight-thp",
    "/etc/runlevels/sysinit/preflight-thp",
];
/// The one that preflight makes.
pub const OPENRC_LINK: &str = OPENRC_LINKS[0];
/// The name of our profile of tuned, which includes the one that was active.
pub const TUNED_NAME: &str = "preflight";
pub const TUNED: &str = "/etc/tuned/preflight/tuned.conf";
/// Since tuned 2.23, which does not look into /etc/tuned any more.
pub const TUNED_NEW: &str = "/etc/tuned/profiles/preflight/tuned.conf";
/// Which profiles tuned starts with, and whether it was told or chose them (`save_active_profile` in tuned/utils/commands.py).
pub const TUNED_ACTIVE: &str = "/etc/tuned/active_profile";
pub const TUNED_MODE: &str = "/etc/tuned/profile_mode";
pub const TUNED_POST_LOADED: &str = "/etc/tuned/post_loaded_profile";
pub const TUNED_MAIN: &str = "/etc/tuned/tuned-main.conf";
pub const DAEMON_JSON: &str = "/etc/docker/daemon.json";

/// Where the kernel keeps its huge page settings.
pub const THP_FOLDER: &str = "/sys/kernel/mm/transparent_hugepage";

const HEADER: &str = "\
# Written by preflight: `preflight verify` compares it with the running
# kernel, `preflight rollback` takes it back. Edits are lost at the next
# `preflight tune --apply`: put settings of your own into your own file.
";

/// What stood in the files before the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Existing(pub BTreeMap<String, String>);

impl Existing {
    pub fn text(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }
}

/// Our drop-in of a service: it sorts after everything that distributions and people use.
pub fn unit_drop_in(service: &str) -> String {
    format!("/etc/systemd/system/{}.d/99-zz-preflight.conf", service::unit(service))
}

/// The service that one of our drop-ins is for, with the suffix.
pub fn drop_in_service(path: &str) -> Option<&str> {
    path.strip_prefix("/etc/systemd/system/")?.strip_suffix(".d/99-zz-preflight.conf")
}

/// The drop-in that sets the open-file limit, soft and hard.
pub fn unit_text(line: &Line) -> String {
    format!("{HEADER}[Service]\n# {}\nLimitNOFILE={}\n", line.check, line.value)
}

/// One line of ours: the setting's value, and the check that wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub value: String,
    pub check: String,
}

/// The drop-in for sysctl.d, one commented line per setting, in the order of their names.
pub fn sysctl_text(lines: &BTreeMap<String, Line>) -> String {
    let mut text = HEADER.to_owned();
    for (name, line) in lines {
        text.extend(["# ", &line.check, "\n", name, " = ", &line.value, "\n"]);
    }
    text
}

/// Reads our own drop-in back. A line that is not ours is left out: the file is ours alone.
pub fn parse_sysctl(text: &str) -> BTreeMap<String, Line> {
    let mut lines = BTreeMap::new();
    let mut check = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix('#') {
            comment.trim().clone_into(&mut check);
        } else if let Some((name, value)) = line.split_once('=') {
            let line = Line { value: value.trim().to_owned(), check: check.clone() };
            lines.insert(name.trim().to_owned(), line);
        }
    }
    lines
}

/// The tmpfiles.d lines that write a word to files below [`THP_FOLDER`].
pub fn tmpfiles_text(words: &BTreeMap<String, Line>) -> String {
    let mut text = HEADER.to_owned();
    for (file, line) in words {
        text.extend(["# ", &line.check, "\nw ", THP_FOLDER, "/", file, " - - - - ", &line.value, "\n"]);
    }
    text
}

/// Reads our own tmpfiles.d file back: file below the folder → word.
pub fn parse_tmpfiles(text: &str) -> BTreeMap<String, Line> {
    let mut lines = BTreeMap::new();
    let mut check = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix('#') {
            comment.trim().clone_into(&mut check);
            continue;
        }
        let mut fields = line.split_whitespace();
        if let (Some("w"), Some(path), Some(word)) = (fields.next(), fields.next(), fields.next_back())
            && let Some(file) = path.strip_prefix(THP_FOLDER).and_then(|rest| rest.strip_prefix('/'))
        {
            lines.insert(file.to_owned(), Line { value: word.to_owned(), check: check.clone() });
        }
    }
    lines
}

/// The OpenRC script that does the same before Docker starts.
pub fn openrc_text(words: &BTreeMap<String, Line>) -> String {
    let mut text = format!(
        "#!/sbin/openrc-run\n{HEADER}\ndescription=\"Transparent huge pages as Redis wants them\"\n\n\
         depend() {{\n    need sysfs\n    before docker containerd\n}}\n\nstart() {{\n    ebegin \"Setting transparent huge pages\"\n"
    );
    for (file, line) in words {
        text.extend([
            "    # ",
            &line.check,
            "\n    echo ",
            &line.value,
            " > ",
            THP_FOLDER,
            "/",
            file,
            " || return 1\n",
        ]);
    }
    text.push_str("    eend 0\n}\n");
    text
}

/// Reads our own script back: file below the folder → word.
pub fn parse_openrc(text: &str) -> BTreeMap<String, Line> {
    let mut lines = BTreeMap::new();
    let mut check = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix('#') {
            comment.trim().clone_into(&mut check);
            continue;
        }
        let Some((word, rest)) = line.strip_prefix("echo ").and_then(|rest| rest.split_once(" > ")) else { continue };
        if let Some(file) =
            rest.strip_suffix(" || return 1").and_then(|path| path.strip_prefix(THP_FOLDER)?.strip_prefix('/'))
        {
            lines.insert(file.to_owned(), Line { value: word.to_owned(), check: check.clone() });
        }
    }
    lines
}

/// A tuned profile that keeps others, separated by commas, and only overrides the huge pages.
pub fn tuned_text(included: &str, word: &str) -> String {
    format!(
        "{HEADER}[main]\nsummary=The profile that was active, with the huge pages that Redis wants\ninclude={included}\n\n[vm]\ntransparent_hugepages={word}\n"
    )
}

/// Reads our own profile back: what it includes, and the word.
pub fn parse_tuned(text: &str) -> Option<(String, String)> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).filter(|value| !value.is_empty());
    is_ours(text).then(|| Some((value("include=")?.to_owned(), value("transparent_hugepages=")?.to_owned()))).flatten()
}

/// Whether preflight wrote a file, whatever became of it since.
pub fn is_ours(text: &str) -> bool {
    let first = HEADER.lines().next().unwrap_or_default();
    text.lines().next() == Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(value: &str) -> Line {
        Line { value: value.into(), check: "kernel.x".into() }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(lines in prop::collection::btree_map("[a-z]{1,8}(\\.[a-z_0-9]{1,8}){1,3}", "[a-z0-9]{1,9}( [0-9]{1,5})?", 0..6)) {
            let lines: BTreeMap<String, Line> = lines.into_iter().map(|(name, value)| (name, line(&value))).collect();
            prop_assert_eq!(parse_sysctl(&sysctl_text(&lines)), lines.clone());
            let words: BTreeMap<String, Line> = lines.into_keys().map(|name| (name, line("never"))).collect();
            prop_assert_eq!(parse_openrc(&openrc_text(&words)), words.clone());
            prop_assert_eq!(parse_tmpfiles(&tmpfiles_text(&words)), words);
            let read = parse_tuned(&tuned_text("virtual-guest,own", "never"));
            prop_assert_eq!(read, Some(("virtual-guest,own".to_owned(), "never".to_owned())));
        }

        #[test]
        fn any_text_is_read(text in "(\\PC|\n){0,200}") {
            parse_sysctl(&text);
            parse_tmpfiles(&text);
            parse_openrc(&text);
            parse_tuned(&text);
        }
    }
}
