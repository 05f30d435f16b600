//! The firewall: who may reach the workload's ports, and what says so. Pure: the host is read by `probe`, and changed by
//! `apply`.

pub mod intent;
