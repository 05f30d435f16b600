//! Transparent huge pages: the switch for all sizes, and one per size.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use nix::fcntl::OFlag;

use crate::change::id::TxId;
use crate::change::knob::{Capabilities, Knob, KnobError, Reading};
use crate::change::target::Target;
use crate::facts::Layer;
use crate::host::safe_file::{FileError, Tree};

/// A switch under `/sys/kernel/mm/transparent_hugepage`.
#[derive(Debug)]
pub struct Thp<'a> {
    tree: &'a Tree,
    target: String,
    path: PathBuf,
    words: &'static [&'static str],
}

impl<'a> Thp<'a> {
    /// `enabled`, or `hugepages-2048kB` for one size (Documentation/admin-guide/mm/transhuge.rst). `defrag` and the
    /// switch for shared memory are not ours to touch.
    pub fn new(tree: &'a Tree, name: &str) -> Option<Self> {
        let folder = PathBuf::from("/sys/kernel/mm/transparent_hugepage");
        let (path, words): (_, &[&str]) = if name == "enabled" {
            (folder.join("enabled"), &["always", "madvise", "never"])
        } else {
            let size = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
            if size.is_empty() || size.len() > 9 || !size.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            (folder.join(name).join("enabled"), &["always", "inherit", "madvise", "never"])
        };
        Some(Self { tree, target: Target::HugePages(name).to_string(), path, words })
    }

    fn wrap(&self, action: &'static str, source: io::Error) -> KnobError {
        self.failed(FileError { action, path: self.path.clone(), source })
    }

    fn failed(&self, source: FileError) -> KnobError {
        KnobError::File { target: self.target.clone(), source }
    }
}

/// The word in brackets: `always [madvise] never`.
pub fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    let (word, _) = rest.split_once(']')?;
    Some(word)
}

impl Knob for Thp<'_> {
    fn target(&self) -> &str {
        &self.target
    }

    fn layer(&self) -> Layer {
        Layer::Live
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            // khugepaged starts or stops with the switch and then recalculates it (`set_recommended_min_free_kbytes` in
            // mm/khugepaged.c).
            footprint: vec!["sysctl:vm.min_free_kbytes".to_owned()],
            ..Capabilities::live()
        }
    }

    fn read(&self) -> Result<Reading, KnobError> {
        let file = match self.tree.open_at(&self.path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0) {
            Ok(file) => file,
            Err(error) if error.is_absent() => return Ok(Reading::default()),
            Err(error) => return Err(self.failed(error)),
        };
        let mut text = String::new();
        file.take(4096).read_to_string(&mut text).map_err(|source| self.wrap("read", source))?;
        match chosen(&text) {
            Some(word) => Ok(Reading::of(word)),
            None => Err(self.wrap("read", io::Error::other(format!("no word in brackets in `{}`", text.trim())))),
        }
    }

    fn validate(&self, after: &str) -> Result<(), KnobError> {
        if self.words.contains(&after) {
            return Ok(());
        }
        let value = after.chars().take(80).collect::<String>().escape_default().to_string();
        let reason = format!("expected one of {}", self.words.join(", "));
        Err(KnobError::BadValue { target: self.target.clone(), value, reason })
    }

    fn stage(&self, _: &TxId, _: &str) -> Result<(), KnobError> {
        self.tree.open_at(&self.path, OFlag::O_WRONLY, 0).map(drop).map_err(|error| self.failed(error))
    }

    fn unstage(&self, _: &TxId) -> Result<(), KnobError> {
        Ok(())
    }

    fn write(&self, _: &TxId, value: &str) -> Result<(), KnobError> {
        let mut file = self.tree.open_at(&self.path, OFlag::O_WRONLY, 0).map_err(|error| self.failed(error))?;
        file.write_all(value.as_bytes()).map_err(|source| self.wrap("write", source))
    }

    fn restore(&self, tx: &TxId, to: &Reading) -> Result<(), KnobError> {
        match &to.value {
            Some(value) => self.write(tx, value),
            None => Err(self.wrap("restore", io::Error::other("it did not exist before"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_word_in_brackets_is_the_value() {
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
        assert_eq!(chosen("always inherit madvise [never]"), Some("never"));
        for text in ["", "always", "[", "]a[", "[]x"] {
            assert!(chosen(text).is_none_or(str::is_empty), "{text}");
        }
    }

    #[test]
    fn only_the_two_kinds_of_switch_are_known() {
        let tree = Tree::open(Path::new("/")).unwrap();
        assert!(Thp::new(&tree, "enabled").is_some());
        let size = Thp::new(&tree, "hugepages-2048kB").unwrap();
        size.validate("inherit").unwrap();
        assert!(Thp::new(&tree, "enabled").unwrap().validate("inherit").is_err(), "only a size can inherit");
        for name in ["defrag", "shmem_enabled", "hugepages-kB", "hugepages-../kB", "hugepages-2048kB/enabled", ""] {
            assert!(Thp::new(&tree, name).is_none(), "{name}");
        }
    }
}
