//! The report for people: the verdict, a table of findings, the reasons for what is wrong, and numbered next steps.

mod details;
mod table;

use std::io::{self, Write};

use owo_colors::{OwoColorize as _, Style as Paint};

use self::table::{Found, Layout, Piece, Row, Unmet};
use super::model::{Finding, Outcome, ProfileView, Report, Verdict};
use super::{escape, wrap};
use crate::catalog::check::Severity;
use crate::catalog::embedded;
use crate::facts::Value;

/// The width of a pipe or a file.
pub const DEFAULT_WIDTH: usize = 80;

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Only what needs a look.
    Quiet,
    /// Sections in which everything passes take one line.
    Normal,
    /// All findings, and all evidence.
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

pub fn write(report: &Report, style: Style, out: &mut dyn Write) -> io::Result<()> {
    Terminal { style, out }.report(report)
}

/// What the findings came to: `1 blocker fails, 4 warnings, 46 pass`, or `3 checks fail (1 blocker), 46 pass`.
fn counts(report: &Report) -> String {
    let count = |test: &dyn Fn(&Finding) -> bool| report.findings.iter().filter(|finding| test(finding)).count();
    let is_info = |f: &Finding| f.severity == Severity::Info && matches!(f.result, Outcome::Fail | Outcome::Warn);
    let fails = count(&|f| f.result == Outcome::Fail && !is_info(f));
    let blockers = count(&|f| f.result == Outcome::Fail && f.severity == Severity::Blocker);
    let of_them = match blockers {
        0 => String::new(),
        1 => " (1 blocker)".to_owned(),
        many => format!(" ({many} blockers)"),
    };
    let failed = match fails {
        0 => None,
        1 if blockers == 1 => Some("1 blocker fails".to_owned()),
        all if all == blockers => Some(format!("{all} blockers fail")),
        1 => Some("1 check fails".to_owned()),
        all => Some(format!("{all} checks fail{of_them}")),
    };
    let others = [
        (count(&|f| f.result == Outcome::Warn && !is_info(f)), ["warning", "warnings"]),
        (report.summary.unknown, ["unknown"; 2]),
        (count(&is_info), ["info"; 2]),
        (report.summary.waived, ["waived"; 2]),
        (report.summary.pass, ["pass"; 2]),
        (report.summary.not_applicable, ["not applicable"; 2]),
    ];
    let others = others.iter().filter(|(count, _)| *count > 0);
    let others = others.map(|(count, [one, many])| format!("{count} {}", if *count == 1 { one } else { many }));
    let words: Vec<String> = failed.into_iter().chain(others).collect();
    if words.is_empty() { "no findings".to_owned() } else { words.join(", ") }
}

/// Quiet leaves out what passes and what does not apply; the normal view only what does not apply.
fn shows(detail: Detail, finding: &Finding) -> bool {
    match detail {
        Detail::Verbose => true,
        Detail::Normal => finding.result != Outcome::NotApplicable,
        Detail::Quiet => is_open(finding),
    }
}

/// Whether a finding needs a look.
fn is_open(finding: &Finding) -> bool {
    !matches!(finding.result, Outcome::Pass | Outcome::NotApplicable)
}

/// Whether another instance of the same check comes to the same for the same reasons, so that the words of one say it
/// of both. Of what passes only the value is said.
fn is_said_by(finding: &Finding, other: &Finding) -> bool {
    let (a, b) = (finding, other);
    (&a.check, a.result, a.severity, &a.observed) == (&b.check, b.result, b.severity, &b.observed)
        && (a.result == Outcome::Pass
            || (&a.expected, &a.live, &a.boot, &a.container) == (&b.expected, &b.live, &b.boot, &b.container)
                && (&a.notes, &a.waiver) == (&b.notes, &b.waiver))
}

/// Findings that are shown as one: at least one, and all of them alike.
type Alike<'f> = &'f [&'f Finding];

struct Terminal<'a> {
    style: Style,
    out: &'a mut dyn Write,
}

impl Terminal<'_> {
    fn report(&mut self, report: &Report) -> io::Result<()> {
        let detail = self.style.detail;
        let shown: Vec<&Finding> = report.findings.iter().filter(|finding| shows(detail, finding)).collect();
        let alike = |first: &&Finding, next: &&Finding| detail != Detail::Verbose && is_said_by(next, first);
        let alike: Vec<Alike<'_>> = shown.chunk_by(alike).collect();
        self.head(report)?;
        self.verdict(report)?;
        self.own_files(report)?;
        let layout = self.table(&alike)?;
        self.reasons(&alike, layout)?;
        self.steps(report)?;
        self.unknown(report)?;
        if alike.is_empty() {
            return Ok(());
        }
        writeln!(self.out)?;
        self.verdict(report)
    }

    /// One line, so that the verdict is the second: as much of the host's identity as fits.
    fn head(&mut self, report: &Report) -> io::Result<()> {
        let host = &report.host;
        let start = format!("preflight {}  {} on {}", report.preflight, report.profile.name, host.name);
        // `Debian GNU/Linux 12 (bookworm)`: what is in parentheses is a name of the same release.
        let os = host.os.split(" (").next().unwrap_or_default();
        // At least the beginning of it beside a long name of the host.
        let room = self.style.width.saturating_sub(wrap::columns(&start) + 3);
        let short = if room > 8 {
            format!("{start} ({})", wrap::shortened(os, room, if self.style.unicode { "…" } else { "..." }))
        } else {
            start.clone()
        };
        let forms = [
            format!("{start} ({}, kernel {})", host.os, host.kernel),
            format!("{start} ({os}, kernel {})", host.kernel),
            format!("{start} ({}, kernel {})", os.replace(" GNU/Linux", ""), host.kernel),
            short,
            start,
        ];
        let fits = |form: &&String| wrap::columns(&self.safe(form)) <= self.style.width;
        let form = forms.iter().find(fits).unwrap_or(&forms[forms.len() - 1]);
        self.paragraph("", "", form, Paint::new())
    }

    fn verdict(&mut self, report: &Report) -> io::Result<()> {
        let paint = match report.verdict {
            // Green and yellow letters cannot be read on a light ground.
            Verdict::Ready => Paint::new().black().on_green(),
            Verdict::ReadyWithWarnings => Paint::new().black().on_yellow(),
            Verdict::NotReady => Paint::new().red().bold(),
            Verdict::CannotTell => Paint::new().magenta().bold(),
        };
        let words = report.verdict.words();
        let line = format!("{words}: {}", counts(report));
        for (index, line) in wrap::lines(&line, self.style.width).iter().enumerate() {
            match line.strip_prefix(words).filter(|_| index == 0) {
                Some(rest) => self.pieces(&[piece(words, paint), piece(rest, Paint::new())])?,
                None => self.line("", line, Paint::new())?,
            }
        }
        Ok(())
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

    /// Section by section; all columns stand where they stand in the first.
    fn table(&mut self, alike: &[Alike<'_>]) -> io::Result<Layout> {
        let sections: Vec<(&str, Vec<Row>)> = alike
            .chunk_by(|one, next| one[0].section == next[0].section)
            .map(|section| (&*section[0][0].section, self.rows(section)))
            .collect();
        let rows = sections.iter().flat_map(|(_, rows)| rows);
        let layout = Layout::of(rows, self.style.width, self.mark_width());
        if !sections.is_empty() {
            writeln!(self.out)?;
        }
        for (section, rows) in &sections {
            self.line("", &escape::text(section), Paint::new().bold())?;
            for row in rows {
                for line in layout.lines(row) {
                    self.pieces(&line)?;
                }
            }
        }
        Ok(layout)
    }

    fn rows(&self, section: &[Alike<'_>]) -> Vec<Row> {
        let all_pass = section.iter().all(|alike| alike[0].result == Outcome::Pass);
        if all_pass && section.len() > 1 && self.style.detail == Detail::Normal {
            return vec![self.passes(section)];
        }
        section.iter().map(|alike| self.row(alike)).collect()
    }

    /// A section in which everything passes: how many, and what was looked at, as far as it fits.
    fn passes(&self, section: &[Alike<'_>]) -> Row {
        let count: usize = section.iter().map(|alike| alike.len()).sum();
        let (mark, mark_paint) = self.mark(section[0][0]);
        let titles = section.iter().map(|alike| self.safe(&title(alike))).collect();
        Row {
            mark,
            mark_paint,
            title: format!("{count} pass"),
            found: Found::List(titles, if self.style.unicode { "…" } else { "..." }),
            found_paint: Paint::new().dimmed(),
            unmet: None,
        }
    }

    fn row(&self, alike: Alike<'_>) -> Row {
        let finding = alike[0];
        let (mark, mark_paint) = self.mark(finding);
        let is_pass = finding.result == Outcome::Pass;
        let applies = finding.result != Outcome::NotApplicable;
        let want = if applies && !finding.expected.is_empty() {
            format!("want {}", self.safe(&finding.expected))
        } else {
            String::new()
        };
        let found_paint = match finding.result {
            Outcome::Pass => Paint::new(),
            Outcome::NotApplicable => Paint::new().dimmed(),
            Outcome::Unknown => Paint::new().magenta().bold(),
            Outcome::Fail if finding.severity != Severity::Info => Paint::new().red().bold(),
            Outcome::Fail | Outcome::Warn | Outcome::Waived => Paint::new().bold(),
        };
        Row {
            mark,
            mark_paint,
            title: self.safe(&title(alike)),
            found: Found::Value(self.safe(&found(finding))),
            found_paint,
            unmet: (!is_pass).then(|| Unmet { want, id: self.safe(&finding.id) }),
        }
    }

    /// Everything that came from the host or a file is escaped here and in [`Self::paragraph`].
    fn safe(&self, text: &str) -> String {
        escape::plain(escape::text(text), self.style.unicode).into_owned()
    }

    fn mark(&self, finding: &Finding) -> (&'static str, Paint) {
        let (unicode, plain, paint) = marks(finding);
        (if self.style.unicode { unicode } else { plain }, paint)
    }

    fn mark_width(&self) -> usize {
        if self.style.unicode { 2 } else { 6 }
    }

    fn heading(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out)?;
        self.line("", text, Paint::new().bold())
    }

    /// One finished line.
    fn line(&mut self, lead: &str, text: &str, paint: Paint) -> io::Result<()> {
        self.pieces(&[piece(lead, Paint::new()), piece(text, paint)])
    }

    fn pieces(&mut self, pieces: &[Piece]) -> io::Result<()> {
        for Piece { text, paint } in pieces {
            if self.style.color && !text.trim().is_empty() && *paint != Paint::new() {
                write!(self.out, "{}", text.style(*paint))?;
            } else {
                self.out.write_all(text.as_bytes())?;
            }
        }
        self.out.write_all(b"\n")
    }

    /// Wraps text to the width.
    fn paragraph(&mut self, first: &str, rest: &str, text: &str, paint: Paint) -> io::Result<()> {
        let safe = self.safe(text);
        let width = self.style.width.saturating_sub(rest.len()).max(20);
        for (index, line) in wrap::lines(&safe, width).iter().enumerate() {
            self.line(if index == 0 { first } else { rest }, line, paint)?;
        }
        Ok(())
    }
}

/// The sign, the same in ASCII, and its colour. All signs are two columns wide in every terminal: those that some terminals
/// draw in one, such as U+26A0, would move what stands behind them.
fn marks(finding: &Finding) -> (&'static str, &'static str, Paint) {
    let info = finding.severity == Severity::Info && finding.result != Outcome::Pass;
    match finding.result {
        Outcome::NotApplicable => ("➖", "[ -- ]", Paint::new().dimmed()),
        Outcome::Pass => ("✅", "[ ok ]", Paint::new().green()),
        Outcome::Unknown => ("❓", "[ ?? ]", Paint::new().magenta()),
        Outcome::Waived => ("📝", "[wvd.]", Paint::new().yellow()),
        _ if info => ("💡", "[info]", Paint::new().cyan()),
        Outcome::Warn => ("❗", "[warn]", Paint::new().yellow()),
        Outcome::Fail => ("❌", "[FAIL]", Paint::new().red()),
    }
}

fn piece(text: &str, paint: Paint) -> Piece {
    Piece { text: text.to_owned(), paint }
}

/// What a finding, and those that are shown with it, are about.
fn title(alike: Alike<'_>) -> String {
    match alike.len() {
        1 => alike[0].title.clone(),
        many => format!("{} and {} more", alike[0].title, many - 1),
    }
}

/// A longer text is no value to read at a glance.
const LONGEST_VALUE: usize = 40;

/// What was found, as the cell of a table. What is left out stands among the reasons.
fn found(finding: &Finding) -> String {
    match finding.result {
        Outcome::Unknown => return "unknown".to_owned(),
        Outcome::NotApplicable => return "not applicable".to_owned(),
        _ => {}
    }
    let views = [finding.live.as_ref(), finding.boot.as_deref(), finding.container.as_deref()];
    let view = views.into_iter().flatten().find(|view| view.decides && view.text == finding.observed);
    match view.and_then(|view| view.value.as_ref()) {
        Some(Value::Set(words)) if !is_short(&finding.observed) => format!("{} found", words.len()),
        _ => wrap::shortened(&finding.observed, LONGEST_VALUE, "…").into_owned(),
    }
}

fn is_short(value: &str) -> bool {
    wrap::columns(value) <= LONGEST_VALUE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(result: &str, severity: &str) -> Finding {
        serde_json::from_value(serde_json::json!({
            "id": "a.b", "check": "a.b", "section": "S", "result": result, "severity": severity, "title": "t",
            "expected": "e", "observed": "o", "source": "s", "why": "w", "duration_us": 0,
        }))
        .unwrap()
    }

    /// U+FE0F asks for a picture in place of a letter: where it counts, the sign is two columns wide, elsewhere one. Seen
    /// failing with U+26A0 U+FE0F.
    #[test]
    fn every_mark_has_one_width_in_every_terminal() {
        for result in ["pass", "warn", "fail", "unknown", "not_applicable", "waived"] {
            for severity in ["info", "required"] {
                let (sign, plain, _) = marks(&finding(result, severity));
                let c = sign.chars().next().unwrap();
                assert!(sign.chars().count() == 1 && wrap::columns(sign) == 2, "{sign}");
                // Pictures by default since Unicode 6; the letters before them are narrow.
                assert!(matches!(c, '\u{2705}'..='\u{2797}' | '\u{1f300}'..='\u{1f5ff}'), "{sign}");
                assert_eq!(plain.len(), 6);
            }
        }
    }
}
