//! Who leaves the queue, and with which pages.
//!
//! A sequence is admitted with pages for all the tokens it has, or not at all, so two prompts
//! never wait for each other half-loaded. Preempted sequences go first. Whoever is chosen and
//! does not fit is waited for: nobody slips past a large request for ever.

use super::core::{Entry, Scheduler};
use super::limits::Policy;
use super::plan::Budget;
use super::sequence::{Sequence, Slot, State};
use super::step::{PageCopy, Step};
use crate::kv::planted::Bug;

/// How many queued sequences longest-prefix-match looks at.
const LPM_WINDOW: usize = 64;

impl Scheduler {
    /// Moves sequences from the queues into the running set while they fit.
    pub(super) fn admit(&mut self, step: &mut Step, entries: &mut Vec<Entry>, budget: &mut Budget) {
        #[cfg(test)]
        if self.asleep {
            return;
        }
        let batch = self.limits.policy == Policy::Static;
        self.matches.clear();
        while self.running.len() < self.limits.running() && (batch || budget.chunk() > 0) {
            let Some(slot) = self.candidate() else { return };
            if !self.try_admit(slot, step) {
                #[cfg(test)]
                (self.asleep = self.limits.planted.has(Bug::NoWakeUp));
                return;
            }
            if !batch {
                self.plan_chunk(slot, step, entries, budget);
            }
        }
    }

    /// The sequence to admit next, whether it fits or not.
    fn candidate(&mut self) -> Option<Slot> {
        if let Some(&slot) = self.preempted.first() {
            return self.is_eligible(slot).then_some(slot);
        }
        if self.limits.policy == Policy::Lpm {
            return self.longest_match();
        }
        self.queue.iter().copied().find(|&slot| self.is_eligible(slot))
    }

    /// All its tokens are known, and a parallel sample's prompt is there to be shared (or never
    /// will be).
    fn is_eligible(&self, slot: Slot) -> bool {
        let sequence = &self.sequences[slot];
        let leader = sequence.leader.and_then(|(slot, order)| self.sequences.live(slot, order));
        let waits = leader.is_some_and(|l| !l.prompt_done) && self.limits.policy != Policy::Static;
        sequence.unknown == 0 && !waits
    }

    /// The first that was passed over too often, or else the longest cached prefix, or else the
    /// first.
    fn longest_match(&mut self) -> Option<Slot> {
        if self.matches.is_empty() {
            let window = self.queue.iter().copied().take(LPM_WINDOW);
            let eligible = window.filter(|&slot| self.is_eligible(slot)).collect::<Vec<_>>();
            for slot in eligible {
                self.find_hits(slot);
                self.matches.push((slot, self.hits.len()));
            }
        }
        let unbounded = self.limits.planted.has(Bug::UnboundedBypass);
        let most = if unbounded { u32::MAX } else { self.limits.max_bypass };
        let passed_over = |entry: &&(Slot, usize)| self.sequences[entry.0].bypassed >= most;
        let pinned = self.matches.iter().find(passed_over);
        let longest = || self.matches.iter().rev().max_by_key(|&&(_, pages)| pages);
        pinned.or_else(longest).map(|&(slot, _)| slot)
    }

    /// Fills `hits` with the pages that the sequence need not compute.
    fn find_hits(&mut self, slot: Slot) {
        let mut hits = std::mem::take(&mut self.hits);
        hits.clear();
        let sequence = &self.sequences[slot];
        if let Some(leader) = self.leader_with_pages(sequence) {
            let full = (sequence.prompt_len - 1) / self.limits.page_size;
            hits.extend_from_slice(&leader.pages[..full]);
        } else {
            let most = self.usable_tokens(sequence) / self.limits.page_size;
            self.pages.find(sequence.salt, &sequence.tokens, most, &mut hits);
        }
        self.hits = hits;
    }

    /// How many of its first tokens may come from the cache. The last one is always computed,
    /// and so are those whose logits are wanted.
    fn usable_tokens(&self, sequence: &Sequence) -> usize {
        let planted = self.limits.planted;
        if planted.has(Bug::FullHitComputesNothing) {
            return sequence.tokens.len();
        }
        let most = sequence.tokens.len() - 1;
        if sequence.logits_from < sequence.prompt_len && !planted.has(Bug::CacheHidesLogprobs) {
            return most.min(sequence.logits_from);
        }
        most
    }

    /// For a parallel sample that has not run: the first choice, if its prompt is in pages.
    fn leader_with_pages(&self, sequence: &Sequence) -> Option<&Sequence> {
        let (slot, order) = sequence.leader?;
        let leader = self.sequences.live(slot, order)?;
        let ready = leader.state == State::Running && leader.computed >= leader.prompt_len;
        ready.then_some(leader)
    }

    /// Gives the sequence pages for all its tokens and makes it run, or changes nothing.
    fn try_admit(&mut self, slot: Slot, step: &mut Step) -> bool {
        self.find_hits(slot);
        let sequence = &self.sequences[slot];
        // Once more is too often: this time it gets all the pages it can ever need.
        let last_try = sequence.preemptions >= self.limits.max_preemptions;
        let reserved = if last_try { sequence.goal() } else { sequence.tokens.len() };
        let new = self.limits.pages_for(reserved).saturating_sub(self.hits.len());
        let idle_hits = self.hits.iter().filter(|&&page| self.pages.is_idle(page)).count();
        if new + idle_hits + self.headroom() > self.pages.available() {
            return false;
        }
        let mut table = std::mem::take(&mut self.sequences[slot].pages);
        for &page in &self.hits {
            self.pages.share(page);
            table.push(page);
        }
        let wanted = table.len() + new;
        table.extend((0..new).map_while(|_| self.pages.allocate()));
        let short = table.len() < wanted;
        if short && !self.limits.planted.has(Bug::PartialAdmission) {
            // No step knows them yet.
            table.drain(..).rev().for_each(|page| self.pages.release(page, 0));
        }
        self.sequences[slot].pages = table;
        if short {
            return false;
        }
        self.sequences[slot].reserved = reserved;
        let cached = self.copy_tail(slot, step);
        self.start(slot, cached);
        true
    }

    /// Pages left over for the running sequences to grow into, so that a newcomer is not
    /// preempted right away.
    fn headroom(&self) -> usize {
        if self.running.is_empty() || self.limits.policy == Policy::Static {
            return 0;
        }
        (self.running.len() + 1).min(self.limits.pages / 8)
    }

    /// For a parallel sample: copies the partly filled page of the prompt. Returns how many
    /// tokens the sequence now has in its pages.
    fn copy_tail(&mut self, slot: Slot, step: &mut Step) -> usize {
        let (sequence, page_size) = (&self.sequences[slot], self.limits.page_size);
        let full = self.hits.len();
        if self.leader_with_pages(sequence).is_none() {
            return full * page_size;
        }
        let cached = sequence.prompt_len - 1;
        let Some((leader, _)) = sequence.leader.filter(|_| cached % page_size > 0) else {
            return cached;
        };
        let mut copy = PageCopy {
            from: self.sequences[leader].pages[full],
            to: sequence.pages[full],
            tokens: cached % page_size,
        };
        if self.limits.planted.has(Bug::ForkSharesTail) {
            self.pages.share(copy.from);
            self.pages.release(copy.to, 0);
            self.sequences[slot].pages[full] = copy.from;
            return cached;
        }
        if self.limits.planted.has(Bug::CopyOneShort) {
            copy.tokens -= 1;
        }
        step.copies.push(copy);
        // The leader may end and let go of the page before the copy has run.
        self.sequences[leader].last_step = step.number;
        cached
    }

    fn start(&mut self, slot: Slot, cached: usize) {
        if self.sequences[slot].state == State::Queued && self.limits.policy == Policy::Lpm {
            self.matches.retain(|&(s, _)| s != slot);
            for at in 0..self.matches.len() {
                let other = self.matches[at].0;
                if self.sequences[other].order < self.sequences[slot].order {
                    self.sequences[other].bypassed += 1;
                }
            }
        }
        self.unlist(slot);
        let sequence = &mut self.sequences[slot];
        sequence.state = State::Running;
        sequence.leader = None;
        (sequence.planned, sequence.computed) = (cached, cached);
        sequence.published = self.hits.len();
        sequence.prefill_len = sequence.tokens.len();
        self.totals.hit_tokens += cached as u64;
        if !sequence.ran {
            sequence.cached_tokens = cached;
        }
        let at = self.position(&self.running, slot);
        self.running.insert(at, slot);
    }
}
