//! What preflight says of a firewall, beside what the firewall does: some hundred made-up rule sets, each loaded into a
//! kernel, and real connections through it.
//!
//! packages: iproute2 iptables nftables procps util-linux

mod guard;
mod layouts;
mod witness;
mod world;

use layouts::Layout;
use std::sync::Mutex;
use witness::{Count, look};
use world::World;

/// Another number, another set of layouts.
const FIRST: u64 = 1000;
const LAYOUTS: u64 = 240;

/// How many look at once; most of their time they wait for packets that do not come.
const WORLDS: u64 = 3;

/// `PREFLIGHT_SEED=n` looks at one of them; `PREFLIGHT_LAYOUT=file` at one that was printed and made shorter by hand.
///
/// Seen failing. Rule sets and connections of one run were kept, and judged again by an evaluator with one thing broken. Of
/// its 240 rule sets so many were then judged wrongly: policies ignored, 62; `goto` as `jump`, 8; priorities reversed, 43;
/// negation ignored, 181; `return` as `accept`, 55; an accept on the input hook ending the way through all chains, 29; DNAT
/// ignored, 107; ranges of sets one too long, 17; names of interfaces with `*` as whole names, 22; conntrack asked before it
/// has looked, 4; what is of one family asked of both, 2.
#[test]
fn what_is_said_of_a_rule_set_is_what_it_does() {
    let (count, failures) = (Mutex::new(Count::default()), Mutex::new(Vec::<String>::new()));
    if let Ok(path) = std::env::var("PREFLIGHT_LAYOUT") {
        let world = World::new();
        let layout = Layout::read(&std::fs::read_to_string(path).unwrap());
        let found = look(&world, &layout).unwrap();
        println!("{found:?}");
        assert!(found.wrong.is_empty(), "{}", found.wrong.join("\n"));
        return;
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (first, layouts) = match number("PREFLIGHT_SEED") {
        Some(seed) => (seed, number("PREFLIGHT_LAYOUTS").unwrap_or(1)),
        None => (FIRST, LAYOUTS),
    };
    std::thread::scope(|scope| {
        for part in 0..WORLDS.min(layouts) {
            let (count, failures) = (&count, &failures);
            scope.spawn(move || {
                let world = World::new();
                for seed in (first..first + layouts).filter(|seed| seed % WORLDS.min(layouts) == part) {
                    let layout = Layout::of(seed);
                    match look(&world, &layout) {
                        Ok(found) => {
                            count.lock().unwrap().add(&found.count);
                            if !found.wrong.is_empty() {
                                let wrong = found.wrong.join("\n");
                                failures.lock().unwrap().push(format!("PREFLIGHT_SEED={seed}\n{layout}{wrong}"));
                            }
                        }
                        Err(error) => {
                            failures.lock().unwrap().push(format!("PREFLIGHT_SEED={seed}: {error}\n{layout}"));
                        }
                    }
                }
            });
        }
    });
    let (count, failures) = (count.into_inner().unwrap(), failures.into_inner().unwrap());
    println!("{count}");
    let shown: Vec<&str> = failures.iter().take(4).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} of {layouts} layouts:\n{}", failures.len(), shown.join("\n\n"));
    if first == FIRST && layouts == LAYOUTS {
        count.assert_enough();
    }
}
