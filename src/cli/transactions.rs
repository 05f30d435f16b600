//! `confirm`, `rollback`, `recover`, `history`, `verify`: what becomes of an apply.

use crate::change::target::Target;
use crate::subjects::knobs::HostKnobs;
use std::io::Write;

use serde::Serialize;

use super::args::{ChangeArgs, ConfirmArgs, HistoryArgs, PlainFormat, RecoverArgs, RollbackArgs, VerifyArgs};
use super::{ExitCode, Stop, show, source};
use crate::apply::outcome::{ChangeOutcome, StepResult, Verb};
use crate::apply::verify::{Drift, DriftKind};
use crate::apply::{
    self, Connection, Entry, Env, Machine, Outcome, Recovery, Selection, State, TxId, Unwatched, Verified, timer,
};
use crate::catalog::os::OsProfile;
use crate::change::render::word_for;
use crate::facts::Facts;
use crate::host::{self, Host};
use crate::report::escape;
use crate::subjects::context::Want;
use crate::subjects::gather;
use crate::subjects::os::os_release;
use crate::subjects::truth::HostTruth;

/// What changes the running host is root's; an image belongs to whoever can write it.
fn needs_root(args: &ChangeArgs, verb: &str) -> Result<(), Stop> {
    if args.root.is_some() || nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Stop::Change(ExitCode::CannotTell, anyhow::anyhow!("{verb} needs root")))
}

/// Opens the machine that is meant and hands its parts to the work.
fn with<T>(args: &ChangeArgs, work: impl FnOnce(&Env<'_>) -> Result<T, Stop>) -> Result<T, Stop> {
    let host = source::host(args.root.as_deref())?;
    let os = os_of(&host);
    let truth = HostTruth { host: &host, os };
    let machine = Machine::open(&host, args.state.state_dir.as_deref())?;
    let knobs = HostKnobs::of(&machine);
    let watch = Unwatched;
    work(&machine.env(&knobs, &truth, &watch))
}

pub(super) fn os_of(host: &Host) -> &'static OsProfile {
    let mut facts = Facts::default();
    os_release::probe(host, &Want::new(["os.id", "os.like"].map(String::from)), &mut facts);
    gather::os_of(&facts)
}

fn tx(text: &str) -> Result<TxId, Stop> {
    text.parse().map_err(|error| Stop::usage(format!("{error}\nhint: `preflight history` shows all transactions")))
}

pub(super) fn confirm(args: &ConfirmArgs) -> Result<ExitCode, Stop> {
    let wanted = args.tx.as_deref().map(tx).transpose()?;
    needs_root(&args.change, "confirm")?;
    let connection = if args.same_connection_ok { Connection::Any } else { Connection::New };
    let outcome = with(&args.change, |env| Ok(apply::confirm(env, wanted.as_ref(), connection)?))?;
    show_one(&outcome, is_json(&args.change))
}

pub(super) fn rollback(args: &RollbackArgs) -> Result<ExitCode, Stop> {
    if let Some(text) = &args.rehearse {
        let wanted = tx(text)?;
        with(&args.change, |env| Ok(timer::rehearse(env, &wanted)?))?;
        return Ok(ExitCode::Success);
    }
    let selection = match (&args.tx, &args.to) {
        _ if args.all => Selection::All,
        (Some(text), _) => Selection::Only(tx(text)?),
        (None, Some(text)) => Selection::DownTo(tx(text)?),
        (None, None) => Selection::Newest,
    };
    needs_root(&args.change, "rollback")?;
    let outcomes = with(&args.change, |env| Ok(apply::rollback(env, &selection)?))?;
    show(&outcomes, is_json(&args.change))
}

pub(super) fn recover(args: &RecoverArgs) -> Result<ExitCode, Stop> {
    needs_root(&args.change, "recover")?;
    let outcomes = with(&args.change, |env| {
        Ok(match (&args.watch, &args.if_unconfirmed) {
            (Some(text), _) => {
                let deadline = std::time::Duration::from_micros(args.deadline_us.unwrap_or_default());
                timer::watch(env, &tx(text)?, deadline)?
            }
            (None, Some(text)) => timer::if_unconfirmed(env, &tx(text)?)?,
            (None, None) => apply::recover(env, None, Recovery::Unfinished)?,
        })
    })?;
    show(&outcomes, is_json(&args.change))
}

pub(super) fn history(args: &HistoryArgs) -> Result<ExitCode, Stop> {
    let entries = with(&args.change, |env| Ok(apply::history(env, args.limit)?))?;
    let mut bytes = Vec::new();
    if is_json(&args.change) {
        json(&entries, &mut bytes)?;
    } else if entries.is_empty() {
        writeln!(bytes, "preflight has changed nothing on this host")?;
    } else {
        for entry in &entries {
            entry_lines(entry, &mut bytes)?;
        }
    }
    shown(&bytes, is_json(&args.change))?;
    Ok(ExitCode::Success)
}

fn entry_lines(entry: &Entry, out: &mut dyn Write) -> std::io::Result<()> {
    let state = entry.state.map_or("damaged", State::words);
    let who = entry.sudo_user.clone().unwrap_or_else(|| format!("uid {}", entry.uid));
    let from = entry.ssh.as_ref().map(|ssh| format!(" from {ssh}")).unwrap_or_default();
    writeln!(out, "{}  {state}", entry.tx)?;
    writeln!(
        out,
        "  {} by {}{}, profile {}",
        entry.began_at,
        escape::text(&who),
        escape::text(&from),
        escape::text(&entry.profile)
    )?;
    for target in &entry.targets {
        writeln!(out, "  {}", escape::text(target))?;
    }
    if let Some(reason) = &entry.reason {
        writeln!(out, "  {}", escape::text(reason))?;
    }
    if let Some(boot) = entry.boots.first() {
        let (at, off) = (escape::text(&boot.started_at), boot.drifted + boot.unknown);
        if boot.held() {
            writeln!(out, "  held over the boot of {at}")?;
        } else {
            writeln!(out, "  after the boot of {at} {off} of {} were not as applied", boot.checked)?;
        }
    }
    if entry.conflicts > 0 {
        let (values, were) = if entry.conflicts == 1 { ("value", "was") } else { ("values", "were") };
        writeln!(out, "  {} {values} of others {were} left alone", entry.conflicts)?;
    }
    Ok(())
}

pub(super) fn verify(args: &VerifyArgs) -> Result<ExitCode, Stop> {
    if args.record {
        needs_root(&args.change, "verify --record")?;
    }
    let verified = with(&args.change, |env| {
        let verified = apply::verify(env)?;
        if args.record {
            apply::boots::record(env, &verified)?;
        }
        Ok(verified)
    })?;
    if let Some(path) = &args.textfile {
        host::output::write(path, textfile(&verified).as_bytes())
            .map_err(|error| Stop::unwritten(path.display(), &error))?;
    }
    let mut bytes = Vec::new();
    if is_json(&args.change) {
        json(&verified, &mut bytes)?;
    } else {
        for drift in &verified.drifts {
            // A table is more than a line can hold.
            let short = |text: &str| if text.contains('\n') { "other content".to_owned() } else { text.to_owned() };
            let found = drift.found.as_deref().map_or_else(|| "nothing".to_owned(), short);
            let by = drift.by.as_ref().map(|by| format!(" ({by})")).unwrap_or_default();
            let line = match drift.kind {
                DriftKind::Live if drift.found.is_none() => format!("{}: {}", drift.target, gone(drift)),
                DriftKind::Live if drift.expected.contains('\n') => {
                    format!("{}: it is not as it was applied: it was edited{by}", drift.target)
                }
                DriftKind::Live => format!("{}: is `{found}`, `{}` was applied{by}", drift.target, drift.expected),
                DriftKind::Boot => format!("{}: the file is gone", drift.target),
                DriftKind::ForeignEdit => format!("{}: the file was edited{by}", drift.target),
                DriftKind::Overridden => {
                    format!("{}: will be `{found}` after the next boot, not `{}`{by}", drift.target, drift.expected)
                }
                DriftKind::Outdated => format!(
                    "{}: {}, and that would be {found} now: {}; `preflight tune --only 'firewall.*'` follows",
                    drift.target,
                    drift.expected,
                    drift.by.as_deref().unwrap_or("what it was made of is different")
                ),
                DriftKind::Unknown => format!("{}: cannot be read{by}", drift.target),
            };
            writeln!(bytes, "drift: {} [{}, {}]", escape::text(&line), escape::text(&drift.id), drift.tx)?;
        }
        for restart in &verified.restarts {
            let word = if restart.needed { "restart" } else { "perhaps restart" };
            let line = format!("{}: {}", restart.what, restart.reason);
            writeln!(bytes, "{word}: {} [{}, {}]", escape::text(&line), escape::text(&restart.id), restart.tx)?;
        }
        for unfinished in &verified.unfinished {
            let (tx, waits) = (&unfinished.tx, unfinished.waits);
            let line = match unfinished.state {
                _ if waits => "waits for its confirm, and is not compared",
                Some(_) => "was begun and did not end: `preflight recover` ends it",
                None => "cannot be read: whether something is left to do is not known",
            };
            writeln!(bytes, "unfinished: transaction {tx} {line}")?;
        }
        match (verified.checked, verified.drifts.len()) {
            (0, _) if !verified.unfinished.is_empty() => {}
            (0, _) => writeln!(bytes, "nothing to verify: preflight keeps no change on this host")?,
            (checked, 0) => writeln!(bytes, "{checked} of {checked} as applied")?,
            (checked, drifted) => writeln!(bytes, "{} of {checked} as applied", checked.saturating_sub(drifted))?,
        }
        if let (true, Some(started)) = (verified.held_over_boot(), &verified.boot_started_at) {
            writeln!(bytes, "held over the boot of {started}")?;
        }
    }
    shown(&bytes, is_json(&args.change))?;
    Ok(verified.exit())
}

/// What is not there any more, and who may have taken it away.
fn gone(drift: &Drift) -> String {
    let target = Target::of(&drift.target);
    if matches!(target, Some(Target::Service(_))) {
        return "it does not run: what empties the rules may do so without bringing the guard back".to_owned();
    }
    match &drift.by {
        Some(by) => format!("it is gone: {by}"),
        None if matches!(target, Some(Target::Guard(name)) if name.starts_with("iptables")) => {
            "it is gone: something took it away, such as `iptables -t mangle -F`".to_owned()
        }
        None => "it is gone: something took it away, such as `nft flush ruleset`".to_owned(),
    }
}

/// Gauges for node_exporter: how many knobs are kept, and how many of them drifted, by kind.
fn textfile(verified: &Verified) -> String {
    let count = |kind: DriftKind| verified.drifts.iter().filter(|drift| drift.kind == kind).count();
    let mut text = format!(
        "# HELP preflight_managed_knobs Settings and files that preflight keeps.\n# TYPE preflight_managed_knobs gauge\npreflight_managed_knobs {}\n# HELP preflight_drift Kept settings and files that are not as applied.\n# TYPE preflight_drift gauge\n",
        verified.checked
    );
    for (name, kind) in [
        ("live", DriftKind::Live),
        ("boot", DriftKind::Boot),
        ("foreign_edit", DriftKind::ForeignEdit),
        ("overridden", DriftKind::Overridden),
        ("outdated", DriftKind::Outdated),
        ("unknown", DriftKind::Unknown),
    ] {
        text.push_str("preflight_drift{kind=\"");
        text.push_str(name);
        text.push_str("\"} ");
        text.push_str(&count(kind).to_string());
        text.push('\n');
    }
    text.push_str(&format!(
        "# HELP preflight_unfinished_transactions Transactions that neither ended nor wait for their confirm in time.\n# TYPE preflight_unfinished_transactions gauge\npreflight_unfinished_transactions {}\n",
        verified.unfinished.iter().filter(|unfinished| !unfinished.waits).count()
    ));
    let restarts = |needed: bool| verified.restarts.iter().filter(|restart| restart.needed == needed).count();
    let (needed, unseen, held) = (restarts(true), restarts(false), u8::from(verified.held_over_boot()));
    text.push_str(&format!(
        "# HELP preflight_restart Programs that run with an older value than the applied one: surely, or it cannot be seen.\n# TYPE preflight_restart gauge\npreflight_restart{{kind=\"needed\"}} {needed}\npreflight_restart{{kind=\"unknown\"}} {unseen}\n# HELP preflight_held_over_boot Whether everything kept is as applied and older than this boot.\n# TYPE preflight_held_over_boot gauge\npreflight_held_over_boot {held}\n"
    ));
    text
}

/// Data as it is, words as the terminal can show them.
fn shown(bytes: &[u8], as_json: bool) -> Result<(), Stop> {
    if as_json { show::deliver(bytes) } else { show::words(bytes) }
}

fn is_json(args: &ChangeArgs) -> bool {
    args.format == PlainFormat::Json
}

/// Shows what came of a command that carries out one transaction.
pub(super) fn show_one(outcome: &Outcome, as_json: bool) -> Result<ExitCode, Stop> {
    let mut bytes = Vec::new();
    if as_json {
        json(outcome, &mut bytes)?;
    } else {
        lines(outcome, &mut bytes)?;
    }
    shown(&bytes, as_json)?;
    Ok(outcome.exit())
}

/// Shows what came of a command that may end any number of transactions, as JSON always a list, and returns the worst of
/// the exit codes.
fn show(outcomes: &[Outcome], as_json: bool) -> Result<ExitCode, Stop> {
    let mut bytes = Vec::new();
    if as_json {
        json(outcomes, &mut bytes)?;
    } else if outcomes.is_empty() {
        writeln!(bytes, "nothing to do")?;
    } else {
        for outcome in outcomes {
            lines(outcome, &mut bytes)?;
        }
    }
    shown(&bytes, as_json)?;
    let worst = outcomes.iter().map(Outcome::exit).max_by_key(|exit| *exit as u8);
    Ok(worst.unwrap_or(ExitCode::Success))
}

fn lines(outcome: &Outcome, out: &mut dyn Write) -> std::io::Result<()> {
    let Some(tx) = &outcome.tx else {
        return writeln!(out, "nothing to do: there is nothing that preflight can change");
    };
    writeln!(out, "transaction {tx}: {}", outcome.state.map_or("nothing done", State::words))?;
    if let Some(reason) = &outcome.reason {
        writeln!(out, "  because {}", escape::text(reason))?;
    }
    for change in &outcome.changes {
        writeln!(out, "  {}", escape::text(&change_words(change)))?;
    }
    for conflict in &outcome.conflicts {
        let found = conflict.found.as_deref().unwrap_or("nothing");
        let line = format!("{} was left alone: it is `{found}`, not `{}`", conflict.target, conflict.expected);
        writeln!(out, "  conflict: {}", escape::text(&line))?;
    }
    for warning in &outcome.warnings {
        writeln!(out, "  warning: {}", escape::text(warning))?;
    }
    if !outcome.restarts.is_empty() {
        writeln!(out, "  takes effect after a restart of: {}", escape::text(&outcome.restarts.join(", ")))?;
    }
    if let Some(left) = outcome.deadline_in_s {
        writeln!(out, "  rolled back in {left} s unless you run, over another connection: preflight confirm {tx}")?;
    }
    if outcome.verb == Verb::Apply && outcome.state == Some(State::Committed) {
        writeln!(out, "  to undo it: preflight rollback {tx}")?;
    }
    Ok(())
}

fn change_words(change: &ChangeOutcome) -> String {
    let result = match change.result {
        StepResult::Applied => "done",
        StepResult::Waiting => "after the confirm",
        StepResult::Undone => "as before",
        StepResult::Untouched => "untouched",
        StepResult::Conflict => "left alone: another process changed it",
        StepResult::Failed => "FAILED",
    };
    // A file, a table: more than a line can hold.
    if change.after.contains('\n') {
        return format!("{}: {result}", change.target);
    }
    format!("{} {} → {}: {result}", change.target, word_for(change.before.as_deref()), change.after)
}

pub(super) fn json<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), Stop> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Stop::Internal(error.into()))?;
    out.extend_from_slice(escape::json(&text).as_bytes());
    out.push(b'\n');
    Ok(())
}
