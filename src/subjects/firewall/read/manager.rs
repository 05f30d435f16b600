//! Who manages the firewall of this host, and what of it a profile should know.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::facts::{Fact, Facts, Value, Version};
use crate::host::units;
use crate::host::units::BootFolders;
use crate::host::{Host, ReadError};
use crate::subjects::context::Context;
use crate::subjects::firewall::model::{firewalld, ufw};

const MANAGERS: &str = "firewall.managers";
const STRICT: &str = "firewall.firewalld-strict";
const FLUSH: &str = "firewall.flush-risk";

/// Since this release firewalld can hold published ports closed (firewalld.conf(5), `StrictForwardPorts`).
const STRICT_SINCE: &str = "2.3.0";

/// Where a python package of the distribution may lie below /usr/lib/python3….
const PACKAGES: [&str; 2] = ["dist-packages", "site-packages"];

/// Where nftables' rules are loaded from when the service does not say.
const RULES: [&str; 3] = ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf", "/etc/nftables.nft"];

/// Gathers who manages the firewall, and how.
pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    type Gather = fn(&Context<'_>, &Facts) -> Result<Fact, ReadError>;
    let all: [(&str, Gather); 3] = [
        (MANAGERS, |cx, _| managers(cx.host)),
        (STRICT, |cx, facts| strict(cx.host, cx.boot_folders(), firewalld_of(cx.host, facts))),
        (FLUSH, |cx, _| flush_risk(cx.host, cx.boot_folders())),
    ];
    for (id, gather) in all {
        if cx.want.has(id) {
            let started = Instant::now();
            let fact = gather(cx, facts).unwrap_or_else(|error| Fact::unreadable(&error, "it is gone"));
            facts.live(id, fact.took(started.elapsed()));
        }
    }
}

/// Whether ufw is active, as this run has found.
pub(crate) fn ufw_of(host: &Host, facts: &Facts) -> Result<bool, ReadError> {
    found(facts, "ufw").map_or_else(|| ufw_is_active(host), Ok)
}

/// Whether firewalld is active, as this run has found.
pub(crate) fn firewalld_of(host: &Host, facts: &Facts) -> bool {
    found(facts, "firewalld").unwrap_or_else(|| firewalld_is_active(host))
}

/// What the facts tell of a manager, where they have been gathered.
fn found(facts: &Facts, manager: &str) -> Option<bool> {
    match facts.value(MANAGERS) {
        Some(Value::Set(active)) => Some(active.contains(manager)),
        _ => None,
    }
}

fn managers(host: &Host) -> Result<Fact, ReadError> {
    let source = format!("{}, /run/systemd/units, /run/openrc/started, PID files", ufw::CONF);
    if !host.is_live() {
        return Ok(Fact::not_running(source));
    }
    let active = [
        ("ufw", ufw_is_active(host)?),
        ("firewalld", firewalld_is_active(host)),
        ("nftables", units::is_started(host, "nftables")),
        ("netfilter-persistent", units::is_started(host, "netfilter-persistent")),
        ("docker", units::is_started(host, "docker") || units::is_running(host, "/run/docker.pid", "dockerd")),
    ];
    let active = active.into_iter().filter(|(_, is_active)| *is_active).map(|(name, _)| name.to_owned());
    Ok(Fact::known(Value::Set(active.collect()), source))
}

/// Installed, and switched on. `ufw disable` leaves its chains in the kernel, so that these prove nothing; a service that
/// was not started yet, on the other hand, will be.
pub fn ufw_is_active(host: &Host) -> Result<bool, ReadError> {
    let is_installed = ["/usr/sbin/ufw", "/usr/bin/ufw", "/sbin/ufw"].iter().any(|path| host.exists(path));
    Ok(is_installed && host.read_optional(ufw::CONF)?.is_some_and(|conf| ufw::is_enabled(&conf)))
}

/// Running. Its unit says `--nopid`, so that only without systemd there is a file.
pub fn firewalld_is_active(host: &Host) -> bool {
    units::is_started(host, "firewalld") || units::is_running(host, "/run/firewalld.pid", "firewalld")
}

fn strict(host: &Host, folders: &BootFolders, is_active: bool) -> Result<Fact, ReadError> {
    let is_there = if host.is_live() { is_active } else { folders.start(host, "firewalld") };
    if !is_there {
        return Ok(Fact::absent("firewalld does not run", firewalld::CONF));
    }
    let conf = host.read_optional(firewalld::CONF)?.unwrap_or_default();
    let setting = firewalld::setting(&conf, "StrictForwardPorts");
    let known = |is_set: bool| Fact::known(Value::Text(if is_set { "yes" } else { "no" }.to_owned()), firewalld::CONF);
    Ok(match (version(host)?, setting) {
        (Some((version, source)), _) if Version::parse(STRICT_SINCE).is_ok_and(|since| version < since) => {
            Fact::absent(format!("firewalld {version} does not have it; {STRICT_SINCE} does"), source)
        }
        (_, Some(value)) => known(firewalld::is_yes(value)),
        (Some(_), None) => known(false).note("not set; the default is no"),
        (None, None) => Fact::unknown("the release of firewalld is not known", None, firewalld::CONF),
    })
}

fn version(host: &Host) -> Result<Option<(Version, String)>, ReadError> {
    let folders = host.list("/usr/lib")?;
    for folder in folders.iter().filter_map(|name| name.to_str()).filter(|name| name.starts_with("python3")) {
        for packages in PACKAGES {
            let path = format!("/usr/lib/{folder}/{packages}/firewall/config/__init__.py");
            if let Some(version) = host.read_optional(&path)?.as_deref().and_then(firewalld::version) {
                return Ok(Some((version, path)));
            }
        }
    }
    Ok(None)
}

fn flush_risk(host: &Host, folders: &BootFolders) -> Result<Fact, ReadError> {
    let service = "nftables.service";
    let counts = folders.start(host, "nftables") || (host.is_live() && units::is_started(host, "nftables"));
    if !counts {
        return Ok(Fact::known(Value::Bool(false), service).note("nftables.service is not enabled"));
    }
    let Some((path, text)) = units::definition(host, "nftables")? else {
        return Ok(Fact::known(Value::Bool(false), service).note("nftables.service is enabled, and not installed"));
    };
    let named: BTreeSet<&str> = rule_files(&text).collect();
    let files = if named.is_empty() { RULES.to_vec() } else { named.into_iter().collect() };
    for file in &files {
        if let Some(line) = host.read_optional(file)?.as_deref().and_then(flushes) {
            return Ok(Fact::known(Value::Bool(true), format!("{file}:{line}")));
        }
    }
    // To stop it is a part of a restart.
    Ok(match flushes(&text) {
        Some(line) => Fact::known(Value::Bool(true), format!("{path}:{line}")),
        None => Fact::known(Value::Bool(false), format!("{path}, {}", files.join(", "))),
    })
}

/// The file and line by which nftables.service throws everybody's rules away, where it is started or would be.
pub fn flusher(host: &Host) -> Option<String> {
    let fact = flush_risk(host, &BootFolders::read(host)).ok()?;
    (fact.value() == Some(&Value::Bool(true))).then_some(fact.source)
}

/// The files that a unit or a script hands to `nft -f`.
pub fn rule_files(text: &str) -> impl Iterator<Item = &str> {
    let words = text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(str::split_whitespace);
    let mut after_flag = false;
    words.filter_map(move |word| {
        let file = word.trim_matches(['"', '\'', ';']);
        std::mem::replace(&mut after_flag, word == "-f").then_some(file).filter(|file| file.starts_with('/'))
    })
}

/// The number of the first line that throws every rule of everybody away.
pub fn flushes(text: &str) -> Option<usize> {
    text.lines().enumerate().find_map(|(index, line)| {
        let code = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = code
            .split(|c: char| c.is_whitespace() || matches!(c, ';' | '\'' | '"'))
            .filter(|word| !word.is_empty())
            .collect();
        words.windows(2).any(|pair| pair == ["flush", "ruleset"]).then_some(index + 1)
    })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the files they read")]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    fn root(files: &[(&str, &str)], links: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let place = |path: &str| {
            let path = root.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        for (path, text) in files {
            std::fs::write(place(path), text).unwrap();
        }
        for (path, to) in links {
            symlink(to, place(path)).unwrap();
        }
        let host = Host::at_root(root.path());
        (root, host)
    }

    const WANTED: (&str, &str) =
        ("/etc/systemd/system/sysinit.target.wants/nftables.service", "/lib/systemd/system/nftables.service");
    // As Debian's and RHEL's packages have them.
    const DEBIAN: (&str, &str) = (
        "/lib/systemd/system/nftables.service",
        "[Service]\nExecStart=/usr/sbin/nft -f /etc/nftables.conf\nExecReload=/usr/sbin/nft -f /etc/nftables.conf\n",
    );
    const RHEL: (&str, &str) = (
        "/lib/systemd/system/nftables.service",
        "[Service]\nExecStart=/sbin/nft -f /etc/sysconfig/nftables.conf\nExecStop=/sbin/nft flush ruleset\n",
    );

    #[test]
    fn a_flush_is_found_where_the_service_loads_its_rules() {
        let conf =
            ("/etc/nftables.conf", "#!/usr/sbin/nft -f\n# flush ruleset\n\nflush  ruleset;\ntable inet filter {\n}\n");
        let risk = |files: &[(&str, &str)], links: &[(&str, &str)]| {
            let (_root, host) = root(files, links);
            let fact = flush_risk(&host, &BootFolders::read(&host)).unwrap();
            (fact.value() == Some(&Value::Bool(true)), fact.source)
        };
        assert_eq!(risk(&[DEBIAN, conf], &[WANTED]), (true, "/etc/nftables.conf:4".into()));
        assert!(!risk(&[DEBIAN, conf], &[]).0, "not enabled");
        assert!(!risk(&[DEBIAN, ("/etc/nftables.conf", "# flush ruleset\n")], &[WANTED]).0, "in a comment");
        assert_eq!(risk(&[RHEL, conf], &[WANTED]), (true, format!("{}:3", RHEL.0)));
        let alpine = ("/etc/init.d/nftables", "#!/sbin/openrc-run\nstop() {\n nft flush ruleset\n}\n");
        let level = ("/etc/runlevels/boot/nftables", "/etc/init.d/nftables");
        assert_eq!(risk(&[alpine], &[level]), (true, "/etc/init.d/nftables:3".into()));
        let own = ("/etc/nftables.nft", "flush ruleset\n");
        assert_eq!(risk(&[("/etc/init.d/nftables", "#\n"), own], &[level]), (true, "/etc/nftables.nft:1".into()));
    }

    #[test]
    fn strict_forwarding_depends_on_the_release() {
        let wanted = ("/etc/systemd/system/multi-user.target.wants/firewalld.service", "/x");
        let module = "/usr/lib/python3/dist-packages/firewall/config/__init__.py";
        let fact = |version: &str, conf: &str| {
            let (_root, host) = root(&[(module, version), (firewalld::CONF, conf)], &[wanted]);
            strict(&host, &BootFolders::read(&host), false).unwrap()
        };
        let text = |fact: &Fact| fact.value().map(ToString::to_string);
        let (old, new) = ("VERSION = '1.3.3'\n", "VERSION = '2.3.0'\n");
        assert!(matches!(fact(old, "StrictForwardPorts=yes\n").state, crate::facts::State::Absent(_)));
        assert_eq!(text(&fact(new, "StrictForwardPorts=yes\n")).as_deref(), Some("yes"));
        assert_eq!(text(&fact(new, "StrictForwardPorts=no\n")).as_deref(), Some("no"));
        assert_eq!(text(&fact(new, "DefaultZone=public\n")).as_deref(), Some("no"));
        assert!(matches!(fact("x", "").state, crate::facts::State::Unknown { .. }));
        let (_root, host) = root(&[(module, new)], &[]);
        assert!(matches!(
            strict(&host, &BootFolders::read(&host), true).unwrap().state,
            crate::facts::State::Absent(_)
        ));
    }

    #[test]
    fn ufw_is_active_when_it_is_installed_and_switched_on() {
        let conf = (ufw::CONF, "ENABLED=yes\n");
        let is_active = |files: &[(&str, &str)]| ufw_is_active(&root(files, &[]).1).unwrap();
        assert!(is_active(&[conf, ("/usr/sbin/ufw", "")]));
        assert!(!is_active(&[conf]), "its configuration outlives the package");
        assert!(!is_active(&[(ufw::CONF, "ENABLED=no\n"), ("/usr/sbin/ufw", "")]));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(-f|flush ruleset|/etc/x|[#;'\" \n]|\\PC){0,40}") {
            let _ = (flushes(&text), rule_files(&text).count());
        }
    }
}
