//! The report as JSON, by the schema `preflight.report/1` (`docs/schema/report.json`).

use std::io::{self, Write};

use super::model::Report;

pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(report).map_err(io::Error::other)?;
    text.push('\n');
    out.write_all(super::escape::json(&text).as_bytes())
}
