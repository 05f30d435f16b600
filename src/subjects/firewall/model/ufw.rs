//! ufw: its rules as its own files keep them, and the commands that add and take away one allow entry.
//!
//! `user.rules` and `user6.rules` hold one comment per rule, from which ufw itself reads them again (`_read_rules` in
//! `ufw/backend_iptables.py`): `### tuple ### allow tcp 6379:6381 0.0.0.0/0 any 172.20.0.0/16 in comment=6d79`.

use std::ops::RangeInclusive;

use super::entry::{Entry, EntryState, ports};
use crate::catalog::parameters::Protocol;
use crate::facts::network::Network;

/// ufw's own switch, `ENABLED=`.
pub const CONF: &str = "/etc/ufw/ufw.conf";
/// ufw's default policies.
pub const DEFAULTS: &str = "/etc/default/ufw";
/// The rules of people, by family.
pub const RULES: [&str; 2] = ["/etc/ufw/user.rules", "/etc/ufw/user6.rules"];

/// What our entries are called in `ufw status`.
pub const COMMENT: &str = "preflight";

const MARK: &str = "### tuple ###";

/// One rule about incoming packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UfwRule {
    /// `allow`, `deny`, `reject`, `limit`.
    pub action: String,
    /// `None`: any.
    pub protocol: Option<Protocol>,
    /// `None`: any.
    pub ports: Option<Vec<RangeInclusive<u16>>>,
    pub from: Network,
    /// It says more about the packet than this model holds: an address or an interface of the host, a source port.
    pub is_narrower: bool,
    pub comment: String,
}

/// The rules in one of ufw's files, in their order. What is about outgoing or routed packets is left out, and so is a
/// line that ufw would not read.
pub fn parse(text: &str) -> Vec<UfwRule> {
    text.lines().filter_map(|line| rule(line.trim().strip_prefix(MARK)?.trim())).collect()
}

fn rule(line: &str) -> Option<UfwRule> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let comment = match words.last()?.strip_prefix("comment=") {
        Some(hex) => {
            words.pop();
            unhex(hex)
        }
        None => String::new(),
    };
    // With application names there are two more words before the direction.
    let ([action, protocol, to_ports, to, from_ports, from, direction]
    | [action, protocol, to_ports, to, from_ports, from, _, _, direction]) = words[..]
    else {
        return None;
    };
    let interface = match direction {
        "in" => false,
        other if other.starts_with("in_") && !other.contains('!') => true,
        _ => return None,
    };
    let (action, _) = action.split_once('_').unwrap_or((action, ""));
    if !matches!(action, "allow" | "deny" | "reject" | "limit") {
        return None;
    }
    let protocol = match protocol {
        "any" => None,
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        // esp, ah, …: no packet of ours.
        _ => return None,
    };
    let to_ports = match to_ports {
        "any" => None,
        list => Some(list.split(',').map(|range| ports(range, ':')).collect::<Option<Vec<_>>>()?),
    };
    let all: Network = if to.contains(':') { "::/0" } else { "0.0.0.0/0" }.parse().ok()?;
    // A mask that is no prefix is some part of everything.
    let known = from.parse::<Network>().ok();
    Some(UfwRule {
        action: action.to_owned(),
        protocol,
        ports: to_ports,
        from: known.unwrap_or(all),
        is_narrower: interface || from_ports != "any" || to.parse() != Ok(all) || known.is_none(),
        comment,
    })
}

fn unhex(text: &str) -> String {
    let digits: Vec<u32> = text.chars().map_while(|digit| digit.to_digit(16)).collect();
    let bytes: Vec<u8> = digits.chunks_exact(2).filter_map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl UfwRule {
    fn ranges(&self) -> &[RangeInclusive<u16>] {
        self.ports.as_deref().unwrap_or(&[0..=u16::MAX])
    }

    fn is_about(&self, entry: &Entry) -> bool {
        self.protocol.is_none_or(|protocol| protocol == entry.protocol)
            && self.from.address().is_ipv4() == entry.is_ipv4()
    }

    fn meets(&self, entry: &Entry) -> bool {
        self.is_about(entry) && self.ranges().iter().any(|ports| entry.meets(ports, &self.from))
    }

    fn holds_all_of(&self, entry: &Entry) -> bool {
        self.is_about(entry)
            && !self.is_narrower
            && self.ranges().iter().any(|ports| entry.is_within(ports, &self.from))
    }

    /// This very entry, whatever its comment.
    pub fn is(&self, entry: &Entry) -> bool {
        self.action == "allow"
            && self.protocol == Some(entry.protocol)
            && self.ports.as_deref() == Some(std::slice::from_ref(&entry.ports))
            && self.from == entry.from
            && !self.is_narrower
    }

    fn words(&self) -> String {
        let protocol = self.protocol.map_or("any", Protocol::name);
        format!("{} {protocol} from {}", self.action, self.from)
    }
}

/// What ufw does with an entry: the first rule that is about the packet decides, and the default after the last.
pub fn state(rules: &[UfwRule], default_allows: bool, entry: &Entry) -> EntryState {
    for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.meets(entry)) {
        match rule.action.as_str() {
            "allow" if rule.holds_all_of(entry) => return EntryState::Open,
            "allow" => {}
            // A limit is a denial too: it keeps out who connects often.
            _ => return EntryState::Denied(format!("{} (rule {})", rule.words(), index + 1)),
        }
    }
    if default_allows { EntryState::Open } else { EntryState::Missing }
}

/// Whether `ENABLED=yes` stands in ufw.conf, as ufw reads it.
pub fn is_enabled(conf: &str) -> bool {
    setting(conf, "ENABLED").is_some_and(|value| value.eq_ignore_ascii_case("yes"))
}

/// Whether the default for incoming packets lets everything in.
pub fn default_allows(defaults: &str) -> bool {
    setting(defaults, "DEFAULT_INPUT_POLICY").is_some_and(|value| value.eq_ignore_ascii_case("accept"))
}

/// Whether ufw manages IPv6 at all.
pub fn has_ipv6(defaults: &str) -> bool {
    setting(defaults, "IPV6").is_some_and(|value| value.eq_ignore_ascii_case("yes"))
}

/// The last assignment of a shell-like file.
fn setting<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut assignments = text.lines().filter_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
    assignments.next_back().map(|value| value.trim().trim_matches(['"', '\'']))
}

/// The command that adds an entry, as words. ufw knows comments since 0.35.
pub fn add(entry: &Entry, with_comment: bool) -> Vec<String> {
    let mut words = vec!["ufw".to_owned(), "allow".to_owned()];
    words.extend(selector(entry));
    if with_comment {
        words.extend(["comment", COMMENT].map(str::to_owned));
    }
    words
}

/// The command that takes exactly this entry away.
pub fn delete(entry: &Entry) -> Vec<String> {
    let mut words = ["ufw", "delete", "allow"].map(str::to_owned).to_vec();
    words.extend(selector(entry));
    words
}

fn selector(entry: &Entry) -> [String; 8] {
    let (from, ports) = (entry.from.to_string(), entry.ports_with(':'));
    ["proto", entry.protocol.name(), "from", &from, "to", "any", "port", &ports].map(str::to_owned)
}

/// The chain of people's rules about incoming packets.
pub fn chain(entry: &Entry) -> &'static str {
    if entry.is_ipv4() { "ufw-user-input" } else { "ufw6-user-input" }
}

/// Whether the rule of an entry is in that chain, by what `iptables -S` lists of it. `-C` is not to be asked: that of
/// ip6tables-legacy 1.8.9 also finds a rule for other ports.
pub fn is_listed(chain_listing: &str, entry: &Entry) -> bool {
    let (chain, protocol, ports) = (chain(entry), entry.protocol.name(), entry.ports_with(':'));
    let from = if entry.from.prefix() == 0 { String::new() } else { format!("-s {} ", entry.from) };
    let ports = if entry.ports.start() == entry.ports.end() {
        format!("{protocol} --dport {ports}")
    } else {
        format!("multiport --dports {ports}")
    };
    let rule = format!("-A {chain} {from}-p {protocol} -m {ports} -j ACCEPT");
    chain_listing.lines().any(|line| line.trim_end() == rule)
}

/// The entry as it stands in the rules, in the words of the command that would make it; `None` when it does not. An entry
/// with another comment reads differently: it is somebody else's.
pub fn found(rules: &[UfwRule], entry: &Entry) -> Option<String> {
    let rule = rules.iter().find(|rule| rule.is(entry))?;
    let words = add(entry, rule.comment == COMMENT).join(" ");
    Some(match rule.comment.as_str() {
        "" | COMMENT => words,
        other => format!("{words} comment {other:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::any_entry;
    use super::*;
    use proptest::prelude::*;

    // As ufw 0.36.2 wrote them.
    const USER: &str = "\
*filter
:ufw-user-input - [0:0]
### RULES ###

### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in
-A ufw-user-input -p tcp --dport 22 -j ACCEPT

### tuple ### allow tcp 6379:6381 0.0.0.0/0 any 172.20.0.0/16 in comment=707265666c69676874
### tuple ### allow tcp 6379 0.0.0.0/0 any 10.0.0.1 in comment=6d696e65
### tuple ### limit_log tcp 99 0.0.0.0/0 any 10.9.0.0/16 in
### tuple ### route:allow any any 0.0.0.0/0 any 10.9.0.0/16 in_lo!out_lo
### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 OpenSSH - in_eth0
### tuple ### deny any 25 0.0.0.0/0 any 0.0.0.0/0 out
### tuple ### deny tcp 7000,7001,8000:8010 0.0.0.0/0 any 10.0.0.0/8 in
### END RULES ###
COMMIT
";
    const USER6: &str = "### tuple ### allow any 6379 ::/0 any fd00::/8 in\n";

    fn entry(text: &str) -> Entry {
        text.parse().unwrap()
    }

    fn standing_of(text: &str) -> EntryState {
        let rules: Vec<UfwRule> = [parse(USER), parse(USER6)].concat();
        state(&rules, false, &entry(text))
    }

    /// Seen failing with `is_narrower` not looked at: a rule for one interface then opened port 22 for all.
    #[test]
    fn the_first_rule_about_a_packet_decides() {
        for open in [
            "tcp 22 from 10.0.0.0/8",
            "tcp 6380-6381 from 172.20.3.0/24",
            "tcp 6379 from 10.0.0.1/32",
            "tcp 6379 from fd00:1::/64",
            "udp 6379 from fd00::/8",
        ] {
            assert_eq!(standing_of(open), EntryState::Open, "{open}");
        }
        for missing in [
            "udp 22 from 10.0.0.0/8",
            "tcp 6379-6382 from 172.20.0.0/16",
            "tcp 6379 from 172.16.0.0/12",
            "tcp 6379-6381 from fd00::/8",
            "tcp 22 from fd00::/8",
            "tcp 25 from 10.0.0.0/8",
        ] {
            assert_eq!(standing_of(missing), EntryState::Missing, "{missing}");
        }
        for denied in ["tcp 99 from 10.9.1.0/24", "tcp 8000-9000 from 10.1.0.0/16", "tcp 7001 from 0.0.0.0/0"] {
            assert!(matches!(standing_of(denied), EntryState::Denied(_)), "{denied}");
        }
        assert_eq!(state(&parse(USER), true, &entry("udp 5 from 1.0.0.0/8")), EntryState::Open);
        let one_interface = parse("### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in_eth0");
        assert_eq!(state(&one_interface, false, &entry("tcp 22 from 10.0.0.0/8")), EntryState::Missing);
    }

    #[test]
    fn the_commands_are_those_of_the_manual_and_inverse() {
        let entry = entry("tcp 6379-6381 from 172.20.0.0/16");
        assert_eq!(
            add(&entry, true).join(" "),
            "ufw allow proto tcp from 172.20.0.0/16 to any port 6379:6381 comment preflight"
        );
        assert_eq!(delete(&entry).join(" "), "ufw delete allow proto tcp from 172.20.0.0/16 to any port 6379:6381");
        let rules = parse(USER);
        assert_eq!(found(&rules, &entry), Some(add(&entry, true).join(" ")));
        let theirs = found(&rules, &"tcp 6379 from 10.0.0.1/32".parse().unwrap()).unwrap();
        assert!(theirs.ends_with("port 6379 comment \"mine\""), "{theirs}");
        assert_eq!(found(&rules, &"tcp 6379 from 172.20.0.0/16".parse().unwrap()), None, "covered, but not the entry");
    }

    /// Lists of iptables 1.8.9.
    #[test]
    fn a_rule_is_listed_with_exactly_its_ports_and_source() {
        let listed = "-N ufw-user-input\n-A ufw-user-input -p tcp -m tcp --dport 6379 -j ACCEPT\n\
            -A ufw-user-input -s 172.20.0.0/16 -p tcp -m multiport --dports 6379:6381 -j ACCEPT\n\
            -A ufw6-user-input -s fd77::50/128 -p tcp -m multiport --dports 26379:26381 -j ACCEPT\n\
            -A ufw6-user-input -s fd77::51/128 -p udp -m udp --dport 26379 -j DROP\n";
        for there in
            ["tcp 6379 from 0.0.0.0/0", "tcp 6379-6381 from 172.20.0.0/16", "tcp 26379-26381 from fd77::50/128"]
        {
            assert!(is_listed(listed, &entry(there)), "{there}");
        }
        for missing in [
            "tcp 6379 from ::/0",
            "udp 6379-6381 from 172.20.0.0/16",
            "tcp 6379-6381 from fd77::50/128",
            "tcp 6379-6381 from 172.20.0.0/17",
            "udp 26379 from fd77::51/128",
        ] {
            assert!(!is_listed(listed, &entry(missing)), "{missing}");
        }
    }

    #[test]
    fn the_switches_are_read_as_ufw_reads_them() {
        assert!(is_enabled("# x\nENABLED=yes\nLOGLEVEL=low\n") && is_enabled("ENABLED=YES"));
        assert!(!is_enabled("ENABLED=no\n") && !is_enabled("#ENABLED=yes\n") && !is_enabled(""));
        assert!(default_allows("DEFAULT_INPUT_POLICY=\"ACCEPT\"\n"));
        assert!(!default_allows("DEFAULT_INPUT_POLICY=\"DROP\"\nDEFAULT_OUTPUT_POLICY=\"ACCEPT\"\n"));
    }

    proptest! {
        #[test]
        fn an_entry_that_is_there_is_found_and_open(entry in any_entry(), foreign in "[a-z ]{0,8}") {
            let (everywhere, ports) = (if entry.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, entry.ports_with(':'));
            let hex = foreign.bytes().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
            let comment = if foreign.is_empty() { String::new() } else { format!(" comment={hex}") };
            let (protocol, from) = (entry.protocol.name(), entry.from);
            let line = format!("### tuple ### allow {protocol} {ports} {everywhere} any {from} in{comment}");
            let rules = parse(&line);
            prop_assert!(found(&rules, &entry).is_some());
            prop_assert_eq!(&rules[0].comment, &foreign);
            prop_assert_eq!(state(&rules, false, &entry), EntryState::Open);
        }

        #[test]
        fn any_text_is_read(text in "(### tuple ### [ -~]{0,60}\n|\\PC{0,40}\n){0,8}", entry in any_entry()) {
            let rules = parse(&text);
            let _ = (state(&rules, false, &entry), found(&rules, &entry), is_enabled(&text), default_allows(&text));
        }
    }
}
