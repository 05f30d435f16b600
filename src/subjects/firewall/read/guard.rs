//! The guard that the kernel has, whoever wrote it, and the one of the next boot.

use std::path::Path;

use crate::facts::{Fact, Value};
use crate::host::units;
use crate::host::{Host, ReadError};
use crate::subjects::firewall::derive_guard::SEVERAL;
use crate::subjects::firewall::model::boot;
use crate::subjects::firewall::model::guard;
use crate::subjects::firewall::model::guard::Guard;
use crate::subjects::firewall::model::iptables;
use crate::subjects::firewall::model::iptables::{KernelGuard, Variant};
use crate::subjects::firewall::model::rules::{Family, Ruleset, Step, Table};
use crate::subjects::firewall::model::writer::Writer;

use super::kernel::SOURCE;

fn table(rules: &Ruleset) -> Option<&Table> {
    rules.table(Family::Inet, "preflight")
}

/// The guard as text, when it is one of ours; what somebody made of it otherwise.
pub(crate) fn live(rules: &Ruleset) -> Fact {
    let mut found: Vec<(Writer, Option<String>)> = Vec::new();
    found.extend(table(rules).map(|table| (Writer::Nft, Guard::read(table).map(|guard| guard.text()))));
    for variant in [Variant::Nft, Variant::Legacy] {
        match iptables::read(rules, variant) {
            KernelGuard::None => {}
            KernelGuard::Guard(text) => found.push((Writer::Iptables(variant), Some(text))),
            KernelGuard::Changed => found.push((Writer::Iptables(variant), None)),
        }
    }
    let text = |text: String| Fact::known(Value::Text(text), SOURCE);
    match found.as_slice() {
        [] => text("none".to_owned()),
        [(_, Some(guard))] => text(guard.clone()),
        [(writer, None)] => text(writer.changed()).note(match writer {
            Writer::Nft if table(rules).is_some_and(Guard::is_of_another) => {
                format!("the table {} is somebody else's: it has none of preflight's chains", guard::TABLE)
            }
            Writer::Nft => format!("the table {} is not as preflight writes it", guard::TABLE),
            Writer::Iptables(variant) => {
                format!("the chain {} of {} is not as preflight writes it", iptables::CHAIN, variant.name())
            }
        }),
        several => {
            let names: Vec<&str> = several.iter().map(|(writer, _)| writer.name()).collect();
            text(SEVERAL.to_owned()).note(format!("there is a guard in each of {}", names.join(", ")))
        }
    }
}

/// What the next boot loads: our files, when something loads them.
pub(crate) fn at_boot(host: &Host) -> Fact {
    match boot_text(host) {
        Err(error) => Fact::unreadable(&error, "it is gone"),
        Ok(fact) => fact,
    }
}

fn boot_text(host: &Host) -> Result<Fact, ReadError> {
    let links = [boot::UNIT_LINK, boot::OPENRC_LINK];
    let mut service = None;
    for link in links.into_iter().filter(|link| host.link_target(link).is_some()) {
        service = service.or(Some(host.read_optional(link)?.unwrap_or_default()));
    }
    let writer = service.as_deref().map_or(Some(Writer::Nft), boot::loaded_by);
    if host.link_target(boot::UNIT).is_some_and(|target| target == Path::new("/dev/null")) {
        let note = "its service is masked, so that nothing starts it: `systemctl unmask preflight-guard`";
        return Ok(Fact::known(Value::Text("none".into()), boot::UNIT).note(note));
    }
    let none = |source: &str| Fact::known(Value::Text("none".into()), source);
    let Some(writer) = writer else {
        return Ok(none(links[0]).note("its service is not as preflight writes it"));
    };
    let folders = units::UNIT_FOLDERS.iter().filter(|_| service.is_some());
    for folder in folders.map(|folder| format!("{folder}/{}.service.d", boot::NAME)) {
        if let Some(name) = host.list(&folder)?.first() {
            let text = format!("{folder}/{} changes its service", name.display());
            return Ok(Fact::unknown(
                text,
                Some("take the drop-in away, or see `systemctl cat preflight-guard`"),
                folder,
            ));
        }
    }
    let mut paths = boot::paths(writer);
    if service.is_none() {
        // Nobody says which files count: name the ones that are there.
        let all = Writer::ALL.map(boot::paths);
        paths = all.into_iter().find(|paths| paths.iter().any(|path| host.exists(path))).unwrap_or(paths);
    }
    let texts = paths.iter().map(|path| host.read_optional(path)).collect::<Result<Vec<_>, _>>()?;
    let source = paths.join(", ");
    Ok(match (texts.iter().any(Option::is_some), service) {
        (false, _) => none(&source),
        (true, None) => none(&source).note("nothing loads the file: its service is not enabled"),
        (true, Some(_)) => {
            let guard = boot::guard_of(writer, &texts).unwrap_or_else(|| writer.changed());
            Fact::known(Value::Text(guard), source)
        }
    })
}

/// Packets that met the end of the guard.
pub(crate) fn dropped(rules: &Ruleset) -> Fact {
    let counted = |table: &Table| {
        let steps = table.chains.values().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.steps);
        steps.filter_map(|step| if let Step::Count { packets, .. } = step { Some(*packets) } else { None }).sum::<u64>()
    };
    let of_nft = table(rules).map(counted);
    let mangle = rules.tables.iter().filter(|table| table.name == iptables::TABLE);
    let all: Vec<u64> = of_nft.into_iter().chain(mangle.filter_map(iptables::dropped)).collect();
    if all.is_empty() {
        return Fact::absent("there is no guard", SOURCE);
    }
    Fact::known(Value::Int(i64::try_from(all.iter().sum::<u64>()).unwrap_or(i64::MAX)), SOURCE)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests build the files they read")]
mod tests {
    use super::*;
    use crate::facts::State;
    use crate::subjects::firewall::model::boot::Origin;

    /// What is told of a host whose files somebody has changed.
    fn told(change: impl FnOnce(&dyn Fn(&str) -> std::path::PathBuf)) -> State {
        fact(change).state
    }

    fn fact(change: impl FnOnce(&dyn Fn(&str) -> std::path::PathBuf)) -> Fact {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| {
            let path = root.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        let (unit, text, links) = boot::service(Writer::Nft, false);
        std::fs::write(at(unit), text).unwrap();
        std::os::unix::fs::symlink(unit, at(links[0])).unwrap();
        for (path, text) in boot::files(Writer::Nft, &Guard::default(), &Origin::default()) {
            std::fs::write(at(path), text).unwrap();
        }
        change(&at);
        at_boot(&Host::at_root(root.path()))
    }

    /// Seen failing with an edited service taken for ours, and without the look for drop-ins.
    #[test]
    fn the_boot_brings_a_guard_when_nobody_touched_what_loads_it() {
        let known = |text: &str| State::Known(Value::Text(text.to_owned()));
        let (unit, text, links) = boot::service(Writer::Nft, false);
        assert_eq!(told(|_| {}), known(&Guard::default().text()));
        let idle = text.replace("ExecStart=/usr/sbin/nft -f", "ExecStart=/usr/sbin/nft -c -f");
        assert_eq!(told(|at| std::fs::write(at(unit), idle).unwrap()), known("none"));
        assert_eq!(told(|at| std::fs::remove_file(at(links[0])).unwrap()), known("none"));
        let masked = |at: &dyn Fn(&str) -> std::path::PathBuf| {
            std::fs::remove_file(at(unit)).unwrap();
            std::os::unix::fs::symlink("/dev/null", at(unit)).unwrap();
        };
        let masked = fact(masked);
        assert_eq!(masked.state, known("none"));
        assert!(masked.note.is_some_and(|note| note.contains("`systemctl unmask preflight-guard`")));
        assert_eq!(told(|at| std::fs::write(at(boot::FILE), "flush ruleset\n").unwrap()), known("changed"));
        let never = "/etc/systemd/system/preflight-guard.service.d/x.conf";
        let dropped_in = told(|at| std::fs::write(at(never), "[Unit]\nConditionPathExists=/nope\n").unwrap());
        assert!(matches!(&dropped_in, State::Unknown { error, .. } if error.contains("x.conf")), "{dropped_in:?}");
    }
}
