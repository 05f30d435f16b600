//! A plan for people, and as Markdown.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{self, Write};

use owo_colors::OwoColorize as _;
use similar::algorithms::{Capture, Replace, myers};
use similar::{DiffTag, group_diff_ops};

use super::model::{Change, Kind, Plan, Unfinished};
use super::state::State;
use super::target::Target;
use crate::facts::Layer;
use crate::report::{escape, wrap};

/// Says what the plan is for, above everything else.
#[derive(Debug, Clone)]
pub struct Head<'a> {
    pub profile: &'a str,
    pub host: &'a str,
    /// Check id → why it matters.
    pub why: &'a dyn WhyOf,
    /// What `--allow` names.
    pub allow: &'a [String],
}

/// Where the reasons of checks come from.
pub trait WhyOf: std::fmt::Debug {
    fn why(&self, id: &str) -> Option<String>;
}

/// How a plan is shown on a terminal.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// As many columns, but for file contents and words that are longer.
    pub width: usize,
    /// Whether signs beyond ASCII can be shown.
    pub unicode: bool,
}

/// For a terminal or a pipe.
pub fn terminal(plan: &Plan, head: &Head<'_>, look: Look, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { look, told: BTreeSet::new(), out };
    page.wrap("", "", &format!("plan for {} on {}", head.profile, head.host))?;
    page.wrap("", "", &counts(plan))?;
    if !plan.unfinished.is_empty() {
        writeln!(page.out, "\n{}", "UNFINISHED".bold())?;
        for unfinished in &plan.unfinished {
            page.wrap("  ", "    ", &unfinished_words(unfinished))?;
            page.wrap("    ", "    ", &unfinished.next)?;
        }
    }
    if plan.changes.is_empty() {
        // What could not be looked at is left to a person, and is not as anybody wants it.
        let all = "everything that preflight can set is as the profile wants it.";
        let rest = "there is nothing that preflight can change.";
        page.wrap("", "", &format!("\nNothing to do: {}", if plan.manual.is_empty() { all } else { rest }))?;
    }
    for (number, change) in plan.changes.iter().enumerate() {
        page.change(number + 1, change, head)?;
    }
    if !plan.changes.is_empty() {
        page.wrap("", "", "\nThe reasons in full: preflight explain ID")?;
    }
    if !plan.conflicts.is_empty() {
        writeln!(page.out, "\n{}", "CONFLICTS".bold())?;
        for conflict in &plan.conflicts {
            page.wrap("  ", "    ", &format!("{}: {}", conflict.id, conflict.reason))?;
            let allowed = if head.allow.contains(&conflict.id) {
                "allowed on the command line".to_owned()
            } else {
                format!("to go on all the same: --allow {}", conflict.id)
            };
            page.wrap("    ", "    ", &allowed)?;
        }
    }
    if !plan.manual.is_empty() {
        writeln!(page.out, "\n{}", "LEFT TO YOU".bold())?;
        for manual in &plan.manual {
            page.wrap("  ", "    ", &format!("{}: {}", manual.id, manual.reason))?;
            for line in manual.text.lines() {
                writeln!(page.out, "      {}", escape::text(line).bold())?;
            }
        }
    }
    Ok(())
}

/// What is in a plan: `3 changes (1 live, 2 boot), 1 conflict, 2 left to you`.
fn counts(plan: &Plan) -> String {
    let layers = Layer::ALL.into_iter().filter_map(|layer| {
        let count = plan.changes.iter().filter(|change| change.layer == layer).count();
        (count > 0).then(|| format!("{count} {}", layer.name()))
    });
    let layers: Vec<String> = layers.collect();
    let changes = match plan.changes.len() {
        0 => "no changes".to_owned(),
        1 => format!("1 change ({})", layers.join(", ")),
        many => format!("{many} changes ({})", layers.join(", ")),
    };
    let conflicts = match plan.conflicts.len() {
        0 => String::new(),
        1 => ", 1 conflict".to_owned(),
        many => format!(", {many} conflicts"),
    };
    let manual = if plan.manual.is_empty() { String::new() } else { format!(", {} left to you", plan.manual.len()) };
    format!("{changes}{conflicts}{manual}")
}

struct Page<'a> {
    look: Look,
    /// The checks whose reason stands above: it is told once.
    told: BTreeSet<String>,
    out: &'a mut dyn Write,
}

impl Page<'_> {
    fn change(&mut self, number: usize, change: &Change, head: &Head<'_>) -> io::Result<()> {
        let before = word_for(change.before.as_deref());
        let what = match Target::of(&change.target) {
            Some(Target::File(path)) => path,
            _ => &change.target,
        };
        let line = if change.is_text() {
            format!("{}: {what}", change.layer.name())
        } else {
            format!("{}: {what} {before} → {}", change.layer.name(), change.after)
        };
        writeln!(self.out)?;
        self.wrap(&format!("{number:>3}. "), "     ", &format!("{} ({})", line, word(change.kind)))?;
        for id in change.checks() {
            let is_new = self.told.insert(id.to_owned());
            let why = match head.why.why(id) {
                Some(why) if is_new => first_sentence(&why),
                Some(_) => "as above".to_owned(),
                None => String::new(),
            };
            self.wrap("     ", "     ", &format!("{id}: {why}"))?;
        }
        if change.is_text() {
            for line in diff(change).lines() {
                let line = if line.contains('\t') { line.replace('\t', "    ").into() } else { Cow::Borrowed(line) };
                let line = escape::text(&line);
                match line.as_bytes().first() {
                    Some(b'+') => writeln!(self.out, "       {}", line.green())?,
                    Some(b'-') => writeln!(self.out, "       {}", line.red())?,
                    _ => writeln!(self.out, "       {line}")?,
                }
            }
        }
        self.wrap("     ", "     ", &format!("undo: {}", change.undo))?;
        if !change.restarts.is_empty() {
            self.wrap("     ", "     ", &format!("takes effect after a restart of: {}", change.restarts.join(", ")))?;
        }
        if change.connectivity_risk {
            self.wrap("     ", "     ", "can cut connections: it undoes itself unless it is confirmed")?;
        }
        Ok(())
    }

    fn wrap(&mut self, first: &str, rest: &str, text: &str) -> io::Result<()> {
        wrapped(self.look, first, rest, text, self.out)
    }
}

/// Words in the width of the terminal.
pub fn wrapped(look: Look, first: &str, rest: &str, text: &str, out: &mut dyn Write) -> io::Result<()> {
    let safe = escape::plain(escape::lines(text), look.unicode);
    let width = look.width.saturating_sub(rest.len()).max(20);
    for (index, line) in wrap::lines(&safe, width).iter().enumerate() {
        out.write_all(if index == 0 { first } else { rest }.as_bytes())?;
        out.write_all(line.as_bytes())?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// A transaction that has not ended, in words.
pub fn unfinished_words(unfinished: &Unfinished) -> String {
    let Some(tx) = &unfinished.tx else { return unfinished.reason.clone() };
    let state = match unfinished.state {
        // It would have gone on at once, and asks nobody.
        Some(State::PendingConfirm) if unfinished.deadline_in_s.is_none() => "unfinished",
        state => state.map_or("damaged", State::words),
    };
    format!("transaction {tx} ({state}): {}", unfinished.reason)
}

/// A value before the change: there may be none, and it may be empty.
pub fn word_for(before: Option<&str>) -> &str {
    match before {
        None => "(none)",
        Some("") => "(empty)",
        Some(value) => value,
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Needed => "needed",
        Kind::Target => "target: it passes, the profile wants more",
    }
}

fn first_sentence(text: &str) -> String {
    let text = text.trim();
    match text.find(". ") {
        Some(end) => text[..=end].to_owned(),
        None => text.to_owned(),
    }
}

/// How many unchanged lines are shown around a change.
const CONTEXT_LINES: usize = 2;

/// A unified diff of a file, without the header lines that name it and the places in it.
fn diff(change: &Change) -> String {
    // With their ends, so that a missing last one is a difference.
    let before: Vec<&str> = change.before.as_deref().unwrap_or_default().split_inclusive('\n').collect();
    let after: Vec<&str> = change.after.split_inclusive('\n').collect();
    let mut capture = Replace::new(Capture::new());
    // Not by `similar::TextDiff`, which brings every algorithm there is into the binary.
    let Ok(()) = myers::diff(&mut capture, &before, 0..before.len(), &after, 0..after.len());
    let mut text = String::new();
    let mut add = |mark: char, lines: &[&str]| {
        for line in lines {
            text.push(mark);
            text.push_str(line.trim_end_matches('\n'));
            text.push('\n');
        }
    };
    for op in group_diff_ops(capture.into_inner().into_ops(), CONTEXT_LINES).iter().flatten() {
        let (tag, old, new) = op.as_tag_tuple();
        if tag == DiffTag::Equal {
            add(' ', &before[old]);
        } else {
            add('-', &before[old]);
            add('+', &after[new]);
        }
    }
    text
}

/// For a ticket or a pull request.
pub fn markdown(plan: &Plan, head: &Head<'_>, out: &mut dyn Write) -> io::Result<()> {
    let cell = |text: &str| escape::text(text).replace('|', "\\|").replace('`', "'");
    writeln!(out, "# Plan for {} on {}\n", cell(head.profile), cell(head.host))?;
    if !plan.unfinished.is_empty() {
        writeln!(out, "## Unfinished\n")?;
        for unfinished in &plan.unfinished {
            writeln!(out, "- {}\n  {}\n", escape::text(&unfinished_words(unfinished)), escape::text(&unfinished.next))?;
        }
    }
    if plan.changes.is_empty() {
        writeln!(out, "Nothing to do.\n")?;
    } else {
        writeln!(out, "| check | layer | what | before | after | kind |\n|---|---|---|---|---|---|")?;
    }
    for change in &plan.changes {
        let (before, after) = if change.is_text() {
            ("see below", "see below")
        } else {
            (change.before.as_deref().unwrap_or("none"), change.after.as_str())
        };
        let kind = if change.kind == Kind::Needed { "needed" } else { "target" };
        let row = [change.id.as_str(), change.layer.name(), &change.target, before, after, kind].map(cell);
        writeln!(out, "| {} |", row.join(" | "))?;
    }
    for change in plan.changes.iter().filter(|change| change.is_text()) {
        writeln!(out, "\n## {}\n\n```diff\n{}```", cell(&change.target), escape::lines(&diff(change)))?;
    }
    for (title, items) in [
        ("Conflicts", plan.conflicts.iter().map(|one| (&one.id, &one.reason, String::new())).collect::<Vec<_>>()),
        ("Left to you", plan.manual.iter().map(|one| (&one.id, &one.reason, one.text.clone())).collect()),
    ] {
        if items.is_empty() {
            continue;
        }
        writeln!(out, "\n## {title}\n")?;
        for (id, reason, text) in items {
            writeln!(out, "- `{}`: {}", cell(id), escape::text(reason))?;
            if !text.is_empty() {
                writeln!(out, "\n```\n{}\n```", escape::lines(&text))?;
            }
        }
    }
    Ok(())
}

/// The fragment of a Compose file that gives containers what the plan leaves to the user.
pub fn compose(plan: &Plan) -> Option<String> {
    let mut sysctls = String::new();
    let mut ulimits = String::new();
    for manual in &plan.manual {
        if let Some(rest) = manual.text.strip_prefix("sysctls:\n") {
            sysctls.push_str(rest);
            sysctls.push('\n');
        } else if manual.text.starts_with("ulimits:") {
            ulimits.clone_from(&manual.text);
        }
    }
    if sysctls.is_empty() && ulimits.is_empty() {
        return None;
    }
    let mut text = String::from(
        "# Written by preflight. Put these keys under every Redis and Sentinel service of the Compose file,\n# then `docker compose up -d`: the containers are made anew.\n",
    );
    if !sysctls.is_empty() {
        text.extend(["sysctls:\n", &sysctls]);
    }
    if !ulimits.is_empty() {
        text.extend([ulimits.as_str(), "\n"]);
    }
    Some(text)
}
