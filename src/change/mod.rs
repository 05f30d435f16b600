//! From wishes to the ordered changes of a plan, and how a plan is shown.

pub mod files;
pub mod id;
pub mod knob;
mod model;
pub mod owner;
pub mod planner;
pub mod render;
pub mod shell;
pub mod state;
pub mod target;

pub use model::{Change, Conflict, Kind, Manual, Plan, SCHEMA, Unfinished};
