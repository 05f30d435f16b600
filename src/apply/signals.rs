//! Signals while a transaction runs: losing the terminal must not stop it, and asking it to stop takes it back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM};
use signal_hook::flag;

/// Set by SIGINT and SIGTERM. SIGHUP and SIGPIPE are taken and dropped: NixOS once rolled out half a system because its
/// output had gone (NixOS/nixpkgs#462179).
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over the four signals for the rest of the process. Programs started from here get the defaults back.
    pub fn install() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let dropped = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&asked))?;
        }
        for signal in [SIGHUP, SIGPIPE] {
            flag::register(signal, Arc::clone(&dropped))?;
        }
        Ok(Self(asked))
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
