//! What was applied against what is there.

pub mod unfinished;
