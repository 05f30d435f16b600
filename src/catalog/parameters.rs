//! Parameters: the numbers and names a profile is asked with, typed, with defaults and ranges.

pub use crate::host::protocol::Protocol;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::facts::Value;

/// One port of the workload; a range in a profile is expanded into these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// What the port is for: `redis`, `sentinel`.
    pub name: String,
    pub port: u16,
    pub protocol: Protocol,
    /// Whether the port is published on the host at all; an unpublished one is not checked.
    pub publish: bool,
}

impl Port {
    /// The instance in ids: `6379`, `53-udp`.
    pub fn instance(&self) -> String {
        match self.protocol {
            Protocol::Tcp => self.port.to_string(),
            Protocol::Udp => format!("{}-udp", self.port),
        }
    }
}

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    One(Value),
    List(Vec<String>),
    Ports(Vec<Port>),
}

/// All parameters of a run, defaults filled in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters(BTreeMap<String, Setting>);

impl Parameters {
    pub fn insert(&mut self, name: impl Into<String>, setting: Setting) {
        self.0.insert(name.into(), setting);
    }

    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.0.iter().map(|(name, setting)| (name.as_str(), setting))
    }

    /// The value of a parameter that is not a list.
    pub fn value(&self, name: &str) -> Option<&Value> {
        match self.get(name) {
            Some(Setting::One(value)) => Some(value),
            _ => None,
        }
    }

    pub fn bytes(&self, name: &str) -> Option<u64> {
        match self.value(name) {
            Some(Value::Bytes(bytes)) => Some(*bytes),
            _ => None,
        }
    }

    pub fn int(&self, name: &str) -> Option<i64> {
        match self.value(name) {
            Some(Value::Int(number)) => Some(*number),
            _ => None,
        }
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The words of a list parameter; empty when the profile does not declare it.
    pub fn list(&self, name: &str) -> &[String] {
        match self.get(name) {
            Some(Setting::List(words)) => words,
            _ => &[],
        }
    }

    /// The published ports of the workload.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        let ports: &[Port] = match self.get("ports") {
            Some(Setting::Ports(ports)) => ports,
            _ => &[],
        };
        ports.iter().filter(|port| port.publish)
    }

    /// The addresses the workload publishes on: `publish_address`, by default both wildcards.
    pub fn publish_addresses(&self) -> Vec<IpAddr> {
        self.list("publish_address").iter().filter_map(|text| text.parse().ok()).collect()
    }
}
