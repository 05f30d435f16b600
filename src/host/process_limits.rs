//! The limits of a process, as the kernel shows them.

/// The hard limit on open files in `/proc/PID/limits`; "unlimited" is the largest number. Not procfs-core's parser: it
/// panics (subtraction overflow) on text that is no such table, and a fixture root can hold anything.
pub fn hard_limit(text: &str) -> Option<i64> {
    // `Max open files            1024                 524288               files     `
    let row = text.lines().find_map(|line| line.strip_prefix("Max open files "))?;
    match row.split_whitespace().nth(1)? {
        "unlimited" => Some(i64::MAX),
        number => Some(i64::try_from(number.parse::<u64>().ok()?).unwrap_or(i64::MAX)),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests compare with this process's own limits")]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    /// This process's table with another hard limit.
    pub(crate) fn limits(hard: &str) -> String {
        let own = fs::read_to_string("/proc/self/limits").unwrap();
        own.lines()
            .map(|line| {
                if line.starts_with("Max open files") {
                    format!("Max open files            1024                 {hard:<20} files     \n")
                } else {
                    format!("{line}\n")
                }
            })
            .collect()
    }

    #[test]
    fn the_hard_limit_is_read_from_the_kernels_table() {
        assert_eq!(hard_limit(&limits("524288")), Some(524_288));
        assert_eq!(hard_limit(&limits("unlimited")), Some(i64::MAX));
        assert_eq!(hard_limit("Max open files 1"), None);
        let own = hard_limit(&fs::read_to_string("/proc/self/limits").unwrap());
        let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(own, Some(i64::try_from(hard).unwrap_or(i64::MAX)), "getrlimit(2) says otherwise");
    }

    proptest! {
        #[test]
        fn any_table_is_read_or_refused(text in "[\\PC\n]{0,200}", line in "\\PC{0,60}") {
            let _ = hard_limit(&text);
            let _ = hard_limit(&limits("7").replace("Max open files", &line));
        }
    }
}
