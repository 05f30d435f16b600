use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

fn tree() -> (tempfile::TempDir, Tree) {
    let root = tempfile::tempdir().unwrap();
    let tree = Tree::open(root.path()).unwrap();
    (root, tree)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test looks at what was written")]
fn a_file_is_replaced_whole_with_its_mode() {
    let (root, tree) = tree();
    tree.create_dirs(Path::new("/etc/sysctl.d"), 0o755).unwrap();
    let path = Path::new("/etc/sysctl.d/99-zz-preflight.conf");
    assert_eq!(tree.read(path).unwrap(), None);
    tree.replace(path, b"old", Attributes::own(0o644)).unwrap();
    tree.replace(path, b"new", Attributes::own(0o640)).unwrap();
    let content = tree.read(path).unwrap().unwrap();
    assert_eq!((content.bytes.as_slice(), content.attributes.mode), (&b"new"[..], 0o640));
    assert_eq!(fs::read_dir(root.path().join("etc/sysctl.d")).unwrap().count(), 1, "a staged file was left");
    assert!(tree.remove(path).unwrap());
    assert!(!tree.remove(path).unwrap(), "there was nothing left to remove");
}

/// Seen failing with `RESOLVE_NO_SYMLINKS` taken out: the write goes through.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test plays the attacker")]
fn no_link_is_followed_on_the_way() {
    let (root, tree) = tree();
    fs::create_dir(root.path().join("elsewhere")).unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    symlink("../elsewhere", root.path().join("etc/sysctl.d")).unwrap();
    let error = tree.replace(Path::new("/etc/sysctl.d/x.conf"), b"x", Attributes::own(0o644)).unwrap_err();
    assert_eq!(error.source.raw_os_error(), Some(nix::libc::ELOOP), "{error}");
    assert_eq!(fs::read_dir(root.path().join("elsewhere")).unwrap().count(), 0);

    symlink("/etc/passwd", root.path().join("etc/link")).unwrap();
    assert!(tree.read(Path::new("/etc/link")).is_err(), "a link was read");
    assert!(tree.read(Path::new("/../etc/passwd")).is_err(), "`..` was accepted");
    // Replacing a link puts a file in the link's own place and leaves what it points to alone.
    tree.replace(Path::new("/etc/link"), b"x", Attributes::own(0o644)).unwrap();
    assert!(fs::symlink_metadata(root.path().join("etc/link")).unwrap().is_file());
}

/// Threat: a local user swaps a folder for a link between two of our calls, all the time. Seen failing with
/// `RESOLVE_NO_SYMLINKS` taken out: a write follows the link.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test plays the attacker")]
fn a_swapped_folder_never_catches_a_write() {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    use std::sync::atomic::{AtomicBool, Ordering};
    let (root, tree) = tree();
    let at = |name: &str| root.path().join(name);
    fs::create_dir(at("etc")).unwrap();
    fs::create_dir(at("trap")).unwrap();
    symlink("trap", at("link")).unwrap();
    let stop = AtomicBool::new(false);
    let (mut through, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &at("etc"), AT_FDCWD, &at("link"), RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        let started = std::time::Instant::now();
        let in_time = || started.elapsed() < std::time::Duration::from_secs(30);
        while (through < 50 || refused < 50) && in_time() && !at("trap/x").exists() {
            match tree.replace(Path::new("/etc/x"), b"x", Attributes::own(0o644)) {
                Ok(()) => through += 1,
                Err(_) => refused += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(at("trap")).unwrap().count(), 0, "a write followed the link");
    assert!(through > 0 && refused > 0, "nothing was raced: {through} writes through, {refused} refused");
}

#[test]
fn folders_are_created_and_counted() {
    let (_root, tree) = tree();
    let path = Path::new("/etc/systemd/system/docker.service.d/x.conf");
    assert_eq!(tree.missing_parents(path).unwrap(), 4);
    assert_eq!(tree.create_dirs(path.parent().unwrap(), 0o755).unwrap(), 4);
    assert_eq!(tree.create_dirs(path.parent().unwrap(), 0o755).unwrap(), 0);
    tree.remove_empty_dir(path.parent().unwrap()).unwrap();
    assert_eq!(tree.missing_parents(path).unwrap(), 1);
    tree.replace(Path::new("/etc/systemd/system/y"), b"", Attributes::own(0o600)).unwrap();
    tree.remove_empty_dir(Path::new("/etc/systemd/system")).unwrap();
    assert_eq!(tree.list(Path::new("/etc/systemd/system")).unwrap(), ["y"], "a folder in use was removed");
}

/// Every way in which somebody besides root could have written a file. Seen failing with only the file itself looked at.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test builds the root it reads")]
fn the_audit_looks_at_the_file_and_at_every_folder_above() {
    let (root, tree) = tree();
    fs::create_dir_all(root.path().join("a/b")).unwrap();
    fs::write(root.path().join("a/b/file"), "x").unwrap();
    let mode =
        |path: &str, mode| fs::set_permissions(root.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    let path = Path::new("/a/b/file");
    mode("", 0o755);
    for (folder, file) in [("a", 0o644), ("a/b", 0o640), ("a/b", 0o600)] {
        mode(folder, 0o755);
        mode("a/b/file", file);
        tree.audit(path).unwrap();
    }
    for (which, bad, good) in [
        ("a/b/file", 0o664, 0o644),
        ("a/b/file", 0o646, 0o644),
        ("a/b", 0o775, 0o755),
        ("a", 0o757, 0o755),
        ("", 0o777, 0o755),
    ] {
        mode(which, bad);
        let error = tree.audit(path).unwrap_err();
        assert!(error.to_string().contains("others than its owner may write it"), "{error}");
        mode(which, good);
    }
    if geteuid().is_root() {
        std::os::unix::fs::chown(root.path().join("a/b"), Some(65534), None).unwrap();
        assert_eq!(
            tree.audit(path).unwrap_err().to_string(),
            "cannot trust /a/b: it belongs to user 65534, not to root"
        );
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test builds the root it reads")]
fn a_fifo_in_the_place_of_a_file_does_not_hang_us() {
    let (root, tree) = tree();
    nix::unistd::mkfifo(&root.path().join("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
    assert!(tree.read(Path::new("/fifo")).unwrap_err().to_string().contains("not a regular file"));
    fs::write(root.path().join("large"), vec![0; 1024 * 1024 + 1]).unwrap();
    assert!(tree.read(Path::new("/large")).unwrap_err().to_string().contains("larger than"));
}

proptest! {
    #[test]
    fn no_reader_of_conf_files_sees_a_stage(name in "[a-z./]{1,20}") {
        let stage = stage_name(Path::new(&format!("/etc/{name}")), "0123abcd");
        let stage = stage.to_string_lossy();
        prop_assert!(stage.starts_with('.') && !stage.ends_with(".conf"));
    }
}
