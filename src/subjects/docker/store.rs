//! Room under the directories that images and containers fill: DockerRootDir, and containerd's root, which may be on
//! another file system and holds the images of engines with the containerd image store (the default of a fresh 29).

use std::path::{Path, PathBuf};

use super::Request;
use super::answers::{Engine, failed};
use super::configuration::Configuration;
use crate::facts::{Fact, Facts, Value};
use crate::host::{Host, space};

const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";
const CONTAINERD_ROOT: &str = "/var/lib/containerd";

/// The socket that makes dockerd use the system's containerd instead of starting its own (moby
/// `cmd/dockerd/daemon_unix.go` `systemContainerdRunning`).
const SYSTEM_CONTAINERD: &str = "/run/containerd/containerd.sock";

/// `docker.root-space.*` and `docker.root-inodes.*`.
pub fn insert(request: &Request, engine: &Engine<'_>, configuration: &Configuration, facts: &mut Facts) {
    for instance in ["docker", "containerd"] {
        let ids = [format!("docker.root-space.{instance}"), format!("docker.root-inodes.{instance}")];
        if !ids.iter().any(|id| request.wants(id)) {
            continue;
        }
        let root = match instance {
            "docker" => docker_root(engine),
            _ => docker_root(engine)
                .and_then(|root| containerd_root(&request.host, engine, configuration, &root).map_err(Box::new)),
        };
        let [space, inodes] = match root {
            Ok(root) => measure(&root),
            Err(fact) => [(*fact).clone(), *fact],
        };
        let [space_id, inodes_id] = ids;
        facts.live(space_id, space);
        facts.live(inodes_id, inodes);
    }
}

/// DockerRootDir, or the fact that says why it is not to be had.
fn docker_root(engine: &Engine<'_>) -> Result<PathBuf, Box<Fact>> {
    let answer = &engine.answers.info;
    let unknown = |error: &str| Box::new(Fact::unknown(error, None, "GET /info DockerRootDir").took(answer.took));
    let info = answer.result.as_ref().map_err(|failure| Box::new(failed(failure, "GET /info", answer.took)))?;
    if engine.kind() == Some("desktop") {
        return Err(unknown("it is inside Docker Desktop's virtual machine"));
    }
    let root = info.docker_root_dir.as_deref().map(PathBuf::from).filter(|root| root.is_absolute());
    root.ok_or_else(|| unknown("the answer has no usable DockerRootDir"))
}

/// The root of the containerd that this engine uses.
fn containerd_root(
    host: &Host,
    engine: &Engine<'_>,
    configuration: &Configuration,
    docker_root: &Path,
) -> Result<PathBuf, Fact> {
    let kind = engine.kind();
    if kind == Some("podman") {
        return Err(Fact::absent("Podman has no containerd", "GET /version"));
    }
    let named = engine.info().and_then(|info| info.containerd.as_ref()?.address.clone());
    let told = || configuration.as_ref().ok().and_then(|(daemon, _)| daemon.containerd.clone());
    let own = match named.or_else(told) {
        Some(address) => address.contains("/docker/containerd/"),
        None => kind == Some("rootless") || !host.exists(SYSTEM_CONTAINERD),
    };
    if own {
        return Ok(docker_root.join("containerd"));
    }
    match host.read_optional(CONTAINERD_CONFIG) {
        Ok(text) => match text.as_deref().map_or(Ok(None), configured_root) {
            Ok(root) => Ok(root.unwrap_or_else(|| CONTAINERD_ROOT.into())),
            Err(why) => Err(Fact::unknown(why, Some("fix the file"), CONTAINERD_CONFIG)),
        },
        Err(error) => Err(Fact::unreadable(&error, "not configured")),
    }
}

/// `root` of containerd's config.toml.
pub fn configured_root(toml: &str) -> Result<Option<PathBuf>, String> {
    let table: toml::Table =
        toml.parse().map_err(|error: toml::de::Error| format!("not valid TOML: {}", error.message()))?;
    match table.get("root") {
        None => Ok(None),
        Some(toml::Value::String(root)) if root.is_empty() => Ok(None),
        Some(toml::Value::String(root)) if Path::new(root).is_absolute() => Ok(Some(root.into())),
        Some(_) => Err("`root` is not an absolute path".to_owned()),
    }
}

fn measure(root: &Path) -> [Fact; 2] {
    let started = std::time::Instant::now();
    let source = format!("statvfs(3) {}", root.display());
    let facts = match space::available(root) {
        Ok(space) => [
            Fact::known(Value::Bytes(space.available), source.clone()).note(format!("in {}", root.display())),
            match space.inodes_free_percent {
                Some(percent) => Fact::known(Value::percent(percent), source).note(format!("in {}", root.display())),
                None => Fact::absent("the file system does not count inodes", source),
            },
        ],
        Err(error) => {
            let fact = Fact::unknown(crate::host::describe(&error), None, source);
            [fact.clone(), fact]
        }
    };
    facts.map(|fact| fact.took(started.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_root_is_read_from_config_toml() {
        let text = "version = 2\nroot = \"/srv/containerd\"\n[plugins.\"io.containerd.grpc.v1.cri\"]\nx = 1\n";
        assert_eq!(configured_root(text).unwrap(), Some("/srv/containerd".into()));
        assert_eq!(configured_root("disabled_plugins = [\"cri\"]").unwrap(), None);
        assert!(configured_root("root = 1").is_err() && configured_root("root = \"x\"").is_err());
        assert!(configured_root("root = ").unwrap_err().starts_with("not valid TOML"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\PC\n]{0,120}") {
            if let Ok(Some(root)) = configured_root(&text) {
                prop_assert!(root.is_absolute());
            }
        }
    }
}
