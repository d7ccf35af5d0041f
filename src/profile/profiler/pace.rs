//! How fast a trace is made of what was recorded: at once while nothing else is to do, and in
//! short turns while the engine is busy, so that no step waits long for a processor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;

/// A turn of work. A step that has to wait for one is longer by at most this.
const TURN: Duration = Duration::from_millis(1);
/// The pause after a turn while the engine is busy: a tenth of one processor.
const PAUSE: Duration = Duration::from_millis(9);
/// After this much time somebody waits too long for the file: a quarter of one processor.
const PATIENCE: Duration = Duration::from_secs(2);
const SHORT_PAUSE: Duration = Duration::from_millis(3);

/// Turns and pauses of a writing thread.
pub struct Pace {
    /// Whom to give way to.
    shared: Arc<Shared>,
    begun: Instant,
    turn: Instant,
    steps: u64,
}

impl Pace {
    /// Gives way to the engine of `shared`.
    pub fn behind(shared: &Arc<Shared>) -> Pace {
        let now = Instant::now();
        let (steps, _) = shared.pulse.read();
        Pace { shared: Arc::clone(shared), begun: now, turn: now, steps }
    }

    /// Pauses if a turn is over and the engine is in a step, or has been since the last one.
    pub fn rest(&mut self) {
        if self.turn.elapsed() < TURN {
            return;
        }
        let (steps, in_step) = self.shared.pulse.read();
        if in_step || steps != self.steps {
            let late = self.begun.elapsed() > PATIENCE;
            std::thread::sleep(if late { SHORT_PAUSE } else { PAUSE });
        }
        self.steps = steps;
        self.turn = Instant::now();
    }
}
