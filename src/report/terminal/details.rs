//! What stands below the table: reasons and evidence, next steps, and what would make the unknown known.

use std::collections::HashMap;
use std::io;

use owo_colors::Style as Paint;

use super::table::Layout;
use super::{Alike, Detail, Terminal, found, is_open, piece, title};
use crate::catalog::check::Severity;
use crate::report::escape;
use crate::report::model::{Finding, LayerView, Outcome, Report};

/// The ids of findings. Of those that follow one of the same check only the instance is said: `port.free.6379, .6380`.
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

/// A full stop within a number or a name ends no sentence.
fn first_sentence(text: &str) -> &str {
    let text = text.trim();
    text.find(". ").map_or(text, |end| &text[..=end])
}

impl Terminal<'_> {
    /// Why it matters, where it was read, what else is known.
    pub(super) fn reasons(&mut self, alike: &[Alike<'_>], layout: Layout) -> io::Result<()> {
        let is_verbose = self.style.detail == Detail::Verbose;
        let open = alike.iter().filter(|alike| is_verbose || is_open(alike[0]));
        let indent = " ".repeat(layout.indent());
        // Instances of one check share their reason: it is said once.
        let mut explained = "";
        for (index, alike) in open.enumerate() {
            if index == 0 {
                self.heading("REASONS")?;
            }
            let finding = alike[0];
            let (mark, paint) = self.mark(finding);
            let line = format!("{} ({}, {})", title(alike), ids(alike), finding.severity.name());
            let line = self.safe(&line);
            let width = self.style.width.saturating_sub(indent.len()).max(20);
            for (index, text) in crate::report::wrap::lines(&line, width).iter().enumerate() {
                if index == 0 {
                    let blank = piece(" ", Paint::new());
                    let margin = piece("  ", Paint::new());
                    self.pieces(&[margin, piece(mark, paint), blank, piece(text, Paint::new().bold())])?;
                } else {
                    self.line(&indent, text, Paint::new().bold())?;
                }
            }
            let is_new = explained != &*finding.check;
            self.reason(finding, is_new, &indent)?;
            explained = &finding.check;
        }
        Ok(())
    }

    fn reason(&mut self, finding: &Finding, is_new: bool, indent: &str) -> io::Result<()> {
        let is_verbose = self.style.detail == Detail::Verbose;
        let mut say = |line: &str| self.paragraph(indent, indent, line, Paint::new());
        if finding.result == Outcome::NotApplicable {
            return finding.notes.iter().try_for_each(|note| say(note));
        }
        if is_new {
            say(if is_verbose { &finding.why } else { first_sentence(&finding.why) })?;
        }
        if is_verbose && finding.result == Outcome::Pass && !finding.expected.is_empty() {
            say(&format!("passes: {}", finding.expected))?;
        }
        // Where the cell is only a part of it.
        if found(finding) != finding.observed && !finding.observed.is_empty() {
            let word = if finding.result == Outcome::Unknown { "unknown" } else { "found" };
            say(&format!("{word}: {}", finding.observed))?;
        }
        let layers = [
            ("live", finding.live.as_ref()),
            ("boot", finding.boot.as_deref()),
            ("container", finding.container.as_deref()),
        ];
        for (name, view) in layers {
            let Some(view) = view.filter(|view| is_verbose || is_evidence(finding, view)) else { continue };
            let aside = if view.decides { "" } else { ", does not decide" };
            let note = view.note.as_ref().filter(|note| !finding.notes.contains(note));
            let note = note.map(|note| format!("; {note}")).unwrap_or_default();
            say(&format!("{name}: {} ({}{aside}){note}", view.text, view.source))?;
        }
        finding.notes.iter().try_for_each(|note| say(note))?;
        if let Some(help) = finding.help.as_ref().filter(|_| is_verbose) {
            say(&format!("to find out: {help}"))?;
        }
        let Some(waiver) = &finding.waiver else { return Ok(()) };
        let state = if waiver.expired { "expired" } else { "until" };
        say(&format!(
            "result {}; waived by {} {state} {}: {}",
            waiver.result.name(),
            waiver.owner,
            waiver.expires,
            waiver.reason
        ))
    }

    /// What to do, worst first; one step for all instances of a check.
    pub(super) fn steps(&mut self, report: &Report) -> io::Result<()> {
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
                self.line("       ", &escape::text(command), Paint::new().bold())?;
            }
            if let Some(impact) = &remedy.impact {
                self.paragraph("     ", "     ", &format!("impact: {impact}"), Paint::new().dimmed())?;
            }
        }
        Ok(())
    }

    /// What cannot be determined, by what would help.
    pub(super) fn unknown(&mut self, report: &Report) -> io::Result<()> {
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
        self.heading("UNKNOWN")?;
        for (help, findings) in groups {
            self.paragraph("  ", "  ", &format!("to find out, {help}: {}", ids(&findings)), Paint::new())?;
        }
        Ok(())
    }
}

/// Whether a layer says more than the table: it decides against the finding, and its value or source is not said yet.
fn is_evidence(finding: &Finding, view: &LayerView) -> bool {
    view.decides && view.result != Outcome::Pass && !(view.text == finding.observed && view.source == finding.source)
}
