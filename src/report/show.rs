//! Mistakes as people see them: the lines of the file with a caret under the mistake.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::catalog::diagnostic::{Diagnostic, Diagnostics};
use crate::report::escape;

/// As many mistakes are shown in full; the rest is counted.
const MAX_SHOWN: usize = 100;

impl Diagnostics {
    /// For people: the lines of the file with a caret under the mistake.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for diagnostic in self.list.iter().take(MAX_SHOWN) {
            out.push_str(&self.render_one(&renderer, diagnostic));
            out.push('\n');
        }
        if let Some(more @ 1..) = self.list.len().checked_sub(MAX_SHOWN) {
            out.extend(["… and ", &more.to_string(), " more\n"]);
        }
        out
    }

    fn render_one(&self, renderer: &Renderer, diagnostic: &Diagnostic) -> String {
        let Some(source) = self.sources.get(diagnostic.place.source) else {
            return format!("error[{}]: {}", diagnostic.code, diagnostic.message);
        };
        let (first, text, span) = excerpt(&source.text, &diagnostic.place.span);
        let span = shift(text, &span);
        let text = escape::lines(text);
        let path = escape::text(&source.path);
        let message = escape::text(&diagnostic.message);
        let hint = diagnostic.hint.as_ref().map(|hint| escape::text(hint));
        let title = Level::ERROR.primary_title(message.as_ref()).id(diagnostic.code.name());
        let snippet = Snippet::source(text.as_ref())
            .line_start(first)
            .path(path.as_ref())
            .annotation(AnnotationKind::Primary.span(span));
        let mut group = Group::with_title(title).element(snippet);
        if let Some(hint) = &hint {
            group = group.element(Level::HELP.message(hint.as_ref()));
        }
        renderer.render(&[group])
    }
}

/// The lines that a span lies on: the number of the first, their text, and where the span lies in it. Only these are
/// drawn, so that a thousand mistakes in a large file do not escape the whole file a thousand times.
fn excerpt<'a>(text: &'a str, span: &Range<usize>) -> (usize, &'a str, Range<usize>) {
    let start = text.floor_char_boundary(span.start);
    let end = text.ceil_char_boundary(span.end.max(start).min(text.len()));
    let from = text[..start].rfind('\n').map_or(0, |at| at + 1);
    // A span that ends with its line break does not begin another line.
    let last = end.saturating_sub(usize::from(text[start..end].ends_with('\n')));
    let until = text[last..].find('\n').map_or(text.len(), |at| last + at);
    let first = text[..from].matches('\n').count() + 1;
    let lines = &text[from..until];
    let lines = lines.strip_suffix('\r').unwrap_or(lines);
    (first, lines, start - from..(end - from).min(lines.len()))
}

/// Where a span of the text lies after the text was escaped. Parsers may point past the end or into a character.
fn shift(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start);
    let end = text.ceil_char_boundary(span.end.max(start).min(text.len()));
    let escaped_start = escape::lines(&text[..start]).len();
    escaped_start..escaped_start + escape::lines(&text[start..end]).len()
}
