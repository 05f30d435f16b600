//! Lists of ranges as the kernel prints them: `0-3,5` (`/sys/devices/system/cpu/online`, `ip_local_reserved_ports`).

use std::ops::RangeInclusive;

/// Reads a list such as `0-3,5`. Empty text is the empty list; `None` when it is not such a list.
pub fn parse(text: &str) -> Option<Vec<RangeInclusive<u32>>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.split(',').map(range).collect()
}

fn range(text: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

/// Digits only: `parse` of the standard library would take `+5` too.
fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_of_the_kernel_are_read() {
        assert_eq!(parse("0-3,5\n"), Some(vec![0..=3, 5..=5]));
        assert_eq!(parse("\n"), Some(vec![]));
        for text in ["3-1", "a", "1,,2", "-1", "1-", "+5", "1-2-3", "99999999999", "1,"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[0-9,\\- +a]{0,20}") {
            parse(&text);
        }

        #[test]
        fn what_is_printed_reads_back(ranges in proptest::collection::vec((any::<u16>(), any::<u16>()), 1..5)) {
            let ranges: Vec<_> = ranges.into_iter().map(|(a, b)| u32::from(a.min(b))..=u32::from(a.max(b))).collect();
            let text: Vec<String> = ranges.iter().map(|range| format!("{}-{}", range.start(), range.end())).collect();
            prop_assert_eq!(parse(&text.join(",")), Some(ranges));
        }
    }
}
