//! Subjects: all there is to know about one part of a host, one folder each.
//!
//! The order is their rank: a subject imports only what earlier ones re-export, and asks for the facts of others by id.
//! What concerns all of them stands at both ends: `context` before the first, the rest after the last.

pub mod context;

pub mod os;

pub mod docker;

pub mod kernel;

pub mod limits;

pub mod resources;

pub mod ports;

pub mod firewall;

pub mod time;

pub mod behind;
pub mod derive;
pub mod gather;
pub mod knobs;
pub mod planner;
pub mod script;
pub mod truth;
