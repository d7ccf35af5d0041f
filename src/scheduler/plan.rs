//! Planning a step: decode first, then prefill chunks under way, then new admissions.
//!
//! Every running sequence that can decode gets its token before any prefill does, so a long
//! prompt delays the others by no more than one chunk, and by a small one where small ones are
//! efficient ([`Limits::mixed_prefill_tokens`](super::Limits)). When a decode needs a page and
//! there is none, the youngest running sequence gives up its pages and computes them again
//! later; the oldest is never a victim, so somebody always comes closer to its end.

use super::core::{Entry, InFlight, MAX_IN_FLIGHT, Scheduler};
use super::limits::Policy;
use super::sequence::{Sequence, Slot, State};
use super::step::{Step, StepSequence};
use crate::kv::planted::Bug;

/// What is left of a step's limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Tokens, prefill or decode.
    pub tokens: usize,
    /// Of these, prefill at most.
    pub prefill: usize,
    /// Rows of logits.
    pub rows: usize,
}

impl Budget {
    pub fn chunk(&self) -> usize {
        self.tokens.min(self.prefill)
    }
}

impl Scheduler {
    /// Writes the next step into `step`. `false`: there is nothing to run now, either because
    /// nothing is live or because a step in flight must be committed first.
    ///
    /// May be called again before the step is committed, once ([`MAX_IN_FLIGHT`]). The device
    /// runs steps in the order of their numbers.
    pub fn plan(&mut self, step: &mut Step) -> bool {
        step.clear();
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return false;
        }
        step.number = self.last_step + 1;
        let limits = &self.limits;
        let mut budget = Budget {
            tokens: limits.step_tokens,
            prefill: limits.max_prefill_tokens,
            rows: limits.logit_rows,
        };
        let mut entries = self.spare.pop().unwrap_or_default();
        if self.limits.policy == Policy::Static {
            self.plan_static(step, &mut entries, &mut budget);
        } else {
            self.plan_continuous(step, &mut entries, &mut budget);
        }
        if step.sequences.is_empty() {
            self.spare.push(entries);
            return false;
        }
        self.last_step = step.number;
        self.totals.prefill_tokens += step.prefill_tokens as u64;
        self.in_flight.push_back(InFlight { number: step.number, samples: step.samples, entries });
        true
    }

    fn plan_continuous(&mut self, step: &mut Step, entries: &mut Vec<Entry>, budget: &mut Budget) {
        let every = self.limits.preempt_every;
        let before = self.totals.preemptions;
        if every > 0 && step.number % every == 0 && self.running.len() > 1 {
            self.preempt_youngest();
        }
        if self.limits.planted.has(Bug::PrefillFirst) {
            self.plan_prefills(step, entries, budget);
            self.admit(step, entries, budget);
        }
        let all_decode = self.plan_decodes(step, entries, budget);
        if step.sequences.iter().any(|s| !s.prefill) {
            budget.prefill = budget.prefill.min(self.limits.mixed_prefill_tokens);
        }
        self.plan_prefills(step, entries, budget);
        // Whoever just lost its pages must not take them back at once, nor a newcomer.
        if all_decode && self.totals.preemptions == before {
            self.admit(step, entries, budget);
        }
    }

    fn plan_static(&mut self, step: &mut Step, entries: &mut Vec<Entry>, budget: &mut Budget) {
        if self.running.is_empty() {
            self.admit(step, entries, budget);
        }
        if self.running.iter().any(|&slot| self.sequences[slot].is_prefilling()) {
            self.plan_prefills(step, entries, budget);
        } else {
            self.plan_decodes(step, entries, budget);
        }
    }

    /// One token for every running sequence that has one, oldest first. `false` if pages ran
    /// out: somebody was preempted or must wait for pages to come back.
    fn plan_decodes(
        &mut self,
        step: &mut Step,
        entries: &mut Vec<Entry>,
        budget: &mut Budget,
    ) -> bool {
        let (mut enough, mut at) = (true, 0);
        // Victims stand at or behind `at`, so what was planned stays planned.
        while at < self.running.len() {
            let slot = self.running[at];
            at += 1;
            let sequence = &self.sequences[slot];
            if sequence.is_prefilling() || sequence.ready() == 0 || budget.tokens == 0 {
                continue;
            }
            if self.grow(slot) {
                self.schedule(slot, 1, step, entries, budget);
            } else {
                enough = false;
                at -= usize::from(self.sequences[slot].state != State::Running);
            }
        }
        enough
    }

    /// Makes room for the sequence's next token.
    fn grow(&mut self, slot: Slot) -> bool {
        let sequence = &self.sequences[slot];
        let covered = sequence.pages.len() * self.limits.page_size;
        let late = usize::from(self.limits.planted.has(Bug::ShortTable));
        if sequence.planned < covered + late {
            return true;
        }
        loop {
            if let Some(page) = self.pages.allocate() {
                self.sequences[slot].pages.push(page);
                return true;
            }
            // Pages are on their way back: waiting one step costs less than a recomputation.
            if self.pages.coming() > 0 || !self.preempt_youngest() {
                return false;
            }
            if self.sequences[slot].state != State::Running {
                return false;
            }
        }
    }

    /// Takes the pages of the youngest running sequence that may be preempted.
    fn preempt_youngest(&mut self) -> bool {
        let unlimited = self.limits.planted.has(Bug::UnlimitedPreemption);
        let most = if unlimited { u32::MAX } else { self.limits.max_preemptions };
        let victim = self.running.iter().rposition(|&slot| self.sequences[slot].preemptions < most);
        let Some(at) = victim else { return false };
        let slot = self.running.remove(at);
        self.release_pages(slot);
        self.totals.preemptions += 1;
        let planted = self.limits.planted;
        let sequence = &mut self.sequences[slot];
        (sequence.planned, sequence.computed, sequence.published) = (0, 0, 0);
        sequence.state = State::Preempted;
        sequence.preemptions += 1;
        if planted.has(Bug::PreemptDropsOutput) {
            sequence.tokens.truncate(sequence.prompt_len);
        }
        if planted.has(Bug::PreemptedToBack) {
            sequence.state = State::Queued;
            self.queued_tokens += sequence.prompt_len;
            self.queue.push_back(slot);
        } else if !planted.has(Bug::PreemptedLost) {
            let at = self.position(&self.preempted, slot);
            self.preempted.insert(at, slot);
        }
        true
    }

    /// Where `slot` belongs in a list that is in order of arrival.
    pub(super) fn position(&self, list: &[Slot], slot: Slot) -> usize {
        list.partition_point(|&s| self.sequences[s].order < self.sequences[slot].order)
    }

    /// A chunk for every running sequence that prefills, oldest first.
    fn plan_prefills(&mut self, step: &mut Step, entries: &mut Vec<Entry>, budget: &mut Budget) {
        for at in 0..self.running.len() {
            let slot = self.running[at];
            if self.sequences[slot].is_prefilling() {
                self.plan_chunk(slot, step, entries, budget);
            }
        }
    }

    /// The next tokens of a prefill, as many as the budget allows, maybe none.
    pub(super) fn plan_chunk(
        &mut self,
        slot: Slot,
        step: &mut Step,
        entries: &mut Vec<Entry>,
        budget: &mut Budget,
    ) {
        let sequence = &self.sequences[slot];
        let mut len = sequence.ready();
        if !self.limits.planted.has(Bug::BudgetIgnored) {
            len = len.min(budget.chunk());
        }
        while len > 0 && rows(sequence, len) > budget.rows {
            len -= rows(sequence, len) - budget.rows;
        }
        if len > 0 {
            self.schedule(slot, len, step, entries, budget);
        }
    }

    /// Puts the next `len` tokens of a sequence into the step.
    fn schedule(
        &mut self,
        slot: Slot,
        len: usize,
        step: &mut Step,
        entries: &mut Vec<Entry>,
        budget: &mut Budget,
    ) {
        let sequence = &mut self.sequences[slot];
        let (start, past, end) = (step.tokens.len(), sequence.planned, sequence.planned + len);
        let logits = rows(sequence, len);
        let samples = end == sequence.len() && sequence.max_new_tokens > 0;
        let prefill = sequence.is_prefilling();
        let known = end.min(sequence.tokens.len());
        step.tokens.extend_from_slice(&sequence.tokens[past.min(known)..known]);
        step.tokens.resize(start + len, 0);
        step.sequences.push(StepSequence {
            id: sequence.id,
            choice: sequence.choice,
            start,
            len,
            past,
            pages_start: step.pages.len(),
            pages_len: sequence.pages.len(),
            pending: (past >= sequence.tokens.len()).then_some(sequence.sample),
            logits_start: step.logit_rows.len(),
            logits,
            sample: samples.then_some(step.samples),
            first: !sequence.ran,
            prefill,
        });
        step.pages.extend_from_slice(&sequence.pages);
        step.logit_rows.extend(start + len - logits..start + len);
        (sequence.planned, sequence.ran, sequence.last_step) = (end, true, step.number);
        sequence.logits_from = sequence.logits_from.max(end.min(sequence.prompt_len));
        let preemptions = sequence.preemptions;
        entries.push(Entry { slot, order: sequence.order, preemptions, planned: end, samples });
        if samples {
            sequence.sample = step.samples;
            sequence.unknown += 1;
            step.samples += 1;
        }
        step.prefill_tokens += if prefill { len } else { 0 };
        budget.tokens = budget.tokens.saturating_sub(len);
        budget.prefill = budget.prefill.saturating_sub(if prefill { len } else { 0 });
        budget.rows = budget.rows.saturating_sub(logits);
        if self.limits.planted.has(Bug::PublishUncommitted) {
            self.publish(slot, end);
        }
    }
}

/// Rows of logits that the next `len` tokens of a sequence bring: those of prompt positions that
/// are wanted, or else the one that is sampled.
fn rows(sequence: &Sequence, len: usize) -> usize {
    let end = sequence.planned + len;
    if sequence.logits_from < sequence.prompt_len {
        return end.saturating_sub(sequence.logits_from.max(sequence.planned));
    }
    usize::from(end == sequence.len() && sequence.max_new_tokens > 0)
}
