//! What the engine is doing right now, told by atomics only: whoever looks, the engine never waits.

use std::sync::atomic::{AtomicU64, Ordering};

/// Steps begun so far, and since when one is running.
#[derive(Debug, Default)]
pub struct Pulse {
    steps: AtomicU64,
    /// 0 between steps.
    begun_ns: AtomicU64,
}

impl Pulse {
    pub fn begins(&self, now_ns: u64) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.begun_ns.store(now_ns.max(1), Ordering::Relaxed);
    }

    /// When the step that ends had begun; 0 if none had.
    pub fn ends(&self) -> u64 {
        self.begun_ns.swap(0, Ordering::Relaxed)
    }

    /// Steps begun, and whether one is running.
    pub fn read(&self) -> (u64, bool) {
        (self.steps.load(Ordering::Relaxed), self.begun_ns.load(Ordering::Relaxed) != 0)
    }
}
