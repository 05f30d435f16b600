//! The clock.

pub mod read;
