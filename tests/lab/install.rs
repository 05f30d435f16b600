//! install.sh and scripts/release: what they write, what they refuse, and that the static binary needs nothing.
//!
//! packages: binutils dash git mmdebstrap shellcheck systemd util-linux

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::process::succeeds;
use tempfile::TempDir;

const VERSION_LINE: &str = concat!("preflight ", env!("CARGO_PKG_VERSION"), "\n");

/// The largest release binary that the project allows itself, in bytes.
const LARGEST_BINARY: u64 = 12 * 1024 * 1024;

// ---- what runs ----

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Kept from run to run: built archives, the bare root.
fn cache() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let cache = target.join("lab");
    fs::create_dir_all(&cache).unwrap();
    cache
}

/// Tests are processes of their own, and two of them need the same cached thing.
fn lock(name: &str) -> fs::File {
    let file = fs::File::create(cache().join(format!("{name}.lock"))).unwrap();
    file.lock().unwrap();
    file
}

fn install_sh() -> Command {
    // Not by its #! line: Debian's sh is dash, the strictest shell at hand.
    let mut command = Command::new("dash");
    command.arg(root().join("install.sh"));
    command
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs it, expects the exit code and the words on standard error.
#[track_caller]
fn refuses(command: &mut Command, code: i32, words: &str) {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{}", told(&output));
    assert!(told(&output).contains(words), "{command:?}: no `{words}` in\n{}", told(&output));
}

/// Every path under a folder with its permissions and its content.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        let mut content = Vec::new();
        if about.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if about.is_file() {
            content = fs::read(&path).unwrap();
        } else {
            content.extend(fs::read_link(&path).unwrap().to_str().unwrap().as_bytes());
        }
        found.insert(path.strip_prefix(folder).unwrap().to_owned(), (about.permissions().mode(), content));
    }
    found
}

// ---- archives ----

/// A scratch folder with a small archive of the real layout, whose binary is a script: fast, and good for all but running.
struct Lab {
    folder: TempDir,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { folder: TempDir::new().unwrap() };
        lab.write("tree/preflight-9-linux/bin/preflight", "#!/bin/sh\necho preflight 9\n");
        lab.write("tree/preflight-9-linux/share/man/man1/preflight.1", ".TH PREFLIGHT 1\n");
        lab.write("tree/preflight-9-linux/share/fish/vendor_completions.d/preflight.fish", "# completions\n");
        lab.write("tree/preflight-9-linux/README.md", "for reading only\n");
        fs::create_dir(lab.path("tmp")).unwrap();
        lab.pack();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn pack(&self) {
        succeeds(
            Command::new("tar")
                .arg("-czf")
                .arg(self.archive())
                .arg("-C")
                .arg(self.path("tree"))
                .arg("preflight-9-linux"),
        );
        self.sign();
    }

    /// The sum beside the archive, as the release script writes it.
    fn sign(&self) {
        let sum = succeeds(Command::new("sha256sum").arg("archive.tar.gz").current_dir(self.folder.path()));
        self.write("archive.tar.gz.sha256", &sum);
    }

    fn archive(&self) -> PathBuf {
        self.path("archive.tar.gz")
    }

    fn prefix(&self) -> PathBuf {
        self.path("prefix")
    }

    fn script(&self, arguments: &[&str]) -> Command {
        let mut command = install_sh();
        command.arg("--prefix").arg(self.prefix()).args(arguments).env("TMPDIR", self.path("tmp"));
        command
    }

    fn install(&self, arguments: &[&str]) -> Command {
        let mut command = self.script(arguments);
        command.arg("--archive").arg(self.archive());
        command
    }
}

/// The real release archive, built at most once and then only looked at again.
fn release() -> PathBuf {
    let _lock = lock("release");
    let folder = cache().join("dist");
    succeeds(Command::new(root().join("scripts/release")).arg(&folder));
    folder.join(concat!("preflight-", env!("CARGO_PKG_VERSION"), "-linux-x86_64.tar.gz"))
}

// ---- the guarantees ----

#[test]
fn uninstall_gives_back_what_install_found() {
    let lab = Lab::new();
    lab.write("prefix/bin/other", "of somebody else\n");
    lab.write("prefix/share/man/man1/other.1", "of somebody else\n");
    let before = tree(&lab.prefix());

    succeeds(&mut lab.install(&[]));
    let after = tree(&lab.prefix());
    let binary = lab.prefix().join("bin/preflight");
    assert_eq!(succeeds(&mut Command::new(&binary)), "preflight 9\n");
    assert_eq!(fs::metadata(&binary).unwrap().permissions().mode() & 0o7777, 0o755);
    assert!(after.contains_key(Path::new("share/man/man1/preflight.1")), "{:?}", after.keys());
    assert!(!after.contains_key(Path::new("README.md")), "an archive's README does not belong into a prefix");
    assert!(after.keys().all(|path| !path.to_str().unwrap().contains(".preflight.")), "a temporary file stayed");

    succeeds(&mut lab.script(&["--uninstall"]));
    assert_eq!(tree(&lab.prefix()), before);
    assert!(tree(&lab.path("tmp")).len() == 1, "scratch files stayed");
}

/// Seen to fail without `refuse_to_overwrite`.
#[test]
fn a_differing_file_is_never_overwritten_without_force() {
    let lab = Lab::new();
    succeeds(&mut lab.install(&[]));
    succeeds(&mut lab.install(&[]));

    // The binary is written first: that it stays shows that all files are looked at before one is written.
    lab.write("tree/preflight-9-linux/bin/preflight", "#!/bin/sh\necho preflight 10\n");
    lab.pack();
    fs::remove_file(lab.prefix().join("bin/preflight")).unwrap();
    lab.write("prefix/share/man/man1/preflight.1", "edited by the administrator\n");
    let before = tree(&lab.prefix());
    refuses(&mut lab.install(&[]), 1, "exists and differs");
    assert_eq!(tree(&lab.prefix()), before);

    succeeds(&mut lab.install(&["--force"]));
    assert_eq!(succeeds(&mut Command::new(lab.prefix().join("bin/preflight"))), "preflight 10\n");
    assert_eq!(fs::read_to_string(lab.prefix().join("share/man/man1/preflight.1")).unwrap(), ".TH PREFLIGHT 1\n");
}

#[test]
fn force_replaces_a_link_and_leaves_what_it_points_to() {
    let lab = Lab::new();
    lab.write("precious", "not preflight's\n");
    fs::create_dir_all(lab.prefix().join("bin")).unwrap();
    symlink(lab.path("precious"), lab.prefix().join("bin/preflight")).unwrap();
    refuses(&mut lab.install(&[]), 1, "exists and differs");
    succeeds(&mut lab.install(&["--force"]));
    assert_eq!(fs::read_to_string(lab.path("precious")).unwrap(), "not preflight's\n");
    assert_eq!(succeeds(&mut Command::new(lab.prefix().join("bin/preflight"))), "preflight 9\n");
}

/// A `tar` that leaves a mark stands first in the PATH: without a mark, nothing looked into the archive. Seen to fail with
/// the comparison of the sums taken out; the control run shows that the mark appears.
#[test]
fn a_tampered_archive_is_refused_before_it_is_unpacked() {
    let lab = Lab::new();
    let mark = lab.path("tar-was-run");
    lab.write("fake/tar", &format!("#!/bin/sh\ntouch '{}'\nexec /usr/bin/tar \"$@\"\n", mark.display()));
    fs::set_permissions(lab.path("fake/tar"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", lab.path("fake").display(), std::env::var("PATH").unwrap());

    let good = fs::read(lab.archive()).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(lab.archive(), &bad).unwrap();
    refuses(lab.install(&[]).env("PATH", &path), 1, "is not what it should be");
    assert!(!mark.exists() && !lab.prefix().exists());

    fs::write(lab.archive(), &good).unwrap();
    let wrong = "0".repeat(64);
    refuses(lab.install(&["--sha256", &wrong]).env("PATH", &path), 1, "is not what it should be");
    refuses(lab.install(&["--sha256", "abc"]).env("PATH", &path), 1, "is not a sha256 sum");
    fs::remove_file(lab.path("archive.tar.gz.sha256")).unwrap();
    refuses(lab.install(&[]).env("PATH", &path), 1, "there is no");
    assert!(!mark.exists() && !lab.prefix().exists());

    lab.sign();
    succeeds(lab.install(&[]).env("PATH", &path));
    assert!(mark.exists(), "the fake tar does not see what the script does");
}

/// Each with a sum that fits: a sum says that the archive arrived whole, not that it is harmless. Seen to fail without
/// `refuse_hostile_members`.
#[test]
fn hostile_archives_are_refused() {
    let cases: [(&str, &str, &[&str]); 5] = [
        ("a path that leaves the folder", "lies outside", &["../escaped"]),
        ("an absolute path", "lies outside", &["ABSOLUTE"]),
        ("a symbolic link", "link or a device", &["preflight-9-linux/share/link"]),
        ("a hard link", "link or a device", &["preflight-9-linux/share/one", "preflight-9-linux/share/two"]),
        ("a pipe", "link or a device", &["preflight-9-linux/share/pipe"]),
    ];
    for (what, words, members) in cases {
        let lab = Lab::new();
        lab.write("escaped", "out\n");
        lab.write("tree/preflight-9-linux/share/one", "one\n");
        fs::hard_link(lab.path("tree/preflight-9-linux/share/one"), lab.path("tree/preflight-9-linux/share/two"))
            .unwrap();
        symlink("/etc", lab.path("tree/preflight-9-linux/share/link")).unwrap();
        succeeds(Command::new("mkfifo").arg(lab.path("tree/preflight-9-linux/share/pipe")));
        let absolute = lab.path("escaped");
        let members =
            members.iter().map(|member| if *member == "ABSOLUTE" { absolute.to_str().unwrap() } else { member });
        let mut tar = Command::new("tar");
        tar.arg("-czPf").arg(lab.archive()).arg("-C").arg(lab.path("tree")).arg("preflight-9-linux/bin").args(members);
        succeeds(&mut tar);
        lab.sign();
        fs::remove_file(lab.path("escaped")).unwrap();

        refuses(&mut lab.install(&[]), 1, words);
        assert!(!lab.prefix().exists() && !lab.path("escaped").exists(), "{what}");
        assert_eq!(tree(&lab.path("tmp")).len(), 1, "{what}: scratch files stayed");
    }
}

#[test]
fn a_dry_run_writes_nothing() {
    let lab = Lab::new();
    let before = tree(lab.folder.path());
    refuses(&mut lab.install(&["--dry-run"]), 0, "would write");
    refuses(&mut lab.script(&["--dry-run"]), 0, "would build");
    assert_eq!(tree(lab.folder.path()), before);

    succeeds(&mut lab.install(&[]));
    let before = tree(lab.folder.path());
    refuses(&mut lab.script(&["--dry-run", "--uninstall"]), 0, "would remove");
    assert_eq!(tree(lab.folder.path()), before);
}

/// Seen to fail without the comparison with the manifest's sum.
#[test]
fn uninstall_keeps_what_was_changed_since() {
    let lab = Lab::new();
    refuses(&mut lab.script(&["--uninstall"]), 1, "nothing was installed");
    succeeds(&mut lab.install(&[]));
    lab.write("prefix/share/man/man1/preflight.1", "edited by the administrator\n");
    refuses(&mut lab.script(&["--uninstall"]), 1, "is not what was installed");
    assert!(lab.prefix().join("share/man/man1/preflight.1").exists());
    succeeds(&mut lab.script(&["--uninstall", "--force"]));
    assert_eq!(tree(&lab.prefix()).len(), 1, "{:?}", tree(&lab.prefix()).keys());
}

/// A manifest is a file that others may have written to: it never leads out of the prefix.
#[test]
fn a_manifest_cannot_name_files_outside_the_prefix() {
    let lab = Lab::new();
    succeeds(&mut lab.install(&[]));
    lab.write("precious", "not preflight's\n");
    let manifest = lab.prefix().join("share/preflight/install-manifest");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, format!("{text}{}  ../precious\n", "0".repeat(64))).unwrap();
    refuses(&mut lab.script(&["--uninstall", "--force"]), 1, "not under the prefix");
    assert!(lab.path("precious").exists() && lab.prefix().join("bin/preflight").exists());
}

/// In a mount namespace with an empty /var/lib, so that the machine's own state is neither seen nor touched. Seen to
/// fail without `refuse_while_managed`.
#[test]
fn uninstall_refuses_while_the_host_has_managed_changes() {
    let lab = Lab::new();
    succeeds(&mut lab.install(&[]));
    let run = |state: &str, force: &str, marker: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(
            "mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/preflight && printf %s \"$1\" >/var/lib/preflight/managed.json
             [ -z \"$5\" ] || touch \"/var/lib/preflight/$5\"
             exec dash \"$2/install.sh\" --uninstall --dry-run --prefix \"$3\" $4",
        );
        command.args(["sh", state]).arg(root()).arg(lab.prefix()).args([force, marker]);
        command
    };
    let uninstall = |state: &str, force: &str| run(state, force, "");
    refuses(&mut run("", "", "open-20261122T101500Z-7f3a9c01"), 1, "20261122T101500Z-7f3a9c01 is not finished");
    // What the engine itself writes, with something held and with nothing.
    let text = "sysctl:vm.overcommit_memory";
    let held = serde_json::json!([{"tx": "20261122T101500Z-7f3a9c01", "id": "kernel.overcommit", "layer": "live", "desired": "1"}]);
    let real = serde_json::json!({
        "schema": "preflight.managed/1", "transactions": ["20261122T101500Z-7f3a9c01"], "knobs": {text: held}
    });
    let real = preflight::apply::managed::Managed::parse(real.to_string().as_bytes()).unwrap().to_text();
    refuses(&mut uninstall(&real, ""), 1, "still has changes");
    refuses(&mut uninstall(&preflight::apply::managed::Managed::default().to_text(), ""), 0, "would remove");
    let managed = r#"{"schema": "preflight.managed/1", "knobs": {"sysctl:vm.overcommit_memory": {"value": "1"}}}"#;
    refuses(&mut uninstall(managed, ""), 1, "still has changes");
    refuses(&mut uninstall("{\"knobs\": [{", ""), 1, "still has changes");
    refuses(&mut uninstall("not json", ""), 1, "cannot be understood");
    for harmless in ["", "{}\n", r#"{"schema": "preflight.managed/1", "knobs": {}}"#, "{ \"knobs\": [\n] }"] {
        refuses(&mut uninstall(harmless, ""), 0, "would remove");
    }
    refuses(&mut uninstall(managed, "--force"), 0, "would remove");
}

// ---- services ----

/// The lab's archive with the real services, and a root for them.
fn with_services(manager: &str) -> Lab {
    let lab = Lab::new();
    for folder in ["systemd", "openrc"] {
        for file in fs::read_dir(root().join("units").join(folder)).unwrap().map(Result::unwrap) {
            let text = fs::read_to_string(file.path()).unwrap();
            let name = file.file_name().into_string().unwrap();
            lab.write(&format!("tree/preflight-9-linux/share/preflight/units/{folder}/{name}"), &text);
        }
    }
    lab.pack();
    match manager {
        "systemd" => fs::create_dir_all(lab.path("root/etc/systemd/system")).unwrap(),
        "openrc" => {
            fs::create_dir_all(lab.path("root/etc/init.d")).unwrap();
            lab.write("root/sbin/openrc-run", "");
            fs::set_permissions(lab.path("root/sbin/openrc-run"), fs::Permissions::from_mode(0o755)).unwrap();
        }
        _ => fs::create_dir_all(lab.path("root")).unwrap(),
    }
    lab
}

fn unit_root(lab: &Lab) -> [String; 2] {
    ["--unit-root".to_owned(), lab.path("root").display().to_string()]
}

/// Seen to fail without `enable_unit`, and, for the uninstall, without `remove_units`.
#[test]
fn services_are_installed_enabled_valid_and_removed() {
    let lab = with_services("systemd");
    let before = tree(&lab.path("root"));
    refuses(lab.install(&["--dry-run"]).args(unit_root(&lab)), 0, "preflight-recover.service, and enable it");
    assert_eq!(tree(&lab.path("root")), before);
    for _ in 0..2 {
        succeeds(lab.install(&[]).args(unit_root(&lab)));
    }
    let folder = lab.path("root/etc/systemd/system");
    let units =
        [("preflight-recover", "recover", "sysinit.target"), ("preflight-verify", "verify --record", "default.target")];
    for (name, verb, wants) in units {
        let text = fs::read_to_string(folder.join(format!("{name}.service"))).unwrap();
        assert!(text.contains(&format!("ExecStart={}/bin/preflight {verb}\n", lab.prefix().display())), "{text}");
        let link = fs::read_link(folder.join(format!("{wants}.wants/{name}.service"))).unwrap();
        assert_eq!(link, Path::new("/etc/systemd/system").join(format!("{name}.service")));
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]).arg(folder.join(format!("{name}.service")));
        let output = verify.output().unwrap();
        // About our units alone; the machine's own may have faults.
        assert!(output.status.success() && !told(&output).contains("preflight"), "{}", told(&output));
    }
    succeeds(lab.script(&["--uninstall"]).args(unit_root(&lab)));
    assert_eq!(tree(&lab.path("root")), before);
}

/// By fixture: no OpenRC runs here.
#[test]
fn openrc_gets_its_scripts() {
    let lab = with_services("openrc");
    let before = tree(&lab.path("root"));
    succeeds(lab.install(&[]).args(unit_root(&lab)));
    let script = lab.path("root/etc/init.d/preflight-recover");
    assert_eq!(fs::metadata(&script).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(
        fs::read_to_string(&script).unwrap().contains(&format!("{}/bin/preflight recover", lab.prefix().display()))
    );
    succeeds(Command::new("dash").arg("-n").arg(&script));
    for link in ["boot/preflight-recover", "default/preflight-verify"] {
        assert!(fs::symlink_metadata(lab.path("root/etc/runlevels").join(link)).is_ok(), "{link}");
    }
    succeeds(lab.script(&["--uninstall"]).args(unit_root(&lab)));
    let left: Vec<_> = tree(&lab.path("root")).into_keys().filter(|path| !path.ends_with("runlevels")).collect();
    assert_eq!(left, before.into_keys().collect::<Vec<_>>());
}

/// No service manager, `--no-units`, somebody else's unit, another prefix, a prefix that any user may write to.
#[test]
fn services_go_only_where_they_belong() {
    let bare = with_services("none");
    let before = tree(&bare.path("root"));
    succeeds(bare.install(&[]).args(unit_root(&bare)));
    assert_eq!(tree(&bare.path("root")), before);

    let lab = with_services("systemd");
    let before = tree(&lab.path("root"));
    succeeds(lab.install(&["--no-units"]).args(unit_root(&lab)));
    assert_eq!(tree(&lab.path("root")), before);
    // The machine's own /etc: a prefix below /tmp gets none.
    refuses(&mut lab.install(&[]), 0, "were left out");

    let ours = "root/etc/systemd/system/preflight-verify.service";
    lab.write(ours, "[Service]\nExecStart=/opt/other/verify\n");
    refuses(lab.install(&[]).args(unit_root(&lab)), 1, "is not preflight's");
    succeeds(lab.script(&["--uninstall", "--force"]).args(unit_root(&lab)));
    assert!(fs::read_to_string(lab.path(ours)).unwrap().contains("/opt/other/verify"), "somebody else's was removed");
}

#[test]
fn wrong_usage_is_told_with_a_hint() {
    let lab = Lab::new();
    for arguments in [
        &["--frobnicate"][..],
        &["stray"],
        &["--prefix"],
        &["--archive="],
        &["--sha256", "00"],
        &["--uninstall", "--archive", "x"],
    ] {
        refuses(install_sh().args(arguments), 2, "hint:");
    }
    assert!(succeeds(install_sh().arg("--help")).contains("--dry-run"));
    assert!(!lab.prefix().exists());
}

#[test]
fn scripts_pass_shellcheck() {
    let mut command = Command::new("shellcheck");
    command.arg("-x").current_dir(root());
    command.args([
        "install.sh",
        "scripts/bench",
        "scripts/documents",
        "scripts/release",
        "tests/run",
        "tests/machine.sh",
        ".ci/run",
    ]);
    succeeds(&mut command);
}

#[test]
fn a_checkout_installs_itself() {
    let lab = Lab::new();
    let mut command = lab.script(&[]);
    // The real command, with a profile that compiles faster; what is built is tried with the release archive.
    command.env("CARGO_TARGET_DIR", cache().join("checkout")).env("CARGO_PROFILE_RELEASE_LTO", "off");
    command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    succeeds(&mut command);
    assert_eq!(succeeds(Command::new(lab.prefix().join("bin/preflight")).arg("--version")), VERSION_LINE);
}

#[test]
fn the_release_is_small_reproducible_and_installs() {
    let archive = release();
    let first = fs::read(&archive).unwrap();
    assert_eq!(fs::read(release()).unwrap(), first, "packing the same binary again gave other bytes");

    let lab = Lab::new();
    succeeds(lab.script(&["--archive"]).arg(&archive));
    let binary = lab.prefix().join("bin/preflight");
    assert_eq!(succeeds(Command::new(&binary).arg("--version")), VERSION_LINE);
    let size = fs::metadata(&binary).unwrap().len();
    assert!(size <= LARGEST_BINARY, "the binary has {size} bytes");
    let home = std::env::var("HOME").unwrap();
    let content = fs::read(&binary).unwrap();
    assert!(
        !content.windows(home.len() + 8).any(|part| part == format!("{home}/.cargo/").as_bytes()),
        "build paths inside"
    );
}

/// A root with nothing but the binary: no libc, no shell, no /proc.
#[test]
fn the_static_binary_runs_in_an_empty_root() {
    let lab = Lab::new();
    succeeds(lab.script(&["--archive"]).arg(release()));
    fs::create_dir(lab.path("empty")).unwrap();
    fs::copy(lab.prefix().join("bin/preflight"), lab.path("empty/preflight")).unwrap();
    let mut command = Command::new("chroot");
    command.arg(lab.path("empty")).args(["/preflight", "--version"]).env_clear();
    assert_eq!(succeeds(command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")), VERSION_LINE);
}

/// Debian 12 with its essential packages alone: the archive installs with the tools that are there, and runs.
#[test]
fn the_release_installs_on_a_bare_debian() {
    let archive = release();
    let bare = bare_debian();
    let lab = Lab::new();
    for folder in ["upper", "work", "merged"] {
        fs::create_dir(lab.path(folder)).unwrap();
    }
    fs::create_dir_all(lab.path("upper/media")).unwrap();
    for file in [archive.clone(), archive.with_extension("gz.sha256"), root().join("install.sh")] {
        fs::copy(&file, lab.path("upper/media").join(file.file_name().unwrap())).unwrap();
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    command.arg(
        "mount -t overlay overlay -o \"lowerdir=$1,upperdir=$2/upper,workdir=$2/work\" \"$2/merged\"
         exec chroot \"$2/merged\" sh -ec 'sh /media/install.sh --archive /media/'\"$3\"'; preflight --version'",
    );
    command.arg("sh").arg(bare).arg(lab.folder.path()).arg(archive.file_name().unwrap());
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    assert_eq!(succeeds(&mut command), VERSION_LINE);
    assert!(lab.path("upper/usr/local/bin/preflight").exists());
}

/// Made once from Debian's packages; a half-made one never gets the name.
fn bare_debian() -> PathBuf {
    let _lock = lock("bare-bookworm");
    let ready = cache().join("bare-bookworm");
    if !ready.exists() {
        let making = cache().join("bare-bookworm.part");
        let _ = fs::remove_dir_all(&making);
        succeeds(Command::new("mmdebstrap").args(["--quiet", "--variant=essential", "bookworm"]).arg(&making));
        fs::rename(making, &ready).unwrap();
    }
    ready
}
