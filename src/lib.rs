//! preflight: is this Linux host ready for a workload?
//!
//! Data flows one way: `catalog` (what is asked) and `probe` (what is there) meet in `judge`, whose findings become a
//! `report`. `docs/architecture.md` walks through the rooms.

pub mod apply;
pub mod catalog;
pub mod change;
pub mod cli;
pub mod drift;
pub mod exit;
pub mod facts;
pub mod host;
pub mod judge;
pub mod report;
pub mod subjects;
