//! preflight: is this Linux host ready for a workload?
//!
//! Data flows one way: `catalog` (the requirements) and `subjects` (which read the host into `facts`) meet in `judge`, whose
//! findings become a `report`, or a plan (`change`) that `apply` carries out. `docs/architecture.md` describes the rooms.

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
