//! What would be changed, before anything is: the plan as people and programs read it.

pub mod model;

pub use model::{Change, Conflict, Kind, Manual, Plan};
