//! The firewall, with real traffic: a host with a real engine, a real ufw or firewalld and a workload, and a machine
//! beside it from which strangers and allowed clients really connect.
//!
//! packages: docker.io docker-compose containerd runc iptables nftables ufw firewalld dbus iproute2 mmdebstrap util-linux curl procps redis-server redis-tools openssh-server openssh-client strace
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test builds and looks at the machine directly")]

#[path = "firewall/disturb.rs"]
mod disturb;
#[path = "support/docker.rs"]
mod lab;
#[path = "firewall/matrix.rs"]
mod matrix;
#[path = "firewall/own.rs"]
mod own;
#[path = "firewall/paths.rs"]
mod paths;
#[path = "firewall/probe.rs"]
mod probe;
#[path = "firewall/world.rs"]
mod world;

use matrix::live;
use preflight::subjects::firewall::model::iptables::Variant;
use preflight::subjects::firewall::model::writer::Writer;
use world::{Kind, Manager};

const BOOKWORM: Kind = Kind { manager: Manager::None, guard: Writer::Nft, trixie: false };
const IPTABLES_NFT: Kind = Kind { guard: Writer::Iptables(Variant::Nft), ..BOOKWORM };
const IPTABLES_LEGACY: Kind = Kind { guard: Writer::Iptables(Variant::Legacy), ..BOOKWORM };
const TRIXIE: Kind = Kind { trixie: true, ..BOOKWORM };

#[test]
fn nft_without_a_manager() {
    live(BOOKWORM);
}

#[test]
fn nft_beside_ufw() {
    live(Kind { manager: Manager::Ufw, ..BOOKWORM });
}

#[test]
fn nft_beside_firewalld() {
    live(Kind { manager: Manager::Firewalld, ..BOOKWORM });
}

#[test]
fn iptables_nft_without_a_manager() {
    live(IPTABLES_NFT);
}

#[test]
fn iptables_nft_beside_ufw() {
    live(Kind { manager: Manager::Ufw, ..IPTABLES_NFT });
}

#[test]
fn iptables_nft_beside_firewalld() {
    live(Kind { manager: Manager::Firewalld, ..IPTABLES_NFT });
}

#[test]
fn iptables_legacy_without_a_manager() {
    live(IPTABLES_LEGACY);
}

#[test]
fn iptables_legacy_beside_ufw() {
    live(Kind { manager: Manager::Ufw, ..IPTABLES_LEGACY });
}

#[test]
fn iptables_legacy_beside_firewalld() {
    live(Kind { manager: Manager::Firewalld, ..IPTABLES_LEGACY });
}

#[test]
fn debian_13_without_a_manager() {
    live(TRIXIE);
}

#[test]
fn debian_13_beside_ufw() {
    live(Kind { manager: Manager::Ufw, ..TRIXIE });
}

#[test]
fn debian_13_beside_firewalld() {
    live(Kind { manager: Manager::Firewalld, ..TRIXIE });
}

#[test]
fn debian_13_iptables_nft_without_a_manager() {
    live(Kind { trixie: true, ..IPTABLES_NFT });
}

#[test]
fn debian_13_iptables_nft_beside_ufw() {
    live(Kind { manager: Manager::Ufw, trixie: true, ..IPTABLES_NFT });
}

#[test]
fn debian_13_iptables_nft_beside_firewalld() {
    live(Kind { manager: Manager::Firewalld, trixie: true, ..IPTABLES_NFT });
}
