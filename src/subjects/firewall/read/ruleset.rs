//! What the rules of the firewall tell, as the kernel has them now.

use std::collections::BTreeSet;
use std::io;
use std::time::Instant;

use super::exposure::{self, EXPOSURE, OTHERS, PARITY};
use super::kernel::{PATIENCE, SOURCE, source};
use super::{guard, legacy, nft};
use crate::facts::{Fact, Facts, Layer, Value};
use crate::host::{Host, describe, nfnetlink};
use crate::subjects::context::Context;
use crate::subjects::docker::containers::Containers;
use crate::subjects::firewall::model::rules::{Ruleset, Step};

const GUARD: &str = "firewall.guard";
const DROPPED: &str = "firewall.guard-dropped";
const DEAD: &str = "firewall.docker-user-dead";
const BACKENDS: &str = "firewall.backends";

/// Where the old iptables shows that it has tables, and so rules that nf_tables does not know.
const LEGACY: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// Everything about the firewall that the rules tell. Docker has answered by now.
pub fn conclude(cx: &Context<'_>, containers: &Containers, facts: &mut Facts) {
    let singles: Vec<&str> =
        [GUARD, DROPPED, OTHERS, PARITY, DEAD, BACKENDS].into_iter().filter(|id| cx.want.has(id)).collect();
    if singles.is_empty() && !cx.want.any(EXPOSURE) {
        return;
    }
    let ids = || {
        let exposure = cx.want.family(EXPOSURE).map(|port| format!("{EXPOSURE}{port}"));
        exposure.chain(singles.iter().map(|id| (*id).to_owned()))
    };
    let started = Instant::now();
    if cx.want.has(GUARD) {
        facts.insert(GUARD, Layer::Boot, guard::at_boot(cx.host));
    }
    if !cx.host.is_live() {
        ids().for_each(|id| facts.live(id, Fact::not_running(SOURCE)));
        return;
    }
    let rules = match nfnetlink::ruleset(PATIENCE) {
        Ok(bytes) => bytes.map(|bytes| nft::parse(&bytes)).unwrap_or_default(),
        Err(error) => {
            let fact = unreadable(&error).took(started.elapsed());
            ids().for_each(|id| facts.live(id, fact.clone()));
            return;
        }
    };
    let legacy = legacy_tables(cx.host);
    let took = started.elapsed();
    let mut live = |id: &str, fact: &dyn Fn() -> Fact| {
        if cx.want.has(id) {
            facts.live(id, fact().took(took));
        }
    };
    live(BACKENDS, &|| backends(&rules, &legacy));
    let all = legacy.and_then(|names| with_legacy(rules, &names));
    let of = |read: fn(&Ruleset) -> Fact| match &all {
        Ok(all) => read(all),
        Err(why) => Fact::unknown(why.clone(), Some("iptables-legacy-save; ip6tables-legacy-save"), LEGACY.join(", ")),
    };
    live(GUARD, &|| of(guard::live));
    live(DROPPED, &|| of(guard::dropped));
    live(DEAD, &|| of(docker_user_dead));
    if cx.want.any(EXPOSURE) || cx.want.has(PARITY) || cx.want.has(OTHERS) {
        exposure::conclude(cx, containers, &all, facts);
    }
}

fn unreadable(error: &io::Error) -> Fact {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    let text = if denied { "only root may read the firewall's rules".to_owned() } else { describe(error) };
    Fact::unknown(text, denied.then_some("run preflight as root"), SOURCE)
}

/// Names of tables, IPv4 and IPv6.
type Names = [BTreeSet<String>; 2];

/// The tables of the old iptables; an error when that cannot be determined.
fn legacy_tables(host: &Host) -> Result<Names, String> {
    let names = |path: &str| {
        // Not there: no module of the old iptables is loaded.
        let text = host.read_of_kernel(path).map_err(|error| error.to_string())?.unwrap_or_default();
        Ok::<_, String>(text.split_whitespace().map(str::to_owned).collect())
    };
    Ok([names(LEGACY[0])?, names(LEGACY[1])?])
}

/// The rules of nf_tables and those of the old iptables.
fn with_legacy(mut rules: Ruleset, names: &Names) -> Result<Ruleset, String> {
    for (v6, names) in [false, true].into_iter().zip(names) {
        for name in names {
            rules.tables.push(legacy::read(name, v6)?);
        }
    }
    Ok(rules)
}

fn backends(rules: &Ruleset, legacy: &Result<Names, String>) -> Fact {
    let legacy = match legacy {
        Ok(tables) => tables.iter().any(|names| !names.is_empty()),
        Err(error) => {
            return Fact::unknown(error.clone(), Some("run preflight as root, with /proc mounted"), LEGACY[0]);
        }
    };
    let word = match (!rules.tables.is_empty(), legacy) {
        (false, false) => "none",
        (true, false) => "nft",
        (false, true) => "legacy",
        (true, true) => "mixed",
    };
    Fact::known(Value::Text(word.into()), format!("{SOURCE}, {}", LEGACY[0]))
}

/// Rules in DOCKER-USER that nothing leads to: Docker's nftables backend has no such jump.
fn docker_user_dead(rules: &Ruleset) -> Fact {
    const CHAIN: &str = "DOCKER-USER";
    for table in &rules.tables {
        let Some(chain) = table.chains.get(CHAIN) else { continue };
        let says_something = chain.rules.iter().any(|rule| {
            rule.steps.iter().any(|step| {
                !matches!(
                    step,
                    Step::Count { .. } | Step::Verdict(crate::subjects::firewall::model::rules::Verdict::Return)
                )
            })
        });
        let is_reached =
            table.chains.values().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.steps).any(|step| {
                use crate::subjects::firewall::model::rules::Verdict;
                matches!(step, Step::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) if name == CHAIN)
            });
        if says_something && !is_reached {
            let family = table.family.name();
            return Fact::known(Value::Bool(true), source(rules))
                .note(format!("{family} {}: no chain jumps to {CHAIN}", table.name));
        }
    }
    Fact::known(Value::Bool(false), source(rules))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the files they read")]
mod tests {
    use super::*;
    use crate::subjects::firewall::model::rules::{Hook, Rule, Verdict as Say};
    use crate::subjects::firewall::read::kernel::samples::{base, rule, table};

    /// Seen failing with the jump not looked for, and with a chain that only returns taken for rules.
    #[test]
    fn docker_user_is_dead_when_it_says_something_and_nothing_leads_there() {
        let drop = vec![rule(vec![Step::Verdict(Say::Drop)])];
        let back = vec![rule(vec![Step::Count { packets: 1, bytes: 1 }, Step::Verdict(Say::Return)])];
        let of = |user: &Vec<Rule>, forward: Vec<Rule>| {
            let chains = [("FORWARD", Some(base(Hook::Forward, false)), forward), ("DOCKER-USER", None, user.clone())];
            docker_user_dead(&Ruleset { tables: vec![table("filter", &chains)] }).value().cloned()
        };
        let jump = || vec![rule(vec![Step::Verdict(Say::Jump("DOCKER-USER".into()))])];
        assert_eq!(of(&drop, vec![]), Some(Value::Bool(true)));
        assert_eq!(of(&drop, jump()), Some(Value::Bool(false)));
        assert_eq!(of(&back, vec![]), Some(Value::Bool(false)));
        assert_eq!(docker_user_dead(&Ruleset::default()).value(), Some(&Value::Bool(false)));
    }

    /// Seen failing with the second file left out of `LEGACY`.
    #[test]
    fn the_old_iptables_shows_in_either_family() {
        let with = |files: &[(&str, &str)]| {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join("proc/net")).unwrap();
            for (path, text) in files {
                std::fs::write(root.path().join(path.trim_start_matches('/')), text).unwrap();
            }
            legacy_tables(&Host::at_root(root.path()))
        };
        assert_eq!(with(&[]), Ok([BTreeSet::new(), BTreeSet::new()]));
        assert_eq!(with(&[(LEGACY[1], "filter\nnat\n")]).unwrap()[1].len(), 2);
        let word = |rules: &Ruleset, legacy| backends(rules, &Ok(legacy)).value().map(ToString::to_string).unwrap();
        let (none, some) = (Ruleset::default(), Ruleset { tables: vec![table("filter", &[])] });
        let no = || [BTreeSet::new(), BTreeSet::new()];
        let old = || [BTreeSet::new(), BTreeSet::from(["filter".to_owned()])];
        let words = [word(&none, no()), word(&some, no()), word(&none, old()), word(&some, old())];
        assert_eq!(words, ["none", "nft", "legacy", "mixed"]);
    }
}
