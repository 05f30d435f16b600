//! firewalld: its configuration and the zones as its own files keep them, and the one rich rule that lets an entry in.

use std::ops::RangeInclusive;

use super::entry::{Entry, EntryState, ports};
use super::xml::{Tag, tags};
use crate::catalog::parameters::Protocol;
use crate::facts::Version;
use crate::facts::network::Network;

pub const CONF: &str = "/etc/firewalld/firewalld.conf";
/// Where zones are kept; a file in the first folder hides one of that name in the second.
pub const ZONES: [&str; 2] = ["/etc/firewalld/zones", "/usr/lib/firewalld/zones"];

/// A zone file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    pub interfaces: Vec<String>,
    /// Whoever is from there is in this zone, whichever interface he comes in by.
    pub sources: Vec<Network>,
    /// Sources that are no addresses: `ipset:NAME`, a hardware address.
    pub other_sources: Vec<String>,
    /// Everything that no rule speaks of is let in.
    pub accepts: bool,
    /// Everything that no rule speaks of is dropped or refused, as the zone was made for.
    pub refuses: bool,
    pub rules: Vec<ZoneRule>,
}

/// A port or a rich rule of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneRule {
    pub priority: i32,
    pub allows: bool,
    /// `None`: any.
    pub protocol: Option<Protocol>,
    /// `None`: any.
    pub ports: Option<RangeInclusive<u16>>,
    /// `None`: any of both families.
    pub from: Option<Network>,
    /// It says more about the packet than this model holds.
    pub is_narrower: bool,
    /// It logs, too.
    pub is_logged: bool,
}

/// Whether a text is a zone's name, and nothing that a command or a path could take for something else. firewalld allows
/// letters, digits, `_`, `-` and `/`, 17 characters at most (`Zone.check_name` in firewall/core/io/zone.py).
pub fn is_zone_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    !name.is_empty() && name.len() <= 17 && !name.starts_with('-') && name.bytes().all(plain)
}

/// Reads a zone file; `None` when it is none.
pub fn parse(text: &str) -> Option<Zone> {
    let tags = tags(text)?;
    let mut zone = Zone::default();
    let mut rule: Option<Draft> = None;
    let mut depth = 0_usize;
    for tag in &tags {
        match tag {
            Tag::Close { name: "rule" } => zone.rules.extend(rule.take().and_then(Draft::finish)),
            Tag::Close { .. } => {}
            Tag::Open { name, .. } if depth == 0 && *name != "zone" => return None,
            Tag::Open { name: "zone", .. } => {
                let target = tag.attribute("target");
                zone.accepts = target == Some("ACCEPT");
                zone.refuses = matches!(target, Some("DROP" | "REJECT" | "%%REJECT%%"));
            }
            Tag::Open { name: "rule", .. } => rule = Some(Draft::new(tag)),
            Tag::Open { name, .. } => match &mut rule {
                Some(rule) => rule.take(name, tag),
                None if *name == "source" => zone.bind(tag),
                None if *name == "interface" => zone.interfaces.extend(tag.attribute("name").map(str::to_owned)),
                None if *name == "port" => {
                    let mut port = Draft::new(tag);
                    port.take(name, tag);
                    (port.rule.allows, port.has_action) = (true, true);
                    zone.rules.extend(port.finish());
                }
                None => {}
            },
        }
        match tag {
            Tag::Open { .. } => depth += 1,
            Tag::Close { .. } => depth -= 1,
        }
    }
    // A lower number comes first; of the same, what denies (`firewalld.richlanguage(5)`).
    zone.rules.sort_by_key(|rule| (rule.priority, rule.allows));
    Some(zone)
}

/// A rule while its tags are read.
struct Draft {
    rule: ZoneRule,
    family: Option<String>,
    has_action: bool,
    /// About other packets than those to our ports.
    is_elsewhere: bool,
}

impl Draft {
    fn new(tag: &Tag<'_>) -> Self {
        let priority = tag.attribute("priority").and_then(|text| text.parse().ok()).unwrap_or(0);
        let rule = ZoneRule {
            priority,
            allows: false,
            protocol: None,
            ports: None,
            from: None,
            is_narrower: false,
            is_logged: false,
        };
        Self { rule, family: tag.attribute("family").map(str::to_owned), has_action: false, is_elsewhere: false }
    }

    fn take(&mut self, name: &str, tag: &Tag<'_>) {
        let protocol = |name| match tag.attribute(name) {
            Some("tcp") => Some(Protocol::Tcp),
            Some("udp") => Some(Protocol::Udp),
            _ => None,
        };
        match name {
            "source" => {
                let inverted = tag.attribute("invert").is_some_and(|word| !word.eq_ignore_ascii_case("false"));
                self.rule.from = tag.attribute("address").and_then(|text| text.parse().ok()).filter(|_| !inverted);
                self.rule.is_narrower |= self.rule.from.is_none();
            }
            "port" => {
                self.rule.ports = tag.attribute("port").and_then(|text| ports(text, '-'));
                self.rule.protocol = protocol("protocol");
                self.is_elsewhere |= self.rule.ports.is_none() || self.rule.protocol.is_none();
            }
            "protocol" => {
                self.rule.protocol = protocol("value");
                self.is_elsewhere |= self.rule.protocol.is_none();
            }
            // Which ports a service has stands in yet another file; those of Redis are called so.
            "service" => {
                self.rule.is_narrower = true;
                self.is_elsewhere |= !tag.attribute("name").is_some_and(|name| name.starts_with("redis"));
            }
            "accept" => (self.rule.allows, self.has_action) = (true, true),
            "drop" | "reject" => self.has_action = true,
            "log" | "audit" | "nflog" => self.rule.is_logged = true,
            "icmp-type" | "icmp-block" | "masquerade" | "forward-port" | "mark" | "tcp-mss-clamp" => {
                self.is_elsewhere = true;
            }
            // A destination, a source port, a limit, …
            _ => self.rule.is_narrower = true,
        }
    }

    /// `None` for a rule that decides nothing about our ports.
    fn finish(mut self) -> Option<ZoneRule> {
        if self.rule.from.is_none() && !self.rule.is_narrower {
            self.rule.from = match self.family.as_deref() {
                Some("ipv4") => "0.0.0.0/0".parse().ok(),
                Some("ipv6") => "::/0".parse().ok(),
                _ => None,
            };
        }
        (self.has_action && !self.is_elsewhere).then_some(self.rule)
    }
}

impl ZoneRule {
    fn range(&self) -> RangeInclusive<u16> {
        self.ports.clone().unwrap_or(0..=u16::MAX)
    }

    /// The networks it is about: its own, or all of the entry's family.
    fn from(&self, entry: &Entry) -> Network {
        self.from.or_else(|| Network::around(entry.from.address(), 0)).unwrap_or(entry.from)
    }

    fn meets(&self, entry: &Entry) -> bool {
        self.protocol.is_none_or(|protocol| protocol == entry.protocol) && entry.meets(&self.range(), &self.from(entry))
    }

    fn holds_all_of(&self, entry: &Entry) -> bool {
        !self.is_narrower && self.meets(entry) && entry.is_within(&self.range(), &self.from(entry))
    }

    /// This very entry: what `--query-rich-rule` says yes to, and `--remove-rich-rule` removes.
    fn is(&self, entry: &Entry) -> bool {
        self.allows
            && self.priority == 0
            && !self.is_narrower
            && !self.is_logged
            && self.protocol == Some(entry.protocol)
            && self.ports.as_ref() == Some(&entry.ports)
            && self.from == Some(entry.from)
    }
}

impl Zone {
    /// Takes a source that the zone is bound to.
    fn bind(&mut self, tag: &Tag<'_>) {
        let of = |name| tag.attribute(name);
        match of("address").map(str::parse::<Network>) {
            Some(Ok(network)) => self.sources.push(network),
            _ => self.other_sources.extend(
                of("ipset")
                    .map(|name| format!("ipset:{name}"))
                    .or_else(|| of("mac").or(of("address")).map(str::to_owned)),
            ),
        }
    }

    /// What the zone does with an entry.
    pub fn state(&self, entry: &Entry) -> EntryState {
        for rule in self.rules.iter().filter(|rule| rule.meets(entry)) {
            if !rule.allows {
                let ports = rule.ports.as_ref().map_or("any".to_owned(), |_| entry.ports_with('-'));
                return EntryState::Denied(format!("a rich rule about port {ports} from {}", rule.from(entry)));
            }
            if rule.holds_all_of(entry) {
                return EntryState::Open;
            }
        }
        if self.accepts { EntryState::Open } else { EntryState::Missing }
    }

    /// Whether the very entry stands in it.
    pub fn has(&self, entry: &Entry) -> bool {
        self.rules.iter().any(|rule| rule.is(entry))
    }
}

/// The rich rule for an entry, as `firewall-cmd` takes it and prints it.
pub fn rich_rule(entry: &Entry) -> String {
    let family = if entry.is_ipv4() { "ipv4" } else { "ipv6" };
    format!(
        "rule family=\"{family}\" source address=\"{}\" port port=\"{}\" protocol=\"{}\" accept",
        entry.from,
        entry.ports_with('-'),
        entry.protocol.name()
    )
}

/// What an entry of a zone is called in a plan and in a journal.
pub fn target(zone: &str, entry: &Entry, is_permanent: bool) -> String {
    format!("firewalld{}:{zone}/{entry}", if is_permanent { "-permanent" } else { "" })
}

/// The command that adds an entry to a zone, as a shell takes it.
pub fn add(zone: &str, entry: &Entry, is_permanent: bool) -> String {
    let permanent = if is_permanent { "--permanent " } else { "" };
    format!("firewall-cmd {permanent}--zone={zone} --add-rich-rule='{}'", rich_rule(entry))
}

/// The command that takes exactly this entry away.
pub fn remove(zone: &str, entry: &Entry, is_permanent: bool) -> String {
    add(zone, entry, is_permanent).replacen("--add-rich-rule", "--remove-rich-rule", 1)
}

/// The last value of a key in firewalld.conf.
pub fn setting<'a>(conf: &'a str, key: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.trim().strip_prefix(key)?.trim_start().strip_prefix('=');
    conf.lines().filter_map(value).next_back().map(str::trim)
}

/// The zone of interfaces that no zone names: `DefaultZone=`, `public` where it is not set.
pub fn default_zone(conf: &str) -> &str {
    setting(conf, "DefaultZone").filter(|name| is_zone_name(name)).unwrap_or("public")
}

/// firewalld's own words for yes (`firewall/core/io/firewalld_conf.py`).
pub fn is_yes(value: &str) -> bool {
    value.eq_ignore_ascii_case("yes") || value.eq_ignore_ascii_case("true")
}

/// `VERSION = '1.3.3'` in firewall/config/__init__.py.
pub fn version(module: &str) -> Option<Version> {
    let value = module.lines().find_map(|line| line.strip_prefix("VERSION")?.trim_start().strip_prefix('='))?;
    Version::parse(value.trim().trim_matches(['"', '\''])).ok()
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::any_entry;
    use super::*;
    use proptest::prelude::*;

    // As firewalld 1.3.3 wrote it.
    const PUBLIC: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<zone>
  <short>Public</short>
  <service name="ssh"/>
  <port port="7000-7010" protocol="udp"/>
  <rule family="ipv4">
    <source address="172.20.0.0/16"/>
    <port port="6379-6381" protocol="tcp"/>
    <accept/>
  </rule>
  <rule family="ipv6">
    <source address="fd00::/8"/>
    <port port="6379" protocol="tcp"/>
    <accept/>
  </rule>
  <rule family="ipv4">
    <source address="10.0.0.0/8"/>
    <accept/>
  </rule>
  <rule family="ipv4" priority="-5">
    <source address="10.66.0.0/16" invert="False"/>
    <port port="6379" protocol="tcp"/>
    <log prefix="x" level="info">
      <limit value="1/m"/>
    </log>
    <reject type="icmp-host-prohibited"/>
  </rule>
  <rule><service name="http"/><drop/></rule>
  <rule family="ipv4"><source address="10.0.0.0/8"/><log prefix="y"/></rule>
  <interface name="v0"/>
  <forward/>
</zone>
"#;

    #[test]
    fn a_zone_may_be_bound_to_sources() {
        let zone = parse(
            "<zone target='%%REJECT%%'><source address='10.0.0.0/8'/><source address='fd00::1'/><source ipset='bad'/>\
             <source mac='00:16:3e:00:00:01'/><rule family='ipv4'><source address='192.0.2.0/24'/><accept/></rule></zone>",
        )
        .unwrap();
        let words: Vec<String> = zone.sources.iter().map(ToString::to_string).collect();
        assert_eq!(words, ["10.0.0.0/8", "fd00::1/128"]);
        assert_eq!(zone.other_sources, ["ipset:bad", "00:16:3e:00:00:01"]);
        assert!(zone.refuses && !zone.accepts);
        let public = parse(PUBLIC).unwrap();
        assert!(public.sources.is_empty() && !public.refuses);
    }

    fn entry(text: &str) -> Entry {
        text.parse().unwrap()
    }

    /// Seen failing with the rules left in the order of the file: the reject then came too late.
    #[test]
    fn a_zone_decides_by_priority_and_denies_first() {
        let zone = parse(PUBLIC).unwrap();
        assert_eq!(zone.interfaces, ["v0"]);
        assert!(!zone.accepts);
        for (text, expected) in [
            ("tcp 6379-6381 from 172.20.0.0/16", EntryState::Open),
            ("tcp 6380 from 172.20.5.0/24", EntryState::Open),
            ("tcp 6379-6382 from 172.20.0.0/16", EntryState::Missing),
            ("tcp 6380 from 10.0.0.0/8", EntryState::Open),
            ("udp 7005 from 192.0.2.0/24", EntryState::Open),
            ("udp 7005 from 2001:db8::/32", EntryState::Open),
            ("tcp 6379 from fd00:1::/32", EntryState::Open),
            ("tcp 6379 from 2001:db8::/32", EntryState::Missing),
        ] {
            assert_eq!(zone.state(&entry(text)), expected, "{text}");
        }
        for denied in ["tcp 6379 from 10.66.1.0/24", "tcp 6379-6381 from 10.0.0.0/8"] {
            assert!(matches!(zone.state(&entry(denied)), EntryState::Denied(_)), "{denied}");
        }
        let open = parse("<zone target=\"ACCEPT\"/>").unwrap();
        assert_eq!(open.state(&entry("tcp 1 from ::/0")), EntryState::Open);
        assert_eq!(parse("<service/>"), None);
    }

    #[test]
    fn an_entry_is_one_rich_rule() {
        assert_eq!(
            rich_rule(&entry("tcp 6379-6381 from 172.20.0.0/16")),
            r#"rule family="ipv4" source address="172.20.0.0/16" port port="6379-6381" protocol="tcp" accept"#
        );
        assert_eq!(
            rich_rule(&entry("udp 53 from fd00::/8")),
            r#"rule family="ipv6" source address="fd00::/8" port port="53" protocol="udp" accept"#
        );
    }

    #[test]
    fn the_configuration_is_read() {
        let conf = "# DefaultZone=x\nDefaultZone=home\nStrictForwardPorts=yes\n";
        assert_eq!(default_zone(conf), "home");
        assert_eq!(default_zone("DefaultZone=--set-target\n"), "public");
        assert!(setting(conf, "StrictForwardPorts").is_some_and(is_yes));
        assert_eq!(version("# x\nVERSION = '1.3.3'\n").unwrap().to_string(), "1.3.3");
        assert_eq!(version("x"), None);
    }

    #[test]
    fn a_zone_name_is_no_option_and_no_path() {
        assert!(is_zone_name("public") && is_zone_name("my-zone_2"));
        for name in ["", "-p", "--add-port=1/tcp", "a b", "../x", "a/b", "waytoolongforazonename", "z\u{f6}ne"] {
            assert!(!is_zone_name(name), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn an_entry_that_is_there_is_found_and_open(entry in any_entry()) {
            let family = if entry.is_ipv4() { "ipv4" } else { "ipv6" };
            let text = format!(
                "<zone><rule family='{family}'><source address='{}'/><port port='{}' protocol='{}'/><accept/></rule></zone>",
                entry.from, entry.ports_with('-'), entry.protocol.name()
            );
            let zone = parse(&text).unwrap();
            prop_assert!(zone.has(&entry));
            prop_assert_eq!(zone.state(&entry), EntryState::Open);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(</?(zone|rule|source|port|accept|drop)( [a-z]{1,8}=\"[0-9./a-z-]{0,9}\")?/?>|\\PC){0,30}", entry in any_entry()) {
            if let Some(zone) = parse(&text) {
                let _ = (zone.state(&entry), zone.has(&entry));
            }
            let _ = (version(&text), default_zone(&text).len());
        }
    }
}
