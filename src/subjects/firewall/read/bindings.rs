//! The zones of firewalld, and what binds an interface to one of them, told from files.

use std::collections::BTreeMap;

use crate::host::{Host, ReadError};
use crate::subjects::firewall::model::firewalld;
use crate::subjects::firewall::model::firewalld::Zone;

/// Where NetworkManager keeps the connections that may name a zone, and the older scripts of RHEL.
const CONNECTIONS: [&str; 2] = ["/etc/NetworkManager/system-connections", "/run/NetworkManager/system-connections"];
const SCRIPTS: &str = "/etc/sysconfig/network-scripts";

/// The permanent zones, with their files.
pub(super) fn zones(host: &Host) -> Result<BTreeMap<String, (Zone, String)>, ReadError> {
    let mut zones = BTreeMap::new();
    for folder in firewalld::ZONES {
        for file in host.list(folder)?.iter().filter_map(|name| name.to_str()) {
            let Some(name) = file.strip_suffix(".xml").filter(|name| firewalld::is_zone_name(name)) else { continue };
            let path = format!("{folder}/{file}");
            if !zones.contains_key(name)
                && let Some(zone) = firewalld::parse(&host.read_text(&path)?)
            {
                zones.insert(name.to_owned(), (zone, path));
            }
        }
    }
    Ok(zones)
}

/// The zones that a connection of the network names for its interface.
pub(super) fn bindings(host: &Host) -> Result<BTreeMap<String, String>, ReadError> {
    let mut bound = BTreeMap::new();
    for folder in CONNECTIONS {
        for name in host.list(folder)?.iter().filter_map(|name| name.to_str()) {
            if name.ends_with(".nmconnection") {
                bound.extend(connection(&host.read_text(format!("{folder}/{name}"))?, "interface-name", "zone"));
            }
        }
    }
    for name in host.list(SCRIPTS)?.iter().filter_map(|name| name.to_str()) {
        if name.starts_with("ifcfg-") {
            bound.extend(connection(&host.read_text(format!("{SCRIPTS}/{name}"))?, "DEVICE", "ZONE"));
        }
    }
    Ok(bound)
}

/// The interface and the zone that a file names, if it names both.
pub fn connection(text: &str, device: &str, zone: &str) -> Option<(String, String)> {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix('='));
        lines.next_back().map(|value| value.trim().trim_matches('"').to_owned()).filter(|value| !value.is_empty())
    };
    Some((value(device)?, value(zone).filter(|zone| firewalld::is_zone_name(zone))?))
}

/// The interfaces through which others come: not the loopback, and none of Docker's own, which it puts into a zone that
/// accepts.
pub fn interfaces(dev: &str) -> Vec<String> {
    let is_hex = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let of_docker = |name: &str| {
        name.starts_with("docker")
            || name.strip_prefix("br-").is_some_and(|rest| is_hex(rest, 12))
            || name.strip_prefix("veth").is_some_and(|rest| is_hex(rest, 7))
    };
    let names = dev.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    names.filter(|name| *name != "lo" && !of_docker(name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_read(text in "(interface-name=|zone=|[a-z0-9]{1,5}|[:\n =-]|\\PC){0,40}") {
            let _ = (interfaces(&text), connection(&text, "interface-name", "zone"));
        }
    }
}
