//! The service under load, faults and shutdown. Its device is the null device, so a test's
//! engine answers at once, and any wrong token shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::device::faulty::{Fault, Faults, FaultyDevice, Place};
use crate::device::null::{NullDevice, next_token};
use crate::engine::core::simple_request;
use crate::engine::model::Model;
use crate::engine::options::ModelOptions;
use crate::engine::overlap::Mode;
use crate::engine::params::SamplingParams;
use crate::engine::request::FinishReason;
use crate::error::Kind;
use crate::types::TokenId;

/// Long enough for any loaded machine; a test that waits that long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn engine(options: &EngineOptions, faults: &Faults, step_time: Duration) -> Result<Engine> {
    let model = Model::open(&ModelOptions::default())?;
    let inner = Box::new(NullDevice { step_time });
    let device = FaultyDevice { inner, faults: faults.clone() };
    Engine::new(model, &device, options, &mut |_, _| {})
}

/// A running service and everything it has said.
struct Client {
    handle: EngineHandle,
    faults: Faults,
    wakes: Arc<AtomicUsize>,
    reports: usize,
    tokens: BTreeMap<(u64, u32), Vec<TokenId>>,
    ends: BTreeMap<(u64, u32), FinishReason>,
    refused: BTreeMap<u64, Error>,
    flushed: Vec<Flushed>,
    errors: Vec<Error>,
}

impl Client {
    fn with(options: EngineOptions, service: ServiceOptions, step_time: Duration) -> Self {
        let (faults, wakes) = (Faults::default(), Arc::new(AtomicUsize::new(0)));
        let (planned, count) = (faults.clone(), Arc::clone(&wakes));
        let wake = move || _ = count.fetch_add(1, Ordering::SeqCst);
        let build = move || engine(&options, &planned, step_time);
        let handle = start(build, service, wake).expect("a thread");
        let (tokens, ends, refused) = Default::default();
        let (flushed, errors) = Default::default();
        let client =
            Client { handle, faults, wakes, reports: 0, tokens, ends, refused, flushed, errors };
        client.await_state(State::Ready);
        client
    }

    fn new() -> Self {
        let options = EngineOptions { total_tokens: Some(4096), ..EngineOptions::default() };
        Self::with(options, ServiceOptions::default(), Duration::ZERO)
    }

    fn state(&self) -> State {
        self.handle.health().state()
    }

    fn await_state(&self, state: State) {
        let begin = Instant::now();
        while self.state() != state {
            assert!(begin.elapsed() < PATIENCE, "{:?} instead of {state:?}", self.state());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn submit(&self, id: u64, length: usize, n: usize) -> Result<()> {
        let params = SamplingParams {
            max_new_tokens: Some(length),
            temperature: 0.0,
            ignore_eos: true,
            n,
            ..SamplingParams::default()
        };
        self.handle.submit(simple_request(id, prompt(id), Arc::new(params)))
    }

    fn poll(&mut self) {
        while let Some(report) = self.handle.poll() {
            self.reports += 1;
            for update in report.updates {
                let key = (update.id, update.choice);
                assert!(!self.ends.contains_key(&key), "{key:?} goes on after its end");
                self.tokens.entry(key).or_default().extend(update.token);
                if let Some(finished) = update.finished {
                    self.ends.insert(key, finished.reason);
                }
            }
            for refused in report.refused {
                assert!(self.refused.insert(refused.id, refused.error).is_none());
            }
            self.flushed.extend(report.flushed);
            self.errors.extend(report.error);
        }
    }

    fn poll_until(&mut self, done: impl Fn(&Client) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            assert!(begin.elapsed() < PATIENCE, "{} ends, {:?}", self.ends.len(), self.errors);
            self.poll();
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn await_ends(&mut self, count: usize) {
        self.poll_until(|c| c.ends.len() + c.refused.len() >= count);
    }

    /// Submits `count` requests of three choices. The first one runs alone until its choices have
    /// copied the page they share, so that copies are there to fail.
    fn submit_after_a_copy(&mut self, count: u64, length: usize) -> usize {
        self.submit(0, length, 3).expect("room");
        let faults = self.faults.clone();
        self.poll_until(|c| faults.copies() > 0 || c.state() == State::Faulted);
        1 + (1..count).filter(|&id| self.submit(id, length, 3).is_ok()).count()
    }

    /// Everything is answered, and no page is held.
    fn check_empty(&mut self) {
        self.poll_until(|c| c.handle.health().snapshot().phase == Phase::Idle);
        let health = self.handle.health().snapshot();
        assert_eq!((health.running, health.queued, health.pages_used), (0, 0, 0), "{health:?}");
    }

    fn failed(&self) -> usize {
        self.ends.values().filter(|r| matches!(r, FinishReason::Failed(_))).count()
    }
}

fn prompt(id: u64) -> Vec<TokenId> {
    (0..20).map(|i| 100 + (id as TokenId * 7 + i) % 1000).collect()
}

fn expected(id: u64, length: usize) -> Vec<TokenId> {
    let mut tokens = prompt(id);
    for position in tokens.len() - 1..tokens.len() - 1 + length {
        tokens.push(next_token(tokens[position], position, 32000));
    }
    tokens.split_off(20)
}

#[test]
fn every_choice_is_answered_once_with_its_own_tokens() {
    let mut c = Client::new();
    (0..200).for_each(|id| c.submit(id, 5 + id as usize % 7, 1 + id as usize % 3).expect("room"));
    let choices = (0..200).map(|id| 1 + id % 3).sum();
    c.await_ends(choices);
    for ((id, choice), tokens) in &c.tokens {
        assert_eq!(*tokens, expected(*id, 5 + *id as usize % 7), "request {id} choice {choice}");
    }
    assert!(c.ends.values().all(|r| *r == FinishReason::Length));
    c.check_empty();
    let health = c.handle.health().snapshot();
    assert!(health.steps_total > 0 && health.last_step > Duration::ZERO, "{health:?}");
    let wakes = c.wakes.load(Ordering::SeqCst);
    assert!(wakes <= c.reports + 1, "{wakes} wake-ups for {} reports", c.reports);
    assert_eq!(c.state(), State::Ready);
}

#[test]
fn a_cancelled_request_stops_and_gives_its_pages_back() {
    let mut c = Client::new();
    for id in 0..8 {
        c.submit(id, 2000 / 8, 1 + id as usize % 2).expect("room");
    }
    c.poll_until(|c| c.tokens.values().any(|t| t.len() > 3));
    (0..8).for_each(|id| c.handle.cancel(id));
    c.handle.cancel(99);
    c.await_ends(12);
    c.check_empty();
    assert!(c.ends.values().all(|r| matches!(r, FinishReason::Cancelled | FinishReason::Length)));
}

#[test]
fn a_recoverable_fault_ends_its_own_batch_only() {
    let modes = [Mode::Off, Mode::Always];
    for (place, overlap) in [Place::Step(3), Place::Copy(2)].into_iter().zip(modes) {
        // Three run at a time, so others are not in the batch that fails.
        let options = EngineOptions {
            total_tokens: Some(4096),
            max_running: Some(3),
            overlap,
            ..EngineOptions::default()
        };
        let mut c = Client::with(options, ServiceOptions::default(), Duration::ZERO);
        c.faults.plan(place, Fault::Recoverable);
        assert_eq!(c.submit_after_a_copy(9, 12), 9);
        c.await_ends(27);
        assert!((1..=3).contains(&c.failed()), "{place:?}: {} failed", c.failed());
        assert_eq!((c.state(), c.errors.len()), (State::Ready, 1));
        assert_eq!(c.errors[0].kind, Kind::Device);
        let whole = c.ends.iter().filter(|(_, r)| **r == FinishReason::Length);
        whole.for_each(|(key, _)| assert_eq!(c.tokens[key], expected(key.0, 12)));
        c.submit(50, 4, 1).expect("room");
        c.await_ends(28);
        assert_eq!(c.tokens[&(50, 0)], expected(50, 4));
        c.check_empty();
    }
}

#[test]
fn a_lost_device_or_a_panic_answers_everybody_and_takes_no_more() {
    let faults = [
        (Place::Step(4), Fault::Sticky),
        (Place::Copy(1), Fault::Sticky),
        (Place::Step(4), Fault::Panic),
        (Place::Copy(2), Fault::Panic),
    ];
    let each = faults.into_iter().flat_map(|f| [(f, Mode::Off), (f, Mode::Always)]);
    for ((place, fault), overlap) in each {
        let options = EngineOptions {
            total_tokens: Some(4096),
            max_running: Some(4),
            overlap,
            ..EngineOptions::default()
        };
        let mut c = Client::with(options, ServiceOptions::default(), Duration::ZERO);
        c.faults.plan(place, fault);
        let taken = c.submit_after_a_copy(30, 50);
        c.poll_until(|c| c.ends.len() + 3 * c.refused.len() >= 3 * taken);
        c.await_state(State::Faulted);
        c.poll_until(|c| !c.errors.is_empty());
        assert_eq!(c.errors.last().map(|e| e.kind), Some(Kind::DeviceLost), "{fault:?}");
        assert_eq!(c.failed() + 3 * c.refused.len(), 3 * taken);
        assert!(c.refused.values().all(|e| e.kind == Kind::Unavailable));
        assert_eq!(c.submit(77, 1, 1).map_err(|e| e.kind), Err(Kind::Unavailable));
        assert_eq!(c.handle.flush_cache(1).map_err(|e| e.kind), Err(Kind::Unavailable));
        c.handle.cancel(3);
        assert!(c.handle.join(PATIENCE), "the thread has ended");
    }
}

#[test]
fn a_hang_shows_and_holds_up_nobody_else() {
    let mut c = Client::new();
    c.faults.plan(Place::Step(2), Fault::Hang(Duration::from_secs(2)));
    c.check_empty();
    assert_eq!(c.handle.health().stalled_for(), None, "nothing to do is no hang");
    c.submit(1, 3, 1).expect("room");
    let (mut worst, mut stalled) = (Duration::ZERO, Duration::ZERO);
    for id in 2.. {
        let begin = Instant::now();
        c.poll();
        if c.ends.contains_key(&(1, 0)) {
            break;
        }
        c.submit(id, 3, 1).expect("room");
        c.handle.cancel(id);
        worst = worst.max(begin.elapsed());
        stalled = stalled.max(c.handle.health().stalled_for().unwrap_or_default());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(stalled > Duration::from_millis(500), "{stalled:?}");
    assert!(worst < Duration::from_millis(1500), "a call took {worst:?}");
}

#[test]
fn while_a_step_hangs_on_its_thread_commands_are_obeyed() {
    let options = EngineOptions { overlap: Mode::Always, ..EngineOptions::default() };
    let mut c = Client::with(options, ServiceOptions::default(), Duration::ZERO);
    let hang = Duration::from_millis(1500);
    c.faults.plan(Place::Step(2), Fault::Hang(hang));
    c.submit(1, 30, 1).expect("room");
    let faults = c.faults.clone();
    c.poll_until(|_| faults.steps() == 2);
    let begin = Instant::now();
    c.handle.cancel(1);
    c.await_ends(1);
    assert_eq!(c.ends[&(1, 0)], FinishReason::Cancelled);
    assert!(begin.elapsed() < hang, "answered while the step hangs");
    assert!(c.handle.health().stalled_for().is_some(), "an answer does not hide the hang");
    c.submit(2, 3, 1).expect("room");
    c.await_ends(2);
    assert_eq!(c.tokens[&(2, 0)], expected(2, 3));
    c.check_empty();
}

#[test]
fn results_are_handled_while_the_next_step_runs() {
    // The seventh step hangs on the device's thread; what the sixth gave must come meanwhile.
    let hang = Duration::from_millis(1500);
    for overlap in [Mode::Always, Mode::Off] {
        let options = EngineOptions { overlap, ..EngineOptions::default() };
        let mut c = Client::with(options, ServiceOptions::default(), Duration::ZERO);
        c.faults.plan(Place::Step(7), Fault::Hang(hang));
        let faults = c.faults.clone();
        c.submit(1, 40, 1).expect("room");
        c.poll_until(|_| faults.steps() >= 7);
        let begin = Instant::now();
        c.poll_until(|c| c.tokens.get(&(1, 0)).is_some_and(|t| t.len() >= 6));
        let waited = begin.elapsed();
        c.await_ends(1);
        assert_eq!(c.tokens[&(1, 0)], expected(1, 40));
        c.check_empty();
        let health = c.handle.health().snapshot();
        assert!(health.settle_total > Duration::ZERO, "{health:?}");
        assert!(health.hidden_total <= health.settle_total, "{health:?}");
        let hides = overlap == Mode::Always;
        assert_eq!(health.hidden_total > Duration::ZERO, hides, "{health:?}");
        assert!(!hides || waited < hang, "the sixth token came {waited:?} after the step began");
    }
}

#[test]
fn draining_finishes_what_was_taken_and_aborting_does_not() {
    let slow = Duration::from_millis(2);
    let options = || EngineOptions { max_running: Some(2), ..EngineOptions::default() };
    for how in [Shutdown::Drain, Shutdown::Abort] {
        let mut c = Client::with(options(), ServiceOptions::default(), slow);
        (0..6).for_each(|id| c.submit(id, 20, 1).expect("room"));
        c.poll_until(|c| !c.tokens.is_empty());
        c.handle.shutdown(how);
        c.await_ends(6);
        assert!(c.handle.join(PATIENCE));
        c.poll();
        let whole = c.tokens.iter().filter(|(key, t)| **t == expected(key.0, 20)).count();
        assert_eq!(whole == 6, how == Shutdown::Drain, "{how:?}: {whole} whole");
        assert_eq!(c.failed() == 0, how == Shutdown::Drain);
        assert_eq!(c.state(), State::Stopped);
        assert_eq!(c.submit(9, 1, 1).map_err(|e| e.kind), Err(Kind::Unavailable));
    }
}

#[test]
fn queues_are_bounded_and_say_so() {
    let slow = Duration::from_millis(20);
    let options = EngineOptions {
        max_running: Some(1),
        max_queued: 4,
        max_queued_tokens: 400,
        total_tokens: Some(512),
        ..EngineOptions::default()
    };
    let service = ServiceOptions { max_choices: 6, max_tokens: 10_000, ..Default::default() };
    let mut c = Client::with(options, service, slow);
    // What the handle takes the engine may refuse, while a step runs or after it.
    let taken = (0..100).filter(|&id| c.submit(id, 3, 2).is_ok()).count();
    assert!(taken >= 3, "{taken} of 100 taken at once");
    assert_eq!(c.submit(200, 3, 9).map_err(|e| e.kind), Err(Kind::Busy), "n counts n");
    c.poll_until(|c| c.ends.len() + 2 * c.refused.len() >= 2 * taken);
    assert!(!c.refused.is_empty() && c.refused.values().all(|e| e.kind == Kind::Busy));
    assert!(c.ends.len() < 60, "{} choices served of what a queue of 4 holds", c.ends.len());
    assert!(c.submit(300, 3, 1).is_ok());
    c.poll_until(|c| c.ends.contains_key(&(300, 0)));
    c.submit(301, 600, 1).expect("handed on");
    c.submit(302, 1, 1).expect("handed on");
    c.poll_until(|c| c.ends.contains_key(&(302, 0)));
    assert_eq!(c.refused[&301].kind, Kind::Limit, "{}", c.refused[&301]);
    c.check_empty();
}

#[test]
fn idleness_is_told_once_each_time() {
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    let on_idle = || _ = TOLD.fetch_add(1, Ordering::SeqCst);
    let service = ServiceOptions { on_idle, ..Default::default() };
    let mut c = Client::with(EngineOptions::default(), service, Duration::ZERO);
    let wait_for = |times: usize| {
        let begin = Instant::now();
        while TOLD.load(Ordering::SeqCst) < times {
            assert!(begin.elapsed() < PATIENCE, "told {TOLD:?} times");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait_for(1);
    for id in 1..3 {
        c.submit(id, 3, 1).expect("room");
        c.await_ends(id as usize);
        wait_for(1 + id as usize);
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(TOLD.load(Ordering::SeqCst), 3, "not again without work between");
}

#[test]
fn a_reader_that_is_late_gets_everything() {
    let mut c = Client::new();
    c.submit(1, 500, 1).expect("room");
    std::thread::sleep(Duration::from_millis(300));
    let health = c.handle.health().snapshot();
    assert!(health.steps_total < 200, "reports are bounded: {health:?}");
    assert_eq!(c.handle.health().stalled_for(), None, "waiting for the reader is no hang");
    c.await_ends(1);
    assert_eq!(c.tokens[&(1, 0)], expected(1, 500));
}

#[test]
fn the_cache_is_flushed_only_while_idle_and_tasks_run_between_steps() {
    let mut c = Client::new();
    c.submit(1, 40, 1).expect("room");
    c.await_ends(1);
    c.check_empty();
    assert!(c.handle.health().snapshot().pages_cached > 0);
    c.handle.flush_cache(7).expect("room");
    c.poll_until(|c| c.flushed == [Flushed { tag: 7, done: true }]);
    c.check_empty();
    assert_eq!(c.handle.health().snapshot().pages_cached, 0);
    let (send, receive) = std::sync::mpsc::channel();
    c.handle.run(Box::new(move |e: &mut Engine| _ = send.send(e.idle()))).expect("room");
    assert_eq!(receive.recv_timeout(PATIENCE), Ok(true));
}

#[test]
fn an_engine_that_cannot_be_made_is_a_fault_with_its_reason() {
    let build = || Err(Error::limit("no memory"));
    let handle = start(build, ServiceOptions::default(), || {}).expect("a thread");
    let begin = Instant::now();
    let report = loop {
        assert!(begin.elapsed() < PATIENCE);
        if let Some(report) = handle.poll() {
            break report;
        }
    };
    assert_eq!(report.error.map(|e| e.message), Some("no memory".to_owned()));
    assert_eq!(handle.health().state(), State::Faulted);
}
