//! The firewall: what manages it, what its managers let through, and the rules, interfaces and connections of the kernel.

pub mod connections;
pub mod entries;
pub mod interfaces;
pub mod manager;
pub mod nft;
pub mod xtables;
