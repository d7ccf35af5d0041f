//! [`Scheduler`]: the queues, and what callers do to them.

use std::collections::VecDeque;

use super::limits::Limits;
use super::request::{Event, Finish, Refusal, Request};
pub use super::sequence::State;
use super::sequence::{Order, Sequences, Slot};
use crate::error::Result;
use crate::kv::planted::Bug;
use crate::kv::{Census, PageCache, PageId};

/// Most steps planned and not yet committed: one running, and the next one ready behind it.
pub const MAX_IN_FLIGHT: usize = 2;

/// Decides what runs next. See the [module](super) for the picture.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) limits: Limits,
    pub(super) pages: PageCache,
    pub(super) sequences: Sequences,
    /// In order of arrival, as all three queues.
    pub(super) running: Vec<Slot>,
    pub(super) preempted: Vec<Slot>,
    pub(super) queue: VecDeque<Slot>,
    pub(super) queued_tokens: usize,
    pub(super) last_step: u64,
    pub(super) in_flight: VecDeque<InFlight>,
    /// Emptied entry lists for the next steps.
    pub(super) spare: Vec<Vec<Entry>>,
    pub(super) totals: Totals,
    /// Scratch of `admit`.
    pub(super) hits: Vec<PageId>,
    pub(super) matches: Vec<(Slot, usize)>,
    #[cfg(test)]
    pub(super) asleep: bool,
}

/// A planned step that has not come back.
#[derive(Debug)]
pub(super) struct InFlight {
    pub number: u64,
    pub samples: usize,
    pub entries: Vec<Entry>,
}

/// What a step in flight does for one sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub slot: Slot,
    pub order: Order,
    /// The sequence's preemptions when it was planned: positions computed before count no more.
    pub preemptions: u32,
    pub planned: usize,
    pub samples: bool,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub hit_tokens: u64,
    pub prefill_tokens: u64,
    pub preemptions: u64,
}

/// A snapshot for `/metrics` and for benches. Counters (`…_total`) never decrease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metrics {
    pub running: usize,
    /// Sequences that never ran, and their prompt tokens.
    pub queued: usize,
    pub queued_tokens: usize,
    /// Sequences that ran and wait to run again.
    pub preempted: usize,
    pub pages: Census,
    pub pages_total: usize,
    /// Prompt tokens that the prefix cache (or a parallel sample) had computed.
    pub hit_tokens_total: u64,
    /// Tokens prefilled, recomputation after preemptions included.
    pub prefill_tokens_total: u64,
    pub preemptions_total: u64,
    /// Steps planned.
    pub steps_total: u64,
}

impl Scheduler {
    /// # Errors
    /// If the limits do not [`check`](Limits::check).
    pub fn new(limits: Limits) -> Result<Self> {
        limits.check()?;
        let pages =
            PageCache::new(limits.pages, limits.page_size, limits.prefix_cache, limits.planted);
        Ok(Scheduler {
            limits,
            pages,
            sequences: Sequences::default(),
            running: Vec::new(),
            preempted: Vec::new(),
            queue: VecDeque::new(),
            queued_tokens: 0,
            last_step: 0,
            in_flight: VecDeque::new(),
            spare: Vec::new(),
            totals: Totals::default(),
            hits: Vec::new(),
            matches: Vec::new(),
            #[cfg(test)]
            asleep: false,
        })
    }

    /// Takes a request with all its choices, or refuses it and changes nothing.
    pub fn submit(&mut self, request: &Request) -> std::result::Result<(), Refusal> {
        self.check(request)?;
        let mut leader = None;
        for choice in 0..request.choices {
            let slot = self.sequences.insert(request, choice);
            self.sequences[slot].leader = leader;
            leader = leader.or(Some((slot, self.sequences[slot].order)));
            self.queue.push_back(slot);
        }
        self.queued_tokens += request.prompt.len() * request.choices as usize;
        #[cfg(test)]
        (self.asleep = false);
        Ok(())
    }

    fn check(&self, request: &Request) -> std::result::Result<(), Refusal> {
        let (limits, prompt) = (&self.limits, request.prompt.len());
        if prompt == 0 {
            return Err(Refusal::EmptyPrompt);
        }
        if request.choices == 0 {
            return Err(Refusal::NoChoices);
        }
        if self.sequences.of_request(request.id).next().is_some() {
            return Err(Refusal::DuplicateId(request.id));
        }
        if let Some(start) = request.logprob_start.filter(|&start| start >= prompt) {
            return Err(Refusal::LogprobStart { start, prompt });
        }
        let tokens = prompt.saturating_add(request.max_new_tokens);
        if tokens > limits.context {
            return Err(Refusal::ExceedsContext { tokens, context: limits.context });
        }
        let capacity = limits.pages * limits.page_size;
        let goal = prompt + request.max_new_tokens.saturating_sub(1);
        if goal > capacity && !limits.planted.has(Bug::AdmitUnservable) {
            return Err(Refusal::ExceedsCache { tokens, capacity });
        }
        let choices = request.choices as usize;
        if choices > limits.max_queued_requests.saturating_sub(self.queue.len()) {
            return Err(Refusal::QueueFull { limit: limits.max_queued_requests });
        }
        let room = limits.max_queued_tokens.saturating_sub(self.queued_tokens);
        if prompt.saturating_mul(choices) > room {
            return Err(Refusal::QueueTokensFull { limit: limits.max_queued_tokens });
        }
        Ok(())
    }

    /// Ends all choices of a request at once, wherever they are; each gets its last event. Steps
    /// in flight go on, their results for it are dropped. Returns whether it was live.
    pub fn cancel(&mut self, id: u64, events: &mut Vec<Event>) -> bool {
        let slots: Vec<Slot> = self.sequences.of_request(id).collect();
        for &slot in &slots {
            self.finish(slot, Finish::Cancelled, None, events);
        }
        !slots.is_empty()
    }

    /// Ends a sequence: last event, pages back, out of its queue.
    pub(super) fn finish(
        &mut self,
        slot: Slot,
        reason: Finish,
        token: Option<u32>,
        events: &mut Vec<Event>,
    ) {
        let sequence = &self.sequences[slot];
        let end = Some(sequence.end(reason));
        let event = Event { id: sequence.id, choice: sequence.choice, token, end };
        events.push(event);
        let planted = self.limits.planted;
        if planted.has(Bug::FinishTwice) && event.choice == 0 {
            events.push(event);
        }
        if planted.has(Bug::CancelledStaysQueued)
            && reason == Finish::Cancelled
            && sequence.state == State::Queued
        {
            return;
        }
        if sequence.unknown == 0 || !planted.has(Bug::LeakOnCancel) || reason != Finish::Cancelled {
            self.release_pages(slot);
        }
        self.unlist(slot);
        self.sequences.remove(slot);
    }

    /// Gives back a sequence's pages, the last one first.
    pub(super) fn release_pages(&mut self, slot: Slot) {
        let sequence = &mut self.sequences[slot];
        for page in sequence.pages.drain(..).rev() {
            self.pages.release(page, sequence.last_step);
        }
    }

    /// Takes a sequence out of the queue it is in.
    pub(super) fn unlist(&mut self, slot: Slot) {
        let sequence = &self.sequences[slot];
        match sequence.state {
            State::Queued => {
                self.queued_tokens -= sequence.prompt_len;
                if let Some(at) = self.queue.iter().position(|&s| s == slot) {
                    self.queue.remove(at);
                }
            }
            State::Running => self.running.retain(|&s| s != slot),
            State::Preempted => self.preempted.retain(|&s| s != slot),
        }
    }

    /// The number of the last step that was planned; 0 before the first.
    pub fn last_step(&self) -> u64 {
        self.last_step
    }

    /// Nothing is live and nothing in flight.
    pub fn idle(&self) -> bool {
        self.sequences.count() == 0 && self.in_flight.is_empty()
    }

    /// Planned steps that were not committed yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Where a choice is; `None` when it has ended or never was.
    pub fn state(&self, id: u64, choice: u32) -> Option<State> {
        self.sequences.find(id, choice).map(|slot| self.sequences[slot].state)
    }

    /// The pages and who holds them.
    pub fn pages(&self) -> &PageCache {
        &self.pages
    }

    /// Forgets all cached prefixes that no running sequence uses; returns how many pages stay.
    pub fn flush_prefix_cache(&mut self) -> usize {
        self.pages.flush()
    }

    pub fn metrics(&self) -> Metrics {
        Metrics {
            running: self.running.len(),
            queued: self.queue.len(),
            queued_tokens: self.queued_tokens,
            preempted: self.preempted.len(),
            pages: self.pages.census(),
            pages_total: self.pages.total(),
            hit_tokens_total: self.totals.hit_tokens,
            prefill_tokens_total: self.totals.prefill_tokens,
            preemptions_total: self.totals.preemptions,
            steps_total: self.last_step,
        }
    }
}
