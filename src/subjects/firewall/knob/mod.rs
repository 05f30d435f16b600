//! What keeps untrusted sources out, written: the guard in nftables or iptables, entries of ufw and firewalld.

pub mod firewalld;
pub mod guard;
pub mod guard_iptables;
pub mod service;
pub mod ufw;
