//! Ctrl-C as a flag: the first press asks, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::error::{Error, Kind, Result};

/// Whether the user asked to stop. Clones share the answer.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// One that no signal sets.
    pub fn never() -> Self {
        Self::default()
    }

    /// Sets the flag on SIGINT and SIGTERM; a second signal ends the process with code 130.
    pub fn on_signals() -> Result<Self> {
        let this = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // Registered first, so that it still sees the flag as it was before this signal.
            signal_hook::flag::register_conditional_shutdown(signal, 130, this.asked.clone())
                .and_then(|_| signal_hook::flag::register(signal, this.asked.clone()))
                .map_err(|e| Error::new(Kind::Io, format!("signal handler: {e}")))?;
        }
        Ok(this)
    }

    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Asks, as a signal would.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// The error to end with: exit code 130.
    pub fn error(&self, written: &str) -> Error {
        Error::new(Kind::Interrupted, format!("interrupted; {written}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_sets_the_flag_once() {
        let interrupt = Interrupt::on_signals().unwrap();
        assert!(!interrupt.asked());
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert!(interrupt.asked());
        assert_eq!(interrupt.error("2 rows written").exit_code(), 130);
    }
}
