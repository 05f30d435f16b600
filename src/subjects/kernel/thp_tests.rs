#![expect(clippy::disallowed_methods, reason = "the tests build the roots they read")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::catalog::os::{OsProfile, SysctlLoader};
use crate::catalog::parameters::Parameters;
use crate::facts::State;
use crate::subjects::context::Want;

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn gather(root: &Path) -> Facts {
    gather_with(root, SysctlLoader::Systemd)
}

fn gather_with(root: &Path, sysctl_loader: SysctlLoader) -> Facts {
    let host = Host::at_root(root);
    let want = Want::new([ENABLED, DEFRAG, SIZES].map(String::from));
    let os = OsProfile { sysctl_loader, ..OsProfile::blank("x") };
    let mut facts = Facts::default();
    probe(&Context::new(&host, &want, &Parameters::default(), &os), &mut facts);
    facts
}

fn boot(root: &Path, id: &str) -> String {
    let facts = gather(root);
    let fact = facts.get(id, Layer::Boot).unwrap();
    match &fact.state {
        State::Known(value) => format!("{value} {}", fact.source),
        State::Absent(why) => format!("absent: {why}"),
        State::Unknown { error, .. } => format!("unknown: {error} {}", fact.source),
    }
}

#[test]
fn the_choice_is_the_word_in_brackets() {
    assert_eq!(parse("always [madvise] never\n"), Some("madvise"));
    assert_eq!((parse("never"), parse("[]"), parse("[always"), parse("")), (None, None, None, None));
}

#[test]
fn live_values_and_sizes() {
    let root = tempfile::tempdir().unwrap();
    let thp = "sys/kernel/mm/transparent_hugepage";
    write(root.path(), &format!("{thp}/enabled"), "[always] madvise never\n");
    write(root.path(), &format!("{thp}/defrag"), "always defer defer+madvise [madvise] never\n");
    write(root.path(), &format!("{thp}/hugepages-64kB/enabled"), "always [inherit] madvise never\n");
    write(root.path(), &format!("{thp}/hugepages-2048kB/enabled"), "[always] inherit madvise never\n");
    let facts = gather(root.path());
    assert_eq!(facts.value(ENABLED), Some(&Value::Text("always".into())));
    assert_eq!(facts.value(DEFRAG), Some(&Value::Text("madvise".into())));
    assert_eq!(facts.value(SIZES), Some(&Value::Set(["2048kB".to_owned()].into())));
    assert_eq!(facts.get(SIZES, Layer::Boot).unwrap().value(), Some(&Value::Set(BTreeSet::new())));
    write(root.path(), "etc/tmpfiles.d/t.conf", &format!("w /{thp}/hugepages-*/enabled - - - - always\n"));
    let sizes = ["64kB".to_owned(), "2048kB".to_owned()];
    assert_eq!(gather(root.path()).get(SIZES, Layer::Boot).unwrap().value(), Some(&Value::Set(sizes.into())));
}

#[test]
fn each_later_hand_wins_at_boot() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    write(root, "proc/sys/kernel/osrelease", "6.1.0-26-amd64\n");
    assert_eq!(boot(root, ENABLED), "absent: nothing sets it and the kernel's build default is not known");
    write(
        root,
        "boot/config-6.1.0-26-amd64",
        "CONFIG_TRANSPARENT_HUGEPAGE=y\n# CONFIG_TRANSPARENT_HUGEPAGE_MADVISE is not set\nCONFIG_TRANSPARENT_HUGEPAGE_ALWAYS=y\n",
    );
    assert_eq!(boot(root, ENABLED), "always /boot/config-6.1.0-26-amd64");
    write(
        root,
        "proc/cmdline",
        "quiet transparent_hugepage=always transparent_hugepage=never transparent_hugepage=junk\n",
    );
    assert_eq!(boot(root, ENABLED), "never /proc/cmdline");
    write(root, "usr/lib/tmpfiles.d/thp.conf", "\nw! /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise\n");
    assert_eq!(boot(root, ENABLED), "madvise /usr/lib/tmpfiles.d/thp.conf:2");
    write(root, "etc/tuned/active_profile", "p\n");
    write(root, "etc/tuned/p/tuned.conf", "[vm]\ntransparent_hugepages=always\ntransparent_hugepage.defrag=never\n");
    assert_eq!(boot(root, DEFRAG), "madvise kernel default", "tuned is not enabled");
    fs::create_dir_all(root.join("etc/systemd/system/multi-user.target.wants")).unwrap();
    symlink("/x", root.join("etc/systemd/system/multi-user.target.wants/tuned.service")).unwrap();
    assert_eq!(boot(root, ENABLED), "madvise /usr/lib/tmpfiles.d/thp.conf:2", "the command line keeps tuned away");
    assert_eq!(boot(root, DEFRAG), "never /etc/tuned/p/tuned.conf:3");
    write(root, "proc/cmdline", "quiet\n");
    assert_eq!(boot(root, ENABLED), "always /etc/tuned/p/tuned.conf:2");
    symlink("/dev/null", root.join("etc/systemd/system/tuned.service")).unwrap();
    fs::create_dir_all(root.join("etc/tmpfiles.d")).unwrap();
    symlink("/dev/null", root.join("etc/tmpfiles.d/thp.conf")).unwrap();
    assert_eq!(boot(root, ENABLED), "always /boot/config-6.1.0-26-amd64", "masked");
}

#[test]
fn a_script_is_not_understood_and_one_that_never_runs_does_not_count() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let script = "#!/bin/sh\necho never > /sys/kernel/mm/transparent_hugepage/enabled\n";
    write(root, "etc/rc.local", script);
    fs::set_permissions(root.join("etc/rc.local"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(boot(root, ENABLED).starts_with("absent"));
    let note = gather(root).get(ENABLED, Layer::Boot).unwrap().note.clone().unwrap();
    assert!(note.contains("/etc/rc.local") && note.contains("not executable"), "{note}");
    write(root, "etc/local.d/thp.start", script);
    fs::set_permissions(root.join("etc/local.d/thp.start"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(boot(root, ENABLED).starts_with("absent"), "systemd does not run it");
    write(root, "etc/tmpfiles.d/x.conf", "w /sys/kernel/mm/transparent_hugepage/defrag - - - - never\n");
    let facts = gather_with(root, SysctlLoader::Procps);
    assert!(matches!(facts.get(ENABLED, Layer::Boot).unwrap().state, State::Unknown { .. }));
    let defrag = facts.get(DEFRAG, Layer::Boot).unwrap();
    assert_eq!(defrag.source, "kernel default", "nothing applies tmpfiles.d there");
}

proptest! {
    #[test]
    fn any_text_is_parsed(text in "\\PC{0,40}") {
        let _ = (parse(&text), parse_config(&text), mentions(&text));
    }
}
