//! The two knobs that are of no subject: files and links of our own, at places that subjects name.

pub mod file;
pub mod link;
pub mod place;
