//! The suites that need root, namespaces, Docker or a virtual machine: one module each. `tests/run` runs them by these names.
#![expect(clippy::disallowed_methods, reason = "a test builds, disturbs and looks at the machine directly")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may stop anywhere, and says what it counted")]

mod ansible;
mod apply;
mod broken_host;
mod docker;
mod endtoend;
mod firewall;
mod firewall_edits;
mod firewall_fallback;
mod firewall_managers;
mod firewall_rules;
mod install;
mod lockout;
mod nspawn;
mod oracle;
mod ports;
mod release;
mod resources;
mod sysctl_boot;
mod thp_boot;
mod tune;
mod userspace;
mod vm;

mod support;
