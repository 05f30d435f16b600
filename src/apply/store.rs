//! Where transactions are kept: `/var/lib/preflight`.
//!
//! ```text
//! tx/20261122T101500Z-7f3a9c01/journal.jsonl   one folder each, kept as history
//! open-20261122T101500Z-7f3a9c01               exists while the transaction has something left to do
//! managed.json                                 what the committed ones hold, for `verify` and `rollback`
//! boots.json                                   what `verify --record` found after each boot
//! ```
//!
//! The markers make it cheap to find what is unfinished among ten thousand. A marker is made before the journal and goes
//! after everything else, so that one too many is harmless and one too few cannot be.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::unistd::ftruncate;

use super::boots::Boots;
use super::journal::{Corrupt, Journal, parse};
use super::managed::Managed;
use super::progress::Progress;
use crate::change::id::TxId;
use crate::change::state::State;
use crate::host::safe_file::{Attributes, Content, FileError, Tree, read_whole};

/// The default place of the state.
pub const STATE_DIR: &str = "/var/lib/preflight";

const MARKER: &str = "open-";
const MANAGED: &str = "/managed.json";
const BOOTS: &str = "/boots.json";

/// A journal holds the files before and after; three of the largest, escaped, fit.
const MAX_JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("transaction {tx}: {corrupt}; nothing is changed before an administrator has looked at {path}", path = .path.display())]
    Corrupt { tx: TxId, path: PathBuf, corrupt: Corrupt },
    #[error(
        "cannot trust {path}: {why}\nhint: preflight makes it 0600; look at what it says, and who could reach it, before you make it so again",
        path = .path.display()
    )]
    Exposed { path: PathBuf, why: String },
    /// Nothing is done without it.
    #[error(
        "cannot take the lock, so nothing is changed: {0}\nhint: it keeps two preflights from changing one host at once, and needs a folder that root can write"
    )]
    Lock(FileError),
    #[error("cannot write the journal {path}: {reason}", path = .path.display())]
    Journal { path: PathBuf, reason: String },
    #[error("there is no transaction {0}")]
    NoTransaction(TxId),
}

impl StoreError {
    pub fn is_denied(&self) -> bool {
        match self {
            Self::File(error) | Self::Lock(error) => error.source.kind() == io::ErrorKind::PermissionDenied,
            Self::Exposed { .. } => true,
            _ => false,
        }
    }
}

/// The state directory.
#[derive(Debug)]
pub struct Store {
    tree: Tree,
    dir: PathBuf,
    home: OnceCell<Tree>,
}

/// A journal held open: whatever becomes of its name and its folder, what it says can be read, and carried on.
#[derive(Debug)]
pub struct Held {
    file: File,
    path: PathBuf,
    /// The disk takes nothing any more, as after an error of it.
    is_read_only: bool,
}

impl Store {
    /// `dir` is a path below the tree. It is created when the first transaction begins.
    pub fn new(tree: Tree, dir: impl Into<PathBuf>) -> Self {
        Self { tree, dir: dir.into(), home: OnceCell::new() }
    }

    /// Where it is, for people.
    pub fn shown(&self) -> &Path {
        if self.dir == Path::new("/") { self.tree.root() } else { &self.dir }
    }

    /// Does something in the folder, which is held open from its first use: what is begun in it ends in it, wherever
    /// somebody moves it meanwhile. `None`: there is no such folder. What is in its place and none is an error.
    fn inside<T>(&self, action: impl FnOnce(&Tree) -> Result<T, FileError>) -> Result<Option<T>, FileError> {
        let home = match self.home.get() {
            Some(home) => home,
            None => match self.tree.below(&self.dir) {
                Ok(home) => self.home.get_or_init(|| home),
                Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(FileError { path: self.shown().to_owned(), ..error }),
            },
        };
        let named = |error: FileError| FileError { path: self.named(&error.path), ..error };
        action(home).map(Some).map_err(named)
    }

    /// A path inside, as people know it.
    fn named(&self, inside: &Path) -> PathBuf {
        match inside.strip_prefix("/").unwrap_or(inside) {
            nothing if nothing.as_os_str().is_empty() => self.shown().to_owned(),
            inside => self.shown().join(inside),
        }
    }

    /// Refuses a state that somebody besides root could have written: its journals say what to write as root. The folder and
    /// all above it are looked at here, so that nobody else reaches what lies inside; whether others could once have
    /// written a journal, its own mode tells whoever reads it.
    pub fn audit(&self) -> Result<(), StoreError> {
        match self.tree.audit(&self.dir) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
            other => Ok(other?),
        }
    }

    /// Makes room for a transaction and reserves space, so that a full disk shows now and not in the middle.
    pub fn create(&self, tx: &TxId, reserve_bytes: u64) -> Result<Writer, StoreError> {
        self.tree.create_dirs(&self.dir, 0o700)?;
        self.audit()?;
        let create = |home: &Tree| {
            home.open_at(&marker(tx), OFlag::O_CREAT | OFlag::O_WRONLY, 0o600)?;
            home.create_volatile_dirs(&tx_dir(tx), 0o700)?;
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_APPEND;
            let file = home.open_at(&journal_path(tx), flags, 0o600)?;
            // The folder with the marker first: what is found of a transaction after a power cut has one.
            for folder in [Path::new("/"), Path::new("/tx"), &tx_dir(tx)] {
                home.sync_dir(folder)?;
            }
            Ok(file)
        };
        let create = || {
            let file = self.inside(create)?.ok_or_else(|| self.gone())?;
            let writer = Writer { file, path: self.named(&journal_path(tx)), len: 0, dead: None };
            writer.reserve(reserve_bytes)?;
            Ok(writer)
        };
        create().inspect_err(|_| drop(self.discard(tx)))
    }

    fn gone(&self) -> FileError {
        FileError { action: "open", path: self.shown().to_owned(), source: Errno::ENOENT.into() }
    }

    /// Removes a transaction that never began.
    pub fn discard(&self, tx: &TxId) -> Result<(), StoreError> {
        self.inside(|home| {
            home.remove(&journal_path(tx))?;
            home.remove_empty_dir(&tx_dir(tx))
        })?;
        self.unmark(tx)
    }

    /// Reads a journal; `None` when the transaction never came so far.
    pub fn read(&self, tx: &TxId) -> Result<Option<Journal>, StoreError> {
        let content = self.inside(|home| home.read_up_to(&journal_path(tx), MAX_JOURNAL_BYTES))?.flatten();
        content.map(|content| self.believe(tx, &content)).transpose()
    }

    /// Takes a journal for what it says, unless it is damaged or others could have written it.
    fn believe(&self, tx: &TxId, content: &Content) -> Result<Journal, StoreError> {
        let path = || self.named(&journal_path(tx));
        if let Some(why) = content.attributes.exposed() {
            return Err(StoreError::Exposed { path: path(), why });
        }
        // A byte that is not UTF-8 becomes one that the crc does not match.
        let text = String::from_utf8_lossy(&content.bytes);
        let damaged = |corrupt| StoreError::Corrupt { tx: tx.clone(), path: path(), corrupt };
        let mut journal = parse(&text).map_err(damaged)?;
        if journal.tx().is_some_and(|named| named != tx) {
            return Err(damaged(Corrupt { line: 1, reason: "it names another transaction".to_owned() }));
        }
        if journal.records.is_empty() {
            journal.valid_bytes = 0;
        }
        Ok(journal)
    }

    /// Opens a journal to go on writing it.
    pub fn reopen(&self, tx: &TxId, journal: &Journal, reserve_bytes: u64) -> Result<Writer, StoreError> {
        self.hold(tx)?.ok_or_else(|| self.gone())?.writer(journal, reserve_bytes)
    }

    /// Opens a journal to read and to write it, come what may; `None` when there is none.
    pub fn hold(&self, tx: &TxId) -> Result<Option<Held>, StoreError> {
        let path = journal_path(tx);
        let open = |flags| self.inside(|home| home.open_at(&path, flags | OFlag::O_APPEND | OFlag::O_NONBLOCK, 0));
        let (file, is_read_only) = match open(OFlag::O_RDWR) {
            // What was changed can be taken back without a word of it.
            Err(error) if error.source.kind() == io::ErrorKind::ReadOnlyFilesystem => (open(OFlag::O_RDONLY), true),
            other => (other, false),
        };
        match file {
            Ok(file) => Ok(file.map(|file| Held { file, path: self.named(&path), is_read_only })),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What a held journal says now.
    pub fn read_held(&self, tx: &TxId, held: &Held) -> Result<Journal, StoreError> {
        let failed = |source| FileError { action: "read", path: held.path.clone(), source };
        if held.file.metadata().map_err(failed)?.is_file() {
            (&held.file).rewind().map_err(failed)?;
        }
        self.believe(tx, &read_whole(&held.file, MAX_JOURNAL_BYTES).map_err(failed)?)
    }

    /// Says durably that a transaction has something left to do.
    pub fn mark(&self, tx: &TxId) -> Result<(), StoreError> {
        let mark = |home: &Tree| {
            home.open_at(&marker(tx), OFlag::O_CREAT | OFlag::O_WRONLY, 0o600)?;
            home.sync_dir(Path::new("/"))
        };
        Ok(self.inside(mark)?.ok_or_else(|| self.gone())?)
    }

    /// Not synced: a marker that comes back after a power cut is taken away again by the next recovery.
    pub fn unmark(&self, tx: &TxId) -> Result<(), StoreError> {
        self.inside(|home| home.unlink(&marker(tx)))?;
        Ok(())
    }

    /// The transactions that have something left to do, oldest first.
    pub fn unfinished(&self) -> Result<Vec<TxId>, StoreError> {
        let names = self.inside(|home| home.list(Path::new("/")))?.unwrap_or_default();
        let open: Vec<TxId> =
            names.iter().filter_map(|name| name.to_str()?.strip_prefix(MARKER)?.parse().ok()).collect();
        if open.len() < 2 {
            return Ok(open);
        }
        // A journal that cannot be read is told by whoever goes on with it; until then its name says when it began.
        let began = |tx: TxId| (Began::of(&tx, self.read(&tx).ok().flatten().as_ref()), tx);
        Ok(oldest_first(open.into_iter().map(began).collect()))
    }

    /// All transactions, oldest first.
    pub fn transactions(&self) -> Result<Vec<TxId>, StoreError> {
        let names = self.inside(|home| home.list(Path::new("/tx")))?.unwrap_or_default();
        Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    }

    /// What the committed transactions hold. A summary that is damaged or gone is put together again from the journals, and
    /// one that could not be written at the end of a transaction is brought up to date by what is still marked.
    pub fn managed(&self) -> Result<Managed, StoreError> {
        let Some(mut managed) = self.saved_managed()? else { return self.managed_by_journals() };
        for tx in self.unfinished()? {
            // One that cannot be read is told as unfinished.
            let Some(progress) = self.read(&tx).ok().flatten().as_ref().and_then(Progress::of) else { continue };
            match progress.state {
                State::Committed if !managed.transactions.contains(&tx) => managed.committed(&progress),
                State::RolledBack | State::RolledBackWithConflicts => managed.taken_back(&tx),
                _ => {}
            }
        }
        Ok(managed)
    }

    fn managed_by_journals(&self) -> Result<Managed, StoreError> {
        let mut committed = Vec::new();
        for tx in self.transactions()? {
            let Some(journal) = self.read(&tx)? else { continue };
            let began = Began::of(&tx, Some(&journal));
            committed.extend(Progress::of(&journal).filter(|it| it.state == State::Committed).map(|it| (began, it)));
        }
        let mut managed = Managed::default();
        for progress in &oldest_first(committed) {
            managed.committed(progress);
        }
        Ok(managed)
    }

    /// The summary as it lies there; `None` when it is gone or damaged, or others could have written it.
    pub fn saved_managed(&self) -> Result<Option<Managed>, StoreError> {
        let content = self.inside(|home| home.read_up_to(Path::new(MANAGED), MAX_JOURNAL_BYTES))?.flatten();
        let content = content.filter(|content| content.attributes.exposed().is_none());
        Ok(content.as_ref().and_then(|content| Managed::parse(&content.bytes)))
    }

    /// Renamed into place and not synced: the marker goes after it in the same folder, so a power cut that loses this brings
    /// the marker back too, and with it the next recovery; and one that empties it has it made anew from the journals.
    pub fn save_managed(&self, managed: &Managed) -> Result<(), StoreError> {
        let text = managed.to_text();
        let save = |home: &Tree| home.replace_lazily(Path::new(MANAGED), text.as_bytes(), Attributes::own(0o600));
        Ok(self.inside(save)?.ok_or_else(|| self.gone())?)
    }

    /// What was found after each boot; `None` when nobody wrote it down, or it is damaged.
    pub fn boots(&self) -> Result<Option<Boots>, StoreError> {
        let Some(content) = self.inside(|home| home.read(Path::new(BOOTS)))?.flatten() else { return Ok(None) };
        match content.attributes.exposed() {
            Some(why) => Err(StoreError::Exposed { path: self.named(Path::new(BOOTS)), why }),
            None => Ok(Boots::parse(&content.bytes)),
        }
    }

    pub fn save_boots(&self, boots: &Boots) -> Result<(), StoreError> {
        let text = boots.to_text();
        let save = |home: &Tree| home.replace(Path::new(BOOTS), text.as_bytes(), Attributes::own(0o600));
        Ok(self.inside(save)?.ok_or_else(|| self.gone())?)
    }
}

impl Held {
    /// A second hold on the same journal, for another attempt.
    pub fn again(&self) -> Result<Self, StoreError> {
        let failed = |source| FileError { action: "hold", path: self.path.clone(), source };
        let file = self.file.try_clone().map_err(failed)?;
        Ok(Self { file, path: self.path.clone(), is_read_only: self.is_read_only })
    }

    /// Goes on writing it. A torn end is cut off first: with a line after it, it would be damage.
    pub fn writer(self, journal: &Journal, reserve_bytes: u64) -> Result<Writer, StoreError> {
        let Self { file, path, is_read_only } = self;
        if is_read_only {
            let dead = Some(crate::host::describe(&Errno::EROFS.into()));
            return Ok(Writer { file, path, len: journal.valid_bytes, dead });
        }
        let length = i64::try_from(journal.valid_bytes).unwrap_or(i64::MAX);
        let found = file.metadata().map_or(u64::MAX, |metadata| metadata.len());
        if found != journal.valid_bytes {
            ftruncate(&file, length)
                .map_err(|errno| StoreError::Journal { path: path.clone(), reason: errno.desc().to_lowercase() })?;
        }
        let writer = Writer { file, path, len: journal.valid_bytes, dead: None };
        // A full disk must not keep a rollback from trying: the kernel's values need no space.
        if writer.reserve(reserve_bytes).is_err() {
            writer.reserve(1)?;
        }
        Ok(writer)
    }
}

fn tx_dir(tx: &TxId) -> PathBuf {
    Path::new("/tx").join(tx.as_str())
}

fn journal_path(tx: &TxId) -> PathBuf {
    tx_dir(tx).join("journal.jsonl")
}

fn marker(tx: &TxId) -> PathBuf {
    PathBuf::from(format!("/{MARKER}{tx}"))
}

/// When a transaction began.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Began {
    /// `20261122T101500Z`, by the calendar.
    second: String,
    boot_id: String,
    /// `CLOCK_BOOTTIME`: which no NTP step moves, and which tells two of one second apart.
    boottime_us: u64,
}

impl Began {
    fn of(tx: &TxId, journal: Option<&Journal>) -> Self {
        let first = journal.and_then(|journal| journal.records.first());
        Self {
            second: tx.second().to_owned(),
            boot_id: first.map(|first| first.boot_id.clone()).unwrap_or_default(),
            boottime_us: first.map_or(u64::MAX, |first| first.boottime_us),
        }
    }
}

/// In the order in which they began. Within a boot its own clock decides, since the calendar may have been set back in
/// between; which boot was first, the calendar of its first transaction.
fn oldest_first<T>(mut list: Vec<(Began, T)>) -> Vec<T> {
    let mut boots: BTreeMap<String, String> = BTreeMap::new();
    for (began, _) in &list {
        let first = boots.entry(began.boot_id.clone()).or_insert_with(|| began.second.clone());
        if began.second < *first {
            first.clone_from(&began.second);
        }
    }
    list.sort_by(|(one, _), (other, _)| {
        let key = |began: &Began| (boots.get(&began.boot_id).cloned(), began.boot_id.clone(), began.boottime_us);
        key(one).cmp(&key(other)).then_with(|| one.cmp(other))
    });
    list.into_iter().map(|(_, it)| it).collect()
}

/// A journal being written. After its first error it is dead: a failed sync must never be tried again, since the kernel
/// may have dropped the pages and would report success.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
    /// How many bytes are certainly whole lines.
    len: u64,
    dead: Option<String>,
}

impl Writer {
    /// Appends whole lines in one write.
    pub fn append(&mut self, lines: &str) -> Result<(), StoreError> {
        self.attempt(|file| file.write_all(lines.as_bytes()))?;
        self.len += lines.len() as u64;
        Ok(())
    }

    /// Where the journal ends now.
    pub fn position(&self) -> u64 {
        self.len
    }

    /// Cuts off what was written after a position and could not be made durable, so that no recovery reads it as
    /// decided. Works on a dead journal too: it takes space from nobody.
    pub fn retract(&mut self, position: u64) -> Result<(), StoreError> {
        let length = i64::try_from(position).unwrap_or(i64::MAX);
        ftruncate(&self.file, length)
            .map_err(|errno| StoreError::Journal { path: self.path.clone(), reason: errno.desc().to_lowercase() })?;
        self.len = position;
        Ok(())
    }

    /// Everything appended so far is on the disk on return.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.attempt(|file| file.sync_data())
    }

    fn attempt(&mut self, action: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), StoreError> {
        if self.dead.is_none() {
            self.dead = action(&mut self.file).err().map(|error| crate::host::describe(&error));
        }
        match &self.dead {
            None => Ok(()),
            Some(reason) => Err(StoreError::Journal { path: self.path.clone(), reason: reason.clone() }),
        }
    }

    /// Keeps the file's length, so that a reader sees only what was written.
    fn reserve(&self, bytes: u64) -> Result<(), StoreError> {
        let length = i64::try_from(bytes).unwrap_or(i64::MAX);
        let from = self.file.metadata().map_or(0, |metadata| i64::try_from(metadata.len()).unwrap_or(0));
        match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, from, length) {
            // Not every file system can; there the first full write shows it instead.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            Err(errno) => {
                let reason = format!("cannot reserve {bytes} bytes: {}", errno.desc().to_lowercase());
                Err(StoreError::Journal { path: self.path.clone(), reason })
            }
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
