//! What several subcommands begin with: the host, the catalogue, the snapshot.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Stop;
use super::select::Selection;
use crate::catalog::library::Library;
use crate::catalog::{self, Catalogue};
use crate::host::{self, Host, input};
use crate::subjects::gather;
use crate::subjects::gather::Gathered;
use crate::subjects::planner;

/// The running host, or the directory given with `--root`.
pub(crate) fn host(root: Option<&Path>) -> Result<Host, Stop> {
    let Some(root) = root else { return Ok(Host::live()) };
    Host::of_image(root).map_err(|error| Stop::usage(format!("--root {}: {}", root.display(), host::describe(&error))))
}

/// The catalogue of a profile given by name or by file, with the host's own checks and profiles.
pub(crate) fn catalogue(host: &Host, profile: &str, set: &[(String, String)]) -> Result<Catalogue, Stop> {
    let mut library = Library::local(host)?;
    let name = if profile.contains('/') || Path::new(profile).extension().is_some_and(|ending| ending == "toml") {
        library.add_profile_file(Path::new(profile))?
    } else {
        profile.to_owned()
    };
    Ok(catalog::load(&library, &name, &values(set)?, planner::tuning)?)
}

/// The values given with `--set`; one given twice is a mistake, since one of the two would be lost.
pub(crate) fn values(set: &[(String, String)]) -> Result<BTreeMap<String, String>, Stop> {
    let mut values = BTreeMap::new();
    for (key, value) in set {
        if let Some(first) = values.insert(key.clone(), value.clone()) {
            let message = format!("--set {key} is given twice, with `{first}` and `{value}`");
            return Err(Stop::usage(message));
        }
    }
    Ok(values)
}

/// What every JSON document of preflight's begins with.
#[derive(Deserialize)]
struct Head {
    schema: String,
}

/// Reads a JSON document of preflight's own from a file, or from standard input for `-`. A mistake has its place.
pub(crate) fn document<T: DeserializeOwned>(path: &Path, what: &str, schema: &str, hint: &str) -> Result<T, Stop> {
    let name = path.display();
    let text = if path == Path::new("-") {
        input::standard().map_err(|error| Stop::usage(format!("{name}: {}", host::describe(&error))))?
    } else {
        input::read(path).map_err(Stop::usage)?
    };
    serde_json::from_str(&text).map_err(|error| {
        // A snapshot in the place of a report, or the other way round, is told by what it says itself.
        let head = serde_json::from_str::<Head>(&text).ok().filter(|head| head.schema != schema);
        if let Some(Head { schema: other }) = head {
            return Stop::usage(format!("{name}: not {what}: its schema is `{other}`, not `{schema}`\nhint: {hint}"));
        }
        let (line, column, words) = (error.line(), error.column(), error.to_string());
        let reason = words.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&words);
        Stop::usage(format!("{name}:{line}:{column}: not {what}: {reason}\nhint: {hint}"))
    })
}

/// The file given with `--output`; `-` is standard output, as with other programs.
pub(crate) fn output_file(given: Option<&Path>) -> Option<&Path> {
    given.filter(|path| *path != Path::new("-"))
}

/// Gathers the facts that the selected checks need.
pub(crate) fn gather(host: &Host, catalogue: &Catalogue, selection: &Selection) -> Gathered {
    let wants = |id: &str, check: &str| selection.wants(id, check);
    gather::gather(host, catalogue, &wants, selection.deep())
}
