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

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::unistd::ftruncate;

use super::boots::Boots;
use super::id::TxId;
use super::journal::{Corrupt, Journal, parse};
use super::managed::Managed;
use super::progress::{Progress, State};
use crate::host::safe_file::{Attributes, FileError, Tree};

/// The default place of the state.
pub const STATE_DIR: &str = "/var/lib/preflight";

const MARKER: &str = "open-";

/// A journal holds the files before and after; three of the largest, escaped, fit.
const MAX_JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("transaction {tx}: {corrupt}; nothing is changed before somebody has looked at {path}", path = .path.display())]
    Corrupt { tx: TxId, path: PathBuf, corrupt: Corrupt },
    #[error("cannot write the journal {path}: {reason}", path = .path.display())]
    Journal { path: PathBuf, reason: String },
    #[error("there is no transaction {0}")]
    NoTransaction(TxId),
}

impl StoreError {
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::File(error) if error.source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// The state directory.
#[derive(Debug)]
pub struct Store {
    tree: Tree,
    dir: PathBuf,
}

impl Store {
    /// `dir` is a path below the tree. It is created when the first transaction begins.
    pub fn new(tree: Tree, dir: impl Into<PathBuf>) -> Self {
        Self { tree, dir: dir.into() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn tx_dir(&self, tx: &TxId) -> PathBuf {
        self.dir.join("tx").join(tx.as_str())
    }

    fn journal_path(&self, tx: &TxId) -> PathBuf {
        self.tx_dir(tx).join("journal.jsonl")
    }

    fn marker(&self, tx: &TxId) -> PathBuf {
        self.dir.join(format!("{MARKER}{tx}"))
    }

    /// Refuses a state that somebody besides root could have written: its journals say what to write as root. The folder and
    /// all above it are looked at: what lies inside nobody else reaches.
    pub fn audit(&self) -> Result<(), StoreError> {
        match self.tree.audit(&self.dir) {
            Err(error) if error.is_absent() => Ok(()),
            other => Ok(other?),
        }
    }

    /// Makes room for a transaction and reserves space, so that a full disk shows now and not in the middle.
    pub fn create(&self, tx: &TxId, reserve_bytes: u64) -> Result<Writer, StoreError> {
        self.tree.create_dirs(&self.dir, 0o700)?;
        self.audit()?;
        self.mark(tx)?;
        let create = || {
            self.tree.create_dirs(&self.tx_dir(tx), 0o700)?;
            let path = self.journal_path(tx);
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_APPEND;
            let writer = Writer { file: self.tree.open_at(&path, flags, 0o600)?, path, len: 0, dead: None };
            writer.reserve(reserve_bytes)?;
            self.tree.sync_dir(&self.tx_dir(tx))?;
            Ok(writer)
        };
        create().inspect_err(|_| drop(self.discard(tx)))
    }

    /// Removes a transaction that never began.
    pub fn discard(&self, tx: &TxId) -> Result<(), StoreError> {
        self.tree.remove(&self.journal_path(tx))?;
        self.tree.remove_empty_dir(&self.tx_dir(tx))?;
        self.unmark(tx)
    }

    /// Reads a journal; `None` when the transaction never came so far.
    pub fn read(&self, tx: &TxId) -> Result<Option<Journal>, StoreError> {
        let path = self.journal_path(tx);
        let Some(content) = self.tree.read_up_to(&path, MAX_JOURNAL_BYTES)? else { return Ok(None) };
        // A byte that is not UTF-8 becomes one that the crc does not match.
        let text = String::from_utf8_lossy(&content.bytes);
        let mut journal =
            parse(&text).map_err(|corrupt| StoreError::Corrupt { tx: tx.clone(), path: path.clone(), corrupt })?;
        if journal.tx().is_some_and(|named| named != tx) {
            let corrupt = Corrupt { line: 1, reason: "it names another transaction".to_owned() };
            return Err(StoreError::Corrupt { tx: tx.clone(), path, corrupt });
        }
        if journal.records.is_empty() {
            journal.valid_bytes = 0;
        }
        Ok(Some(journal))
    }

    /// Opens a journal to go on writing it. A torn end is cut off first: with a line after it, it would be damage.
    pub fn reopen(&self, tx: &TxId, journal: &Journal, reserve_bytes: u64) -> Result<Writer, StoreError> {
        let path = self.journal_path(tx);
        let file = self.tree.open_at(&path, OFlag::O_WRONLY | OFlag::O_APPEND, 0)?;
        let length = i64::try_from(journal.valid_bytes).unwrap_or(i64::MAX);
        let found = file.metadata().map_or(u64::MAX, |metadata| metadata.len());
        if found != journal.valid_bytes {
            ftruncate(&file, length)
                .map_err(|errno| StoreError::Journal { path: path.clone(), reason: errno.desc().to_lowercase() })?;
        }
        let writer = Writer { file, path, len: journal.valid_bytes, dead: None };
        writer.reserve(reserve_bytes)?;
        Ok(writer)
    }

    /// Says durably that a transaction has something left to do.
    pub fn mark(&self, tx: &TxId) -> Result<(), StoreError> {
        self.tree.open_at(&self.marker(tx), OFlag::O_CREAT | OFlag::O_WRONLY, 0o600)?;
        Ok(self.tree.sync_dir(&self.dir)?)
    }

    /// Not synced: a marker that comes back after a power cut is taken away again by the next recovery.
    pub fn unmark(&self, tx: &TxId) -> Result<(), StoreError> {
        Ok(self.tree.unlink(&self.marker(tx))?)
    }

    /// The transactions that have something left to do, oldest first.
    pub fn unfinished(&self) -> Result<Vec<TxId>, StoreError> {
        let names = self.tree.list(&self.dir)?;
        Ok(names.iter().filter_map(|name| name.to_str()?.strip_prefix(MARKER)?.parse().ok()).collect())
    }

    /// All transactions, oldest first.
    pub fn transactions(&self) -> Result<Vec<TxId>, StoreError> {
        let names = self.tree.list(&self.dir.join("tx"))?;
        Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    }

    /// What the committed transactions hold. A summary that is damaged or gone is put together again from the journals.
    pub fn managed(&self) -> Result<Managed, StoreError> {
        if let Some(managed) = self.saved_managed()? {
            return Ok(managed);
        }
        let mut committed = Vec::new();
        for tx in self.transactions()? {
            let Some(journal) = self.read(&tx)? else { continue };
            let began = journal.records.first().map(|first| (first.at.clone(), first.boottime_us));
            committed.extend(Progress::of(&journal).filter(|it| it.state == State::Committed).map(|it| (began, it)));
        }
        // Two of one second are told apart by the clock that no NTP step moves.
        committed.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut managed = Managed::default();
        for (_, progress) in &committed {
            managed.committed(progress);
        }
        Ok(managed)
    }

    /// The summary as it lies there; `None` when it is gone or damaged.
    pub fn saved_managed(&self) -> Result<Option<Managed>, StoreError> {
        let content = self.tree.read_up_to(&self.dir.join("managed.json"), MAX_JOURNAL_BYTES)?;
        Ok(content.as_ref().and_then(|content| Managed::parse(&content.bytes)))
    }

    /// Renamed into place, its folder not synced: the marker goes after it in the same folder, so a power cut that loses
    /// this brings the marker back too, and with it the next recovery.
    pub fn save_managed(&self, managed: &Managed) -> Result<(), StoreError> {
        let path = self.dir.join("managed.json");
        Ok(self.tree.replace_lazily(&path, managed.to_text().as_bytes(), Attributes::own(0o600))?)
    }
}

impl Store {
    /// What was found after each boot; `None` when nobody wrote it down, or it is damaged.
    pub fn boots(&self) -> Result<Option<Boots>, StoreError> {
        let content = self.tree.read(&self.dir.join("boots.json"))?;
        Ok(content.as_ref().and_then(|content| Boots::parse(&content.bytes)))
    }

    pub fn save_boots(&self, boots: &Boots) -> Result<(), StoreError> {
        let path = self.dir.join("boots.json");
        Ok(self.tree.replace(&path, boots.to_text().as_bytes(), Attributes::own(0o600))?)
    }
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
        use nix::errno::Errno;
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
