//! What Docker says about the containers on this host: read once by the Docker probe, used by the port, limit and
//! network-setting probes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::catalog::parameters::Protocol;

/// A host port that a container publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The host address; `None` when Docker gives none.
    pub address: Option<IpAddr>,
    pub port: u16,
    pub protocol: Protocol,
    /// The port of the container that it leads to.
    pub inside: u16,
}

/// One running container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// As the user wrote it: `redis:7.2`, `registry.example/valkey@sha256:…`.
    pub image: String,
    /// The command line Docker shows.
    pub command: String,
    /// `com.docker.compose.project`, if Compose made it.
    pub project: Option<String>,
    pub published: Vec<Published>,
    /// The ports inside of the container that are exposed or published.
    pub ports: BTreeSet<(Protocol, u16)>,
    /// The ids of the networks that it is attached to.
    pub networks: BTreeSet<String>,
    /// Its addresses in them.
    pub addresses: BTreeSet<IpAddr>,
    /// The process in the host's PID namespace; only from an inspect, only when running.
    pub pid: Option<i32>,
    /// `HostConfig.NetworkMode`; only from an inspect.
    pub network_mode: Option<String>,
    /// `HostConfig.Sysctls`; only from an inspect.
    pub sysctls: BTreeMap<String, String>,
    /// The hard nofile limit of `HostConfig.Ulimits`; only from an inspect.
    pub nofile_hard: Option<i64>,
}

/// All running containers, or why they are not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Containers {
    Known(Vec<Container>),
    /// Docker is absent, stopped, or may not be asked. The text says which.
    Unknown(String),
}

impl Container {
    /// Whether this container is the workload's: its image's last path component, without tag and digest, is one of the
    /// profile's `workload_images` (`redis` matches `docker.io/library/redis:7.2`).
    pub fn is_workload(&self, images: &[String]) -> bool {
        let name = self.image.split('@').next().unwrap_or_default();
        let last = name.rsplit('/').next().unwrap_or_default();
        let base = last.split(':').next().unwrap_or_default();
        images.iter().any(|image| image == base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_ours_by_its_last_name() {
        let ours = ["redis".to_owned(), "valkey".to_owned()];
        let of = |image: &str| Container { image: image.into(), ..Container::default() }.is_workload(&ours);
        assert!(
            of("redis")
                && of("redis:7.2")
                && of("registry.example:5000/team/redis@sha256:abc")
                && of("valkey/valkey:8")
        );
        assert!(!of("redis-exporter") && !of("redis/redisinsight") && !of(""));
    }
}
