//! Counts and histograms of the loop. One thread writes and reads them, so they are plain numbers.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::generate::Generation;
use crate::engine::request::FinishReason;
use crate::engine::service::StepStats;
use crate::measure::machine::ThreadTimes;

/// Upper bounds in seconds, from a tenth of a millisecond up.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0, 120.0,
];
const TOKENS: &[f64] =
    &[1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0];
/// Requests whose latencies the status page looks at.
const RECENT: usize = 1000;
/// Seconds over which throughput is taken.
const WINDOW: u64 = 10;

/// A cumulative histogram as Prometheus has them.
#[derive(Debug, Clone)]
pub struct Histogram {
    pub bounds: &'static [f64],
    /// One more than `bounds`: the last is everything above.
    pub counts: Vec<u64>,
    pub sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Histogram { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    pub fn add(&mut self, value: f64) {
        self.add_many(value, 1);
    }

    /// Takes the same value several times.
    pub fn add_many(&mut self, value: f64, times: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(at) {
            *count += times;
        }
        self.sum += value * times as f64;
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Latencies of a finished request, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Latencies {
    pub ttft: f64,
    /// Mean gap between tokens; `None` for a single one.
    pub itl: Option<f64>,
    pub e2e: f64,
}

/// All of them.
#[derive(Debug)]
pub struct Stats {
    /// By route and status.
    pub responses: BTreeMap<(&'static str, u16), u64>,
    pub connections_total: u64,
    pub connections_refused: u64,
    pub connections_late: u64,
    pub requests: u64,
    /// Ended by their client, by an abort, or by a failure.
    pub aborted: u64,
    pub prompt_tokens: u64,
    pub generation_tokens: u64,
    pub cached_tokens: u64,
    pub ttft: Histogram,
    pub itl: Histogram,
    pub per_token: Histogram,
    pub e2e: Histogram,
    pub prompt_lengths: Histogram,
    pub output_lengths: Histogram,
    pub step: Histogram,
    pub device_step: Histogram,
    pub loop_busy: Histogram,
    pub loop_busy_max: f64,
    /// The longest that it held itself up: computing, or waiting for a lock or a disk. The other
    /// figure also has the time in which it was ready and the system let others run.
    pub loop_blocked_max: f64,
    pub recent: VecDeque<Latencies>,
    /// Tokens of the last seconds, by second since the start.
    window: VecDeque<(u64, u64)>,
    started: Instant,
}

impl Stats {
    pub fn new() -> Self {
        let seconds = || Histogram::new(SECONDS);
        Stats {
            responses: BTreeMap::new(),
            connections_total: 0,
            connections_refused: 0,
            connections_late: 0,
            requests: 0,
            aborted: 0,
            prompt_tokens: 0,
            generation_tokens: 0,
            cached_tokens: 0,
            ttft: seconds(),
            itl: seconds(),
            per_token: seconds(),
            e2e: seconds(),
            prompt_lengths: Histogram::new(TOKENS),
            output_lengths: Histogram::new(TOKENS),
            step: seconds(),
            device_step: seconds(),
            loop_busy: seconds(),
            loop_busy_max: 0.0,
            loop_blocked_max: 0.0,
            recent: VecDeque::new(),
            window: VecDeque::new(),
            started: Instant::now(),
        }
    }

    pub fn response(&mut self, route: &'static str, status: u16) {
        *self.responses.entry((route, status)).or_default() += 1;
    }

    /// How long the loop was away from its poll, and what the kernel said of its thread before
    /// and after.
    pub fn busy(
        &mut self,
        time: Duration,
        before: Option<ThreadTimes>,
        after: Option<ThreadTimes>,
    ) {
        let ready = |times: Option<ThreadTimes>| times.map_or(0, |t| t.waited_ns);
        let others = Duration::from_nanos(ready(after).saturating_sub(ready(before)));
        let blocked = time.saturating_sub(others);
        self.loop_blocked_max = self.loop_blocked_max.max(blocked.as_secs_f64());
        let seconds = time.as_secs_f64();
        self.loop_busy.add(seconds);
        self.loop_busy_max = self.loop_busy_max.max(seconds);
    }

    pub fn stepped(&mut self, step: &StepStats) {
        self.step.add(step.total.as_secs_f64());
        self.device_step.add(step.device.as_secs_f64());
    }

    /// A token arrived, so long after its request or after the token before it.
    pub fn token(&mut self, received: Instant, before: Option<Instant>, now: Instant) {
        self.generation_tokens += 1;
        match before {
            None => self.ttft.add((now - received).as_secs_f64()),
            Some(before) => self.itl.add((now - before).as_secs_f64()),
        }
        let second = now.saturating_duration_since(self.started).as_secs();
        match self.window.back_mut() {
            Some((last, tokens)) if *last == second => *tokens += 1,
            _ => self.window.push_back((second, 1)),
        }
        while self.window.front().is_some_and(|(s, _)| s + WINDOW < second) {
            self.window.pop_front();
        }
    }

    /// Tokens a second over the last whole seconds.
    pub fn throughput(&self, now: Instant) -> f64 {
        let second = now.saturating_duration_since(self.started).as_secs();
        let whole = |s: &u64| *s < second && *s + WINDOW >= second;
        let tokens: u64 = self.window.iter().filter(|(s, _)| whole(s)).map(|(_, t)| t).sum();
        tokens as f64 / second.clamp(1, WINDOW) as f64
    }

    /// A request has ended with all its choices.
    pub fn finished(&mut self, generation: &Generation) {
        for running in &generation.running {
            self.prompt_lengths.add(running.prompt.len() as f64);
            self.prompt_tokens += running.prompt.len() as u64;
            // Once a prompt, as its tokens are counted: further choices share them anyway.
            self.cached_tokens += running.choices.first().map_or(0, |c| c.cached_tokens()) as u64;
            for choice in &running.choices {
                self.output_lengths.add(choice.ids.len() as f64);
                let reason = choice.finished.as_ref().map(|f| &f.reason);
                if !matches!(
                    reason,
                    Some(
                        FinishReason::Length
                            | FinishReason::StopText(_)
                            | FinishReason::StopToken(_)
                    )
                ) {
                    self.aborted += 1;
                    continue;
                }
                let (Some(first), Some(last)) = (choice.first_token, choice.last_token) else {
                    continue;
                };
                self.latencies(generation.received, first, last, choice.ids.len());
            }
        }
    }

    fn latencies(&mut self, received: Instant, first: Instant, last: Instant, tokens: usize) {
        let later = tokens.saturating_sub(1);
        let itl = (later > 0).then(|| (last - first).as_secs_f64() / later as f64);
        let ttft = (first - received).as_secs_f64();
        let e2e = (last - received).as_secs_f64();
        self.e2e.add(e2e);
        if let Some(itl) = itl {
            self.per_token.add(itl);
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Latencies { ttft, itl, e2e });
    }
}
