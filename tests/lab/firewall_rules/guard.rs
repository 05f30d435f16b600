//! preflight's own table: written, loaded into a kernel, and read back.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use preflight::facts::network::Network;
use preflight::host::nfnetlink;
use preflight::subjects::firewall::model::guard;
use preflight::subjects::firewall::model::guard::Guard;
use preflight::subjects::firewall::model::guard::Routed;
use preflight::subjects::firewall::model::intent::Intent;
use preflight::subjects::firewall::model::rules::Family;
use preflight::subjects::firewall::read::nft;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn nft_with(args: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(String::from_utf8(output.stdout).unwrap()) } else { Err(errors) }
}

/// What preflight reads of the table that is loaded now.
fn read() -> Option<Guard> {
    let bytes = nfnetlink::ruleset(Duration::from_secs(5)).unwrap().unwrap_or_default();
    Guard::read(nft::parse(&bytes).table(Family::Inet, "preflight").unwrap())
}

/// As [`Intent`] keeps them: ascending, none inside of another.
fn apart(all: Vec<Network>) -> Vec<Network> {
    let widest = |one: &Network| !all.iter().any(|other| other != one && other.covers(one));
    all.iter().copied().filter(widest).collect::<BTreeSet<_>>().into_iter().collect()
}

fn four() -> impl Strategy<Value = Network> {
    (any::<u32>(), 0_u8..=32)
        .prop_map(|(bits, prefix)| Network::around(IpAddr::from(Ipv4Addr::from_bits(bits)), prefix).unwrap())
}

fn six() -> impl Strategy<Value = Network> {
    (any::<u128>(), 0_u8..=128)
        .prop_map(|(bits, prefix)| Network::around(IpAddr::from(Ipv6Addr::from_bits(bits)), prefix).unwrap())
}

fn some_ports(least: usize) -> impl Strategy<Value = BTreeSet<u16>> {
    prop::collection::btree_set(prop_oneof![6370_u16..6390, 1_u16..], least..9)
}

fn routed() -> impl Strategy<Value = Routed> {
    let network =
        prop_oneof![four(), six()].prop_filter("every address is asked for in no rule", |one| one.prefix() > 0);
    (network, some_ports(1), some_ports(0)).prop_map(|(network, tcp, udp)| Routed {
        network,
        tcp: tcp.into_iter().collect(),
        udp: udp.into_iter().collect(),
    })
}

fn any_guard() -> impl Strategy<Value = Guard> {
    let lists = (prop::collection::vec(four(), 0..8), prop::collection::vec(six(), 0..8));
    (some_ports(0), some_ports(0), lists, prop::collection::vec(routed(), 0..3)).prop_map(
        |(tcp, udp, (four, six), routed)| {
            let (tcp, udp) = (tcp.into_iter().collect(), udp.into_iter().collect());
            Guard { intent: Intent { tcp, udp, allow4: apart(four), allow6: apart(six) }, routed }
        },
    )
}

#[test]
fn a_guard_is_loaded_listed_and_read_back_as_it_was_written() {
    unshare(CloneFlags::CLONE_NEWNET).expect("this suite needs root");
    let mut runner = TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
    let result = runner.run(&any_guard(), |guard| {
        let text = guard.text();
        prop_assert!(guard::is_one_table(&text));
        let loaded = format!("{}{text}", guard::REMOVE);
        for args in [&["-c", "-f", "-"][..], &["-f", "-"]] {
            nft_with(args, &loaded).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        }
        let listed = nft_with(&["-s", "-y", "list", "table", "inet", "preflight"], "").unwrap();
        prop_assert_eq!(guard::tidy(&listed), text);
        prop_assert_eq!(read(), Some(guard));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// A rule that somebody changed is never taken for ours: the fact would say that the guard stands.
#[test]
fn a_guard_that_somebody_changed_is_not_read_as_ours() {
    unshare(CloneFlags::CLONE_NEWNET).expect("this suite needs root");
    let networks = |words: &[&str]| words.iter().map(|word| word.parse().unwrap()).collect::<Vec<Network>>();
    let guard = Guard {
        intent: Intent {
            tcp: [6379, 6380, 26379].into_iter().collect(),
            udp: [53].into_iter().collect(),
            allow4: networks(&["172.20.0.0/16"]),
            allow6: networks(&["fd20::/16"]),
        },
        routed: vec![Routed {
            network: "172.30.0.0/24".parse().unwrap(),
            tcp: [6379].into_iter().collect(),
            udp: [].into_iter().collect(),
        }],
    };
    let text = guard.text();
    let load = |text: &str| nft_with(&["-f", "-"], &format!("{}{text}", guard::REMOVE)).unwrap();
    load(&text);
    assert_eq!(read().as_ref(), Some(&guard));
    for (from, to) in [
        ("iifname \"lo\" accept", "iifname \"eth0\" accept"),
        ("iifname \"lo\" accept", "iifname != \"lo\" accept"),
        ("iifname \"lo\" accept", "iifname \"l*\" accept"),
        ("ct state established,related accept", "ct state new accept"),
        ("ct state established,related accept", "ct state established,related,new accept"),
        ("ct state established,related accept", "ct state established,related drop"),
        ("priority -150", "priority -140"),
        ("policy accept", "policy drop"),
        ("tcp dport @tcp_ports", "tcp dport != @tcp_ports"),
        ("tcp dport @tcp_ports", "tcp sport @tcp_ports"),
        ("tcp dport @tcp_ports", "udp dport @tcp_ports"),
        ("tcp dport @tcp_ports", "ip saddr 10.0.0.0/8 tcp dport @tcp_ports"),
        ("type local goto restrict", "type != local goto restrict"),
        ("type local goto restrict", "type unicast goto restrict"),
        ("type local goto restrict", "type local jump restrict"),
        ("ip saddr 172.30.0.0/24", "ip saddr != 172.30.0.0/24"),
        ("ip saddr 172.30.0.0/24", "ip saddr 172.30.0.0/25"),
        ("iif oif missing", "iif oif exists"),
        ("fib saddr . iif oif missing", "fib saddr oif missing"),
        ("fib saddr . iif oif missing ", ""),
        ("tcp dport 6379 counter drop", "tcp dport 6380 counter drop"),
        ("tcp dport 6379 counter drop", "tcp dport 6379 counter accept"),
        ("ip saddr != 172.30.0.0/24", "ip saddr 172.30.0.0/24"),
        ("ip saddr != 172.30.0.0/24 ", ""),
        ("ip daddr 172.30.0.0/24", "ip daddr != 172.30.0.0/24"),
        ("ip daddr 172.30.0.0/24", "ip saddr 10.0.0.1 ip daddr 172.30.0.0/24"),
        ("tcp dport 6379 goto restrict", "tcp dport != 6379 goto restrict"),
        ("ip saddr @allow4 accept", "ip saddr != @allow4 accept"),
        ("ip saddr @allow4 accept", "ip daddr @allow4 accept"),
        ("ip saddr @allow4 accept", "ip saddr @allow4 tcp dport 6379 accept"),
        ("ip6 saddr @allow6 accept", "ip6 saddr @allow6 drop"),
        ("\t\tcounter drop", "\t\tcounter accept"),
        ("\t\tcounter drop", "\t\tcounter reject"),
        ("\t\tcounter drop", "\t\tlimit rate 1/second counter drop"),
        ("\t\tcounter drop", "\t\tip saddr 10.0.0.1 drop"),
        ("\t\tcounter drop\n", "\t\tip saddr 10.0.0.1 accept\n\t\tcounter drop\n"),
        ("\tchain restrict {", "\tchain other {\n\t}\n\tchain restrict {"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        load(&changed);
        assert_eq!(read(), None, "{to}");
    }
    // Other ports and other networks are another guard.
    for (from, to) in [("6379-6380", "6379"), ("172.20.0.0/16", "172.16.0.0/12"), ("172.30.0.0/24", "172.30.0.0/25")] {
        let other = text.replace(from, to);
        load(&other);
        assert_eq!(read().expect(to).text(), other);
    }
}
