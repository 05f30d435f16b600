//! The command line as users see it: arguments in, stdout, stderr and exit code out. No root, Docker or network.

mod catalogue;
mod entry_points;
mod help;
mod hostile;
mod lint;
mod report;
mod schema;
mod selection;
mod snapshot;
mod support;
