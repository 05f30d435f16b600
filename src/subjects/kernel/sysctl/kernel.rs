//! What the kernel makes of the text written to a setting, and what it has before anybody writes.
//!
//! The table is dated 2026-11-22 (Linux 6.18); the lab compares its network part with a fresh network namespace.

use crate::facts::value::sysctl_value;
use crate::facts::{Value, Version};

/// A setting whose kernel default is known.
#[derive(Debug)]
struct Setting {
    key: &'static str,
    /// Newest first: since which kernel, and the value.
    defaults: &'static [((u64, u64), &'static str)],
    /// What the kernel accepts, when it is a number.
    range: std::ops::RangeInclusive<i64>,
}

const INT: std::ops::RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;
const COUNT: std::ops::RangeInclusive<i64> = 0..=i32::MAX as i64;
const BYTE: std::ops::RangeInclusive<i64> = 0..=255;

macro_rules! settings {
    ($($key:literal $range:expr, $($since:tt $value:literal),+;)*) => {
        &[$(Setting { key: $key, range: $range, defaults: &[$(($since, $value)),+] }),*]
    };
}

const SETTINGS: &[Setting] = settings! {
    "fs.aio-max-nr" COUNT, (4, 18) "65536";
    "fs.inotify.max_queued_events" COUNT, (4, 18) "16384";
    "fs.inotify.max_user_instances" COUNT, (4, 18) "128";
    "fs.nr_open" 64..=i64::MAX, (4, 18) "1048576";
    "net.core.somaxconn" COUNT, (5, 4) "4096", (4, 18) "128";
    "net.core.netdev_max_backlog" INT, (4, 18) "1000";
    "net.ipv4.ip_forward" INT, (4, 18) "0";
    "net.ipv4.ip_local_port_range" 0..=65535, (4, 18) "32768 60999";
    "net.ipv4.ip_local_reserved_ports" INT, (4, 18) "";
    "net.ipv4.ip_nonlocal_bind" INT, (4, 18) "0";
    "net.ipv4.ip_unprivileged_port_start" 0..=65535, (4, 18) "1024";
    "net.ipv4.tcp_abort_on_overflow" INT, (4, 18) "0";
    "net.ipv4.tcp_fastopen" INT, (4, 18) "1";
    "net.ipv4.tcp_fin_timeout" INT, (4, 18) "60";
    "net.ipv4.tcp_keepalive_intvl" INT, (4, 18) "75";
    "net.ipv4.tcp_keepalive_probes" BYTE, (4, 18) "9";
    "net.ipv4.tcp_keepalive_time" INT, (4, 18) "7200";
    "net.ipv4.tcp_max_syn_backlog" INT, (4, 18) "";
    "net.ipv4.tcp_retries2" BYTE, (4, 18) "15";
    "net.ipv4.tcp_sack" BYTE, (4, 18) "1";
    "net.ipv4.tcp_slow_start_after_idle" BYTE, (4, 18) "1";
    "net.ipv4.tcp_syn_retries" 1..=127, (4, 18) "6";
    "net.ipv4.tcp_synack_retries" BYTE, (4, 18) "5";
    "net.ipv4.tcp_syncookies" BYTE, (4, 18) "1";
    "net.ipv4.tcp_timestamps" BYTE, (4, 18) "1";
    "net.ipv4.tcp_tw_reuse" 0..=2, (4, 19) "2", (4, 18) "0";
    "net.ipv4.tcp_window_scaling" BYTE, (4, 18) "1";
    "net.unix.max_dgram_qlen" INT, (4, 18) "10";
    "vm.dirty_background_ratio" 0..=100, (4, 18) "10";
    "vm.dirty_ratio" 0..=100, (4, 18) "20";
    "vm.max_map_count" COUNT, (4, 18) "65530";
    "vm.overcommit_memory" 0..=2, (4, 18) "0";
    "vm.overcommit_ratio" INT, (4, 18) "50";
    "vm.panic_on_oom" 0..=2, (4, 18) "0";
    "vm.swappiness" 0..=200, (4, 18) "60";
    "vm.vfs_cache_pressure" COUNT, (4, 18) "100";
    "vm.zone_reclaim_mode" COUNT, (4, 18) "0";
};

/// Text, though it may look like a number.
const TEXT: &[&str] = &["net.ipv4.ip_local_reserved_ports"];

/// Derived from the size of the connection table, so that no table can hold it.
const SYN_BACKLOG: &str = "net.ipv4.tcp_max_syn_backlog";

/// Settings of which a new network namespace does not get the default: it copies the first namespace's devices'
/// settings (`devinet_init_net`), and Docker sets the others itself.
const NOT_DEFAULT_IN_CONTAINERS: &[&str] =
    &["net.ipv4.ip_forward", "net.ipv4.conf.", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"];

fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// All keys of the table.
pub fn known_keys() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.key)
}

/// The value of a setting that nobody sets, on a kernel of this version. `tcp_ehash_entries` is the text of that
/// setting (since 6.1), from which tcp_max_syn_backlog follows (`tcp_sk_init` in `net/ipv4/tcp_ipv4.c`).
pub fn default(key: &str, kernel: Option<&Version>, tcp_ehash_entries: Option<&str>) -> Option<Value> {
    if key == SYN_BACKLOG {
        // A namespace that shares the first one's table shows its size negated.
        let entries = tcp_ehash_entries?.trim().parse::<i64>().ok()?.checked_abs()?;
        return Some(Value::Int((entries / 128).max(128)));
    }
    let defaults = setting(key)?.defaults;
    let value = match kernel {
        Some(kernel) => {
            let since = |((major, minor), _): &&((u64, u64), _)| kernel.is_at_least(*major, *minor);
            defaults.iter().find(since).or(defaults.last())?.1
        }
        // Without a version only what never changed is known.
        None if defaults.iter().all(|(_, value)| *value == defaults[0].1) => defaults[0].1,
        None => return None,
    };
    Some(sysctl_value(value))
}

/// The lower bound of a default that cannot be determined: before 6.1 no file shows the size of the connection table, and
/// `tcp_sk_init` takes a part of it, but 128 at least.
pub fn least(key: &str) -> Option<Value> {
    (key == SYN_BACKLOG).then_some(Value::Int(128))
}

/// Whether a new network namespace starts with the kernel's default.
pub fn is_default_in_containers(key: &str) -> bool {
    !NOT_DEFAULT_IN_CONTAINERS.iter().any(|prefix| key.starts_with(prefix))
}

/// How the kernel reads a setting: as one or more numbers, or as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Numbers(usize),
    Text,
}

/// The shape of a setting, from the table or from the value it has now.
pub fn shape(key: &str, live: Option<&Value>) -> Shape {
    if TEXT.contains(&key) {
        return Shape::Text;
    }
    let default = default(key, None, Some("0"));
    match live.or(default.as_ref()) {
        Some(Value::Int(_)) => Shape::Numbers(1),
        Some(Value::Text(text)) => {
            let words = text.split(' ').count();
            if words > 1 && text.split(' ').all(|word| word.parse::<i64>().is_ok()) {
                Shape::Numbers(words)
            } else {
                Shape::Text
            }
        }
        _ if setting(key).is_some() => Shape::Numbers(1),
        _ => Shape::Text,
    }
}

/// The words of a line of numbers: only blanks, tabs and line feeds may stand between them (`proc_wspace_sep`).
fn words(text: &str) -> Vec<&str> {
    text.split([' ', '\t', '\n']).filter(|word| !word.is_empty()).collect()
}

/// A number as `proc_dointvec` reads it: decimal, `0x…` or octal after a leading zero; no plus sign.
fn number(word: &str) -> Option<i64> {
    let (sign, digits) = word.strip_prefix('-').map_or((1, word), |digits| (-1, digits));
    let (base, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hexadecimal) => (16, hexadecimal),
        None if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        None => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    i64::from_str_radix(digits, base).ok()?.checked_mul(sign)
}

/// Whether the kernel takes this text. Only for settings of the table is a refusal sure enough to count.
pub fn accepts(key: &str, text: &str) -> bool {
    let Some(setting) = setting(key) else { return true };
    let Shape::Numbers(count) = shape(key, None) else { return true };
    let words = words(text);
    let numbers: Option<Vec<i64>> = words.iter().take(count).map(|word| number(word)).collect();
    let Some(numbers) = numbers.filter(|numbers| !numbers.is_empty()) else { return false };
    let in_range = numbers.iter().all(|number| setting.range.contains(number));
    // `ipv4_local_port_range()`: the lower end may not be the higher.
    in_range && (numbers.len() < 2 || numbers[0] <= numbers[1])
}

/// The value that the kernel shows after this text was written.
pub fn value(text: &str, shape: Shape) -> Value {
    let folded = sysctl_value(text);
    let Shape::Numbers(count) = shape else { return folded };
    let words = words(text);
    if words.len() < count {
        return folded;
    }
    // What follows the last number that fits is ignored.
    let numbers: Option<Vec<String>> = words.iter().take(count).map(|word| Some(number(word)?.to_string())).collect();
    numbers.map_or(folded, |numbers| sysctl_value(&numbers.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn defaults_follow_the_kernel() {
        let somaxconn = |kernel: &str| default("net.core.somaxconn", Some(&version(kernel)), None);
        assert_eq!(somaxconn("6.1.0-26-amd64"), Some(Value::Int(4096)));
        assert_eq!(somaxconn("5.4.0"), Some(Value::Int(4096)));
        assert_eq!(somaxconn("4.18.0-553.el8"), Some(Value::Int(128)));
        assert_eq!(default("net.core.somaxconn", None, None), None);
        assert_eq!(default("vm.overcommit_memory", None, None), Some(Value::Int(0)));
        assert_eq!(default("vm.nonsense", Some(&version("6.1")), None), None);
        assert_eq!(default("net.ipv4.ip_local_port_range", None, None), Some(Value::Text("32768 60999".into())));
        assert_eq!(default("net.ipv4.ip_local_reserved_ports", None, None), Some(Value::Text(String::new())));
    }

    #[test]
    fn the_syn_backlog_follows_the_connection_table() {
        let of = |entries: &str| default("net.ipv4.tcp_max_syn_backlog", None, Some(entries));
        assert_eq!(of("262144\n"), Some(Value::Int(2048)));
        assert_eq!(of("-262144\n"), Some(Value::Int(2048)));
        assert_eq!(of("1024"), Some(Value::Int(128)));
        assert_eq!((of("x"), default("net.ipv4.tcp_max_syn_backlog", None, None)), (None, None));
    }

    #[test]
    fn text_becomes_what_the_kernel_shows() {
        let one = Shape::Numbers(1);
        for (text, shown) in [("0x10", "16"), ("010", "8"), ("5 6", "5"), ("-1", "-1"), ("5x", "5x"), ("", "")] {
            assert_eq!(value(text, one), sysctl_value(shown), "{text}");
        }
        assert_eq!(value("1024 \t 0xffff", Shape::Numbers(2)), Value::Text("1024 65535".into()));
        assert_eq!(value("010", Shape::Text), Value::Int(10));
    }

    #[test]
    fn what_the_kernel_refuses() {
        for (text, taken) in [
            ("4096", true),
            ("0x10", true),
            ("5 6", true),
            ("+5", false),
            ("5x", false),
            ("-1", false),
            ("", false),
            ("99999999999", false),
            ("08", false),
        ] {
            assert_eq!(accepts("net.core.somaxconn", text), taken, "{text}");
        }
        assert!(accepts("net.ipv4.ip_local_reserved_ports", "") && accepts("vm.unheard_of", "text"));
        assert!(
            accepts("net.ipv4.ip_local_port_range", "1024 65535") && !accepts("net.ipv4.ip_local_port_range", "9 8")
        );
        assert!(!accepts("vm.overcommit_memory", "3"));
    }

    #[test]
    fn the_table_is_sorted_by_kernel_and_holds_each_key_once() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[..index].iter().all(|other| other.key != setting.key), "{} twice", setting.key);
            assert!(setting.defaults.windows(2).all(|pair| pair[0].0 > pair[1].0), "{}", setting.key);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,20}", count in 0_usize..4) {
            let _ = (value(&text, Shape::Numbers(count)), accepts("net.ipv4.ip_local_port_range", &text), accepts("vm.swappiness", &text));
        }

        #[test]
        fn a_number_is_itself(number in any::<i32>()) {
            prop_assert_eq!(value(&number.to_string(), Shape::Numbers(1)), Value::Int(i64::from(number)));
        }
    }
}
