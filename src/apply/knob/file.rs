//! A file that the boot reads: whole content in, whole content out.
//!
//! Almost all of them are ours alone, under names that nobody else uses. Which paths those are is given by the places: a
//! journal that names any other path is refused.

use std::io;
use std::path::{Path, PathBuf};

use super::place::{Owner, Places};
use crate::apply::recovery;
use crate::apply::timer;
use crate::change::files;
use crate::change::id::TxId;
use crate::change::knob::{Capabilities, Knob, KnobError, Reading, Undo, Undoing};
use crate::change::target::Target;
use crate::facts::Layer;
use crate::host::safe_file::{Attributes, Digest, FileError, MAX_MANAGED_BYTES, Tree, stage_name};

/// A file under one of the known names.
#[derive(Debug)]
pub struct ManagedFile<'a> {
    tree: &'a Tree,
    target: String,
    path: PathBuf,
    mode: u32,
    owner: Owner,
}

impl<'a> ManagedFile<'a> {
    /// `None` for a path where nothing is to be written.
    pub fn new(tree: &'a Tree, places: &Places, path: &str) -> Option<Self> {
        let place = places.file(path)?;
        Some(Self {
            tree,
            target: Target::File(path).to_string(),
            path: PathBuf::from(path),
            mode: place.mode,
            owner: place.owner,
        })
    }

    fn failed(&self, source: FileError) -> KnobError {
        let source = match self.masked_unit() {
            Some(unit) => {
                let reason = format!("the unit is masked; `systemctl unmask {unit}` takes that away");
                FileError { source: io::Error::other(reason), ..source }
            }
            None => source,
        };
        KnobError::File { target: self.target.clone(), source }
    }

    /// A unit that leads to nothing, so that systemd never starts it.
    fn masked_unit(&self) -> Option<&str> {
        let unit = self.path.file_name()?.to_str().filter(|name| name.ends_with(".service"))?;
        let leads_to = self.tree.read_link(&self.path).ok()??;
        (leads_to == "/dev/null").then_some(unit)
    }

    fn other(&self, action: &'static str, reason: &str) -> KnobError {
        let source = io::Error::other(reason.to_owned());
        self.failed(FileError { action, path: self.path.clone(), source })
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// A new file is ours with the place's mode; one that is there keeps its owner and mode.
    fn attributes(&self) -> Result<Attributes, KnobError> {
        let found = self.tree.read(&self.path).map_err(|error| self.failed(error))?;
        Ok(match found {
            Some(content) if self.owner == Owner::Shared => content.attributes,
            _ => Attributes::own(self.mode),
        })
    }

    /// Whether it is our profile of tuned and somebody still has tuned start with it: without it tuned would start with
    /// none at all.
    fn is_tuneds_choice(&self) -> bool {
        let active = || self.tree.read(Path::new(files::TUNED_ACTIVE)).ok().flatten();
        let names =
            |bytes: &[u8]| String::from_utf8_lossy(bytes).split_whitespace().any(|name| name == files::TUNED_NAME);
        [files::TUNED, files::TUNED_NEW].iter().any(|path| Path::new(path) == self.path)
            && active().is_some_and(|content| names(&content.bytes))
    }

    fn put(&self, tx: &TxId, bytes: &[u8], attributes: Attributes) -> Result<(), KnobError> {
        let stage = stage_name(&self.path, tx.word());
        let put = || {
            self.tree.create_dirs(self.folder(), 0o755)?;
            // What a killed run left is of the same transaction, but perhaps not whole: write it again.
            let staged = self.path.with_file_name(&stage);
            let usable = self
                .tree
                .read(&staged)?
                .is_some_and(|content| content.digest() == Digest::of(bytes) && content.attributes == attributes);
            if !usable {
                self.tree.unstage(&self.path, &stage)?;
                self.tree.stage(&self.path, &stage, bytes, attributes)?;
            }
            self.tree.publish(&self.path, &stage)
        };
        put().map_err(|error| self.failed(error))
    }
}

impl Knob for ManagedFile<'_> {
    fn target(&self) -> &str {
        &self.target
    }

    /// What takes changes back after a power cut must be there before the first of them.
    fn layer(&self) -> Layer {
        if self.is_for_recovery() { Layer::Live } else { Layer::Boot }
    }

    fn is_for_recovery(&self) -> bool {
        recovery::is_file(&self.path)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::on_disk()
    }

    fn read(&self) -> Result<Reading, KnobError> {
        let missing_folders = self.tree.missing_parents(&self.path).map_err(|error| self.failed(error))?;
        let Some(content) = self.tree.read(&self.path).map_err(|error| self.failed(error))? else {
            return Ok(Reading { value: None, attributes: None, missing_folders });
        };
        let text = String::from_utf8(content.bytes).map_err(|_| self.other("read", "it is not text"))?;
        Ok(Reading { value: Some(text), attributes: Some(content.attributes), missing_folders })
    }

    fn validate(&self, after: &str) -> Result<(), KnobError> {
        let reason = if after.len() as u64 > MAX_MANAGED_BYTES {
            "it is larger than 1 MiB"
        } else if after.contains('\0') {
            "it holds a NUL"
        } else if self.is_for_recovery() && recovery::program(&self.path, after).is_none() {
            "it is not preflight's own service with a program of root's"
        } else {
            return Ok(());
        };
        let value = format!("{} bytes", after.len());
        Err(KnobError::BadValue { target: self.target.clone(), value, reason: reason.to_owned() })
    }

    /// Writes the new content beside its target. Where the folder itself is missing, it is not made yet: then the
    /// nearest folder above shows whether it could be.
    fn stage(&self, tx: &TxId, after: &str) -> Result<(), KnobError> {
        if self.is_for_recovery() {
            let program = recovery::program(&self.path, after).unwrap_or_default();
            let durable =
                timer::durable_program(self.tree).map_err(|error| self.other("prepare", &error.to_string()))?;
            if durable != Path::new(program) {
                return Err(
                    self.other("prepare", &format!("this program is kept as {}: make a new plan", durable.display()))
                );
            }
        }
        let missing = self.tree.missing_parents(&self.path).map_err(|error| self.failed(error))?;
        if missing == 0 {
            let stage = stage_name(&self.path, tx.word());
            let attributes = self.attributes()?;
            let again = self.tree.unstage(&self.path, &stage);
            return again
                .and_then(|()| self.tree.stage(&self.path, &stage, after.as_bytes(), attributes))
                .map_err(|error| self.failed(error));
        }
        let above = self.path.ancestors().nth(usize::from(missing)).unwrap_or(&self.path);
        let stage = stage_name(above, tx.word());
        let trial = self.tree.stage(above, &stage, after.as_bytes(), Attributes::own(self.mode));
        trial.and_then(|()| self.tree.unstage(above, &stage)).map_err(|error| self.failed(error))
    }

    fn unstage(&self, tx: &TxId) -> Result<(), KnobError> {
        let unstage = |path: &Path| self.tree.unstage(path, &stage_name(path, tx.word()));
        // A run that was killed while it tried a folder above left its trial there.
        self.path
            .ancestors()
            .take_while(|path| path.parent().is_some())
            .try_for_each(unstage)
            .map_err(|error| self.failed(error))
    }

    fn write(&self, tx: &TxId, value: &str) -> Result<(), KnobError> {
        let attributes = self.attributes()?;
        self.put(tx, value.as_bytes(), attributes)
    }

    fn restore(&self, tx: &TxId, to: &Reading) -> Result<(), KnobError> {
        if let Some(value) = &to.value {
            return self.put(tx, value.as_bytes(), to.attributes.unwrap_or(Attributes::own(self.mode)));
        }
        let remove = || {
            // What a publish that failed left staged would keep the folder.
            self.tree.unstage(&self.path, &stage_name(&self.path, tx.word()))?;
            self.tree.remove(&self.path)?;
            // Folders that came with the file go with it, unless somebody else put something there.
            self.path
                .ancestors()
                .skip(1)
                .take(usize::from(to.missing_folders))
                .try_for_each(|folder| self.tree.remove_empty_dir(folder))
        };
        remove().map_err(|error| self.failed(error))
    }

    fn is_shared(&self) -> bool {
        self.owner == Owner::Shared
    }

    fn undo(&self, case: Undoing<'_>) -> Undo {
        if case.before.value.is_none() && case.current.value.is_some() && self.is_tuneds_choice() {
            return Undo::Conflict { expected: format!("a profile that {} does not name", files::TUNED_ACTIVE) };
        }
        let same = case.current.value == case.before.value
            && (case.current.value.is_none() || case.current.attributes == case.before.attributes);
        let wrote = case.current.value.as_deref() == Some(case.wrote);
        if same {
            // A folder that a killed run made on the way to the file goes too.
            if case.current.value.is_none() && case.current.missing_folders < case.before.missing_folders {
                return Undo::Restore { to: case.before.clone(), drifted: None };
            }
            Undo::Already
        } else if wrote || self.owner == Owner::Ours {
            let drifted = if wrote { None } else { case.current.value.clone() };
            Undo::Restore { to: case.before.clone(), drifted }
        } else {
            Undo::Conflict { expected: case.wrote.to_owned() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::FilePlace;
    use super::*;

    const DROP_IN: &str = "/etc/sysctl.d/99-zz-preflight.conf";

    const PLACES: &Places = &Places::new(
        &[&[
            FilePlace::ours(DROP_IN, 0o644),
            FilePlace::ours("/etc/systemd/system/preflight-*.service", 0o644),
            FilePlace::ours("/etc/systemd/system/*.service.d/99-zz-preflight.conf", 0o644),
            FilePlace::shared(files::DAEMON_JSON),
        ]],
        &[],
    );

    fn tx() -> TxId {
        "20261122T101500Z-7f3a9c01".parse().unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "the test builds the root it works on")]
    fn root() -> (tempfile::TempDir, Tree) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/sysctl.d")).unwrap();
        std::fs::create_dir_all(root.path().join("etc/systemd/system")).unwrap();
        std::fs::create_dir_all(root.path().join("etc/docker")).unwrap();
        std::fs::write(root.path().join("etc/docker/daemon.json"), "{}").unwrap();
        let tree = Tree::open(root.path()).unwrap();
        (root, tree)
    }

    /// Seen failing without the look: "a symbolic link is on the way", and no word of what to do.
    #[test]
    fn a_masked_unit_is_told_with_what_unmasks_it() {
        let (root, tree) = root();
        let unit = "/etc/systemd/system/preflight-guard.service";
        std::os::unix::fs::symlink("/dev/null", root.path().join(&unit[1..])).unwrap();
        let knob = ManagedFile::new(&tree, PLACES, unit).unwrap();
        let error = knob.read().unwrap_err().to_string();
        assert!(error.contains("`systemctl unmask preflight-guard.service`"), "{error}");
    }

    fn names(tree: &Tree, folder: &str) -> Vec<String> {
        tree.list(Path::new(folder)).unwrap().iter().map(|name| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_folder_that_came_with_the_file_goes_with_it() {
        let (_root, tree) = root();
        let knob =
            ManagedFile::new(&tree, PLACES, "/etc/systemd/system/docker.service.d/99-zz-preflight.conf").unwrap();
        let before = knob.read().unwrap();
        assert_eq!(before.missing_folders, 1);
        knob.stage(&tx(), "x").unwrap();
        assert_eq!(names(&tree, "/etc/systemd/system"), [""; 0], "staging left something");
        knob.write(&tx(), "[Service]\n").unwrap();
        assert_eq!(knob.read().unwrap().value.as_deref(), Some("[Service]\n"));
        knob.restore(&tx(), &before).unwrap();
        assert_eq!(names(&tree, "/etc/systemd/system"), [""; 0]);
        assert_eq!(knob.read().unwrap(), before);
    }

    /// A rename that fails leaves what was staged, in a folder of its own. Seen failing without `unstage` in `restore`: the
    /// folder stayed, as the sweep of errors over a guard found.
    #[test]
    fn a_folder_goes_also_when_the_file_was_only_staged() {
        let (_root, tree) = root();
        let knob =
            ManagedFile::new(&tree, PLACES, "/etc/systemd/system/docker.service.d/99-zz-preflight.conf").unwrap();
        let before = knob.read().unwrap();
        tree.create_dirs(knob.folder(), 0o755).unwrap();
        knob.stage(&tx(), "[Service]\n").unwrap();
        knob.restore(&tx(), &before).unwrap();
        assert_eq!(names(&tree, "/etc/systemd/system"), [""; 0]);
    }

    /// The rehearsal of the timer stages what the apply has staged. Without the `unstage` in `ManagedFile::stage` it was
    /// refused, and with it each plan that brings the service for the recovery.
    #[test]
    fn staging_twice_is_staging_once() {
        let (_root, tree) = root();
        let knob = ManagedFile::new(&tree, PLACES, DROP_IN).unwrap();
        knob.stage(&tx(), "vm.overcommit_memory = 1\n").unwrap();
        knob.stage(&tx(), "vm.overcommit_memory = 1\n").unwrap();
        assert_eq!(names(&tree, "/etc/sysctl.d").len(), 1);
        knob.unstage(&tx()).unwrap();
        assert_eq!(names(&tree, "/etc/sysctl.d"), [""; 0]);
    }

    /// With the digest comparison in `put` taken out, the half-written stage of a killed run is published.
    #[test]
    fn a_stage_that_a_killed_run_left_half_written_is_not_published() {
        let (_root, tree) = root();
        let knob = ManagedFile::new(&tree, PLACES, DROP_IN).unwrap();
        knob.stage(&tx(), "vm.over").unwrap();
        knob.write(&tx(), "vm.overcommit_memory = 1\n").unwrap();
        assert_eq!(knob.read().unwrap().value.as_deref(), Some("vm.overcommit_memory = 1\n"));
        assert_eq!(names(&tree, "/etc/sysctl.d"), ["99-zz-preflight.conf"]);
    }

    #[test]
    fn what_is_ours_is_removed_even_when_edited_and_its_edit_is_kept() {
        let (_root, tree) = root();
        let knob = ManagedFile::new(&tree, PLACES, DROP_IN).unwrap();
        let before = Reading::default();
        let current = Reading::of("edited\n");
        let undo = knob.undo(Undoing { before: &before, wrote: "ours\n", observed: None, current: &current });
        assert_eq!(undo, Undo::Restore { to: before, drifted: Some("edited\n".into()) });
    }

    #[test]
    fn what_is_shared_is_left_alone_when_edited() {
        let (_root, tree) = root();
        let knob = ManagedFile::new(&tree, PLACES, "/etc/docker/daemon.json").unwrap();
        let before = knob.read().unwrap();
        let current = Reading::of("{\"debug\": true}");
        let undo = knob.undo(Undoing { before: &before, wrote: "{\"x\": 1}", observed: None, current: &current });
        assert_eq!(undo, Undo::Conflict { expected: "{\"x\": 1}".into() });
    }
}
