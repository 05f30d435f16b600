//! Which container publishes which port, by what Docker says.

use std::collections::BTreeMap;

use super::holder::short;
use super::table::Ask;
use crate::catalog::parameters::Protocol;
use crate::subjects::docker::containers::{Container, Containers, Published};

/// Docker shows this many digits of an id.
const SHORT_ID: usize = 12;

/// The published ports of all running containers.
#[derive(Debug)]
pub(crate) struct PublishedPorts<'a> {
    containers: &'a Containers,
    by_port: BTreeMap<(Protocol, u16), Vec<(&'a Container, &'a Published)>>,
}

impl<'a> PublishedPorts<'a> {
    pub(crate) fn new(containers: &'a Containers) -> Self {
        let mut by_port: BTreeMap<_, Vec<_>> = BTreeMap::new();
        if let Containers::Known(list) = containers {
            for container in list {
                for published in &container.published {
                    by_port.entry((published.protocol, published.port)).or_default().push((container, published));
                }
            }
        }
        Self { containers, by_port }
    }

    /// Why the containers are not known.
    pub(crate) fn unknown(&self) -> Option<&'a str> {
        match self.containers {
            Containers::Known(_) => None,
            Containers::Unknown(why) => Some(why),
        }
    }

    /// Whether any container publishes the port, on whichever address.
    pub(crate) fn has(&self, protocol: Protocol, port: u16) -> bool {
        self.by_port.contains_key(&(protocol, port))
    }

    /// The container that publishes the port on an address in the way of this one. Docker binds each family by itself,
    /// so an IPv6 wildcard is never in the way of IPv4. No address means all of them.
    pub(crate) fn on(&self, (protocol, asked, port): Ask) -> Option<&'a Container> {
        let of_port = self.by_port.get(&(protocol, port))?;
        let in_the_way = |published: &Published| {
            published.address.is_none_or(|address| {
                let address = address.to_canonical();
                address.is_ipv4() == asked.is_ipv4()
                    && (address.is_unspecified() || asked.is_unspecified() || address == asked)
            })
        };
        of_port.iter().find(|(_, published)| in_the_way(published)).map(|(container, _)| *container)
    }

    /// Whether the container with this id is the workload's.
    pub(crate) fn is_workload(&self, id: &str, images: &[String]) -> bool {
        self.by_id(id).is_some_and(|container| container.is_workload(images))
    }

    /// The container's name, or the short form of its id.
    pub(crate) fn name(&self, id: &str) -> String {
        match self.by_id(id) {
            Some(container) if !container.name.is_empty() => short(&container.name),
            _ => id.chars().take(SHORT_ID).collect(),
        }
    }

    fn by_id(&self, id: &str) -> Option<&'a Container> {
        let Containers::Known(list) = self.containers else { return None };
        list.iter().find(|container| !container.id.is_empty() && id.starts_with(&container.id))
    }
}
