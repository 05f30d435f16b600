//! Probes: the code that gathers facts, one file per source. Nothing else reads the host.
//!
//! A probe is asked for the facts it [wants](Want), never for more: a fact that no selected check uses costs nothing.
//! It never fails; what it cannot read it inserts as unknown.

use std::any::{Any, TypeId};
use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::rc::Rc;

use crate::catalog::os::OsProfile;
use crate::catalog::parameters::Parameters;
use crate::facts::Facts;
use crate::host::mounts::Mount;
use crate::host::units::BootFolders;
use crate::host::{Host, ReadError, mounts};

/// The ids that the selected checks need.
#[derive(Debug, Clone, Default)]
pub struct Want(BTreeSet<String>);

impl Want {
    pub fn new(ids: impl IntoIterator<Item = String>) -> Self {
        Self(ids.into_iter().collect())
    }

    pub fn has(&self, id: &str) -> bool {
        self.0.contains(id)
    }

    /// The wanted ids of a family, without the prefix: `Want::family("sysctl.")`.
    pub fn family<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let from_the_first = self.0.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from_the_first.map_while(move |id| id.strip_prefix(prefix))
    }

    pub fn any(&self, prefix: &str) -> bool {
        self.family(prefix).next().is_some()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// What every probe is given.
#[derive(Debug)]
pub struct Context<'a> {
    pub host: &'a Host,
    pub want: &'a Want,
    pub parameters: &'a Parameters,
    pub os: &'a OsProfile,
    // What several readers look at, read when the first one asks: each run has a context of its own.
    mounts: OnceCell<Result<Vec<Mount>, ReadError>>,
    boot_folders: OnceCell<BootFolders>,
    shared: Shared,
}

/// What the readers of one subject share with each other and with later subjects, by its type.
#[derive(Debug, Default)]
struct Shared(RefCell<HashMap<TypeId, Rc<dyn Any>>>);

impl<'a> Context<'a> {
    pub fn new(host: &'a Host, want: &'a Want, parameters: &'a Parameters, os: &'a OsProfile) -> Self {
        Self {
            host,
            want,
            parameters,
            os,
            mounts: OnceCell::new(),
            boot_folders: OnceCell::new(),
            shared: Shared::default(),
        }
    }

    /// The mount table of this process; empty without /proc.
    pub fn mounts(&self) -> Result<&[Mount], ReadError> {
        match self.mounts.get_or_init(|| mounts::read(self.host)) {
            Ok(mounts) => Ok(mounts),
            Err(error) => Err(error.clone()),
        }
    }

    /// Where it stands what the service manager starts at boot.
    pub fn boot_folders(&self) -> &BootFolders {
        self.boot_folders.get_or_init(|| BootFolders::read(self.host))
    }

    /// What a subject reads once in a run, whoever asks first. Every subject has types of its own for what it shares.
    pub fn shared<T: 'static>(&self, read: impl FnOnce() -> T) -> Rc<T> {
        let known = self.shared.0.borrow().get(&TypeId::of::<T>()).cloned();
        if let Some(known) = known.and_then(|known| known.downcast().ok()) {
            return known;
        }
        // Not borrowed meanwhile: what is read may share other things.
        let value = Rc::new(read());
        self.shared.0.borrow_mut().insert(TypeId::of::<T>(), value.clone());
        value
    }

    /// What was shared, for code that goes on where the readers end; `None` where none of them asked.
    pub fn take_shared<T: 'static>(&self) -> Option<T> {
        let known = self.shared.0.borrow_mut().remove(&TypeId::of::<T>())?;
        Rc::try_unwrap(known.downcast::<T>().ok()?).ok()
    }
}

/// A probe: inserts the wanted facts of its family.
pub type Probe = fn(&Context<'_>, &mut Facts);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test builds the root it reads")]
mod tests {
    use super::*;
    use crate::catalog::library;

    struct Name(String);

    /// What several readers look at is read for the first of them, and is the same for all.
    #[test]
    fn a_run_reads_once_what_several_readers_look_at() {
        let root = tempfile::tempdir().unwrap();
        let wants = root.path().join("etc/systemd/system/multi-user.target.wants");
        std::fs::create_dir_all(&wants).unwrap();
        std::fs::write(wants.join("docker.service"), "").unwrap();
        std::fs::write(root.path().join("name"), "first").unwrap();
        let (host, want, parameters) = (Host::at_root(root.path()), Want::default(), Parameters::default());
        let seen = |cx: &Context<'_>| {
            let name = cx.shared(|| Name(cx.host.read_text("/name").unwrap_or_default()));
            (name.0.clone(), cx.boot_folders().clone())
        };
        let cx = Context::new(&host, &want, &parameters, library::os_profile("debian", &[]));
        let first = seen(&cx);
        assert!(first.0 == "first" && first.1.start(&host, "docker") && !first.1.start(&host, "tuned"));
        std::fs::remove_dir_all(root.path().join("etc")).unwrap();
        std::fs::remove_file(root.path().join("name")).unwrap();
        assert_eq!(seen(&cx), first);
        assert_eq!(cx.take_shared::<Name>().unwrap().0, "first");
        assert!(cx.take_shared::<Name>().is_none());
        let later = Context::new(&host, &want, &parameters, library::os_profile("debian", &[]));
        assert_ne!(seen(&later), first, "another run looks anew");
    }
}
