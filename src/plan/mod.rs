//! From wishes to the ordered changes of a plan, and how a plan is shown.

mod behind;
pub mod files;
mod guarded;
mod model;
pub mod planner;
pub mod recovery;
pub mod render;
pub mod truth;
pub mod unfinished;

pub use model::{Change, Conflict, Kind, Manual, Plan, SCHEMA, Unfinished};
