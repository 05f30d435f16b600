//! The requirements: checks, profiles, parameters and OS profiles, read from TOML with places and validated.

pub mod check;
mod day;
pub mod definition;
pub mod diagnostic;
pub mod embedded;
pub mod glob;
pub mod library;
pub mod lint;
pub mod load;
pub mod os;
pub mod parameters;
pub mod predicate;
pub mod profile;
pub mod reader;
pub mod tree;
pub mod waiver;

pub use load::{Catalogue, load};
