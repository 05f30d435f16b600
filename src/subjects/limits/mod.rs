//! Limits on open files: of services, of logins, of containers.

pub mod pam_limits;
pub mod places;
pub mod plan;
pub mod service;
