//! Plays a scenario: arrivals, cancels, flushes, plans, executions and results, tick by tick,
//! and then, with nothing new coming, until everything has ended.

use std::collections::{BTreeMap, VecDeque};

use crate::checks::{self, Before};
use crate::device::{Device, Launched};
use crate::kv::planted::{Bug, Planted, Refusals};
use crate::mirror::{Mirror, is_stop};
use crate::scenario::{Rng, Scenario, mix};
use crate::scheduler::{End, Event, Finish, Output, Scheduler, State, Step};

/// Results that have not come after so many ticks are given up.
const PATIENCE: u64 = 9;

/// What a seed did.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Outcome {
    /// Hash of every step and event.
    pub log: u64,
    pub steps: u64,
    pub overlapped: u64,
    pub preemptions: u64,
    pub hit_tokens: u64,
    pub refused: u64,
    /// Allocations that failed, results that never came, results that came twice.
    pub short: u64,
    pub silent: u64,
    pub twice: u64,
    pub cancelled: u64,
    pub failed: u64,
    pub finished: u64,
    /// Output of the choices that came to their natural end, by arrival and choice.
    pub tokens: BTreeMap<(u64, u32), Vec<u32>>,
}

impl Outcome {
    pub fn add(&mut self, other: &Outcome) {
        self.steps += other.steps;
        self.overlapped += other.overlapped;
        self.preemptions += other.preemptions;
        self.hit_tokens += other.hit_tokens;
        self.refused += other.refused;
        self.short += other.short;
        self.silent += other.silent;
        self.twice += other.twice;
        self.cancelled += other.cancelled;
        self.failed += other.failed;
        self.finished += other.finished;
    }
}

pub struct World<'a> {
    pub scenario: &'a Scenario,
    pub scheduler: Scheduler,
    pub device: Device,
    pub flying: VecDeque<Launched>,
    /// Everything that was ever accepted, by order of arrival. An id may come again.
    pub mirrors: BTreeMap<u64, Mirror>,
    /// The newest bearer of each id and choice.
    pub newest: BTreeMap<(u64, u32), u64>,
    pub outcome: Outcome,
    pub tick: u64,
    pub lost: bool,
    /// Buffers of steps that have landed, to be used again, as the engine does.
    spare: Vec<Step>,
    accepted: u64,
    trace: bool,
}

/// # Errors
/// The first invariant that does not hold.
pub fn play(scenario: &Scenario, bug: Option<Bug>, trace: bool) -> Result<Outcome, String> {
    let mut limits = scenario.limits.clone();
    let refusals = Refusals::new(scenario.refuse.0, scenario.refuse.1);
    limits.planted = Planted::new(bug).refusing(refusals);
    let device = Device::new(limits.pages, limits.page_size);
    let mut world = World {
        scenario,
        scheduler: Scheduler::new(limits).map_err(|e| e.message)?,
        device,
        flying: VecDeque::new(),
        mirrors: BTreeMap::new(),
        newest: BTreeMap::new(),
        outcome: Outcome::default(),
        tick: 0,
        lost: false,
        spare: Vec::new(),
        accepted: 0,
        trace,
    };
    let at = |world: &World, fault: String| format!("tick {}: {fault}", world.tick);
    let last = |a: &crate::scenario::Arrival| a.cancel.unwrap_or(0).max(a.tick);
    let quiet = scenario.requests.iter().map(last).max().unwrap_or(0);
    while world.tick <= quiet && !world.lost {
        world.tick().map_err(|fault| at(&world, fault))?;
    }
    let late = scenario.late + if scenario.silent > 0 { PATIENCE } else { 0 };
    // While allocations are refused a tick may pass with none that is not.
    let refused = if scenario.refuse.0 > 0 { scenario.refuse.1 } else { 0 };
    let bound = world.tick + checks::work_left(&world) * (late + 2) + refused + 50;
    while !(world.lost || world.scheduler.idle() && world.flying.is_empty()) {
        if world.tick > bound {
            return Err(format!("not finished at tick {bound}"));
        }
        world.tick().map_err(|fault| at(&world, fault))?;
    }
    checks::at_the_end(&mut world)?;
    Ok(world.outcome)
}

impl World<'_> {
    /// The newest bearer of an id and choice.
    pub fn named(&self, id: u64, choice: u32) -> Option<&Mirror> {
        self.mirrors.get(self.newest.get(&(id, choice))?)
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:4} {}", self.tick, what());
        }
    }

    fn log(&mut self, value: u64) {
        self.outcome.log = mix(self.outcome.log ^ value);
    }

    /// A draw that depends on seed, tick and purpose only, so that it survives shrinking.
    fn draw(&self, purpose: u64) -> Rng {
        Rng(mix(self.scenario.seed ^ mix(self.tick * 8 + purpose)))
    }

    fn tick(&mut self) -> Result<(), String> {
        self.arrivals()?;
        self.cancels()?;
        if self.scenario.flush > 0 && self.tick % self.scenario.flush == 0 {
            self.scheduler.flush_prefix_cache();
        }
        let mut order = self.draw(1);
        // Results may come before the next plan or after it, and steps run when they like.
        if order.percent(50) {
            self.land()?;
        }
        let before = checks::before_plan(self);
        let planned = self.plan(&before)?;
        checks::progress(self, &before, planned)?;
        if order.percent(70) || self.flying.len() == self.scenario.depth {
            self.execute()?;
        }
        self.land()?;
        checks::every_tick(self)?;
        self.tick += 1;
        Ok(())
    }

    fn arrivals(&mut self) -> Result<(), String> {
        for at in 0..self.scenario.requests.len() {
            let arrival = &self.scenario.requests[at];
            if arrival.tick != self.tick {
                continue;
            }
            let expected = checks::refusal(self, &arrival.request);
            let before = self.scheduler.metrics();
            let found = self.scheduler.submit(&arrival.request).err();
            if found != expected {
                return Err(format!("refused {found:?}, expected {expected:?}"));
            }
            if found.is_some() {
                if self.scheduler.metrics() != before {
                    return Err("a refusal left a trace".to_owned());
                }
                self.outcome.refused += 1;
                continue;
            }
            for choice in 0..arrival.request.choices {
                let mirror = Mirror::new(arrival, choice, self.accepted);
                self.accepted += 1;
                self.newest.insert(mirror.key(), mirror.order);
                self.mirrors.insert(mirror.order, mirror);
            }
            let id = arrival.request.id;
            self.say(|| format!("request {id} arrives"));
        }
        Ok(())
    }

    fn cancels(&mut self) -> Result<(), String> {
        for at in 0..self.scenario.requests.len() {
            let arrival = &self.scenario.requests[at];
            if arrival.cancel != Some(self.tick) {
                continue;
            }
            let id = arrival.request.id;
            let live = self.mirrors.values().filter(|m| m.id == id && m.live()).count();
            let mut events = Vec::new();
            let found = self.scheduler.cancel(id, &mut events);
            self.say(|| format!("request {id} is cancelled"));
            if found != (live > 0) || events.len() < live {
                return Err(format!("cancel of {id}: {found}, {} of {live} told", events.len()));
            }
            self.hear(&events, |reason| reason == Finish::Cancelled)?;
        }
        Ok(())
    }

    fn plan(&mut self, before: &Before) -> Result<bool, String> {
        if self.flying.len() >= self.scenario.depth {
            return Ok(true);
        }
        let mut step = self.spare.pop().unwrap_or_default();
        if !self.scheduler.plan(&mut step) {
            self.spare.push(step);
            self.observe();
            return Ok(false);
        }
        self.say(|| {
            let of = |s: &crate::scheduler::StepSequence| (s.id, s.choice, s.past, s.len);
            let list: Vec<_> = step.sequences.iter().map(of).collect();
            format!("step {}: (id, choice, past, len) {list:?}, {:?}", step.number, step.copies)
        });
        self.outcome.steps += 1;
        self.outcome.overlapped += u64::from(!self.flying.is_empty());
        self.log(step.number);
        step.tokens.iter().for_each(|&t| self.log(u64::from(t)));
        step.pages.iter().for_each(|&p| self.log(u64::from(p)));
        checks::plan(self, &step, before)?;
        let orders = step.sequences.iter().map(|s| self.newest[&(s.id, s.choice)]).collect();
        self.note(&step, &orders);
        self.observe();
        let delay =
            if self.scenario.late > 0 { self.draw(2).range(0, self.scenario.late) } else { 0 };
        let failing = self.scenario.failing;
        let lost = self.scenario.lost == Some(step.number);
        let fails = lost || (failing > 0 && step.number % failing == 0);
        let silent = self.scenario.silent;
        let silent = silent > 0 && step.number % silent == 0;
        let due = self.tick + if silent { PATIENCE } else { delay };
        let mut launched = Launched::new(step, orders, fails, due);
        launched.silent = silent;
        self.flying.push_back(launched);
        Ok(true)
    }

    /// Takes a planned step into the books.
    fn note(&mut self, step: &Step, orders: &Vec<u64>) {
        for (s, &order) in step.sequences.iter().zip(orders) {
            if s.first && self.scheduler.metrics().queued > 0 {
                let queued =
                    |m: &Mirror| self.scheduler.state(m.id, m.choice) == Some(State::Queued);
                let older = |m: &&mut Mirror| m.order < order && m.live() && queued(m);
                self.mirrors.values_mut().filter(older).for_each(|m| m.bypassed += 1);
            }
        }
        for (s, order) in step.sequences.iter().zip(orders) {
            let Some(mirror) = self.mirrors.get_mut(order) else { continue };
            if s.prefill && mirror.planned == 0 {
                mirror.prefill_len = mirror.len();
            }
            mirror.ran = true;
            mirror.planned = s.past + s.len;
            mirror.in_flight += usize::from(s.sample.is_some());
            mirror.rows_from = mirror.rows_from.max(mirror.planned.min(mirror.prompt_len));
        }
    }

    /// Notices who has been preempted.
    fn observe(&mut self) {
        for mirror in self.mirrors.values_mut().filter(|m| m.end.is_none()) {
            let state = self.scheduler.state(mirror.id, mirror.choice);
            if state == Some(State::Preempted) && mirror.state == Some(State::Running) {
                mirror.planned = 0;
                mirror.preemptions += 1;
                self.outcome.preemptions += 1;
            }
            mirror.state = state;
        }
    }

    /// Runs the steps that are due, in order.
    fn execute(&mut self) -> Result<(), String> {
        for at in 0..self.flying.len() {
            if self.flying[at].executed {
                continue;
            }
            let tainted = self.flying.iter().take(at).filter(|l| l.fails);
            let tainted = tainted.flat_map(|l| l.orders.iter().copied()).collect();
            let launched = &mut self.flying[at];
            launched.tainted = tainted;
            self.device.execute(launched, &self.mirrors)?;
        }
        Ok(())
    }

    /// Takes the oldest step's results, if they are there.
    fn land(&mut self) -> Result<(), String> {
        let due = self.flying.front().is_some_and(|l| l.executed && l.due <= self.tick);
        let Some(launched) = (if due { self.flying.pop_front() } else { None }) else {
            return Ok(());
        };
        self.device.land(&launched)?;
        let (number, mut events) = (launched.step.number, Vec::new());
        for (s, order) in launched.step.sequences.iter().zip(&launched.orders) {
            let mirror = self.mirrors.get_mut(order).ok_or("a step of nobody")?;
            mirror.in_flight -= usize::from(s.sample.is_some());
        }
        // What never came is given up like what failed, though all of it may have been written.
        self.outcome.silent += u64::from(launched.silent);
        if launched.fails || launched.silent {
            self.lost = self.scenario.lost == Some(number);
            self.say(|| format!("step {number} failed"));
            self.scheduler.fail(number, self.lost, &mut events).map_err(|e| e.message)?;
            if self.lost {
                // Nothing runs on a lost device, so nothing is in flight on it either.
                self.flying.clear();
            }
            return self.hear(&events, |reason| reason == Finish::Failed);
        }
        let outputs: Vec<Output> = launched
            .step
            .sequences
            .iter()
            .zip(&launched.orders)
            .filter_map(|(s, order)| {
                let token = launched.outputs[s.sample?];
                let mirror = &self.mirrors[order];
                let finish = (mirror.stops && is_stop(token)).then_some(Finish::Stop);
                Some(Output { token, finish })
            })
            .collect();
        self.say(|| format!("step {number} came back: {outputs:?}"));
        let told = self.to_be_told(&launched);
        self.scheduler.commit(number, &outputs, &mut events).map_err(|e| e.message)?;
        let twice = self.scenario.twice;
        if twice > 0 && number % twice == 0 {
            self.commit_again(number, &outputs)?;
            self.outcome.twice += 1;
        }
        let heard: Vec<_> =
            events.iter().filter_map(|e| Some((e.id, e.choice, e.token?))).collect();
        if heard != told {
            return Err(format!("sampled for live choices {told:?}, told {heard:?}"));
        }
        self.spare.push(launched.step);
        self.hear(&events, |reason| matches!(reason, Finish::Stop | Finish::Length))
    }

    /// Results that come a second time are refused, and change nothing.
    fn commit_again(&mut self, number: u64, outputs: &[Output]) -> Result<(), String> {
        let (before, mut events) = (self.scheduler.metrics(), Vec::new());
        let flying = self.scheduler.in_flight();
        let again = self.scheduler.commit(number, outputs, &mut events);
        let same = self.scheduler.metrics() == before && self.scheduler.in_flight() == flying;
        match again.is_err() && events.is_empty() && same {
            true => Ok(()),
            false => Err(format!("the results of step {number} were taken twice")),
        }
    }

    /// Every token that was sampled for a choice that has not ended: it is spoken of at once.
    fn to_be_told(&self, launched: &Launched) -> Vec<(u64, u32, u32)> {
        let each = launched.step.sequences.iter().zip(&launched.orders);
        let live = each.filter(|(_, order)| self.mirrors[order].live());
        live.filter_map(|(s, _)| Some((s.id, s.choice, launched.outputs[s.sample?]))).collect()
    }

    /// Takes events into the books and holds them against the oracle.
    fn hear(&mut self, events: &[Event], may: impl Fn(Finish) -> bool) -> Result<(), String> {
        for event in events {
            let key = (event.id, event.choice);
            self.log(u64::from(event.token.unwrap_or(99)) << 8 | u64::from(event.end.is_some()));
            let order = *self.newest.get(&key).ok_or(format!("{key:?}: event of nobody"))?;
            let mirror = self.mirrors.get_mut(&order).ok_or("event of nobody")?;
            checks::event(mirror, event)?;
            mirror.told += usize::from(event.token.is_some());
            let Some(end) = event.end else { continue };
            if !may(end.reason) {
                return Err(format!("{key:?} ended with {:?}", end.reason));
            }
            mirror.end = Some(end);
            self.count(order, end);
        }
        Ok(())
    }

    fn count(&mut self, order: u64, end: End) {
        match end.reason {
            Finish::Cancelled => self.outcome.cancelled += 1,
            Finish::Failed => self.outcome.failed += 1,
            Finish::Stop | Finish::Length => {
                self.outcome.finished += 1;
                let m = &self.mirrors[&order];
                let output = m.tokens[m.prompt_len..m.prompt_len + m.told].to_vec();
                self.outcome.tokens.insert((m.number, m.choice), output);
            }
        }
    }
}
