//! The clock source in use.

use std::time::Instant;

use crate::facts::{Fact, Facts, Value};
use crate::subjects::context::Context;

const CURRENT: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// Inserts `clocksource.current`.
pub fn probe(cx: &Context<'_>, facts: &mut Facts) {
    if !cx.want.has("clocksource.current") {
        return;
    }
    let started = Instant::now();
    let fact = match cx.host.read_text(CURRENT) {
        Ok(text) => match text.trim() {
            "" => Fact::unknown("the file is empty", None, CURRENT),
            name => Fact::known(Value::Text(name.to_owned()), CURRENT),
        },
        Err(error) => Fact::unreadable_of_kernel(cx.host, &error, "this kernel does not name its clock source"),
    };
    facts.live("clocksource.current", fact.took(started.elapsed()));
}
