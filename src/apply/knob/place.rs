//! Where preflight writes on the disk. Each subject declares its own places; the sum of them is closed, so that no journal,
//! however made, can point a write anywhere else.

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Ours alone: a rollback always removes what we put there.
    Ours,
    /// Others write it too: compare-and-swap.
    Shared,
}

/// A place for files. A `*` stands for letters, digits and `@._:-`, within one component.
#[derive(Debug)]
pub struct FilePlace {
    pattern: &'static str,
    pub(super) mode: u32,
    pub(super) owner: Owner,
}

/// A place for a link, and where alone it leads.
#[derive(Debug)]
pub struct LinkPlace {
    path: &'static str,
    pub(super) leads_to: &'static str,
}

/// All places of a program. Made of constants only.
#[derive(Debug)]
pub struct Places {
    files: &'static [&'static [FilePlace]],
    links: &'static [&'static [LinkPlace]],
}

impl FilePlace {
    pub const fn ours(pattern: &'static str, mode: u32) -> Self {
        Self { pattern, mode, owner: Owner::Ours }
    }

    pub const fn shared(pattern: &'static str) -> Self {
        Self { pattern, mode: 0o644, owner: Owner::Shared }
    }

    /// Whether a path is one that the pattern describes.
    fn fits(&self, path: &str) -> bool {
        let plain = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'@' | b'.' | b'_' | b':' | b'-'))
        };
        match self.pattern.split_once('*') {
            None => self.pattern == path,
            Some((head, tail)) => {
                path.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail)).is_some_and(|middle| {
                    plain(middle) && !(middle.is_empty() && head.ends_with('/')) && middle.len() <= 100
                })
            }
        }
    }
}

impl LinkPlace {
    pub const fn new(path: &'static str, leads_to: &'static str) -> Self {
        Self { path, leads_to }
    }
}

impl Places {
    pub const fn new(files: &'static [&'static [FilePlace]], links: &'static [&'static [LinkPlace]]) -> Self {
        Self { files, links }
    }

    /// The place of a file; `None` for a path where nothing is written.
    pub fn file(&self, path: &str) -> Option<&'static FilePlace> {
        self.files.iter().flat_map(|places| places.iter()).find(|place| place.fits(path))
    }

    /// The place of a link; `None` for a path where none is made.
    pub fn link(&self, path: &str) -> Option<&'static LinkPlace> {
        self.links.iter().flat_map(|places| places.iter()).find(|place| place.path == path)
    }
}
