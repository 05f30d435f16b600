//! The firewall: what manages it, what its managers let through, and what the kernel's rules do with a connection.

pub mod bindings;
pub mod connections;
pub mod entries;
mod exposure;
mod guard;
pub mod interfaces;
mod kernel;
pub mod legacy;
mod listeners;
pub mod manager;
pub mod nft;
pub mod peers;
pub mod programs;
pub mod ruleset;
pub mod xtables;
mod zones;
