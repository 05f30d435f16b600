//! The firewall: who may reach the workload's ports, and what says so. Pure: the host is read by `probe`, and changed by
//! `apply`.

pub mod boot;
pub mod detour;
pub mod entry;
pub mod evaluate;
pub mod firewalld;
pub mod guard;
pub mod intent;
pub mod iptables;
pub mod packet;
pub mod region;
pub mod rules;
pub mod ufw;
pub mod writer;
pub mod xml;
