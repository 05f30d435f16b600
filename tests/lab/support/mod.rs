//! What several suites use.

pub(crate) mod docker;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod ssh;
pub(crate) mod vm;
pub(crate) mod wired;
