//! Progress on stderr while an apply waits, and the signals that end it. Silent where nobody looks.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use super::Stop;
use crate::apply::signals::Interrupt;
use crate::apply::{TxId, Watch};

/// Looks on while a transaction runs.
#[derive(Debug)]
pub(super) struct Terminal {
    interrupt: Interrupt,
    /// Whether somebody sees stderr.
    seen: bool,
    /// The second that was last shown, so that a line is written once per second.
    shown: Cell<Option<u64>>,
}

impl Terminal {
    pub(super) fn new() -> Result<Self, Stop> {
        let interrupt = Interrupt::install().map_err(|error| Stop::Internal(error.into()))?;
        Ok(Self { interrupt, seen: std::io::stderr().is_terminal(), shown: Cell::new(None) })
    }

    fn countdown(&self, words: &str, left: Duration) {
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        if self.seen && self.shown.replace(Some(seconds)) != Some(seconds) {
            let mut stderr = std::io::stderr();
            // The session may be gone; the work goes on.
            let _ = write!(stderr, "\r\x1b[K{words}, {seconds} s left");
            let _ = stderr.flush();
        }
    }

    /// Ends the line of a countdown.
    pub(super) fn done(&self) {
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Watch for Terminal {
    fn is_interrupted(&self) -> bool {
        self.interrupt.is_set()
    }

    fn settling(&self, left: Duration) {
        self.countdown("watching whether the new values hold", left);
    }

    fn waiting(&self, _: &TxId, left: Duration) {
        // One line of 80 columns, or each second would leave one behind.
        self.countdown("waiting for `preflight confirm` from another session", left);
    }
}
