//! The firewall: what manages it, and what its managers let through.

pub mod entries;
pub mod manager;
