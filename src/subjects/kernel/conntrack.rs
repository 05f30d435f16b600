//! How full the connection tracking table is. A full one looks like packet loss.

use std::time::Instant;

use crate::facts::{Fact, Facts, Value};
use crate::subjects::context::Context;

const ID: &str = "conntrack.used";
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    if !cx.want.has(ID) {
        return;
    }
    let started = Instant::now();
    let fact = match (cx.host.read_text(COUNT), cx.host.read_text(MAX)) {
        (Ok(count), Ok(max)) => match percent(&count, &max) {
            Some(percent) => {
                Fact::known(Value::percent(percent), COUNT).note(format!("{} of {}", count.trim(), max.trim()))
            }
            None => Fact::unknown(format!("`{}` of `{}` is no share", count.trim(), max.trim()), None, COUNT),
        },
        (Err(error), _) | (_, Err(error)) => {
            Fact::unreadable_of_kernel(cx.host, &error, "the nf_conntrack module is not loaded")
        }
    };
    facts.live(ID, fact.took(started.elapsed()));
}

/// Whole percents, rounded up so that a full table is never shown as less; `None` for text that is no number, and for a
/// table without an upper bound.
pub fn percent(count: &str, max: &str) -> Option<i64> {
    let (count, max): (u64, u64) = (count.trim().parse().ok()?, max.trim().parse().ok()?);
    let percent =
        u128::from(count).checked_mul(100)?.checked_add(u128::from(max).saturating_sub(1))? / u128::from(max).max(1);
    (max > 0).then(|| i64::try_from(percent).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_share_is_rounded_up() {
        assert_eq!(percent("0\n", "262144\n"), Some(0));
        assert_eq!(percent("1", "262144"), Some(1));
        assert_eq!(percent("262143", "262144"), Some(100));
        assert_eq!(percent("300", "200"), Some(150));
        assert_eq!((percent("1", "0"), percent("", "1"), percent("-1", "1")), (None, None, None));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(count in "\\PC{0,20}", max in "[0-9]{0,20}") {
            let _ = percent(&count, &max);
        }
    }
}
