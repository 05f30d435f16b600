//! Network settings as the running containers of the workload really have them.
//!
//! A new network namespace starts with the kernel's defaults, not with the host's values; only `sysctls:` of the
//! container, or the workload itself, changes them. As root the namespace is entered and asked; otherwise what the
//! container was created with tells.

use std::path::PathBuf;

use crate::facts::registry::{Scope, scope};
use crate::facts::value::sysctl_value;
use crate::facts::{Fact, Facts, Layer, Value};
use crate::host::{Host, netns};
use crate::subjects::context::Context;
use crate::subjects::docker::containers::Container;

/// A value with the container that has it, and where it was read.
type Reading<'a> = (Value, &'a str, String);

/// Inserts the container layer of every wanted `sysctl.net.*` setting that belongs to a network namespace. A setting
/// that not all containers tell is left out: those that are silent have the kernel's default, which is another probe's
/// to predict. Containers in the host's network are left out too: their values are the host's.
pub fn container_layer(cx: &Context<'_>, containers: &[Container], facts: &mut Facts) {
    let started = std::time::Instant::now();
    let names: Vec<&str> = cx
        .want
        .family("sysctl.")
        .filter(|name| name.starts_with("net.") && scope(&format!("sysctl.{name}")) == Scope::Network)
        .collect();
    let images = cx.parameters.list("workload_images");
    let ours: Vec<&Container> =
        containers.iter().filter(|container| container.is_workload(images) && has_own_network(container)).collect();
    if names.is_empty() || ours.is_empty() || !cx.host.is_live() {
        return;
    }
    let read: Vec<Vec<Option<Reading<'_>>>> = ours.iter().map(|container| values(cx.host, container, &names)).collect();
    for (index, name) in names.iter().enumerate() {
        let seen: Option<Vec<&Reading<'_>>> = read.iter().map(|values| values[index].as_ref()).collect();
        if let Some(fact) = seen.and_then(|seen| lowest(&seen)) {
            facts.insert(format!("sysctl.{name}"), Layer::Container, fact.took(started.elapsed()));
        }
    }
}

/// The network mode is only known from an inspection; without one nothing is known about the container.
fn has_own_network(container: &Container) -> bool {
    container.network_mode.as_deref().is_some_and(|mode| mode != "host")
}

/// The values of one container, in the order of the names.
fn values<'a>(host: &Host, container: &'a Container, names: &[&str]) -> Vec<Option<Reading<'a>>> {
    let live = container.pid.filter(|pid| nix::unistd::geteuid().is_root() && belongs(host, *pid, &container.id));
    let entered = live.and_then(|pid| {
        let files = names.iter().map(|name| file(name)).collect();
        // Without CAP_SYS_ADMIN over the container even root may not enter; what it was created with remains.
        netns::read_settings(pid, files).ok()
    });
    let created_with = |name: &str| {
        let text = container.sysctls.get(name)?;
        Some((sysctl_value(text), container.name.as_str(), "GET /containers/ID/json Sysctls".to_owned()))
    };
    names
        .iter()
        .enumerate()
        .map(|(index, name)| match entered.as_ref().and_then(|texts| texts.get(index)) {
            Some(text) => {
                let source = format!("{} in the container", file(name).display());
                text.as_ref().map(|text| (sysctl_value(text), container.name.as_str(), source))
            }
            None => created_with(name),
        })
        .collect()
}

/// `net.ipv4.tcp_syncookies` is `/proc/sys/net/ipv4/tcp_syncookies`; a `/` in a name stands for a dot, as in sysctl(8).
fn file(name: &str) -> PathBuf {
    let swap = |c: char| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    PathBuf::from(format!("/proc/sys/{}", name.chars().map(swap).collect::<String>()))
}

/// The lowest number, or the first text, with the container it is from.
fn lowest(seen: &[&Reading<'_>]) -> Option<Fact> {
    let number = |value: &Value| match value {
        Value::Int(number) => *number,
        _ => i64::MAX,
    };
    let (value, name, source) = seen.iter().min_by_key(|(value, ..)| number(value))?;
    let same = seen.iter().all(|(other, ..)| other == value);
    let note = match (seen.len(), same) {
        (1, _) => format!("in {name}"),
        (count, true) => format!("in {name} and {} more", count - 1),
        (count, false) => format!("in {name}, the lowest of {count} containers"),
    };
    Some(Fact::known(value.clone(), source.clone()).note(note))
}

/// Whether a process really is in that container: every runtime puts the container's id into the cgroup's path. An
/// engine in a virtual machine numbers its processes differently, and a liar could name any process.
pub(crate) fn belongs(host: &Host, pid: i32, id: &str) -> bool {
    const MIN_ID_CHARS: usize = 12;
    id.len() >= MIN_ID_CHARS && host.read_text(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroup| cgroup.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::os::OsProfile;
    use crate::catalog::parameters::{Parameters, Setting};
    use crate::subjects::context::Want;

    const ID: &str = "sysctl.net.core.somaxconn";

    fn layer_of(containers: &[Container]) -> Option<Fact> {
        let want = Want::new([ID.to_owned(), "sysctl.net.core.rmem_max".to_owned(), "sysctl.vm.swappiness".to_owned()]);
        let mut parameters = Parameters::default();
        parameters.insert("workload_images", Setting::List(vec!["redis".into()]));
        let os = OsProfile::blank("test");
        let host = Host::live();
        let cx = Context::new(&host, &want, &parameters, &os);
        let mut facts = Facts::default();
        container_layer(&cx, containers, &mut facts);
        assert!(facts.len() <= 1, "a setting of the whole machine got a container layer: {facts:?}");
        facts.get(ID, Layer::Container).cloned()
    }

    fn container(name: &str, setting: Option<&str>) -> Container {
        let sysctls = setting.map(|text| ("net.core.somaxconn".to_owned(), text.to_owned()));
        Container {
            name: name.into(),
            image: "redis:7".into(),
            network_mode: Some("bridge".into()),
            sysctls: sysctls.into_iter().collect(),
            ..Container::default()
        }
    }

    #[test]
    fn the_lowest_of_the_workloads_containers_is_shown() {
        let other = Container { image: "nginx".into(), ..container("web", Some("1")) };
        let host_network = Container { network_mode: Some("host".into()), ..container("host", Some("2")) };
        let fact =
            layer_of(&[container("a", Some("4096")), container("b", Some("1024")), other, host_network]).unwrap();
        assert_eq!(fact.value(), Some(&Value::Int(1024)));
        assert_eq!(fact.note.as_deref(), Some("in b, the lowest of 2 containers"));
    }

    #[test]
    fn a_container_that_does_not_tell_leaves_the_layer_to_the_prediction() {
        assert_eq!(layer_of(&[container("a", Some("4096")), container("b", None)]), None);
        assert_eq!(layer_of(&[]), None);
    }

    #[test]
    fn names_become_files() {
        assert_eq!(file("net.ipv4.conf.eth0/1.rp_filter"), PathBuf::from("/proc/sys/net/ipv4/conf/eth0.1/rp_filter"));
    }
}
