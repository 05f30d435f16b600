//! Reports: the model, and one file for every way to show it. Renderers are pure functions of a finished report.

pub mod escape;
pub mod json;
pub mod model;
pub mod show;
pub mod terminal;
pub mod wrap;
