//! The guard as a text that `nft` lists or loads.

use super::{MISROUTED, TABLE};

/// What newer versions of nft list for [`MISROUTED`].
const MISROUTED_LATER: &str = "fib saddr . iif check missing";

/// What `nft -s -y list table` prints, in the form of [`Guard::text`]: long sets on one line, no empty lines.
pub fn tidy(listing: &str) -> String {
    let mut text = String::new();
    let listing = listing.replace(MISROUTED_LATER, MISROUTED);
    for line in listing.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        if text.ends_with(',') {
            text.push(' ');
            text.push_str(line.trim_start());
        } else {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(line);
        }
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// Whether a listed table belongs to the program that made it, as long as that runs: nobody else may change it.
pub fn is_owned(listing: &str) -> bool {
    let flags = listing.lines().filter_map(|line| line.trim().strip_prefix("flags "));
    flags.flat_map(|flags| flags.split(',')).any(|flag| flag.trim() == "owner")
}

/// Whether a text is our table and nothing besides, whatever stands in it: then loading it cannot touch anything else.
/// `include` would bring in a file, `;` and `#` could hide an end.
pub fn is_one_table(text: &str) -> bool {
    let Some(body) = text.strip_prefix(&format!("table {TABLE} {{\n")).and_then(|rest| rest.strip_suffix("\n}\n"))
    else {
        return false;
    };
    let mut depth = 0_i32;
    let mut quoted = false;
    for c in body.chars() {
        match c {
            '"' => quoted = !quoted,
            '\n' if quoted => return false,
            '#' | '\\' | '$' | '\0' => return false,
            '{' if !quoted => depth += 1,
            '}' if !quoted => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return false;
        }
    }
    let is_word = |word: &str| matches!(word, "include" | "define" | "redefine" | "undefine");
    depth == 0 && !quoted && !body.split(|c: char| !c.is_ascii_alphanumeric()).any(is_word)
}

#[cfg(test)]
mod tests {
    use super::super::tests::guard;
    use super::super::{Guard, Intent};
    use super::*;
    use crate::facts::network::Network;
    use proptest::prelude::*;

    /// With the lines of a wrapped set not joined in `tidy`, a guard of many networks would never be as planned.
    #[test]
    fn a_listing_reads_as_what_was_loaded() {
        let listing = "table inet preflight {\n\tset allow4 {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\telements = { 10.0.1.0/24, 10.0.2.0/23,\n\t\t\t     203.0.113.52 }\n\t}\n\n\tchain restrict {\n\t\tcounter drop\n\t}\n}\n";
        assert_eq!(
            tidy(listing),
            "table inet preflight {\n\tset allow4 {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\telements = { 10.0.1.0/24, 10.0.2.0/23, 203.0.113.52 }\n\t}\n\tchain restrict {\n\t\tcounter drop\n\t}\n}\n"
        );
    }

    #[test]
    fn a_table_with_an_owner_is_told_by_its_flags() {
        assert!(is_owned("table inet preflight { # progname nft\n\tflags owner\n}\n"));
        assert!(is_owned("table inet preflight { # progname x\n\tflags owner, persist\n}\n"));
        assert!(!is_owned(&guard().text()));
    }

    #[test]
    fn only_our_table_alone_is_loaded() {
        assert!(is_one_table(&guard().text()));
        assert!(is_one_table(&Guard::default().text()));
        for text in [
            "",
            "flush ruleset\n",
            "table inet filter {\n}\n",
            "table inet preflight {\n}\nflush ruleset\n}\n",
            "table inet preflight {\n\tchain a {\n\t}\n}\ndelete table inet filter\ntable inet preflight {\n}\n",
            "table inet preflight {\n\tinclude \"/etc/shadow\"\n}\n",
            "table inet preflight {\n\tchain a { comment \"x\n}\nflush ruleset\ntable inet preflight {\n\" }\n}\n",
            "table inet preflight {\n\t# {\n}\nflush ruleset\n#}\n}\n",
        ] {
            assert!(!is_one_table(text), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_listing_is_survived(text in "(\\PC|\n|\t|,){0,200}") {
            let once = tidy(&text);
            prop_assert_eq!(tidy(&once), once.clone());
            is_one_table(&text);
        }

        #[test]
        fn every_guard_is_one_table_and_tidy(
            ports in prop::collection::btree_set(any::<u16>(), 0..20),
            blocks in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..6)
        ) {
            let network = |(bits, prefix): &(u32, u8)| Network::around(std::net::Ipv4Addr::from_bits(*bits).into(), *prefix).unwrap();
            let intent = Intent { tcp: ports.into_iter().collect(), allow4: blocks.iter().map(network).collect(), ..Intent::default() };
            let text = Guard { intent, routed: Vec::new() }.text();
            prop_assert!(is_one_table(&text));
            prop_assert_eq!(tidy(&text), text);
        }
    }
}
