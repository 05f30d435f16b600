//! How a report gets to whoever asked: the form, the width, the colours, the file.

use std::io::{IsTerminal as _, Write};

use clap::ValueEnum;

use super::args::ShowArgs;
use super::{Stop, source};
use crate::change::render::{Look, wrapped};
use crate::host::{self, env};
use crate::report::model::Report;
use crate::report::{escape, json, terminal};

/// The forms of a report: each is a file of `report`, and an arm of [`render`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: the verdict, a table of findings, reasons and next steps
    Terminal,
    /// The report as data, by the published schema `preflight.report/1`
    Json,
}

/// Writes reports, one after the other, to where and in the form that is asked.
pub(super) fn write(args: &ShowArgs, reports: &[Report]) -> Result<(), Stop> {
    let file = source::output_file(args.output.as_deref());
    let is_terminal = file.is_none() && std::io::stdout().is_terminal();
    let color = file.is_none() && color_choice() != anstream::ColorChoice::Never;
    let mut bytes = Vec::new();
    for (index, report) in reports.iter().enumerate() {
        if index > 0 && args.format == Format::Terminal {
            bytes.push(b'\n');
        }
        render(args, report, &mut bytes, is_terminal, color)?;
    }
    if let Some(path) = file {
        return host::output::write(path, &bytes).map_err(|error| Stop::unwritten(path.display(), &error));
    }
    deliver(&bytes)
}

/// Prints text that may hold colours, and takes them out where none are wanted.
pub(super) fn print(bytes: &[u8]) -> Result<(), Stop> {
    if color_choice() != anstream::ColorChoice::Never {
        return deliver(bytes);
    }
    let mut plain = anstream::StripStream::new(Vec::with_capacity(bytes.len()));
    plain.write_all(bytes)?;
    deliver(&plain.into_inner())
}

/// Prints lines of words: on a terminal in its width, and in signs that it knows.
pub(super) fn words(bytes: &[u8]) -> Result<(), Stop> {
    let is_terminal = std::io::stdout().is_terminal();
    let text = escape::plain(String::from_utf8_lossy(bytes), is_unicode(is_terminal));
    if !is_terminal {
        return deliver(text.as_bytes());
    }
    let look = Look { width: terminal_width(), unicode: true };
    let mut fitting = Vec::with_capacity(text.len());
    for line in text.lines() {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        wrapped(look, indent, &format!("{indent}  "), rest, &mut fitting)?;
    }
    deliver(&fitting)
}

/// Prints data as it is. In one piece: line by line, a report is seventy system calls.
///
/// A reader who left (`| head`) is no error, and changes nothing about how the command ends: under `pipefail` a 0 instead of
/// its code would be a false green.
pub(super) fn deliver(bytes: &[u8]) -> Result<(), Stop> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether standard output gets colours: `--color`, NO_COLOR, CLICOLOR_FORCE, and what it is.
fn color_choice() -> anstream::ColorChoice {
    anstream::AutoStream::choice(&std::io::stdout())
}

fn render(args: &ShowArgs, report: &Report, out: &mut dyn Write, is_terminal: bool, color: bool) -> Result<(), Stop> {
    match args.format {
        Format::Json => json::write(report, out)?,
        Format::Terminal => {
            let detail = match (args.quiet, args.verbose) {
                (true, _) => terminal::Detail::Quiet,
                (_, true) => terminal::Detail::Verbose,
                _ => terminal::Detail::Normal,
            };
            let width = if is_terminal { terminal_width() } else { terminal::DEFAULT_WIDTH };
            let style = terminal::Style { width, unicode: is_unicode(is_terminal), color, detail };
            terminal::write(report, style, out)?;
        }
    }
    Ok(())
}

/// The terminal's width, within what is readable.
pub(super) fn terminal_width() -> usize {
    let width = terminal_size::terminal_size().map_or(terminal::DEFAULT_WIDTH, |(width, _)| usize::from(width.0));
    width.clamp(40, 120)
}

/// Whether signs beyond ASCII may be shown: on a terminal that knows them. Everywhere else words are plain.
pub(super) fn is_unicode(is_terminal: bool) -> bool {
    is_terminal && is_utf8()
}

/// Whether the locale can show more than ASCII, as setlocale(3) decides: the first that is set of LC_ALL, LC_CTYPE, LANG.
fn is_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(env::text).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.ends_with("utf-8") || locale.ends_with("utf8")
}
