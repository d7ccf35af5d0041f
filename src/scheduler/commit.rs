//! A step came back: its tokens become known, its pages may be shared, sequences end.

use super::core::{Entry, InFlight, Scheduler};
use super::request::{Event, Finish, Output};
use super::sequence::Slot;
use crate::error::{Error, Result};
use crate::kv::planted::Bug;

impl Scheduler {
    /// Takes the results of the oldest step in flight: one output for each of its
    /// [`samples`](super::Step::samples), in that order. Appends what happened to `events`.
    ///
    /// Outputs of sequences that have ended since (cancelled, or found to have ended by an
    /// earlier step) are dropped.
    ///
    /// # Errors
    /// If `number` is not the oldest step in flight or the outputs are not as many as it
    /// samples; nothing is changed then.
    pub fn commit(
        &mut self,
        number: u64,
        outputs: &[Output],
        events: &mut Vec<Event>,
    ) -> Result<()> {
        if self.limits.planted.has(Bug::CommitTwice) && self.oldest(number).is_err() {
            let next = self.in_flight.front().map_or(0, |step| step.number);
            self.land(next);
            return Ok(());
        }
        let samples = self.oldest(number)?.samples;
        if samples != outputs.len() {
            let found = outputs.len();
            return Err(Error::usage(format!("step {number}: {found} outputs for {samples}")));
        }
        let entries = self.land(number);
        let mut outputs = outputs.iter();
        for &entry in &entries {
            let output = if entry.samples { outputs.next() } else { None };
            self.commit_entry(entry, output.copied(), events);
        }
        self.recycle(entries);
        Ok(())
    }

    fn commit_entry(&mut self, entry: Entry, output: Option<Output>, events: &mut Vec<Event>) {
        let slot = entry.slot;
        if self.sequences.live(slot, entry.order).is_none() {
            return;
        }
        let current = self.sequences[slot].preemptions == entry.preemptions;
        if current {
            self.publish(slot, entry.planned);
        }
        let sequence = &mut self.sequences[slot];
        sequence.computed = if current { entry.planned } else { sequence.computed };
        sequence.prompt_done |= entry.planned >= sequence.prompt_len;
        let Some(Output { token, finish }) = output else {
            if sequence.max_new_tokens == 0 && sequence.prompt_done {
                self.finish(slot, Finish::Length, None, events);
            }
            return;
        };
        sequence.unknown -= 1;
        if !current && self.limits.planted.has(Bug::InFlightTokenLost) {
            return;
        }
        sequence.tokens.push(token);
        let full = sequence.output_tokens() >= sequence.max_new_tokens;
        match finish.or(full.then_some(Finish::Length)) {
            Some(reason) => self.finish(slot, reason, Some(token), events),
            None => {
                let (id, choice) = (sequence.id, sequence.choice);
                events.push(Event { id, choice, token: Some(token), end: None });
            }
        }
    }

    /// The oldest step in flight failed, and what it wrote is worthless: its sequences end with
    /// [`Finish::Failed`]. If the device is `lost`, so does everything else, and no step is in
    /// flight any more.
    ///
    /// # Errors
    /// If `number` is not the oldest step in flight; nothing is changed then.
    pub fn fail(&mut self, number: u64, lost: bool, events: &mut Vec<Event>) -> Result<()> {
        self.oldest(number)?;
        let entries = self.land(number);
        for entry in &entries {
            if self.sequences.live(entry.slot, entry.order).is_some() {
                self.finish(entry.slot, Finish::Failed, None, events);
            }
        }
        self.recycle(entries);
        if lost {
            while let Some(step) = self.in_flight.front() {
                let entries = self.land(step.number);
                self.recycle(entries);
            }
            let slots: Vec<Slot> = self.sequences.iter().map(|(slot, _)| slot).collect();
            for slot in slots {
                self.finish(slot, Finish::Failed, None, events);
            }
        }
        Ok(())
    }

    fn oldest(&self, number: u64) -> Result<&InFlight> {
        self.in_flight.front().filter(|step| step.number == number).ok_or_else(|| {
            let oldest = self.in_flight.front().map(|step| step.number);
            Error::usage(format!("step {number} is not the oldest in flight ({oldest:?})"))
        })
    }

    /// Takes the oldest step out of flight; pages that waited for it are free again.
    fn land(&mut self, number: u64) -> Vec<Entry> {
        self.pages.landed(number);
        self.in_flight.pop_front().map(|step| step.entries).unwrap_or_default()
    }

    fn recycle(&mut self, mut entries: Vec<Entry>) {
        entries.clear();
        self.spare.push(entries);
    }

    /// Offers the full pages among the first `computed` positions to others.
    pub(super) fn publish(&mut self, slot: Slot, computed: usize) {
        let size = self.limits.page_size;
        let sequence = &mut self.sequences[slot];
        while (sequence.published + 1) * size <= computed {
            let at = sequence.published;
            let parent = at.checked_sub(1).map(|before| sequence.pages[before]);
            sequence.pages[at] = self.pages.publish(
                sequence.salt,
                parent,
                &sequence.tokens[at * size..(at + 1) * size],
                sequence.pages[at],
                sequence.last_step,
            );
            sequence.published += 1;
        }
    }
}
