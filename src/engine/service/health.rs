//! What anybody may read of the engine at any moment, without a lock.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::step::StepStats;
use crate::scheduler::Metrics;

/// Where the service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The model is being loaded; requests are not taken yet.
    Starting,
    Ready,
    /// What was taken is finished, nothing new is taken.
    Draining,
    /// Shut down on request.
    Stopped,
    /// The device is lost, the engine panicked, or it could not start: nothing runs any more.
    Faulted,
}

impl State {
    const ALL: [State; 5] =
        [State::Starting, State::Ready, State::Draining, State::Stopped, State::Faulted];

    /// Lower case, as in metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Draining => "draining",
            State::Stopped => "stopped",
            State::Faulted => "faulted",
        }
    }
}

/// What the engine thread is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Nothing to do.
    Idle,
    /// Loading, or taking commands.
    Commands,
    /// Running a step.
    Step,
    /// Waiting until the reader takes reports.
    Reports,
}

impl Phase {
    const ALL: [Phase; 4] = [Phase::Idle, Phase::Commands, Phase::Step, Phase::Reports];
}

/// Shared counters, written by the engine thread. Numbers are read one by one: two of them may
/// come from neighbouring steps.
#[derive(Debug)]
pub struct Health {
    origin: Instant,
    state: AtomicU8,
    phase: AtomicU8,
    /// Nanoseconds since the origin when the phase began.
    phase_since: AtomicU64,
    steps: AtomicU64,
    last_step_end: AtomicU64,
    last_step_total: AtomicU64,
    last_step_device: AtomicU64,
    decode_tokens: AtomicU64,
    running: AtomicU64,
    preempted: AtomicU64,
    queued: AtomicU64,
    queued_tokens: AtomicU64,
    pages_used: AtomicU64,
    pages_cached: AtomicU64,
    pages_total: AtomicU64,
    hit_tokens: AtomicU64,
    prefill_tokens: AtomicU64,
    preemptions: AtomicU64,
    failed_steps: AtomicU64,
    settle_ns: AtomicU64,
    hidden_ns: AtomicU64,
}

/// [`Health`] at one moment. `…_total` never decrease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthSnapshot {
    pub state: State,
    pub phase: Phase,
    /// How long the engine thread has been in this phase.
    pub phase_for: Duration,
    /// Steps that came back, failed ones included.
    pub steps_total: u64,
    pub failed_steps_total: u64,
    /// Since the last step ended; `None` before the first.
    pub since_last_step: Option<Duration>,
    pub last_step: Duration,
    pub last_step_device: Duration,
    pub running: usize,
    pub preempted: usize,
    /// Choices that never ran, and their prompt tokens.
    pub queued: usize,
    pub queued_tokens: usize,
    /// Pages held by running choices or by a step in flight; kept for later prefixes; in all.
    pub pages_used: usize,
    pub pages_cached: usize,
    pub pages_total: usize,
    /// Prompt tokens that needed no computing.
    pub hit_tokens_total: u64,
    /// Prompt tokens computed, recomputation included.
    pub prefill_tokens_total: u64,
    pub decode_tokens_total: u64,
    pub preemptions_total: u64,
    /// Time that results of steps were handled in, and how much of it a step ran beside.
    pub settle_total: Duration,
    pub hidden_total: Duration,
}

impl Default for Health {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Health {
            origin: Instant::now(),
            state: AtomicU8::new(State::Starting as u8),
            phase: AtomicU8::new(Phase::Commands as u8),
            phase_since: zero(),
            steps: zero(),
            last_step_end: zero(),
            last_step_total: zero(),
            last_step_device: zero(),
            decode_tokens: zero(),
            running: zero(),
            preempted: zero(),
            queued: zero(),
            queued_tokens: zero(),
            pages_used: zero(),
            pages_cached: zero(),
            pages_total: zero(),
            hit_tokens: zero(),
            prefill_tokens: zero(),
            preemptions: zero(),
            failed_steps: zero(),
            settle_ns: zero(),
            hidden_ns: zero(),
        }
    }
}

fn set(cell: &AtomicU64, value: u64) {
    cell.store(value, Ordering::Relaxed);
}

fn get(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Relaxed)
}

impl Health {
    pub fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Ordering::SeqCst)) % State::ALL.len()]
    }

    pub(super) fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::SeqCst);
    }

    /// Gives the phase before, for [`back_to`](Health::back_to).
    pub(super) fn enter(&self, phase: Phase) -> (u8, u64) {
        let before = (self.phase.load(Ordering::SeqCst), get(&self.phase_since));
        set(&self.phase_since, self.now());
        self.phase.store(phase as u8, Ordering::SeqCst);
        before
    }

    /// Back to a phase that began earlier and goes on.
    pub(super) fn back_to(&self, (phase, since): (u8, u64)) {
        set(&self.phase_since, since);
        self.phase.store(phase, Ordering::SeqCst);
    }

    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    pub(super) fn stepped(&self, step: &StepStats, failed: bool) {
        set(&self.last_step_end, self.now());
        set(&self.last_step_total, step.total.as_nanos() as u64);
        set(&self.last_step_device, step.device.as_nanos() as u64);
        self.decode_tokens.fetch_add(step.decode_tokens as u64, Ordering::Relaxed);
        self.failed_steps.fetch_add(u64::from(failed), Ordering::Relaxed);
        self.settle_ns.fetch_add(step.settle.as_nanos() as u64, Ordering::Relaxed);
        self.hidden_ns.fetch_add(step.hidden.as_nanos() as u64, Ordering::Relaxed);
        self.steps.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn publish(&self, m: &Metrics) {
        set(&self.running, m.running as u64);
        set(&self.preempted, m.preempted as u64);
        set(&self.queued, m.queued as u64);
        set(&self.queued_tokens, m.queued_tokens as u64);
        set(&self.pages_used, (m.pages.held + m.pages.fenced) as u64);
        set(&self.pages_cached, m.pages.cached as u64);
        set(&self.pages_total, m.pages_total as u64);
        set(&self.hit_tokens, m.hit_tokens_total);
        set(&self.prefill_tokens, m.prefill_tokens_total);
        set(&self.preemptions, m.preemptions_total);
    }

    /// How long the engine has worked on one thing without coming back: a watchdog that finds
    /// more than its limit here (say 30 s) has found a hang. `None` while there is nothing to do.
    pub fn stalled_for(&self) -> Option<Duration> {
        let now = self.snapshot();
        let working = matches!(now.phase, Phase::Step | Phase::Commands);
        let alive = matches!(now.state, State::Ready | State::Draining);
        (working && alive).then_some(now.phase_for)
    }

    pub fn snapshot(&self) -> HealthSnapshot {
        let now = self.now();
        let since = |at: u64| Duration::from_nanos(now.saturating_sub(at));
        let phase = usize::from(self.phase.load(Ordering::SeqCst)) % Phase::ALL.len();
        let steps_total = self.steps.load(Ordering::SeqCst);
        HealthSnapshot {
            state: self.state(),
            phase: Phase::ALL[phase],
            phase_for: since(get(&self.phase_since)),
            steps_total,
            failed_steps_total: get(&self.failed_steps),
            since_last_step: (steps_total > 0).then(|| since(get(&self.last_step_end))),
            last_step: Duration::from_nanos(get(&self.last_step_total)),
            last_step_device: Duration::from_nanos(get(&self.last_step_device)),
            running: get(&self.running) as usize,
            preempted: get(&self.preempted) as usize,
            queued: get(&self.queued) as usize,
            queued_tokens: get(&self.queued_tokens) as usize,
            pages_used: get(&self.pages_used) as usize,
            pages_cached: get(&self.pages_cached) as usize,
            pages_total: get(&self.pages_total) as usize,
            hit_tokens_total: get(&self.hit_tokens),
            prefill_tokens_total: get(&self.prefill_tokens),
            decode_tokens_total: get(&self.decode_tokens),
            preemptions_total: get(&self.preemptions),
            settle_total: Duration::from_nanos(get(&self.settle_ns)),
            hidden_total: Duration::from_nanos(get(&self.hidden_ns)),
        }
    }
}
