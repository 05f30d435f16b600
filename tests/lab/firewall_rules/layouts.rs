//! Rule sets made from a number: loose ones of nft and of iptables, and such as Docker, ufw, firewalld and preflight write.
//!
//! Each lets answers back, as real ones do: what is judged is the first packet of a connection.

use std::fmt::Write as _;

use preflight::subjects::firewall::model::guard::Guard;
use preflight::subjects::firewall::model::intent::Intent;

use super::world::{ALLOWED, HOST, OUTWARD, STRANGERS};

/// What is loaded, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) kind: String,
    /// Whether the host forwards.
    pub(crate) forwards: bool,
    /// `nft`, `iptables` or `ip6tables`, and the text for it.
    pub(crate) parts: Vec<(&'static str, String)>,
}

/// The numbers of SplitMix64 (Steele, Lea and Flood: "Fast splittable pseudorandom number generators").
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    /// True once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    fn text(&mut self, of: &[&str]) -> String {
        self.pick(of).to_owned()
    }
}

/// The text that [`Layout::read`] reads.
impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "=== {} {}", self.kind, if self.forwards { "forwards" } else { "does not forward" })?;
        self.parts.iter().try_for_each(|(loader, text)| write!(f, "=== {loader}\n{text}"))
    }
}

const LOADERS: [&str; 3] = ["nft", "iptables", "ip6tables"];

impl Layout {
    /// Reads a printed layout, made shorter by hand or not.
    pub(crate) fn read(text: &str) -> Self {
        let mut layout = Self { kind: "by hand".into(), forwards: true, parts: Vec::new() };
        for line in text.lines() {
            match line.strip_prefix("=== ") {
                Some(head) => match LOADERS.into_iter().find(|loader| *loader == head) {
                    Some(loader) => layout.parts.push((loader, String::new())),
                    None => layout.forwards = !head.ends_with("does not forward"),
                },
                None => {
                    if let Some((_, text)) = layout.parts.last_mut() {
                        text.push_str(line);
                        text.push('\n');
                    }
                }
            }
        }
        layout
    }

    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let mut layout = Self { forwards: !dice.once_in(16), ..Self::default() };
        let nft = |text: String| vec![("nft", text)];
        let docker = if dice.once_in(4) { docker_nft(&mut dice) } else { docker_iptables(&mut dice) };
        let (kind, parts) = match seed % 10 {
            0 | 1 => ("loose nft", vec![nft(loose_nft(&mut dice))]),
            2 => ("loose iptables", vec![loose_iptables(&mut dice)]),
            3 => ("Docker", vec![docker]),
            4 => ("Docker and loose nft", vec![docker, nft(loose_nft(&mut dice))]),
            5 => ("Docker and ufw", vec![ufw(&mut dice), docker]),
            6 => ("Docker and firewalld", vec![nft(firewalld(&mut dice)), docker]),
            7 => ("Docker, ufw and the guard", vec![ufw(&mut dice), docker, nft(guard(&mut dice))]),
            8 => ("loose nft and loose iptables", vec![loose_iptables(&mut dice), nft(loose_nft(&mut dice))]),
            _ => ("Docker, firewalld and the guard", vec![nft(firewalld(&mut dice)), docker, nft(guard(&mut dice))]),
        };
        kind.clone_into(&mut layout.kind);
        layout.parts = parts.into_iter().flatten().collect();
        layout
    }
}

/// Lets answers pass wherever a rule stands, also before conntrack.
const ANSWERS: &str = "tcp sport 6379-6381 tcp flags & (syn | ack) == syn | ack accept";
const ANSWERS_IPTABLES: &str = "-p tcp --sport 6379:6381 --tcp-flags SYN,ACK SYN,ACK -j ACCEPT";

fn sources(v6: bool) -> Vec<&'static str> {
    let of = usize::from(v6);
    STRANGERS[of].iter().chain(&ALLOWED[of]).copied().collect()
}

fn networks(v6: bool) -> Vec<&'static str> {
    let mut all = sources(v6);
    all.extend(if v6 {
        ["2001:db8::/32", "2001:db8:1::/64", "2001:db8:1::100/120", "fd20::/16", "fd00::/8", "2000::/3", "fd20:9::/33"]
    } else {
        [
            "198.51.100.0/24",
            "198.51.100.128/25",
            "203.0.113.0/24",
            "172.20.0.0/16",
            "172.16.0.0/12",
            "10.0.0.0/8",
            "128.0.0.0/1",
        ]
    });
    all
}

fn ranges(v6: bool) -> [&'static str; 3] {
    if v6 {
        ["2001:db8:1::-2001:db8:1::ff", "2001:db8::-2001:db8:1:ffff::", "fd20::5-fd77::3"]
    } else {
        ["198.51.100.0-198.51.100.99", "10.0.0.0-172.20.5.5", "172.20.0.5-203.0.113.6"]
    }
}

/// Where a rule stands.
#[derive(Clone, Copy)]
struct Place {
    /// Of the table: `Some` in `ip` and `ip6`.
    v6: Option<bool>,
    hook: &'static str,
}

fn ports_nft(dice: &mut Dice, named: bool) -> String {
    let mut all = vec![
        "tcp dport 6379",
        "tcp dport 6380",
        "tcp dport { 6379, 6380 }",
        "tcp dport { 22, 6300-6399 }",
        "tcp dport 6370-6379",
        "tcp dport != 6380",
        "tcp dport != { 22, 6379 }",
        "tcp dport != 6380-6390",
        "tcp dport >= 6380",
        "tcp dport < 6380",
        "th dport 6379",
        "meta l4proto tcp th dport { 6380 }",
    ];
    if named {
        all.extend(["tcp dport @ports", "tcp dport != @ports"]);
    }
    dice.text(&all)
}

fn address_nft(dice: &mut Dice, v6: bool, named: bool) -> String {
    let family = if v6 { "ip6" } else { "ip" };
    let not = if dice.once_in(4) { "!= " } else { "" };
    let networks = networks(v6);
    let one = networks[dice.below(networks.len())];
    match dice.below(if named { 8 } else { 5 }) {
        0 | 1 => format!("{family} saddr {not}{one}"),
        2 => format!("{family} saddr {not}{{ {}, {} }}", sources(v6)[dice.below(3)], sources(v6)[3 + dice.below(3)]),
        3 => format!("{family} saddr {not}{}", ranges(v6)[dice.below(3)]),
        4 => format!("{family} daddr {not}{}", HOST[usize::from(v6)][dice.below(3)]),
        5 => format!("{family} saddr {not}@known{}", if v6 { 6 } else { 4 }),
        6 => format!("{family} saddr . tcp dport {not}@pairs{}", if v6 { 6 } else { 4 }),
        _ => format!("{family} saddr . {family} daddr {not}{{ {one} . {} }}", HOST[usize::from(v6)][dice.below(2)]),
    }
}

fn state_nft(dice: &mut Dice, place: Place) -> String {
    let (family, v6) = if place.v6 == Some(true) { ("ip6", true) } else { ("ip", false) };
    let by_address = format!("ct original {family} daddr {}", HOST[usize::from(v6)][0]);
    let not_by_address = format!("ct original {family} saddr != {}", sources(v6)[dice.below(6)]);
    let mut all = vec![
        "ct state new",
        "ct state { new, untracked }",
        "ct state new,related",
        "ct state != established",
        "ct state invalid",
        "ct state untracked",
        "ct state invalid,untracked",
        "ct status dnat",
        "ct status & dnat == 0",
        "ct direction original",
        "ct direction != original",
        "meta l4proto tcp ct original proto-dst 6380",
        "meta l4proto tcp ct original proto-dst != 6380",
        "ct mark 0x1",
        "ct mark != 0x1",
        "ct mark and 0xff == 0x2",
        "ct l3proto ipv4",
    ];
    if place.v6.is_some() {
        all.extend([by_address.as_str(), &not_by_address]);
    }
    dice.text(&all)
}

fn other_nft(dice: &mut Dice, place: Place) -> String {
    let mut all = vec![
        "meta l4proto tcp",
        "meta l4proto != udp",
        "meta pkttype host",
        "meta pkttype { broadcast, multicast }",
        "meta mark 0x1",
        "meta mark != 0x1",
        "meta mark and 0xf0 == 0x10",
        "meta mark 0-5",
        "meta mark >= 0x11",
        "tcp flags & (fin | syn | rst | ack) == syn",
        "tcp flags & (fin | syn | rst | ack) != syn",
        "tcp flags syn",
        "tcp flags ack",
        "tcp sport 1024-65535",
        "counter",
        "limit rate 100/second",
    ];
    if place.v6 == Some(false) {
        all.extend(["ip protocol tcp", "ip saddr & 255.255.0.0 == 172.20.0.0", "ip saddr & 0.0.255.0 == 0.0.100.0"]);
    }
    if place.v6 == Some(true) {
        all.extend(["ip6 nexthdr tcp", "ip6 saddr & ffff:: == fd20::"]);
    }
    if place.v6.is_none() && place.hook != "ingress" {
        all.extend(["meta protocol ip", "meta nfproto ipv4", "meta nfproto ipv6", "meta nfproto != ipv4"]);
    }
    if place.hook != "ingress" {
        all.extend(["fib daddr type local", "fib daddr type != local", "fib daddr type { local, broadcast }"]);
    }
    if place.hook == "prerouting" {
        all.extend([
            "fib daddr . iif type local",
            "fib saddr . iif oif missing",
            "fib saddr . iif oif exists",
            "fib saddr . iif oif eth0",
            "fib saddr . iif oifname \"eth0\"",
        ]);
    }
    if matches!(place.hook, "forward" | "postrouting") {
        all.extend(["oifname \"br-*\"", "oifname != \"br-0123456789ab\"", "oif br-0123456789ab", "oifname \"eth0\""]);
    }
    dice.text(&all)
}

fn interface_nft(dice: &mut Dice, named: bool) -> String {
    let mut all = vec![
        "iifname \"eth0\"",
        "iifname != \"eth0\"",
        "iifname \"e*\"",
        "iifname \"eth*\"",
        "iifname != \"en*\"",
        "iifname { \"eth0\", \"ens3\" }",
        "iifname != { \"lo\", \"ens7\" }",
        "iif eth0",
        "iif != ens7",
        "iif { eth0, ens7 }",
        "iifname . tcp dport { \"eth0\" . 6379, \"ens7\" . 6380 }",
    ];
    if named {
        all.push("iifname @inside");
    }
    dice.text(&all)
}

fn condition_nft(dice: &mut Dice, place: Place) -> String {
    match (dice.below(10), place.v6) {
        (0..=2, _) => ports_nft(dice, place.hook != "ingress"),
        (3..=5, Some(v6)) => address_nft(dice, v6, place.hook != "ingress"),
        (6, _) if place.hook != "postrouting" => interface_nft(dice, place.hook != "ingress"),
        (7 | 8, _) if place.hook != "ingress" => state_nft(dice, place),
        _ => other_nft(dice, place),
    }
}

/// A verdict, or a statement that goes on. Chains only lead to chains after them.
fn verdict_nft(dice: &mut Dice, place: Place, after: usize, chains: usize) -> String {
    let further = (after + 1..=chains).collect::<Vec<_>>();
    match dice.below(12) {
        0..=2 => "accept".into(),
        3 => if place.hook == "input" || place.hook == "forward" { "reject with tcp reset" } else { "drop" }.into(),
        4 | 5 => "drop".into(),
        6 => if after == 0 { "accept" } else { "return" }.into(),
        7 => "counter continue".into(),
        8 if place.hook != "ingress" => dice.text(&[
            "meta mark set 0x1",
            "meta mark set meta mark or 0x10",
            "meta mark set 0x12",
            "ct mark set 0x1",
            "ct mark set meta mark",
            "meta mark set ct mark",
        ]),
        _ => match further.get(dice.below(further.len().max(1))) {
            Some(chain) if dice.once_in(3) => format!("goto c{chain}"),
            Some(chain) => format!("jump c{chain}"),
            None => "drop".into(),
        },
    }
}

fn map_nft(dice: &mut Dice, place: Place, after: usize, chains: usize) -> String {
    let mut verdict = || loop {
        let verdict = verdict_nft(dice, place, after, chains);
        if ["accept", "drop", "return", "jump", "goto"].iter().any(|word| verdict.starts_with(word)) {
            return verdict;
        }
    };
    let [one, two, three] = [verdict(), verdict(), verdict()];
    let v6 = place.v6.unwrap_or_else(|| dice.once_in(2));
    let of = networks(v6);
    let family = if v6 { "ip6" } else { "ip" };
    match dice.below(6) {
        0 => format!("tcp dport vmap {{ 6379 : {one}, 6380 : {two} }}"),
        1 => format!("iifname vmap {{ \"eth0\" : {one}, \"ens7\" : {two} }}"),
        2 => format!("{family} saddr vmap {{ {} : {one}, {} : {two} }}", of[0], of[5]),
        3 => format!("tcp dport vmap {{ 0-6379 : {one}, 6380-6390 : {two} }}"),
        4 => format!("{family} saddr . tcp dport vmap {{ {} . 6379 : {one}, {} . 6380 : {two} }}", of[1], of[4]),
        _ => format!("tcp dport vmap {{ 6380 : {one}, 22 : {two}, * : {three} }}"),
    }
}

fn rules_nft(dice: &mut Dice, place: Place, after: usize, chains: usize, text: &mut String) {
    for _ in 0..=dice.below(4) {
        if dice.once_in(7) && place.hook != "ingress" {
            let _ = writeln!(text, "\t\t{}", map_nft(dice, place, after, chains));
            continue;
        }
        // One rule is about one family, or names none.
        let v6 = place.v6.or_else(|| [None, Some(false), Some(true)][dice.below(3)]);
        let conditions: Vec<String> = (0..=dice.below(3)).map(|_| condition_nft(dice, Place { v6, ..place })).collect();
        let verdict = verdict_nft(dice, place, after, chains);
        let _ = writeln!(text, "\t\t{} {verdict}", conditions.join(" "));
    }
}

fn sets_nft(dice: &mut Dice, v6: Option<bool>) -> String {
    let mut text = String::from(
        "\tset ports {\n\t\ttype inet_service\n\t\tflags interval\n\t\telements = { 22, 6375-6379 }\n\t}\n",
    );
    text.push_str("\tset inside {\n\t\ttype ifname\n\t\telements = { \"ens7\", \"br0\" }\n\t}\n");
    for six in [false, true].into_iter().filter(|six| v6.is_none_or(|v6| v6 == *six)) {
        let (kind, number, of) = if six { ("ipv6_addr", 6, networks(true)) } else { ("ipv4_addr", 4, networks(false)) };
        let (one, two) = (of[dice.below(3)], of[6 + dice.below(3)]);
        let elements =
            if one.starts_with("198") && two.starts_with("198") { one.to_owned() } else { format!("{one}, {two}") };
        let _ = writeln!(
            text,
            "\tset known{number} {{\n\t\ttype {kind}\n\t\tflags interval\n\t\tauto-merge\n\t\telements = {{ {elements} }}\n\t}}"
        );
        let _ = writeln!(
            text,
            "\tset pairs{number} {{\n\t\ttype {kind} . inet_service\n\t\tflags interval\n\t\telements = {{ {} . 6379, {} . 6000-6380 }}\n\t}}",
            of[3], of[7]
        );
    }
    text
}

fn loose_nft(dice: &mut Dice) -> String {
    let mut text = String::new();
    for table in 0..=dice.below(3) {
        let (family, v6) = [("inet", None), ("inet", None), ("ip", Some(false)), ("ip6", Some(true))][dice.below(4)];
        let hook = dice.pick(&["prerouting", "input", "forward", "input"]);
        let _ = writeln!(text, "table {family} loose{table} {{");
        text.push_str(&sets_nft(dice, v6));
        let chains = dice.below(4);
        let mut bases = vec![hook];
        if dice.once_in(2) {
            bases.push(dice.pick(&["prerouting", "input", "forward", "postrouting"]));
        }
        // What a chain may ask depends on the hooks that lead to it; the narrowest fits all.
        let narrow = if bases.iter().all(|base| *base == hook) { hook } else { "postrouting" };
        for (at, base) in bases.iter().enumerate() {
            let priorities: &[&str] = match *base {
                "prerouting" => &["raw", "-250", "-150", "mangle", "-110", "-90", "filter", "security"],
                "postrouting" => &["-10", "0", "90"],
                _ => &["-150", "-10", "filter", "10", "security"],
            };
            let priority = dice.pick(priorities);
            let early = *base == "prerouting" && matches!(priority, "raw" | "-250");
            let policy = if dice.once_in(4) { "drop" } else { "accept" };
            let _ = writeln!(
                text,
                "\tchain base{at} {{\n\t\ttype filter hook {base} priority {priority}; policy {policy};\n\t\t{ANSWERS}"
            );
            if early && dice.once_in(3) {
                let _ = writeln!(text, "\t\t{} notrack", ports_nft(dice, true));
            } else if !early {
                text.push_str("\t\tct state established,related accept\n");
            }
            rules_nft(dice, Place { v6, hook: base }, 0, chains, &mut text);
            text.push_str("\t}\n");
        }
        for chain in 1..=chains {
            let _ = writeln!(text, "\tchain c{chain} {{");
            rules_nft(dice, Place { v6, hook: narrow }, chain, chains, &mut text);
            text.push_str("\t}\n");
        }
        if dice.once_in(3) {
            let _ = writeln!(
                text,
                "\tchain nat {{\n\t\ttype nat hook prerouting priority {}; policy accept;",
                ["dstnat", "-110", "-90"][dice.below(3)]
            );
            for v6 in [false, true].into_iter().filter(|six| v6.is_none_or(|v6| v6 == *six)) {
                let family = if v6 { "ip6" } else { "ip" };
                let (to, asked) = (if v6 { "[fd30::2]" } else { "172.30.0.2" }, address_nft(dice, v6, true));
                let from = if dice.once_in(2) { "" } else { &asked };
                let rule = match dice.below(5) {
                    0 => format!("{from} tcp dport 6379 dnat {family} to {to}:6380"),
                    1 => format!("{asked} tcp dport 6380 redirect to :6381"),
                    2 => format!("{from} tcp dport 6380 dnat {family} to {}", to.trim_matches(['[', ']'])),
                    3 => format!("{from} tcp dport 6379 dnat {family} to {}", HOST[usize::from(v6)][1]),
                    _ => format!("{from} tcp dport 6380 dnat {family} to {to}:6379"),
                };
                let _ = writeln!(text, "\t\t{rule}");
            }
            text.push_str("\t}\n");
        }
        text.push_str("}\n");
    }
    if dice.once_in(3) {
        let v6 = dice.once_in(2);
        let place = Place { v6: Some(v6), hook: "prerouting" };
        let (ports, from) = (ports_nft(dice, false), address_nft(dice, v6, false));
        let _ = writeln!(
            text,
            "table inet marks {{\n\tchain before {{\n\t\ttype filter hook prerouting priority -140; policy accept;"
        );
        let _ =
            writeln!(text, "\t\t{ports} {from} meta mark set 0x1\n\t\t{} ct mark set 0x1", interface_nft(dice, false));
        let _ = writeln!(text, "\t\t{} meta mark set meta mark or 0x10\n\t}}", state_nft(dice, place));
        for hook in ["input", "forward"] {
            let _ = writeln!(
                text,
                "\tchain {hook} {{\n\t\ttype filter hook {hook} priority 5; policy accept;\n\t\t{ANSWERS}\n\t\tct state established,related accept"
            );
            let _ = writeln!(
                text,
                "\t\tmeta mark & 0x1 == 0x1 {}",
                dice.pick(&["drop", "ct mark 0x1 drop", "counter", "ct mark != 0x1 drop"])
            );
            let _ = writeln!(
                text,
                "\t\tmeta mark {} {}\n\t}}",
                dice.pick(&["0x11", "!= 0x10", "and 0x10 == 0x10"]),
                dice.pick(&["drop", "counter", "accept"])
            );
        }
        text.push_str("}\n");
    }
    if dice.once_in(5) {
        let device = OUTWARD[dice.below(2)];
        let _ = writeln!(
            text,
            "table netdev early {{\n\tchain ingress {{\n\t\ttype filter hook ingress device {device} priority 0; policy accept;"
        );
        let place = Place { v6: None, hook: "ingress" };
        rules_nft(dice, place, 0, 0, &mut text);
        text.push_str("\t}\n}\n");
    }
    text
}

fn match_iptables(dice: &mut Dice, v6: bool, hook: &str, filter: bool) -> String {
    let of = networks(v6);
    let (one, two) = (of[dice.below(of.len())], sources(v6)[dice.below(6)]);
    let range = ranges(v6)[dice.below(3)].to_owned();
    let not = if dice.once_in(4) { "! " } else { "" };
    let own = HOST[usize::from(v6)][dice.below(2)];
    let mut all = vec![
        format!("{not}-s {one}"),
        format!("{not}-s {two}"),
        format!("{not}-d {own}"),
        format!("-m iprange {not}--src-range {range}"),
        format!("-p tcp -m tcp {not}--dport 6379"),
        format!("-p tcp -m tcp {not}--dport 6380:6390"),
        format!("-p tcp -m multiport {not}--dports 22,6370:6379,6381"),
        format!("-p tcp -m multiport {not}--dports 6380,6000:6378"),
        "-p tcp -m tcp --sport 1024:65535".into(),
        "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN".into(),
        format!("-p tcp -m tcp {not}--syn"),
        "-p tcp".into(),
        "! -p udp".into(),
        format!("-m mark {not}--mark 0x1"),
        format!("-m mark {not}--mark 0x10/0xf0"),
        format!("-m connmark {not}--mark 0x1/0xff"),
        "-m comment --comment \"a rule\"".into(),
        format!("-m pkttype {not}--pkt-type unicast"),
        format!("-m addrtype {not}--dst-type LOCAL"),
        format!("-m addrtype {not}--src-type LOCAL"),
        "-m limit --limit 100/sec".into(),
        "-m statistic --mode nth --every 2 --packet 0".into(),
    ];
    if filter {
        all.extend([
            "-m conntrack --ctstate NEW".into(),
            format!("-m conntrack {not}--ctstate NEW,UNTRACKED"),
            format!("-m conntrack {not}--ctstate INVALID"),
            format!("-m conntrack {not}--ctstate DNAT"),
            "-m state --state NEW".into(),
            format!("-m conntrack {not}--ctorigdstport 6380"),
            format!("-m conntrack {not}--ctorigdst {own}"),
            format!("-m conntrack {not}--ctorigsrc {two}"),
            format!("-m conntrack {not}--ctstatus ASSURED,CONFIRMED"),
            "-m conntrack --ctdir ORIGINAL".into(),
        ]);
    }
    if hook != "POSTROUTING" {
        all.extend([format!("{not}-i eth0"), format!("{not}-i eth+"), format!("{not}-i e+")]);
    }
    if hook == "FORWARD" {
        all.extend([format!("{not}-o br-0123456789ab"), format!("{not}-o br-+"), format!("{not}-o eth0")]);
    }
    let at = dice.below(all.len());
    all.swap_remove(at)
}

/// Several matches, without naming a thing twice.
fn matches_iptables(dice: &mut Dice, v6: bool, hook: &str, filter: bool) -> String {
    let mut all: Vec<String> = Vec::new();
    for _ in 0..=dice.below(3) {
        let one = match_iptables(dice, v6, hook, filter);
        let keys: Vec<&str> = one.split(' ').filter(|word| word.starts_with('-') || *word == "conntrack").collect();
        if !all.iter().any(|other| other.split(' ').any(|word| word != "-m" && keys.contains(&word))) {
            all.push(one);
        }
    }
    all.join(" ")
}

fn loose_rules(
    dice: &mut Dice,
    v6: bool,
    (table, hook): (&str, &str),
    chain: &str,
    further: &[&str],
    text: &mut String,
) {
    for _ in 0..=dice.below(4) {
        let matches = matches_iptables(dice, v6, hook, table != "raw");
        let marks =
            ["MARK --set-mark 0x1", "MARK --set-xmark 0x10/0xf0", "MARK --or-mark 0x2", "CONNMARK --set-mark 0x1"];
        let target = match dice.below(9) {
            0 | 1 => "-j ACCEPT".into(),
            2 | 3 => "-j DROP".into(),
            4 if table == "filter" => "-p tcp -j REJECT --reject-with tcp-reset".into(),
            5 if chain != hook => "-j RETURN".into(),
            6 if table == "mangle" => format!("-j {}", dice.pick(&marks)),
            6 if table == "raw" && dice.once_in(2) => "-j CT --notrack".into(),
            6 => String::new(),
            _ => match further.get(dice.below(further.len().max(1))) {
                Some(further) if dice.once_in(3) => format!("-g {further}"),
                Some(further) => format!("-j {further}"),
                None => "-j DROP".into(),
            },
        };
        let target = if target.starts_with("-p tcp") && matches.contains("-p ") {
            target.replacen("-p tcp ", "", 1)
        } else {
            target
        };
        if target.contains("tcp-reset") && !matches.contains("-p tcp") && matches.contains("-p ") {
            continue;
        }
        let _ = writeln!(text, "-A {chain} {matches} {target}");
    }
}

/// For both families: raw, mangle and filter, with chains of their own.
fn loose_iptables(dice: &mut Dice) -> Vec<(&'static str, String)> {
    let mut parts = Vec::new();
    for v6 in [false, true] {
        let mut text = String::new();
        for (table, hooks) in [
            ("raw", &["PREROUTING"][..]),
            ("mangle", &["PREROUTING", "INPUT", "FORWARD"]),
            ("filter", &["INPUT", "FORWARD"]),
            ("nat", &["PREROUTING"]),
        ] {
            if !(table == "filter" || dice.once_in(2)) {
                continue;
            }
            let _ = writeln!(text, "*{table}");
            for hook in hooks {
                let policy = if table != "nat" && dice.once_in(4) { "DROP" } else { "ACCEPT" };
                let _ = writeln!(text, ":{hook} {policy} [0:0]");
            }
            if table == "nat" {
                let to = if v6 { "[fd30::2]" } else { "172.30.0.2" };
                let matches = matches_iptables(dice, v6, "FORWARD-less", true);
                let matches = if matches.contains("port") || matches.contains("-p ") { String::new() } else { matches };
                let target = dice.text(&[
                    &format!("DNAT --to-destination {to}:6379"),
                    &format!("DNAT --to-destination {}", to.trim_matches(['[', ']'])),
                    "REDIRECT --to-ports 6381",
                ]);
                let _ = writeln!(text, "-A PREROUTING {matches} -p tcp --dport 6380 -j {target}\nCOMMIT");
                continue;
            }
            let own = ["one", "two", "three"];
            let own: Vec<&str> = own.into_iter().take(dice.below(4)).collect();
            for chain in &own {
                let _ = writeln!(text, ":{chain} - [0:0]");
            }
            for hook in hooks {
                let _ = writeln!(text, "-A {hook} {ANSWERS_IPTABLES}");
                if table != "raw" {
                    let _ = writeln!(text, "-A {hook} -m conntrack --ctstate ESTABLISHED -j ACCEPT");
                }
                loose_rules(dice, v6, (table, hook), hook, &own, &mut text);
            }
            for (at, chain) in own.iter().enumerate() {
                loose_rules(dice, v6, (table, "all"), chain, &own[at + 1..], &mut text);
            }
            text.push_str("COMMIT\n");
        }
        parts.push((if v6 { "ip6tables" } else { "iptables" }, text));
    }
    parts
}

/// As Docker writes them, before 28 and since, with rules of somebody in DOCKER-USER.
fn docker_iptables(dice: &mut Dice) -> Vec<(&'static str, String)> {
    let mut parts = Vec::new();
    let is_new = dice.once_in(2);
    let bridge = "br-0123456789ab";
    for v6 in [false, true] {
        if v6 && dice.once_in(3) {
            continue;
        }
        let (to, at, net) =
            if v6 { ("[fd30::2]", "fd30::2", "fd30::/64") } else { ("172.30.0.2", "172.30.0.2", "172.30.0.0/24") };
        let local = if v6 { " ! -d ::1/128" } else { " ! -d 127.0.0.0/8" };
        let inside = if dice.once_in(2) { 6379 } else { 6380 };
        let published = match dice.below(4) {
            0 => format!(" -d {}", HOST[usize::from(v6)][0]),
            _ => String::new(),
        };
        let mut text = format!(
            "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:DOCKER - [0:0]\n\
             -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A OUTPUT{local} -m addrtype --dst-type LOCAL -j DOCKER\n\
             -A POSTROUTING -s {net} ! -o {bridge} -j MASQUERADE\n\
             -A DOCKER{published} ! -i {bridge} -p tcp -m tcp --dport 6380 -j DNAT --to-destination {to}:{inside}\nCOMMIT\n"
        );
        let mut user = String::new();
        if dice.once_in(2) {
            loose_rules(dice, v6, ("filter", "FORWARD"), "DOCKER-USER", &[], &mut user);
        }
        let established = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
        if is_new {
            let _ = write!(
                text,
                "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d {at}/{} ! -i {bridge} -j DROP\nCOMMIT\n\
                 *filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\n:DOCKER-BRIDGE - [0:0]\n:DOCKER-CT - [0:0]\n\
                 :DOCKER-FORWARD - [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-FORWARD\n\
                 -A DOCKER -d {at}/{} ! -i {bridge} -o {bridge} -p tcp -m tcp --dport {inside} -j ACCEPT\n\
                 -A DOCKER ! -i {bridge} -o {bridge} -j DROP\n-A DOCKER-BRIDGE -o {bridge} -j DOCKER\n\
                 -A DOCKER-CT -o {bridge} {established}\n-A DOCKER-FORWARD -j DOCKER-CT\n-A DOCKER-FORWARD -j DOCKER-BRIDGE\n\
                 -A DOCKER-FORWARD -i {bridge} -j ACCEPT\n-A DOCKER-USER {ANSWERS_IPTABLES}\n{user}COMMIT\n",
                if v6 { 128 } else { 32 },
                if v6 { 128 } else { 32 },
            );
        } else {
            let _ = write!(
                text,
                "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\n:DOCKER-ISOLATION-STAGE-1 - [0:0]\n\
                 :DOCKER-ISOLATION-STAGE-2 - [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n\
                 -A FORWARD -j DOCKER-ISOLATION-STAGE-1\n-A FORWARD -o {bridge} {established}\n-A FORWARD -o {bridge} -j DOCKER\n\
                 -A FORWARD -i {bridge} ! -o {bridge} -j ACCEPT\n-A FORWARD -i {bridge} -o {bridge} -j ACCEPT\n\
                 -A DOCKER -d {at} ! -i {bridge} -o {bridge} -p tcp -m tcp --dport {inside} -j ACCEPT\n\
                 -A DOCKER-ISOLATION-STAGE-1 -i {bridge} ! -o {bridge} -j DOCKER-ISOLATION-STAGE-2\n\
                 -A DOCKER-ISOLATION-STAGE-1 -j RETURN\n-A DOCKER-ISOLATION-STAGE-2 -o {bridge} -j DROP\n\
                 -A DOCKER-ISOLATION-STAGE-2 -j RETURN\n-A DOCKER-USER {ANSWERS_IPTABLES}\n{user}-A DOCKER-USER -j RETURN\nCOMMIT\n"
            );
        }
        parts.push((if v6 { "ip6tables" } else { "iptables" }, text));
    }
    parts
}

/// As Docker writes them with its nftables backend.
fn docker_nft(dice: &mut Dice) -> Vec<(&'static str, String)> {
    let bridge = "br-0123456789ab";
    let mut parts = Vec::new();
    for (family, to) in [("ip", "172.30.0.2"), ("ip6", "fd30::2")] {
        if family == "ip6" && dice.once_in(3) {
            continue;
        }
        let mapped = if family == "ip" { to.to_owned() } else { format!("[{to}]") };
        parts.push((
            "nft",
            format!(
                "table {family} docker-bridges {{\n\
                 \tmap filter-forward-in-jumps {{\n\t\ttype ifname : verdict\n\t\telements = {{ \"{bridge}\" : jump filter-forward-in__{bridge} }}\n\t}}\n\
                 \tmap nat-postrouting-out-jumps {{\n\t\ttype ifname : verdict\n\t\telements = {{ \"{bridge}\" : jump nat-postrouting-out__{bridge} }}\n\t}}\n\
                 \tchain filter-FORWARD {{\n\t\ttype filter hook forward priority filter; policy accept;\n\
                 \t\toifname vmap @filter-forward-in-jumps\n\t\tiifname \"{bridge}\" counter accept\n\t}}\n\
                 \tchain nat-POSTROUTING {{\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t\toifname vmap @nat-postrouting-out-jumps\n\t}}\n\
                 \tchain nat-PREROUTING {{\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\
                 \t\tfib daddr type local counter jump nat-prerouting-and-output\n\t}}\n\
                 \tchain nat-prerouting-and-output {{\n\t\tiifname != \"{bridge}\" tcp dport 6380 counter dnat to {mapped}:6379 comment \"DNAT\"\n\t}}\n\
                 \tchain raw-PREROUTING {{\n\t\ttype filter hook prerouting priority raw; policy accept;\n\
                 \t\t{family} daddr {to} iifname != \"{bridge}\" counter drop comment \"DROP DIRECT ACCESS\"\n\t}}\n\
                 \tchain filter-forward-in__{bridge} {{\n\t\tct state established,related counter accept\n\
                 \t\tiifname \"{bridge}\" counter accept\n\t\t{family} daddr {to} tcp dport 6379 counter accept\n\
                 \t\tcounter drop comment \"UNPUBLISHED PORT DROP\"\n\t}}\n\
                 \tchain nat-postrouting-out__{bridge} {{\n\t}}\n}}\n"
            ),
        ));
    }
    parts
}

/// As `ufw` loads them, with entries of somebody.
fn ufw(dice: &mut Dice) -> Vec<(&'static str, String)> {
    let mut parts = Vec::new();
    for v6 in [false, true] {
        let prefix = if v6 { "ufw6" } else { "ufw" };
        let policy = if dice.once_in(6) { "ACCEPT" } else { "DROP" };
        let mut text = format!(
            "*filter\n:INPUT {policy} [0:0]\n:FORWARD {} [0:0]\n",
            if dice.once_in(3) { "DROP" } else { "ACCEPT" }
        );
        let names = [
            "before-logging-input",
            "before-input",
            "after-input",
            "user-input",
            "user-limit",
            "user-limit-accept",
            "not-local",
            "skip-to-policy-input",
            "before-forward",
            "user-forward",
        ];
        for name in names {
            let _ = writeln!(text, ":{prefix}-{name} - [0:0]");
        }
        let _ = write!(
            text,
            "-A INPUT -j {prefix}-before-logging-input\n-A INPUT -j {prefix}-before-input\n-A INPUT -j {prefix}-after-input\n\
             -A FORWARD -j {prefix}-before-forward\n\
             -A {prefix}-before-input -i lo -j ACCEPT\n\
             -A {prefix}-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A {prefix}-before-input -m conntrack --ctstate INVALID -j DROP\n\
             -A {prefix}-before-input -j {prefix}-not-local\n\
             -A {prefix}-not-local -m addrtype --dst-type LOCAL -j RETURN\n\
             -A {prefix}-not-local -m addrtype --dst-type MULTICAST -j RETURN\n\
             -A {prefix}-not-local -m limit --limit 3/min --limit-burst 10 -j DROP\n-A {prefix}-not-local -j DROP\n\
             -A {prefix}-before-input -j {prefix}-user-input\n\
             -A {prefix}-after-input -p udp -m udp --dport 137 -j {prefix}-skip-to-policy-input\n\
             -A {prefix}-skip-to-policy-input -j {policy}\n\
             -A {prefix}-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A {prefix}-before-forward -j {prefix}-user-forward\n\
             -A {prefix}-user-limit -m limit --limit 3/min -j LOG --log-prefix \"[UFW LIMIT BLOCK] \"\n\
             -A {prefix}-user-limit -j REJECT\n-A {prefix}-user-limit-accept -j ACCEPT\n"
        );
        let of = networks(v6);
        for _ in 0..dice.below(4) {
            let chain = if dice.once_in(4) { "user-forward" } else { "user-input" };
            let from = if dice.once_in(3) { String::new() } else { format!(" -s {}", of[dice.below(of.len())]) };
            let on = if dice.once_in(4) { " -i eth0" } else { "" };
            let ports = dice.pick(&[
                "-m tcp --dport 6379",
                "-m multiport --dports 6379:6381",
                "-m multiport --dports 6380,22",
                "-m tcp --dport 22",
            ]);
            let target = dice.pick(&["ACCEPT", "ACCEPT", "ACCEPT", "DROP", "REJECT --reject-with tcp-reset"]);
            let _ = writeln!(text, "-A {prefix}-{chain}{on}{from} -p tcp {ports} -j {target}");
        }
        text.push_str("COMMIT\n");
        parts.push((if v6 { "ip6tables" } else { "iptables" }, text));
    }
    parts
}

/// As firewalld loads them with its nftables backend.
fn firewalld(dice: &mut Dice) -> String {
    let mut zone = |name: &str| {
        let mut allow = String::new();
        for _ in 0..dice.below(3) {
            let v6 = dice.once_in(2);
            let of = networks(v6);
            let (family, from) = (if v6 { "ip6" } else { "ip" }, of[dice.below(of.len())]);
            let port = ["tcp dport 6379", "tcp dport 6379-6381", "tcp dport 6380", "meta l4proto tcp th dport 22"]
                [dice.below(4)];
            let rule = dice.text(&[
                &format!("{port} accept"),
                &format!("{family} saddr {from} {port} accept"),
                &format!("{family} saddr {from} {port} drop"),
            ]);
            let _ = writeln!(allow, "\t\t{rule}");
        }
        let target = ["reject with icmpx admin-prohibited", "drop", "accept", "return"][dice.below(4)];
        format!(
            "\tchain filter_IN_{name} {{\n\t\tjump filter_INPUT_POLICIES_pre\n\t\tjump filter_IN_{name}_pre\n\t\tjump filter_IN_{name}_allow\n\
             \t\tmeta l4proto {{ icmp, ipv6-icmp }} accept\n\t\t{target}\n\t}}\n\tchain filter_IN_{name}_pre {{\n\t}}\n\
             \tchain filter_IN_{name}_allow {{\n\t\ttcp dport 22 accept\n\t\tip6 daddr fe80::/64 udp dport 546 accept\n{allow}\t}}\n"
        )
    };
    let zones = zone("public") + &zone("inside");
    let (bound, source) = (dice.once_in(2), dice.once_in(2));
    let sources = if source {
        "\t\tip saddr 172.20.0.0/16 goto filter_IN_inside\n\t\tip6 saddr fd20::/16 goto filter_IN_inside\n"
    } else {
        ""
    };
    let interfaces = if bound { "\t\tiifname \"ens7\" goto filter_IN_inside\n" } else { "" };
    let forward = if dice.once_in(2) { "reject with icmpx admin-prohibited" } else { "accept" };
    format!(
        "table inet firewalld {{\n\
         \tchain mangle_PREROUTING {{\n\t\ttype filter hook prerouting priority mangle + 10; policy accept;\n\t\tjump mangle_PREROUTING_ZONES\n\t}}\n\
         \tchain mangle_PREROUTING_ZONES {{\n\t\treturn\n\t}}\n\
         \tchain nat_PREROUTING {{\n\t\ttype nat hook prerouting priority dstnat + 10; policy accept;\n\t}}\n\
         \tchain filter_PREROUTING {{\n\t\ttype filter hook prerouting priority filter + 10; policy accept;\n\
         \t\ticmpv6 type {{ nd-router-advert, nd-neighbor-solicit }} accept\n\t\tmeta nfproto ipv6 fib saddr . mark . iif oif missing drop\n\t}}\n\
         \tchain filter_INPUT {{\n\t\ttype filter hook input priority filter + 10; policy accept;\n\
         \t\tct state {{ established, related }} accept\n\t\tct status dnat accept\n\t\tiifname \"lo\" accept\n\t\tct state invalid drop\n\
         \t\tjump filter_INPUT_ZONES\n\t\treject with icmpx admin-prohibited\n\t}}\n\
         \tchain filter_INPUT_ZONES {{\n{sources}{interfaces}\t\tgoto filter_IN_public\n\t}}\n\
         \tchain filter_INPUT_POLICIES_pre {{\n\t}}\n\
         \tchain filter_FORWARD {{\n\t\ttype filter hook forward priority filter + 10; policy accept;\n\
         \t\tct state {{ established, related }} accept\n\t\tct status dnat accept\n\t\tiifname \"lo\" accept\n\t\tct state invalid drop\n\
         \t\tip6 daddr {{ ::/96, ::ffff:0.0.0.0/96, 2002::/24, 2002:a00::/24 }} reject with icmpv6 addr-unreachable\n\t\t{forward}\n\t}}\n\
         {zones}}}\n"
    )
}

/// As preflight itself writes it.
fn guard(dice: &mut Dice) -> String {
    let v6 = if dice.once_in(3) { Vec::new() } else { vec!["fd20::/16".parse().unwrap()] };
    let tcp = if dice.once_in(4) { vec![6379] } else { vec![6379, 6380, 6381] };
    let intent = Intent {
        tcp: tcp.into_iter().collect(),
        allow4: vec!["172.20.0.0/16".parse().unwrap()],
        allow6: v6,
        ..Intent::default()
    };
    Guard { intent, routed: Vec::new() }.text()
}
