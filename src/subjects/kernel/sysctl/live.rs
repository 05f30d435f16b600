//! The value a setting has now.

use std::time::Instant;

use super::files::{path_of, simplified};
use crate::facts::value::sysctl_value;
use crate::facts::{Fact, Value};
use crate::host::Host;

/// The file of a setting: `/proc/sys/net/core/somaxconn`. `None` for a name that would lead out of /proc/sys.
pub fn file_of(key: &str) -> Option<String> {
    let path = path_of(key);
    let path = simplified(&path);
    let inside = !path.is_empty() && path.split('/').all(|part| part != "..");
    inside.then(|| format!("/proc/sys/{path}"))
}

/// Reads a setting by its dotted name, as sysctl(8) spells it (`net.ipv4.conf.eth0/100.forwarding`).
pub fn read(host: &Host, key: &str) -> Fact {
    let started = Instant::now();
    let Some(file) = file_of(key) else {
        return Fact::absent("not a setting's name", format!("/proc/sys/{key}"));
    };
    let fact = match host.read_text(&file) {
        Ok(text) => Fact::known(parse(&text), file),
        Err(error) => Fact::unreadable_of_kernel(host, &error, crate::facts::AbsentReason::NotOnThisKernel),
    };
    fact.took(started.elapsed())
}

/// The text of the file as a value.
pub fn parse(text: &str) -> Value {
    sysctl_value(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::State;

    #[test]
    fn names_are_paths_with_dots_and_slashes_swapped() {
        assert_eq!(file_of("vm.overcommit_memory").as_deref(), Some("/proc/sys/vm/overcommit_memory"));
        assert_eq!(
            file_of("net.ipv4.conf.eth0/100.forwarding").as_deref(),
            Some("/proc/sys/net/ipv4/conf/eth0.100/forwarding")
        );
        assert_eq!((file_of("vm.//.x"), file_of("a//.b/../c").is_some()), (None, false));
    }

    #[test]
    fn missing_and_read() {
        let fact = read(&Host::live(), "vm.no_such_setting");
        assert_eq!(fact.state, State::Absent("not on this kernel".into()));
        assert!(matches!(read(&Host::live(), "vm.overcommit_memory").value(), Some(Value::Int(0..=2))));
        let empty = tempfile::tempdir().unwrap();
        let fact = read(&Host::at_root(empty.path()), "vm.overcommit_memory");
        assert_eq!(fact.state, State::Absent("not a running host".into()));
    }
}
