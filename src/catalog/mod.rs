//! What is asked: checks, profiles, parameters and OS profiles, read from TOML with spans and validated.

pub mod os;
pub mod parameters;
