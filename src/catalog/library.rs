//! Where the catalogue's files come from: the binary, `/etc/preflight`, the command line, a snapshot.

use std::iter;
use std::path::Path;

use super::diagnostic::Source;
use super::embedded;
use super::os::OsProfile;
use super::tree;
use crate::facts::snapshot::{SourceRole, SourceText};
use crate::host::{Host, ReadError, input, trust};

/// Where a host keeps checks and profiles of its own.
pub const LOCAL_CHECKS: &str = "/etc/preflight/checks.d";
pub const LOCAL_PROFILES: &str = "/etc/preflight/profiles.d";

/// A file that could not be taken into the catalogue.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{0}\nhint: as root, preflight only reads catalogue files that only root can change")]
    Untrusted(trust::Untrusted),
    #[error(transparent)]
    Unseen(trust::Untrusted),
}

/// All files that a catalogue can be made of.
#[derive(Debug, Clone, Default)]
pub struct Library {
    /// Files of checks that are not embedded; their checks belong to every profile.
    pub checks: Vec<Source>,
    /// Embedded files of checks, by name, that are left out: one of `checks` is their source and stands for them.
    pub replaced: Vec<String>,
    /// Profiles that are not embedded, by name.
    pub profiles: Vec<(String, Source)>,
}

impl Library {
    /// The files in `/etc/preflight`. As root, each must be one that only root can change.
    pub fn local(host: &Host) -> Result<Self, LibraryError> {
        let mut library = Self::default();
        for path in toml_files(host, LOCAL_CHECKS)? {
            library.checks.push(read(host, &path)?);
        }
        for path in toml_files(host, LOCAL_PROFILES)? {
            let source = read(host, &path)?;
            library.profiles.push((stem(&path), source));
        }
        Ok(library)
    }

    /// Adds a profile file given on the command line and returns the name it is found under.
    pub fn add_profile_file(&mut self, path: &Path) -> Result<String, LibraryError> {
        trusted(&Host::live(), path)?;
        let source = Source::file(path.to_string_lossy(), input::read(path)?);
        let name = source.path.clone();
        self.profiles.push((name.clone(), source));
        Ok(name)
    }

    /// The files that a snapshot carries along.
    pub fn of_snapshot(sources: &[SourceText]) -> Self {
        let mut library = Self::default();
        for source in sources {
            let file = Source::file(source.path.clone(), source.text.clone());
            match source.role {
                SourceRole::Checks => library.checks.push(file),
                SourceRole::Profile => {
                    // The snapshot names the profile as the file does; others extend it by the file's name.
                    let (tree, _) = tree::parse(&source.text);
                    let own = tree.get("name").and_then(|name| name.as_text()).unwrap_or_default().to_owned();
                    library.profiles.extend([(own, file.clone()), (stem(&source.path), file)]);
                }
            }
        }
        library
    }

    /// The text of a profile: a local one hides an embedded one of the same name.
    pub fn profile(&self, name: &str) -> Option<Source> {
        let local = self.profiles.iter().find(|(known, _)| known == name).map(|(_, source)| source.clone());
        local.or_else(|| {
            let file = embedded::PROFILES.iter().find(|file| file.name == name)?;
            Some(file.source())
        })
    }

    pub fn profile_names(&self) -> Vec<&str> {
        let local = self.profiles.iter().map(|(name, _)| name.as_str());
        let mut names: Vec<&str> = embedded::PROFILES.iter().map(|file| file.name).chain(local).collect();
        names.dedup();
        names
    }

    /// Whether the checks of an embedded file belong to the catalogue.
    pub fn keeps(&self, file: &embedded::File) -> bool {
        !self.replaced.iter().any(|name| name == file.name)
    }
}

/// The OS profile for an os-release ID and its ID_LIKE: the first that answers, else the generic one. The generic one
/// keeps its name, so that an unknown distribution is told apart from a known one.
pub fn os_profile(id: &str, like: &[&str]) -> &'static OsProfile {
    let files = embedded::os_files();
    let mut candidates = iter::once(id).chain(like.iter().copied());
    let found = candidates.find_map(|candidate| files.iter().find(|file| file.answers_for(candidate)));
    #[expect(clippy::expect_used, reason = "build.rs has put the generic profile last")]
    found.or(files.last()).expect("the generic OS profile").profile()
}

fn read(host: &Host, path: &str) -> Result<Source, LibraryError> {
    trusted(host, Path::new(path))?;
    let wrap = |source| ReadError { path: path.into(), source };
    Ok(Source::file(path, input::decode(host.read(path)?).map_err(wrap)?))
}

/// As root, only a file that only root can change is believed.
fn trusted(host: &Host, path: &Path) -> Result<(), LibraryError> {
    if !nix::unistd::geteuid().is_root() || !host.is_live() {
        return Ok(());
    }
    trust::only_root_writes(path).map_err(|error| match error {
        trust::Untrusted::Unseen { .. } => LibraryError::Unseen(error),
        _ => LibraryError::Untrusted(error),
    })
}

/// The `.toml` files of a folder, in the order of their names.
fn toml_files(host: &Host, folder: &str) -> Result<Vec<String>, ReadError> {
    let names = host.list(folder)?;
    let names = names.iter().filter_map(|name| name.to_str());
    Ok(names
        .filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "toml"))
        .map(|name| format!("{folder}/{name}"))
        .collect())
}

fn stem(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".toml").unwrap_or(name).to_owned()
}
