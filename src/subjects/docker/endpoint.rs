//! Which socket is Docker's: the order of the Docker CLI, then the places where rootless Docker and Podman listen.
//!
//! Only unix sockets are ever contacted. A remote engine says nothing about this host, and an SSH or TLS endpoint
//! would have to be given secrets.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Environment;
use crate::host::Host;

/// A config or context file is a few kilobytes; what is larger is not one, and it may lie in somebody else's home.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// How many contexts are looked through for the current one.
const MAX_CONTEXTS: usize = 256;

/// The CLI's default. `/var/run` is a link to `/run` nearly everywhere.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// A unix socket, and what chose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub socket: PathBuf,
    /// `DOCKER_HOST`, ``context `x` of /home/u/.docker/config.json``, `default socket`.
    pub chosen_by: String,
}

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Somebody chose this one; no other is tried.
    Chosen(Endpoint),
    /// Nobody chose: the first of these that exists.
    Defaults(Vec<Endpoint>),
    /// What was chosen cannot be asked.
    Unusable { endpoint: String, chosen_by: String, why: String },
}

/// Finds the endpoint: `DOCKER_HOST`, `DOCKER_CONTEXT`, `currentContext` of config.json, then the default sockets.
pub fn resolve(host: &Host, env: &Environment) -> Choice {
    if let Some(given) = &env.docker_host {
        return chosen(given, "DOCKER_HOST".to_owned());
    }
    let folder = env.config_folder();
    let (name, origin) = match &env.docker_context {
        Some(name) => (Some(name.clone()), "DOCKER_CONTEXT".to_owned()),
        None => match &folder {
            Some(folder) => {
                let file = folder.join("config.json");
                let origin = file.display().to_string();
                match read_small(host, &file).and_then(|text| text.as_deref().map_or(Ok(None), current_context)) {
                    Ok(name) => (name, origin),
                    // The CLI warns about a broken config.json and goes on with the default.
                    Err(why) => return Choice::Defaults(defaults(env, &format!("default socket; {origin} {why}"))),
                }
            }
            None => (None, String::new()),
        },
    };
    match (name, folder) {
        (None, _) => Choice::Defaults(defaults(env, "default socket")),
        (Some(name), _) if name == "default" => Choice::Defaults(defaults(env, "default socket")),
        (Some(name), folder) => {
            let chosen_by = format!("context `{name}` of {origin}");
            match folder.map_or(Ok(None), |folder| find_context(host, &folder, &name)) {
                Ok(Some(given)) => chosen(&given, chosen_by),
                Ok(None) => Choice::Unusable {
                    endpoint: format!("context `{name}`"),
                    chosen_by,
                    why: "there is no such context".to_owned(),
                },
                Err(why) => Choice::Unusable { endpoint: format!("context `{name}`"), chosen_by, why },
            }
        }
    }
}

fn chosen(given: &str, chosen_by: String) -> Choice {
    match unix_path(given) {
        Ok(socket) => Choice::Chosen(Endpoint { socket, chosen_by }),
        Err(why) => Choice::Unusable { endpoint: without_secrets(given), chosen_by, why },
    }
}

fn defaults(env: &Environment, chosen_by: &str) -> Vec<Endpoint> {
    let of = |socket: PathBuf, chosen_by: &str| Endpoint { socket, chosen_by: chosen_by.to_owned() };
    let mut sockets = vec![of(DEFAULT_SOCKET.into(), chosen_by), of("/run/docker.sock".into(), chosen_by)];
    if let Some(runtime) = &env.runtime_folder {
        sockets.push(of(runtime.join("docker.sock"), "rootless socket in XDG_RUNTIME_DIR"));
        sockets.push(of(runtime.join("podman/podman.sock"), "Podman's socket in XDG_RUNTIME_DIR"));
    }
    sockets.push(of("/run/podman/podman.sock".into(), "Podman's system socket"));
    sockets
}

/// The path in `unix:///run/docker.sock`. `unix://` alone is the default socket, as in the CLI.
pub fn unix_path(given: &str) -> Result<PathBuf, String> {
    let Some(path) = given.trim().strip_prefix("unix://") else {
        return Err("the endpoint is not a unix socket".to_owned());
    };
    if path.is_empty() {
        return Ok(DEFAULT_SOCKET.into());
    }
    if !Path::new(path).is_absolute() {
        return Err("the socket is not an absolute path".to_owned());
    }
    Ok(path.into())
}

/// An endpoint as it may be shown: `ssh://user:password@host` loses what is before the `@`.
fn without_secrets(given: &str) -> String {
    match (given.split_once("://"), given.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => given.to_owned(),
    }
}

/// `currentContext` of a config.json. Nothing else in it is looked at, and no error repeats its text: the file holds
/// registry passwords.
pub fn current_context(json: &str) -> Result<Option<String>, String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "currentContext", default)]
        current_context: Option<String>,
    }
    let config: Config = serde_json::from_str(json).map_err(|error| not_understood(&error))?;
    Ok(config.current_context.filter(|name| !name.is_empty()))
}

/// The name of a context and the host of its Docker endpoint, from a meta.json.
pub fn context_host(json: &str) -> Result<(String, Option<String>), String> {
    #[derive(Deserialize)]
    struct Meta {
        #[serde(rename = "Name")]
        name: String,
        #[serde(rename = "Endpoints", default)]
        endpoints: Endpoints,
    }
    #[derive(Deserialize, Default)]
    struct Endpoints {
        docker: Option<DockerEndpoint>,
    }
    #[derive(Deserialize)]
    struct DockerEndpoint {
        #[serde(rename = "Host")]
        host: Option<String>,
    }
    let meta: Meta = serde_json::from_str(json).map_err(|error| not_understood(&error))?;
    Ok((meta.name, meta.endpoints.docker.and_then(|docker| docker.host).filter(|host| !host.is_empty())))
}

/// The host of a context. The CLI names the folders by the SHA-256 of the context's name; the name inside meta.json is
/// the same and needs no hash.
fn find_context(host: &Host, folder: &Path, name: &str) -> Result<Option<String>, String> {
    let folder = folder.join("contexts/meta");
    let entries = host.list(&folder).map_err(|error| error.to_string())?;
    for entry in entries.iter().take(MAX_CONTEXTS) {
        let file = folder.join(entry).join("meta.json");
        let Ok(Some(text)) = read_small(host, &file) else { continue };
        match context_host(&text) {
            Ok((found, given)) if found == name => return Ok(Some(given.unwrap_or_else(|| "unix://".to_owned()))),
            // Another context's file may be broken without harm to this one.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(None)
}

pub(crate) fn read_small(host: &Host, file: &Path) -> Result<Option<String>, String> {
    if host.metadata(file).is_ok_and(|found| !found.is_file() || found.len() > MAX_FILE_BYTES) {
        return Err("is not a plain file of at most 1 MiB".to_owned());
    }
    host.read_optional(file).map_err(|error| crate::host::describe(&error.source))
}

pub(crate) fn not_understood(error: &serde_json::Error) -> String {
    let what = if error.is_data() { "has an unexpected value" } else { "is not valid JSON" };
    format!("{what} at line {} column {}", error.line(), error.column())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the files they read")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn home() -> (tempfile::TempDir, Environment) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("home/u/.docker")).unwrap();
        (root, Environment { home: Some("/home/u".into()), ..Environment::default() })
    }

    fn write_context(root: &Path, folder: &str, name: &str, host: &str) {
        let folder = root.join("home/u/.docker/contexts/meta").join(folder);
        fs::create_dir_all(&folder).unwrap();
        let json = serde_json::json!({"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host}}});
        fs::write(folder.join("meta.json"), json.to_string()).unwrap();
    }

    #[test]
    fn the_order_is_the_clis() {
        let (root, mut env) = home();
        let host = Host::at_root(root.path());
        let Choice::Defaults(sockets) = resolve(&host, &env) else { panic!() };
        assert_eq!(sockets[0].socket, Path::new("/var/run/docker.sock"));

        write_context(root.path(), "aa", "other", "unix:///other.sock");
        write_context(root.path(), "bb", "mine", "unix:///mine.sock");
        fs::write(root.path().join("home/u/.docker/config.json"), r#"{"auths":{},"currentContext":"mine"}"#).unwrap();
        let by = |choice| match choice {
            Choice::Chosen(endpoint) => (endpoint.socket.display().to_string(), endpoint.chosen_by),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            by(resolve(&host, &env)),
            ("/mine.sock".into(), "context `mine` of /home/u/.docker/config.json".into())
        );
        env.docker_context = Some("other".into());
        assert_eq!(by(resolve(&host, &env)).0, "/other.sock");
        env.docker_host = Some("unix:///given.sock".into());
        assert_eq!(by(resolve(&host, &env)), ("/given.sock".into(), "DOCKER_HOST".into()));
    }

    #[test]
    fn what_is_no_unix_socket_is_never_contacted() {
        let (root, mut env) = home();
        for given in ["tcp://10.0.0.1:2375", "ssh://u@h", "npipe:////./pipe/x", "/run/docker.sock", "unix://rel", ""] {
            env.docker_host = Some(given.into());
            assert!(matches!(resolve(&Host::at_root(root.path()), &env), Choice::Unusable { .. }), "{given}");
        }
        env.docker_host = Some("ssh://user:secret@host".into());
        let shown = format!("{:?}", resolve(&Host::at_root(root.path()), &env));
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_context_that_is_not_there_is_not_replaced_by_the_default() {
        let (root, mut env) = home();
        env.docker_context = Some("gone".into());
        let choice = resolve(&Host::at_root(root.path()), &env);
        assert!(matches!(&choice, Choice::Unusable { why, .. } if why.contains("no such context")), "{choice:?}");
    }

    #[test]
    fn a_broken_config_is_named_and_its_secrets_are_not_repeated() {
        let (root, env) = home();
        fs::write(root.path().join("home/u/.docker/config.json"), r#"{"currentContext":"s3cret" "auths"}"#).unwrap();
        let choice = format!("{:?}", resolve(&Host::at_root(root.path()), &env));
        assert!(choice.contains("not valid JSON at line 1") && !choice.contains("s3cret"), "{choice}");
    }

    #[test]
    fn docker_config_moves_the_folder() {
        let (root, mut env) = home();
        fs::create_dir_all(root.path().join("cfg")).unwrap();
        fs::write(root.path().join("cfg/config.json"), r#"{"currentContext":"gone"}"#).unwrap();
        env.docker_config = Some("/cfg".into());
        assert!(matches!(resolve(&Host::at_root(root.path()), &env), Choice::Unusable { .. }));
    }

    proptest! {
        #[test]
        fn any_text_is_understood_or_refused(text in "\\PC{0,80}") {
            let _ = current_context(&text);
            let _ = context_host(&text);
            if let Ok(path) = unix_path(&text) {
                prop_assert!(path.is_absolute());
            }
        }

        #[test]
        fn a_name_of_any_text_is_read_back(name in "\\PC{1,20}") {
            let json = serde_json::json!({"currentContext": name, "auths": {"x": 1}}).to_string();
            prop_assert_eq!(current_context(&json).unwrap(), Some(name));
        }
    }
}
