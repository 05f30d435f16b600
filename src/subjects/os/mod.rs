//! What system this is: distribution, kernel of the process, container, tools.

pub mod derive;
pub mod host_container;
pub mod identity;
pub mod kernel;
pub mod os_release;
pub mod tools;
