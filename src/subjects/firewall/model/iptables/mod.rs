//! The guard where nft is missing: two chains of its own in the table mangle of iptables, once for each family.
//!
//! They ask what the table of nftables asks, at the same place. Unlike there, an accept of an earlier rule in PREROUTING
//! would end the table before the guard, so its jump is put first. Only our chains and what leads to them are ever
//! written: `iptables-restore --noflush` leaves all other rules alone.

mod line;
mod read;

pub use line::{RuleLine, Then};
pub use read::{KernelGuard, dropped, read};

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use super::guard::Guard;
use crate::catalog::parameters::Protocol;

/// The chain that looks at every packet, and the one that lets in whom `allow` names.
pub const CHAIN: &str = "PREFLIGHT";
pub const RESTRICT: &str = "PREFLIGHT-RESTRICT";

/// The table, and the chain of the kernel that leads to ours.
pub const TABLE: &str = "mangle";
pub const HOOK: &str = "PREROUTING";
const JUMP: &str = "-A PREROUTING -j PREFLIGHT";
/// The same behind rules that may end the table before it.
const LATE_JUMP: &str = "# -A PREROUTING -j PREFLIGHT, behind rules that may let packets past it";

/// The two programs of that name, with rules in two places of the kernel: one does not see those of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// iptables over nf_tables.
    Nft,
    /// The old x_tables.
    Legacy,
}

impl Variant {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nft => "iptables-nft",
            Self::Legacy => "iptables-legacy",
        }
    }

    /// The one program behind all names of a variant, whichever of the two the host's `iptables` stands for.
    pub fn program(self) -> &'static str {
        match self {
            Self::Nft => "xtables-nft-multi",
            Self::Legacy => "xtables-legacy-multi",
        }
    }

    /// What the program behind `iptables` makes it.
    pub fn of_program(name: &str) -> Option<Self> {
        [Self::Nft, Self::Legacy].into_iter().find(|variant| variant.program() == name)
    }
}

/// What the program is called as, for one family.
pub fn tool(v6: bool, verb: &str) -> String {
    format!("{}tables{verb}", if v6 { "ip6" } else { "ip" })
}

/// What stands in our chains: a rule of the guard, or anything else as it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainEntry {
    Known(RuleLine),
    Other(String),
}

/// What leads to the guard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Jump {
    #[default]
    Missing,
    /// Nothing before it ends the table.
    First,
    Late,
}

/// The guard of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FamilyRules {
    pub jump: Jump,
    /// The rules of the two chains; `None` where there is no such chain.
    pub chain: Option<Vec<ChainEntry>>,
    pub restrict: Option<Vec<ChainEntry>>,
    /// Rules of other chains that lead to ours, but for the jump.
    pub foreign: Vec<String>,
}

impl FamilyRules {
    fn new(guard: &Guard, v6: bool) -> Self {
        let known = |lines: Vec<RuleLine>| Some(lines.into_iter().map(ChainEntry::Known).collect());
        let mut lines = vec![
            RuleLine { loopback: true, ..RuleLine::new(Then::Return) },
            RuleLine { established: true, ..RuleLine::new(Then::Return) },
        ];
        let to = |protocol, ports: Vec<RangeInclusive<u16>>| RuleLine {
            ports: Some((protocol, ports)),
            ..RuleLine::new(Then::Restrict)
        };
        for (protocol, ports) in [(Protocol::Tcp, &guard.intent.tcp), (Protocol::Udp, &guard.intent.udp)] {
            lines.extend(few(ports.ranges()).map(|ports| RuleLine { local: true, ..to(protocol, ports) }));
        }
        for routed in guard.routed.iter().filter(|routed| routed.network.address().is_ipv6() == v6) {
            for (protocol, ports) in [(Protocol::Tcp, &routed.tcp), (Protocol::Udp, &routed.udp)] {
                for ports in few(ports.ranges()) {
                    let line = |not_from, then| RuleLine {
                        source: Some((routed.network, not_from)),
                        destination: Some(routed.network),
                        misrouted: !not_from,
                        ports: Some((protocol, ports.clone())),
                        ..RuleLine::new(then)
                    };
                    lines.extend([line(false, Then::Drop), line(true, Then::Restrict)]);
                }
            }
        }
        let allow = if v6 { &guard.intent.allow6 } else { &guard.intent.allow4 };
        let source = |network: &_| RuleLine { source: Some((*network, false)), ..RuleLine::new(Then::Return) };
        let mut restrict: Vec<RuleLine> = allow.iter().map(source).collect();
        restrict.push(RuleLine::new(Then::Drop));
        Self { jump: Jump::First, chain: known(lines), restrict: known(restrict), foreign: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As iptables-save has it, with a head that says whose it is.
    fn write(&self, variant: Variant, v6: bool, text: &mut String) {
        let _ = writeln!(text, "{}*{TABLE}", head(variant, v6));
        let chains = [(CHAIN, &self.chain), (RESTRICT, &self.restrict)];
        let chains = chains.iter().filter_map(|(name, entries)| Some((*name, entries.as_ref()?)));
        for (name, _) in chains.clone() {
            let _ = writeln!(text, ":{name} - [0:0]");
        }
        match self.jump {
            Jump::Missing => {}
            Jump::First => text.extend([JUMP, "\n"]),
            Jump::Late => text.extend([LATE_JUMP, "\n"]),
        }
        for line in &self.foreign {
            text.extend([line, "\n"]);
        }
        for (name, entries) in chains {
            for entry in entries {
                let _ = match entry {
                    ChainEntry::Known(line) => writeln!(text, "-A {name} {line}"),
                    ChainEntry::Other(options) => writeln!(text, "-A {name} {options}"),
                };
            }
        }
        text.push_str("COMMIT\n");
    }

    /// Whether all of it can be loaded: the rules of a guard and nothing besides.
    fn is_plain(&self) -> bool {
        let known = |entries: &Option<Vec<ChainEntry>>| {
            entries.as_ref().is_some_and(|all| all.iter().all(|entry| matches!(entry, ChainEntry::Known(_))))
        };
        self.jump != Jump::Missing && self.foreign.is_empty() && known(&self.chain) && known(&self.restrict)
    }
}

/// In pieces that one rule can hold.
fn few<'a>(ranges: impl Iterator<Item = &'a RangeInclusive<u16>>) -> impl Iterator<Item = Vec<RangeInclusive<u16>>> {
    let mut pieces: Vec<Vec<RangeInclusive<u16>>> = Vec::new();
    for range in ranges {
        match pieces.last_mut() {
            Some(last) if line::slots(last) + line::slots(std::slice::from_ref(range)) <= line::SLOTS => {
                last.push(range.clone());
            }
            _ => pieces.push(vec![range.clone()]),
        }
    }
    pieces.into_iter()
}

/// The first line of what one family has.
pub fn head(variant: Variant, v6: bool) -> String {
    format!("# {}, IPv{}\n", variant.name(), if v6 { 6 } else { 4 })
}

/// The guard of both families, IPv4 and IPv6, in the one form in which it is written and compared.
pub fn text(guard: &Guard, variant: Variant) -> String {
    join(variant, &[FamilyRules::new(guard, false), FamilyRules::new(guard, true)]).unwrap_or_default()
}

/// What both families have, as text; `None` where there is nothing of ours.
pub fn join(variant: Variant, parts: &[FamilyRules; 2]) -> Option<String> {
    let mut text = String::new();
    for (part, v6) in parts.iter().zip([false, true]) {
        if !part.is_empty() {
            part.write(variant, v6, &mut text);
        }
    }
    (!text.is_empty()).then_some(text)
}

/// The guard in a text of [`text`]; `None` for a text that is anything else, or holds anything else.
pub fn parse(text: &str, variant: Variant) -> Option<[FamilyRules; 2]> {
    let (v4, v6) = match text.split_once(&head(variant, true)) {
        Some((v4, v6)) => (v4, v6),
        None => (text, ""),
    };
    let v4 = if v4.is_empty() { "" } else { v4.strip_prefix(&head(variant, false))? };
    let parts = [of_save(v4, false), of_save(v6, true)];
    // Written again it is the same, so that nothing was overlooked.
    let is_plain = parts.iter().all(|part| part.is_empty() || part.is_plain());
    (is_plain && join(variant, &parts).as_deref() == Some(text)).then_some(parts)
}

/// What is ours of a list of iptables-save.
pub fn of_save(text: &str, v6: bool) -> FamilyRules {
    let mut part = FamilyRules::default();
    let mut is_ours = false;
    let mut is_past = false;
    for line in text.lines().map(str::trim_end) {
        if let Some(table) = line.strip_prefix('*') {
            is_ours = table == TABLE;
        }
        if !is_ours {
            continue;
        }
        if let Some(chain) = line.strip_prefix(':') {
            match chain.split(' ').next() {
                Some(CHAIN) => part.chain = Some(Vec::new()),
                Some(RESTRICT) => part.restrict = Some(Vec::new()),
                _ => {}
            }
        } else if line == LATE_JUMP {
            part.jump = Jump::Late;
        } else if let Some((chain, options)) = line.strip_prefix("-A ").and_then(|rule| rule.split_once(' ')) {
            let entries = match chain {
                CHAIN => part.chain.as_mut(),
                RESTRICT => part.restrict.as_mut(),
                _ => None,
            };
            if let Some(entries) = entries {
                let known = RuleLine::parse(options, v6).map(ChainEntry::Known);
                entries.push(known.unwrap_or_else(|| ChainEntry::Other(options.to_owned())));
            } else if line == JUMP && part.jump == Jump::Missing {
                part.jump = if is_past { Jump::Late } else { Jump::First };
            } else if line::leads_here(options) {
                part.foreign.push(line.to_owned());
            }
            is_past |= chain == HOOK && !goes_on(options);
        }
    }
    part
}

/// Whether every packet is at the next rule after this one.
fn goes_on(options: &str) -> bool {
    let mut words = options.split(' ');
    let target = words.find(|word| matches!(*word, "-j" | "-g")).and_then(|_| words.next());
    target.is_none_or(|target| matches!(target, "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TCPMSS" | "TRACE" | "DSCP"))
}

/// What `iptables-restore --noflush` takes so that one family has this, and nothing of ours besides; `None`: it has it by
/// being left alone. All of it is one transaction of the table.
pub fn load(wanted: Option<&FamilyRules>, found: &FamilyRules) -> Result<Option<String>, String> {
    let wanted = wanted.filter(|part| !part.is_empty());
    if wanted.is_none() && found.is_empty() {
        return Ok(None);
    }
    // A chain that is there is emptied by its name.
    let mut text = format!("*{TABLE}\n:{CHAIN} - [0:0]\n:{RESTRICT} - [0:0]\n");
    let jump = (found.jump != Jump::Missing).then_some(JUMP);
    for line in jump.into_iter().chain(found.foreign.iter().map(String::as_str)) {
        let Some(rule) = line.strip_prefix("-A ").filter(|rule| is_harmless(rule)) else {
            return Err(format!(
                "a rule leads to {CHAIN} that only a person should take away: {}",
                line.escape_default()
            ));
        };
        let _ = writeln!(text, "-D {rule}");
    }
    match wanted {
        Some(part) => {
            let _ = writeln!(text, "-I {HOOK} -j {CHAIN}");
            write_rules(part, &mut text)?;
        }
        None => {
            let _ = write!(text, "-X {CHAIN}\n-X {RESTRICT}\n");
        }
    }
    text.push_str("COMMIT\n");
    Ok(Some(text))
}

/// What `iptables-restore --noflush` takes at boot, for IPv4 and IPv6. There is no jump in it: loaded a second time there
/// would be two.
pub fn boot_texts(guard: &Guard) -> [String; 2] {
    [false, true].map(|v6| boot_text(&FamilyRules::new(guard, v6)))
}

/// The same of a guard's text; `None` for a text that is none.
pub fn loads(text: &str, variant: Variant) -> Option<[String; 2]> {
    parse(text, variant).map(|parts| parts.each_ref().map(boot_text))
}

fn boot_text(part: &FamilyRules) -> String {
    let mut text = format!("*{TABLE}\n:{CHAIN} - [0:0]\n:{RESTRICT} - [0:0]\n");
    // What is no guard's is left out, and is then seen to be missing.
    let _ = write_rules(part, &mut text);
    text.push_str("COMMIT\n");
    text
}

/// The guard that files of [`boot_texts`] bring, as text; `None` when they are anything else.
pub fn booted(variant: Variant, files: [&str; 2]) -> Option<String> {
    let mut parts = [of_save(files[0], false), of_save(files[1], true)];
    if parts.iter().zip(files).any(|(part, file)| boot_text(part) != file) {
        return None;
    }
    for part in &mut parts {
        part.jump = Jump::First;
    }
    join(variant, &parts)
}

fn write_rules(part: &FamilyRules, text: &mut String) -> Result<(), String> {
    for (name, entries) in [(CHAIN, &part.chain), (RESTRICT, &part.restrict)] {
        for entry in entries.iter().flatten() {
            match entry {
                ChainEntry::Known(line) => drop(writeln!(text, "-A {name} {line}")),
                ChainEntry::Other(options) => {
                    let options = options.escape_default();
                    return Err(format!("in {name} stands a rule that is no guard's: {options}"));
                }
            }
        }
    }
    Ok(())
}

/// Whether a listed rule can be named again to delete it: options of matches and no others, no quotes. `-M` and `-t` are
/// options that a program would act upon.
fn is_harmless(rule: &str) -> bool {
    let is_plain = |word: &str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:,/!+".contains(&byte));
    let mut words = rule.split(' ');
    let chain = words.next().unwrap_or_default();
    !chain.starts_with('-')
        && is_plain(chain)
        && words.all(|word| {
            let is_option = word.starts_with('-');
            let is_known = matches!(
                word,
                "-s" | "-d"
                    | "-i"
                    | "-o"
                    | "-p"
                    | "-m"
                    | "-j"
                    | "-g"
                    | "--dport"
                    | "--dports"
                    | "--sport"
                    | "--ctstate"
                    | "--dst-type"
            );
            is_plain(word) && (!is_option || is_known)
        })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
