//! The firewall, with real traffic: a host with a real engine, a real ufw or firewalld and a workload, and a machine
//! beside it from which strangers and allowed clients really connect.
//!
//! packages: docker.io docker-compose containerd runc iptables nftables ufw firewalld dbus iproute2 mmdebstrap util-linux curl procps redis-server redis-tools openssh-server openssh-client strace

mod disturb;
mod matrix;
mod own;
mod paths;
mod probe;
mod world;

use matrix::live;
use preflight::firewall::iptables::Variant;
use preflight::firewall::writer::Writer;
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
