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

use matrix::lives;
use preflight::subjects::firewall::model::iptables::Variant;
use preflight::subjects::firewall::model::writer::Writer;
use world::Manager;

const IPTABLES_NFT: Writer = Writer::Iptables(Variant::Nft);
const IPTABLES_LEGACY: Writer = Writer::Iptables(Variant::Legacy);

#[test]
fn nft_without_a_manager() {
    lives(Manager::None, Writer::Nft);
}

#[test]
fn nft_beside_ufw() {
    lives(Manager::Ufw, Writer::Nft);
}

#[test]
fn nft_beside_firewalld() {
    lives(Manager::Firewalld, Writer::Nft);
}

#[test]
fn iptables_nft_without_a_manager() {
    lives(Manager::None, IPTABLES_NFT);
}

#[test]
fn iptables_nft_beside_ufw() {
    lives(Manager::Ufw, IPTABLES_NFT);
}

#[test]
fn iptables_nft_beside_firewalld() {
    lives(Manager::Firewalld, IPTABLES_NFT);
}

#[test]
fn iptables_legacy_without_a_manager() {
    lives(Manager::None, IPTABLES_LEGACY);
}

#[test]
fn iptables_legacy_beside_ufw() {
    lives(Manager::Ufw, IPTABLES_LEGACY);
}

#[test]
fn iptables_legacy_beside_firewalld() {
    lives(Manager::Firewalld, IPTABLES_LEGACY);
}
