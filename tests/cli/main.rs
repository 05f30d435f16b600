//! The command line as users see it: arguments in, stdout, stderr and exit code out. No root, Docker or network.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests make the files and processes they look at")]

mod attack;
mod catalogue;
mod docs;
mod entry_points;
mod fixture_tables;
mod fixtures;
mod guarantees;
mod help;
mod hostile;
mod house;
mod journals;
mod lint;
mod panics;
mod ports;
mod report;
mod schema;
mod selection;
mod snapshot;
mod support;
mod tune;
mod unfinished;
