//! The entry points that the fuzz targets call. They stand beside the tests, which call them too.

#[path = "../tests/fuzz/entry_points.rs"]
mod entry_points;

pub use entry_points::*;
