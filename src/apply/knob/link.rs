//! A symbolic link by which an init system finds what it is to start. Ours alone, and only at the declared places.

use std::path::{Path, PathBuf};

use super::place::Places;
use crate::apply::recovery;
use crate::change::id::TxId;
use crate::change::knob::{Capabilities, Knob, KnobError, Reading};
use crate::change::target::Target;
use crate::facts::Layer;
use crate::host::safe_file::{FileError, Tree, stage_name};

/// One link. Its value is what stands in it.
#[derive(Debug)]
pub struct Link<'a> {
    tree: &'a Tree,
    target: String,
    path: PathBuf,
    leads_to: &'static str,
}

impl<'a> Link<'a> {
    /// `None` for a path where no link is to be made.
    pub fn new(tree: &'a Tree, places: &Places, path: &str) -> Option<Self> {
        let leads_to = places.link(path)?.leads_to;
        Some(Self { tree, target: Target::Link(path).to_string(), path: PathBuf::from(path), leads_to })
    }

    fn failed(&self, source: FileError) -> KnobError {
        KnobError::File { target: self.target.clone(), source }
    }

    fn stage_beside(&self, path: &Path, tx: &TxId) -> Result<(), FileError> {
        let stage = stage_name(path, tx.word());
        self.tree.unstage(path, &stage)?;
        self.tree.stage_link(path, &stage, Path::new(self.leads_to))
    }
}

impl Knob for Link<'_> {
    fn target(&self) -> &str {
        &self.target
    }

    fn layer(&self) -> Layer {
        if self.is_for_recovery() { Layer::Live } else { Layer::Boot }
    }

    fn is_for_recovery(&self) -> bool {
        recovery::is_file(Path::new(self.leads_to))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::on_disk()
    }

    fn read(&self) -> Result<Reading, KnobError> {
        let missing_folders = self.tree.missing_parents(&self.path).map_err(|error| self.failed(error))?;
        let value = self.tree.read_link(&self.path).map_err(|error| self.failed(error))?;
        Ok(Reading { value, attributes: None, missing_folders })
    }

    fn validate(&self, after: &str) -> Result<(), KnobError> {
        if after == self.leads_to {
            return Ok(());
        }
        let (target, value) = (self.target.clone(), after.escape_default().to_string());
        Err(KnobError::BadValue { target, value, reason: format!("it leads to {}", self.leads_to) })
    }

    /// A link of that name that leads elsewhere is somebody's: it could not be given back, since only declared ones are
    /// made. Where the folder is missing, it is not made yet: the nearest one above shows whether it could be.
    fn stage(&self, tx: &TxId, _: &str) -> Result<(), KnobError> {
        let found = self.read()?;
        if let Some(elsewhere) = found.value.filter(|found| found != self.leads_to) {
            let reason = format!("it leads to {}: remove it first", elsewhere.escape_default());
            return Err(KnobError::Unavailable { target: self.target.clone(), reason });
        }
        let at = self.path.ancestors().nth(found.missing_folders.into()).unwrap_or(&self.path);
        let trial = self.stage_beside(at, tx);
        let keep = found.missing_folders == 0;
        let tried = trial.and_then(|()| if keep { Ok(()) } else { self.tree.unstage(at, &stage_name(at, tx.word())) });
        tried.map_err(|error| self.failed(error))
    }

    fn unstage(&self, tx: &TxId) -> Result<(), KnobError> {
        let unstage = |path: &Path| self.tree.unstage(path, &stage_name(path, tx.word()));
        // A run that was killed while it tried a folder above left its trial there.
        let mut paths = self.path.ancestors().take_while(|path| path.parent().is_some());
        paths.try_for_each(unstage).map_err(|error| self.failed(error))
    }

    fn write(&self, tx: &TxId, _: &str) -> Result<(), KnobError> {
        let put = || {
            self.tree.create_dirs(self.path.parent().unwrap_or(Path::new("/")), 0o755)?;
            self.stage_beside(&self.path, tx)?;
            self.tree.publish(&self.path, &stage_name(&self.path, tx.word()))
        };
        put().map_err(|error| self.failed(error))
    }

    fn restore(&self, tx: &TxId, to: &Reading) -> Result<(), KnobError> {
        if let Some(before) = &to.value {
            // Only the declared one: no journal, however made, points a link elsewhere.
            return self.validate(before).and_then(|()| self.write(tx, before));
        }
        // Folders that came with the link go with it, unless somebody else put something there.
        let mut made = self.path.ancestors().skip(1).take(to.missing_folders.into());
        // What a publish that failed left staged would keep them.
        let unstaged = self.tree.unstage(&self.path, &stage_name(&self.path, tx.word()));
        let removed = unstaged.and_then(|()| self.tree.remove(&self.path));
        let gone = removed.and_then(|_| made.try_for_each(|folder| self.tree.remove_empty_dir(folder)));
        gone.map_err(|error| self.failed(error))
    }

    fn is_shared(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::LinkPlace;
    use super::*;
    use crate::change::knob::{Undo, Undoing};

    const PATH: &str = "/etc/runlevels/boot/preflight-thp";
    const SCRIPT: &str = "/etc/init.d/preflight-thp";
    /// In a folder that is not there yet.
    const FOLLOW: &str = "/etc/systemd/system/nftables.service.wants/preflight-guard.service";
    const UNIT: &str = "/etc/systemd/system/preflight-guard.service";
    const PLACES: &Places = &Places::new(&[], &[&[LinkPlace::new(PATH, SCRIPT), LinkPlace::new(FOLLOW, UNIT)]]);

    fn root() -> (tempfile::TempDir, Tree) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/runlevels/boot")).unwrap();
        let tree = Tree::open(root.path()).unwrap();
        (root, tree)
    }

    fn tx() -> TxId {
        "20261122T101500Z-7f3a9c01".parse().unwrap()
    }

    #[test]
    fn a_link_is_made_read_and_taken_away() {
        let (_root, tree) = root();
        let knob = Link::new(&tree, PLACES, PATH).unwrap();
        let before = knob.read().unwrap();
        assert_eq!(before, Reading::default());
        knob.stage(&tx(), SCRIPT).unwrap();
        knob.write(&tx(), SCRIPT).unwrap();
        assert_eq!(knob.read().unwrap().value.as_deref(), Some(SCRIPT));
        assert_eq!(tree.list(Path::new("/etc/runlevels/boot")).unwrap().len(), 1, "the stage is left");
        knob.restore(&tx(), &before).unwrap();
        assert!(tree.list(Path::new("/etc/runlevels/boot")).unwrap().is_empty());
    }

    /// Without the folders made in `write`: not applied. Without them taken away in `restore`, or by the default of
    /// `Knob::undo` where a run was killed between folder and link: they stay.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test builds the root it works on")]
    fn a_folder_that_is_missing_comes_and_goes_with_its_link() {
        let (root, tree) = root();
        let system = root.path().join("etc/systemd/system");
        std::fs::create_dir_all(&system).unwrap();
        let names = || tree.list(Path::new("/etc/systemd/system")).unwrap();
        let knob = Link::new(&tree, PLACES, FOLLOW).unwrap();
        let before = knob.read().unwrap();
        knob.stage(&tx(), UNIT).unwrap();
        assert_eq!(names(), [""; 0], "staging leaves something");
        knob.write(&tx(), UNIT).unwrap();
        assert_eq!(knob.read().unwrap().value.as_deref(), Some(UNIT));
        knob.restore(&tx(), &before).unwrap();
        assert_eq!(names(), [""; 0], "its folder is left");

        // A rename that fails leaves what was staged, in a folder of its own. Seen failing without `unstage` in `restore`.
        std::fs::create_dir(system.join("nftables.service.wants")).unwrap();
        knob.stage(&tx(), UNIT).unwrap();
        knob.restore(&tx(), &before).unwrap();
        assert_eq!(names(), [""; 0], "what was staged keeps its folder");

        std::fs::create_dir(system.join("nftables.service.wants")).unwrap();
        let current = knob.read().unwrap();
        let killed = Undoing { before: &before, wrote: UNIT, observed: None, current: &current };
        assert_eq!(knob.undo(killed), Undo::Restore { to: before.clone(), drifted: None });
        std::fs::write(system.join("nftables.service.wants/other"), "").unwrap();
        knob.restore(&tx(), &before).unwrap();
        assert_eq!(names(), ["nftables.service.wants"], "it holds something of somebody else");
    }

    /// Without the look in `stage`, the link of somebody else is overwritten, and a rollback cannot bring it back.
    #[test]
    fn somebody_elses_link_of_that_name_is_left_alone() {
        let (root, tree) = root();
        std::os::unix::fs::symlink("/etc/init.d/mine", root.path().join(&PATH[1..])).unwrap();
        let knob = Link::new(&tree, PLACES, PATH).unwrap();
        let error = knob.stage(&tx(), SCRIPT).unwrap_err().to_string();
        assert!(error.ends_with("it leads to /etc/init.d/mine: remove it first"), "{error}");
        assert_eq!(knob.read().unwrap().value.as_deref(), Some("/etc/init.d/mine"));
        assert!(knob.restore(&tx(), &Reading::of("/etc/init.d/mine")).is_err(), "a journal pointed a link elsewhere");
    }

    /// With the places not asked in `Link::new`, or the value not compared in `validate`, a journal could point anywhere.
    #[test]
    fn only_the_declared_links_are_made() {
        let (_root, tree) = root();
        for path in ["/etc/runlevels/boot/sshd", "/etc/passwd", "/etc/runlevels/boot/../boot/preflight-thp", ""] {
            assert!(Link::new(&tree, PLACES, path).is_none(), "{path}");
        }
        let knob = Link::new(&tree, PLACES, PATH).unwrap();
        assert!(knob.validate("/etc/init.d/sshd").is_err());
        knob.validate("/etc/init.d/preflight-thp").unwrap();
    }

    /// Seen failing without the arm for what is ours alone in `Knob::undo`: a conflict, and the link stays.
    #[test]
    fn a_link_that_somebody_turned_goes_all_the_same() {
        let (_root, tree) = root();
        let knob = Link::new(&tree, PLACES, PATH).unwrap();
        let (before, current) = (Reading::default(), Reading::of("/etc/init.d/mine"));
        let case = Undoing { before: &before, wrote: SCRIPT, observed: None, current: &current };
        let drifted = Some("/etc/init.d/mine".to_owned());
        assert_eq!(knob.undo(case), Undo::Restore { to: before.clone(), drifted });
    }
}
