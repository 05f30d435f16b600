//! OS profiles: how one OS family does things. Data only; matched by os-release ID, then ID_LIKE.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::diagnostic::{Code, Diagnostics, Place};
use super::reader::{self, Fields, Placed};
use super::tree::Node;
use crate::facts::Version;

/// What applies sysctl files at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SysctlLoader {
    /// `systemd-sysctl.service`: does not read /etc/sysctl.conf by itself.
    Systemd,
    /// `sysctl --system` of procps, as OpenRC runs it: reads /etc/sysctl.conf last.
    Procps,
}

/// What starts services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceManager {
    Systemd,
    OpenRc,
}

/// A release with its end of life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// The os-release ID it is for, where members of the family differ; `None` is for all others.
    pub id: Option<String>,
    pub version: Version,
    /// The last day of free support, `YYYY-MM-DD`.
    pub end_of_life: String,
}

/// How one OS family does things.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OsProfile {
    /// The profile's name, its file's stem: `debian`.
    pub name: String,
    /// What people call the family.
    pub title: String,
    /// os-release IDs it answers for.
    pub ids: Vec<String>,
    /// The oldest supported release; `None` on rolling distributions.
    pub oldest: Option<Version>,
    pub releases: Vec<Release>,
    /// The day the data was looked up.
    pub dated: String,
    pub sysctl_loader: SysctlLoader,
    pub service_manager: ServiceManager,
    pub package_manager: String,
    /// How transparent huge pages are set at boot: `tmpfiles` or `openrc`.
    pub thp_persistence: String,
    /// The firewall manager that the family installs: `ufw`, `firewalld`, `nftables`.
    pub firewall: String,
    /// Exact commands by recipe name: `start-docker`, `install-git`.
    pub remedies: BTreeMap<String, Vec<String>>,
}

/// The profile of a host that no other profile answers for.
pub const GENERIC: &str = "generic";

/// Reads one OS profile file.
pub fn read(source: usize, tree: &Node, d: &mut Diagnostics) -> Option<OsProfile> {
    let mut fields = Fields::new(tree.as_table().unwrap_or_default(), "OS profile", Place { source, span: 0..1 });
    let name = fields.required_text("name", d);
    let title = fields.text("title", d).map(|text| text.value);
    let ids = texts(&mut fields, "ids", d);
    let oldest = fields.text("oldest", d).and_then(|text| version(&text, d));
    let releases = fields
        .tables("release", d)
        .into_iter()
        .filter_map(|mut entry| {
            let number = entry.required_text("version", d);
            let end = entry.required_text("end_of_life", d);
            day(&end, d);
            let id = entry.text("id", d).map(|text| text.value);
            entry.finish(d);
            Some(Release { id, version: version(&number, d)?, end_of_life: end.value })
        })
        .collect();
    let dated = fields.required_text("dated", d);
    day(&dated, d);
    let sysctl_loader =
        word(&mut fields, "sysctl_loader", &[("systemd", SysctlLoader::Systemd), ("procps", SysctlLoader::Procps)], d);
    let service_manager = word(
        &mut fields,
        "service_manager",
        &[("systemd", ServiceManager::Systemd), ("openrc", ServiceManager::OpenRc)],
        d,
    );
    let package_manager = fields.required_text("package_manager", d).value;
    let thp = word(&mut fields, "thp_persistence", &[("tmpfiles", "tmpfiles"), ("openrc", "openrc")], d);
    let firewall = fields.required_text("firewall", d).value;
    let mut remedies = BTreeMap::new();
    for entry in fields.tables("remedy", d) {
        for (name, value) in entry.entries() {
            let Some(items) = value.as_array() else {
                reader::wrong_type(d, name.place, "remedy", "a list of commands", value);
                continue;
            };
            let commands: Vec<String> = items.iter().filter_map(Node::as_text).map(str::to_owned).collect();
            if commands.is_empty() || commands.len() != items.len() {
                d.report(Code::WrongType, name.place, format!("recipe `{}` is not a list of commands", name.value));
                continue;
            }
            remedies.insert(name.value, commands);
        }
    }
    fields.finish(d);
    Some(OsProfile {
        title: title.unwrap_or_else(|| name.value.clone()),
        name: name.value,
        ids,
        oldest,
        releases,
        dated: dated.value,
        sysctl_loader: sysctl_loader?,
        service_manager: service_manager?,
        package_manager,
        thp_persistence: thp?.to_owned(),
        firewall,
        remedies,
    })
}

fn texts(fields: &mut Fields<'_>, key: &'static str, d: &mut Diagnostics) -> Vec<String> {
    fields.texts(key, d).unwrap_or_default().into_iter().map(|text| text.value).collect()
}

fn version(text: &Placed<String>, d: &mut Diagnostics) -> Option<Version> {
    match Version::parse(&text.value) {
        Ok(version) => Some(version),
        Err(error) => {
            d.report(Code::WrongType, text.place.clone(), error.to_string());
            None
        }
    }
}

fn day(text: &Placed<String>, d: &mut Diagnostics) {
    if !text.value.is_empty() && text.value.parse::<jiff::civil::Date>().is_err() {
        d.report(Code::WrongType, text.place.clone(), format!("`{}` is not a day like 2026-11-22", text.value));
    }
}

fn word<T: Copy>(fields: &mut Fields<'_>, key: &'static str, known: &[(&str, T)], d: &mut Diagnostics) -> Option<T> {
    let text = fields.required_text(key, d);
    let found = known.iter().find(|(name, _)| *name == text.value).map(|(_, value)| *value);
    if found.is_none() && !text.value.is_empty() {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        d.report(Code::WrongType, text.place, format!("`{key}` is one of {}, not `{}`", names.join(", "), text.value));
    }
    found
}

#[cfg(test)]
impl OsProfile {
    /// A systemd family of the given name, with nothing else known, for unit tests.
    pub(crate) fn blank(name: &str) -> Self {
        Self {
            name: name.into(),
            title: name.into(),
            ids: vec![name.into()],
            oldest: None,
            releases: Vec::new(),
            dated: "2026-11-22".into(),
            sysctl_loader: SysctlLoader::Systemd,
            service_manager: ServiceManager::Systemd,
            package_manager: "apt".into(),
            thp_persistence: "tmpfiles".into(),
            firewall: "nftables".into(),
            remedies: BTreeMap::new(),
        }
    }
}
