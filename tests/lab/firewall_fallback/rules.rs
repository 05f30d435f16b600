//! Whatever the intent: real programs take the text of every writer, and the kernel then has what was meant, as both readers
//! see it.

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::time::Duration;

use preflight::facts::network::Network;
use preflight::host::nfnetlink;
use preflight::subjects::firewall::model::boot;
use preflight::subjects::firewall::model::guard::Guard;
use preflight::subjects::firewall::model::guard::Routed;
use preflight::subjects::firewall::model::intent::Intent;
use preflight::subjects::firewall::model::intent::PortSet;
use preflight::subjects::firewall::model::iptables;
use preflight::subjects::firewall::model::iptables::FamilyRules;
use preflight::subjects::firewall::model::iptables::KernelGuard;
use preflight::subjects::firewall::model::iptables::Variant;
use preflight::subjects::firewall::model::rules::Ruleset;
use preflight::subjects::firewall::model::writer::Writer;
use preflight::subjects::firewall::read::legacy;
use preflight::subjects::firewall::read::nft;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn run(program: &str, args: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}\n{input}");
    String::from_utf8(output.stdout).unwrap()
}

fn restore(variant: Variant, v6: bool, more: &[&str], input: &str) {
    let tool = iptables::tool(v6, "-restore");
    run(variant.program(), &[&[tool.as_str(), "-w", "--noflush"], more].concat(), input);
}

/// As the knob reads it.
fn saved(variant: Variant) -> [FamilyRules; 2] {
    let of = |v6| {
        let listing = run(variant.program(), &[&iptables::tool(v6, "-save"), "-t", iptables::TABLE], "");
        iptables::of_save(&listing, v6)
    };
    [of(false), of(true)]
}

/// As the facts read it.
fn kernel(variant: Variant) -> KernelGuard {
    let rules = match variant {
        Variant::Nft => nft::parse(&nfnetlink::ruleset(Duration::from_secs(5)).unwrap().unwrap()),
        Variant::Legacy => {
            Ruleset { tables: [false, true].map(|v6| legacy::read(iptables::TABLE, v6).unwrap()).into() }
        }
    };
    iptables::read(&rules, variant)
}

fn any_guard() -> impl Strategy<Value = Guard> {
    let ports = || {
        let single = prop::collection::vec(any::<u16>(), 0..20);
        let range = (any::<u16>(), 0_u16..200).prop_map(|(first, more)| first..=first.saturating_add(more));
        (single, prop::collection::vec(range, 0..6))
            .prop_map(|(single, ranges)| single.into_iter().chain(ranges.into_iter().flatten()).collect::<PortSet>())
    };
    let v4 = (any::<u32>(), 0_u8..=32)
        .prop_map(|(bits, prefix)| Network::around(Ipv4Addr::from_bits(bits).into(), prefix).unwrap());
    let v6 = (any::<u128>(), 0_u8..=128)
        .prop_map(|(bits, prefix)| Network::around(Ipv6Addr::from_bits(bits).into(), prefix).unwrap());
    let networks4 = prop::collection::btree_set(v4.clone(), 0..6).prop_map(|all| all.into_iter().collect::<Vec<_>>());
    let networks6 = prop::collection::btree_set(v6.clone(), 0..6).prop_map(|all| all.into_iter().collect::<Vec<_>>());
    let network = prop_oneof![v4, v6].prop_filter("no network of containers is everything", |it| it.prefix() > 0);
    let routed = (network, ports(), ports()).prop_map(|(network, tcp, udp)| Routed { network, tcp, udp });
    (ports(), ports(), networks4, networks6, prop::collection::vec(routed, 0..6)).prop_map(
        |(tcp, udp, allow4, allow6, routed)| {
            let (allow4, allow6) = (widest(&allow4), widest(&allow6));
            Guard { intent: Intent { tcp, udp, allow4, allow6 }, routed }
        },
    )
}

/// Of an intent no network lies in another.
fn widest(all: &[Network]) -> Vec<Network> {
    let is_covered = |network: &&Network| all.iter().any(|other| other != *network && other.covers(network));
    all.iter().filter(|network| !is_covered(network)).copied().collect()
}

#[test]
fn every_guard_is_taken_by_the_programs_and_read_back_from_the_kernel() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
    let mut runner = TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
    let before = std::cell::RefCell::new(<[[FamilyRules; 2]; 2]>::default());
    let file = tempfile::NamedTempFile::new().unwrap();
    let outcome = runner.run(&any_guard(), |guard| {
        for (variant, found) in [Variant::Nft, Variant::Legacy].into_iter().zip(before.borrow_mut().iter_mut()) {
            let text = iptables::text(&guard, variant);
            let wanted = iptables::parse(&text, variant).unwrap();
            for (v6, (wanted, found)) in [false, true].into_iter().zip(wanted.iter().zip(found.iter())) {
                let load = iptables::load(Some(wanted), found).unwrap().unwrap();
                restore(variant, v6, &["--test"], &load);
                restore(variant, v6, &[], &load);
            }
            *found = saved(variant);
            prop_assert_eq!(iptables::join(variant, found), Some(text.clone()), "as listed");
            prop_assert_eq!(kernel(variant), KernelGuard::Guard(text.clone()), "as the kernel has it");
            // What a boot loads, from a file, and over what is there.
            for (v6, (_, text)) in
                [false, true].into_iter().zip(boot::files(Writer::Iptables(variant), &guard, &boot::Origin::default()))
            {
                std::fs::write(file.path(), text).unwrap();
                restore(variant, v6, &[file.path().to_str().unwrap()], "");
            }
            prop_assert_eq!(kernel(variant), KernelGuard::Guard(text), "as a boot loads it");
        }
        Ok(())
    });
    outcome.unwrap();
    for (variant, found) in [Variant::Nft, Variant::Legacy].into_iter().zip(before.borrow().iter()) {
        for (v6, found) in [false, true].into_iter().zip(found) {
            restore(variant, v6, &[], &iptables::load(None, found).unwrap().unwrap());
        }
        assert_eq!(kernel(variant), KernelGuard::None, "{variant:?}");
        assert_eq!(saved(variant), <[FamilyRules; 2]>::default());
    }
}

/// The table of nftables, too: taken by the program, and read back.
#[test]
fn every_table_is_taken_by_nft() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&any_guard(), |guard| {
        let (_, text) = boot::files(Writer::Nft, &guard, &boot::Origin::default()).remove(0);
        run("nft", &["-c", "-f", "-"], &text);
        Ok(())
    });
    outcome.unwrap();
}
