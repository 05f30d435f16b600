//! The report for people: sections, marks, the verdict, and numbered next steps.

use std::collections::HashMap;
use std::io::{self, Write};

use owo_colors::{OwoColorize as _, Style as Paint};

use super::escape;
use super::model::{Finding, LayerView, Outcome, ProfileView, Report, Verdict};
use super::wrap::{self, NO_BREAK, NO_BREAK_TEXT};
use crate::catalog::check::Severity;
use crate::catalog::embedded;

/// The width of a pipe or a file.
pub const DEFAULT_WIDTH: usize = 80;

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Only what needs a look.
    Quiet,
    Normal,
    /// All evidence.
    Verbose,
}

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// In columns.
    pub width: usize,
    /// Whether marks may be more than ASCII.
    pub unicode: bool,
    /// Whether there are colours at all.
    pub color: bool,
    pub detail: Detail,
}

/// The columns before the text of a finding: two of margin, the mark, a gap.
const INDENT: &str = "         ";
const UNICODE_INDENT: &str = "     ";

pub fn write(report: &Report, style: Style, out: &mut dyn Write) -> io::Result<()> {
    Terminal { style, out }.report(report)
}

/// Quiet leaves out what passes and what does not apply; the normal view only what does not apply.
fn shows(detail: Detail, finding: &Finding) -> bool {
    match detail {
        Detail::Verbose => true,
        Detail::Normal => finding.result != Outcome::NotApplicable,
        Detail::Quiet => !matches!(finding.result, Outcome::Pass | Outcome::NotApplicable),
    }
}

/// Whether another instance of the same check comes to the same for the same reasons, so that the words of one say it
/// of both. What passes has a line of its own anyway.
fn is_told_by(finding: &Finding, other: &Finding) -> bool {
    let (a, b) = (finding, other);
    !matches!(a.result, Outcome::Pass | Outcome::NotApplicable)
        && (&a.check, a.result, a.severity, &a.observed) == (&b.check, b.result, b.severity, &b.observed)
        && (&a.expected, &a.live, &a.boot, &a.container) == (&b.expected, &b.live, &b.boot, &b.container)
        && (&a.notes, &a.waiver) == (&b.notes, &b.waiver)
}

/// Whether the title says that something is not so: a `yes` behind it would be taken for the opposite.
fn denies(finding: &Finding) -> bool {
    finding.expected == "no" && matches!(finding.observed.as_str(), "yes" | "no")
}

/// A short value stays in one piece: `3.8 GiB` is not torn apart at the end of a line.
fn whole(value: &str) -> String {
    const SHORT: usize = 16;
    if value.chars().count() <= SHORT { value.replace(' ', NO_BREAK_TEXT) } else { value.to_owned() }
}

/// The ids of findings. Of those that follow one of the same check only the instance is told: `port.free.6379, .6380`.
fn ids(findings: &[&Finding]) -> String {
    let mut ids = String::new();
    let mut check = None;
    for finding in findings {
        let instance = finding.id.strip_prefix(&*finding.check).filter(|_| check == Some(&finding.check));
        if !ids.is_empty() {
            ids.push_str(", ");
        }
        ids.push_str(instance.unwrap_or(&finding.id));
        check = Some(&finding.check);
    }
    ids
}

struct Terminal<'a> {
    style: Style,
    out: &'a mut dyn Write,
}

impl Terminal<'_> {
    fn report(&mut self, report: &Report) -> io::Result<()> {
        self.head(report)?;
        let mut section = "";
        let detail = self.style.detail;
        let shown: Vec<&Finding> = report.findings.iter().filter(|finding| shows(detail, finding)).collect();
        let told_once = |first: &&Finding, next: &&Finding| detail != Detail::Verbose && is_told_by(next, first);
        for alike in shown.chunk_by(told_once) {
            let Some(finding) = alike.first() else { continue };
            if finding.section != section {
                section = &finding.section;
                self.heading(&escape::text(section))?;
            }
            self.finding(finding, alike)?;
        }
        self.verdict(report)?;
        self.steps(report)?;
        self.unseen(report)
    }

    fn head(&mut self, report: &Report) -> io::Result<()> {
        let host = &report.host;
        let line = format!(
            "preflight {} · {} · {} ({}, kernel {})",
            report.preflight, report.profile.name, host.name, host.os, host.kernel
        );
        self.paragraph("", "", &line, Paint::new())?;
        self.own_files(report)
    }

    /// A profile of one's own may bear the name of an embedded one: a reader must not take it for that.
    fn own_files(&mut self, report: &Report) -> io::Result<()> {
        let ProfileView { name, file, files, .. } = &report.profile;
        if let Some(file) = file {
            let hides = embedded::PROFILES.iter().any(|embedded| embedded.name == name);
            let hides = if hides { ", which is not preflight's own of that name" } else { "" };
            self.paragraph("", "", &format!("profile {name} from {file}{hides}"), Paint::new())?;
        }
        let others: Vec<&str> =
            files.iter().filter(|other| Some(*other) != file.as_ref()).map(String::as_str).collect();
        if others.is_empty() {
            return Ok(());
        }
        self.paragraph("", "", &format!("also read: {}", others.join(", ")), Paint::new())
    }

    /// The first of some findings that are told at once.
    fn finding(&mut self, finding: &Finding, alike: &[&Finding]) -> io::Result<()> {
        let (mark, paint) = self.mark(finding);
        let quiet = finding.result == Outcome::Pass || finding.result == Outcome::NotApplicable;
        let more = if alike.len() < 2 { String::new() } else { format!(" and {} more", alike.len() - 1) };
        let line = if finding.observed.is_empty() || denies(finding) {
            format!("{}{more}", finding.title)
        } else {
            format!("{}{more}: {}", finding.title, whole(&finding.observed))
        };
        self.paragraph(&format!("  {mark} "), self.indent(), &line, paint)?;
        if self.style.detail == Detail::Verbose {
            return self.evidence(finding);
        }
        if quiet {
            return Ok(());
        }
        self.asked(finding, alike)?;
        // The layer that is already on the first line is not said twice.
        let said = |view: &LayerView| view.text == finding.observed && view.source == finding.source;
        self.layers(finding, |view| view.decides && view.result != Outcome::Pass && !said(view))?;
        for note in &finding.notes {
            self.detail(note)?;
        }
        self.waiver(finding)
    }

    /// Everything there is about a finding.
    fn evidence(&mut self, finding: &Finding) -> io::Result<()> {
        self.asked(finding, &[finding])?;
        self.layers(finding, |_| true)?;
        for note in &finding.notes {
            self.detail(note)?;
        }
        if let Some(help) = &finding.help {
            self.detail(&format!("to find out: {help}"))?;
        }
        self.waiver(finding)
    }

    /// The id, for `--only`, `explain` and waivers, and what would have passed.
    fn asked(&mut self, finding: &Finding, alike: &[&Finding]) -> io::Result<()> {
        let mut wanted =
            if finding.expected.is_empty() { String::new() } else { format!(", wanted: {}", finding.expected) };
        if denies(finding) {
            wanted.extend([", found: ", &finding.observed]);
        }
        self.detail(&format!("{} ({}){wanted}", ids(alike), finding.severity))
    }

    fn layers(&mut self, finding: &Finding, wanted: impl Fn(&LayerView) -> bool) -> io::Result<()> {
        let layers = [
            ("live", finding.live.as_ref()),
            ("boot", finding.boot.as_deref()),
            ("container", finding.container.as_deref()),
        ];
        for (name, view) in layers {
            let Some(view) = view.filter(|view| wanted(view)) else { continue };
            let aside = if view.decides { "" } else { ", does not decide" };
            let note = view.note.as_ref().filter(|note| !finding.notes.contains(note));
            let note = note.map(|note| format!("; {note}")).unwrap_or_default();
            self.detail(&format!("{name}: {} ({}{aside}){note}", view.text, view.source))?;
        }
        Ok(())
    }

    fn waiver(&mut self, finding: &Finding) -> io::Result<()> {
        let Some(waiver) = &finding.waiver else { return Ok(()) };
        let state = if waiver.expired { "expired" } else { "until" };
        let line = format!(
            "really {}; waived by {} {state} {}: {}",
            waiver.result.name(),
            waiver.owner,
            waiver.expires,
            waiver.reason
        );
        self.detail(&line)
    }

    fn verdict(&mut self, report: &Report) -> io::Result<()> {
        let paint = match report.verdict {
            Verdict::Ready => Paint::new().green().bold(),
            Verdict::ReadyWithWarnings => Paint::new().yellow().bold(),
            Verdict::NotReady => Paint::new().red().bold(),
            Verdict::CannotTell => Paint::new().magenta().bold(),
        };
        writeln!(self.out)?;
        self.line("", report.verdict.words(), paint)?;
        let s = &report.summary;
        let counts = [
            (s.pass, "passed"),
            (s.warn, "warned"),
            (s.fail, "failed"),
            (s.unknown, "unknown"),
            (s.waived, "waived"),
            (s.not_applicable, "not applicable"),
        ];
        let words: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
        self.paragraph(
            "",
            "",
            &format!("{} finding{}: {}", s.total, if s.total == 1 { "" } else { "s" }, words.join(", ")),
            Paint::new(),
        )
    }

    /// What to do, worst first; one step for all instances of a check.
    fn steps(&mut self, report: &Report) -> io::Result<()> {
        let mut todo: Vec<&Finding> = report
            .findings
            .iter()
            .filter(|f| matches!(f.result, Outcome::Fail | Outcome::Warn) && f.severity != Severity::Info)
            .collect();
        todo.sort_by_key(|f| (f.result != Outcome::Fail, std::cmp::Reverse(f.severity)));
        let mut steps: Vec<(&Finding, usize)> = Vec::new();
        let mut of_check: HashMap<&str, Vec<usize>> = HashMap::new();
        for finding in todo {
            let known = of_check.entry(&finding.check).or_default();
            if let Some(at) = known.iter().copied().find(|at| steps[*at].0.remedy == finding.remedy) {
                steps[at].1 += 1;
            } else {
                known.push(steps.len());
                steps.push((finding, 0));
            }
        }
        if steps.is_empty() {
            return Ok(());
        }
        self.heading("NEXT STEPS (commands for a root shell)")?;
        for (number, (finding, more)) in steps.into_iter().enumerate() {
            let Some(remedy) = &finding.remedy else { continue };
            let others = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            let line = format!("{}{others}: {}", finding.id, remedy.text);
            self.paragraph(&format!("{:>3}. ", number + 1), "     ", &line, Paint::new())?;
            for command in &remedy.commands {
                self.line("       ", &escape::text(command), Paint::new().cyan())?;
            }
            if let Some(impact) = &remedy.impact {
                self.paragraph("     ", "     ", &format!("costs: {impact}"), Paint::new().dimmed())?;
            }
        }
        Ok(())
    }

    /// What could not be told, once, at the end, by what would help.
    fn unseen(&mut self, report: &Report) -> io::Result<()> {
        let mut groups: Vec<(&str, Vec<&Finding>)> = Vec::new();
        for finding in report.findings.iter().filter(|f| f.result == Outcome::Unknown) {
            let help = finding.help.as_deref().unwrap_or("see the reason above");
            match groups.iter_mut().find(|(known, _)| *known == help) {
                Some((_, findings)) => findings.push(finding),
                None => groups.push((help, vec![finding])),
            }
        }
        if groups.is_empty() {
            return Ok(());
        }
        self.heading("COULD NOT BE TOLD")?;
        for (help, findings) in groups {
            self.paragraph("  ", "  ", &format!("to find out, {help}: {}", ids(&findings)), Paint::new())?;
        }
        Ok(())
    }

    fn detail(&mut self, line: &str) -> io::Result<()> {
        let indent = self.indent();
        self.paragraph(indent, indent, line, Paint::new().dimmed())
    }

    fn indent(&self) -> &'static str {
        if self.style.unicode { UNICODE_INDENT } else { INDENT }
    }

    fn mark(&self, finding: &Finding) -> (&'static str, Paint) {
        let info = finding.severity == Severity::Info && finding.result != Outcome::Pass;
        let (unicode, plain, paint) = match finding.result {
            Outcome::NotApplicable => ("➖", "[ -- ]", Paint::new().dimmed()),
            Outcome::Pass => ("✅", "[ ok ]", Paint::new()),
            Outcome::Unknown => ("❔", "[ ?? ]", Paint::new().magenta()),
            _ if info => ("ℹ️ ", "[info]", Paint::new().cyan()),
            Outcome::Warn => ("⚠️ ", "[warn]", Paint::new().yellow()),
            Outcome::Fail => ("❌", "[FAIL]", Paint::new().red()),
            Outcome::Waived => ("📝", "[wvd.]", Paint::new().yellow()),
        };
        (if self.style.unicode { unicode } else { plain }, paint)
    }

    fn heading(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out)?;
        self.line("", text, Paint::new().bold())
    }

    /// One finished line.
    fn line(&mut self, lead: &str, text: &str, paint: Paint) -> io::Result<()> {
        self.out.write_all(lead.as_bytes())?;
        if self.style.color {
            return writeln!(self.out, "{}", text.style(paint));
        }
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(b"\n")
    }

    /// Wraps text to the width. Everything that came from the host or a file is escaped here, in one place.
    fn paragraph(&mut self, first: &str, rest: &str, text: &str, paint: Paint) -> io::Result<()> {
        let safe = escape::plain(escape::text(text), self.style.unicode);
        let width = self.style.width.saturating_sub(rest.len()).max(20);
        for (index, line) in wrap::lines(&safe, width).iter().enumerate() {
            let lead = if index == 0 { first } else { rest };
            if !line.is_ascii() && line.contains(NO_BREAK) {
                self.line(lead, &line.replace(NO_BREAK, " "), paint)?;
            } else {
                self.line(lead, line, paint)?;
            }
        }
        Ok(())
    }
}
