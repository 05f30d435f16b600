//! The firewall, with real traffic: a host with a real engine, a real ufw or firewalld and a workload, and a machine
//! beside it from which strangers and allowed clients really connect.
//!
//! packages: docker.io docker-compose containerd runc iptables nftables ufw firewalld dbus iproute2 mmdebstrap util-linux curl procps redis-server redis-tools openssh-server openssh-client strace
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test builds and looks at the machine directly")]

#[path = "firewall/disturb.rs"]
mod disturb;
#[path = "firewall/guards.rs"]
mod guards;
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

use guards::Guard;
use matrix::live;
use world::{Iptables, Kind, Manager};

const BOOKWORM: Kind = Kind { manager: Manager::None, iptables: Iptables::Nft, trixie: false };

#[test]
fn matrix_without_a_manager() {
    live(BOOKWORM, &[Guard::Nft, Guard::Iptables]);
}

#[test]
fn matrix_beside_ufw() {
    live(Kind { manager: Manager::Ufw, ..BOOKWORM }, &[Guard::Nft, Guard::Iptables]);
}

#[test]
fn matrix_beside_firewalld() {
    live(Kind { manager: Manager::Firewalld, ..BOOKWORM }, &[Guard::Nft, Guard::Iptables]);
}

#[test]
fn matrix_legacy_without_a_manager() {
    live(Kind { iptables: Iptables::Legacy, ..BOOKWORM }, &[Guard::Iptables]);
}

#[test]
fn matrix_legacy_beside_ufw() {
    live(Kind { manager: Manager::Ufw, iptables: Iptables::Legacy, ..BOOKWORM }, &[Guard::Iptables]);
}

#[test]
fn matrix_legacy_beside_firewalld() {
    live(Kind { manager: Manager::Firewalld, iptables: Iptables::Legacy, ..BOOKWORM }, &[Guard::Iptables]);
}

#[test]
fn matrix_debian_13_without_a_manager() {
    live(Kind { trixie: true, ..BOOKWORM }, &[Guard::Nft]);
}

#[test]
fn matrix_debian_13_beside_ufw() {
    live(Kind { manager: Manager::Ufw, trixie: true, ..BOOKWORM }, &[Guard::Nft]);
}

#[test]
fn matrix_debian_13_beside_firewalld() {
    live(Kind { manager: Manager::Firewalld, trixie: true, ..BOOKWORM }, &[Guard::Nft]);
}

#[test]
fn preflight_without_a_manager() {
    live(BOOKWORM, &[Guard::Preflight]);
}

#[test]
fn preflight_beside_ufw() {
    live(Kind { manager: Manager::Ufw, ..BOOKWORM }, &[Guard::Preflight]);
}

#[test]
fn preflight_beside_firewalld() {
    live(Kind { manager: Manager::Firewalld, ..BOOKWORM }, &[Guard::Preflight]);
}

#[test]
fn preflight_debian_13_without_a_manager() {
    live(Kind { trixie: true, ..BOOKWORM }, &[Guard::Preflight]);
}

#[test]
fn preflight_debian_13_beside_ufw() {
    live(Kind { manager: Manager::Ufw, trixie: true, ..BOOKWORM }, &[Guard::Preflight]);
}
