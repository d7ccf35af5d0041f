//! What a device that samples is asked for: for each row of logits a token, the log-probability of
//! a prompt's token, or the row itself where a request wants what no device does.
//!
//! A request's rows are asked for by its own parameters and state alone, so that where its tokens
//! are chosen does not depend on the rest of the batch.

use crate::device::sampling::{LogitChange, Most, Row, RowSampling, Sampled, Sampling, Wanted};
use crate::device::{Batch, Loaded};
use crate::error::Result;
use crate::profile::recorder::Recorder;
use crate::scheduler::{Step, StepSequence};
use crate::types::TokenId;

use super::choice::Choice;
use super::core::Engine;
use super::logprobs::TokenLogprob;
use super::params::SamplingParams;
use super::sampler::SamplerState;

/// The rows of a step, as asked for and as they came.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// One for each row of logits; none if the device is not asked.
    rows: Vec<Row>,
    changes: Vec<LogitChange>,
    sampled: Sampled,
    /// Where each row is among the logits that come, if it does.
    places: Vec<usize>,
}

/// A row after its step.
pub(super) enum Came<'a> {
    /// All of its logits.
    Logits(&'a [f32]),
    /// What was chosen, or scored.
    Token(TokenId, Option<TokenLogprob>),
}

impl Engine {
    /// Fills in what is wanted of each row of a step whose tokens are known.
    pub(super) fn ask(&self, step: &Step, asked: &mut Asked) {
        asked.clear();
        let Some(most) = self.samples else { return };
        for sequence in &step.sequences {
            match self.choices.get(&(sequence.id, sequence.choice)) {
                Some(choice) => asked.sequence(choice, sequence, most),
                // Nobody waits for them.
                None => asked.rows.extend((0..sequence.logits).map(|_| NOTHING)),
            }
        }
        asked.place();
    }
}

/// The cheapest thing to ask for.
const NOTHING: Row = Row { wanted: Wanted::Given(0), top: None };

impl Asked {
    fn clear(&mut self) {
        self.rows.clear();
        self.changes.clear();
        self.places.clear();
    }

    fn sequence(&mut self, choice: &Choice, sequence: &StepSequence, most: Most) {
        let first = sequence.past + sequence.len - sequence.logits;
        let last = sequence.logits.saturating_sub(1);
        for index in 0..sequence.logits {
            let row = if index == last && sequence.sample.is_some() {
                choice.next_row(most, &mut self.changes)
            } else {
                choice.prompt_row_wanted(first + index, most)
            };
            self.rows.push(row);
        }
    }

    /// If every row wants its logits, a plain step does as well.
    fn place(&mut self) {
        let mut logits = 0;
        for row in &self.rows {
            self.places.push(logits);
            logits += usize::from(row.wanted == Wanted::Logits);
        }
        if logits == self.rows.len() {
            self.clear();
        }
    }

    /// Runs the step.
    ///
    /// # Errors
    /// As [`Loaded::step`].
    pub fn run(
        &mut self,
        loaded: &mut dyn Loaded,
        batch: &Batch,
        recorder: &mut Recorder,
    ) -> Result<()> {
        if self.rows.is_empty() {
            return loaded.step(batch, recorder);
        }
        let sampling = Sampling { rows: &self.rows, changes: &self.changes };
        loaded.step_sampled(batch, &sampling, &mut self.sampled, recorder)
    }

    /// Row `index` of the step; `logits` are those that came, `vocab` numbers a row.
    pub fn came<'a>(&self, index: usize, logits: &'a [f32], vocab: usize) -> Came<'a> {
        let at = self.places.get(index).copied().unwrap_or(index);
        match self.rows.get(index) {
            None | Some(Row { wanted: Wanted::Logits, .. }) => {
                Came::Logits(logits.get(at * vocab..(at + 1) * vocab).unwrap_or_default())
            }
            Some(row) => {
                let token = self.sampled.tokens.get(index).copied().unwrap_or(0);
                let scored = row.top.and_then(|top| {
                    let logprob = *self.sampled.logprobs.get(index)?;
                    let top = self.sampled.best(index, top).to_vec();
                    Some(TokenLogprob { token, logprob, top })
                });
                Came::Token(token, scored)
            }
        }
    }
}

impl Choice {
    /// What its next token needs of its row; changes of logits go to the end of `changes`.
    fn next_row(&self, most: Most, changes: &mut Vec<LogitChange>) -> Row {
        let top = self.logprobs.output.then_some(self.logprobs.top);
        let beyond = top.is_some_and(|top| top > most.top);
        if self.constraint.is_some() || beyond {
            return Row::LOGITS;
        }
        let start = changes.len();
        self.sampler.changes(&self.params, &self.ends, changes);
        match merge(changes, start) {
            Some(count) if count <= most.changes => {
                let row = self.sampler.row(&self.params, self.key);
                Row { wanted: Wanted::Token(RowSampling { changes: count as u32, ..row }), top }
            }
            _ => {
                changes.truncate(start);
                Row::LOGITS
            }
        }
    }

    /// What the row at `position` of the prompt is computed for: scoring the token after it.
    fn prompt_row_wanted(&self, position: usize, most: Most) -> Row {
        match self.prompt.get(position + 1) {
            None => NOTHING,
            Some(_) if self.logprobs.top > most.top => Row::LOGITS,
            Some(&token) => Row { wanted: Wanted::Given(token), top: Some(self.logprobs.top) },
        }
    }
}

/// Makes one change of all those of a token, from `start` on, and gives their number; `None` if a
/// token has two biases, whose sum is rounded differently on the host.
fn merge(changes: &mut Vec<LogitChange>, start: usize) -> Option<usize> {
    changes.get_mut(start..)?.sort_unstable_by_key(|c| c.token);
    let mut kept = start;
    for at in start..changes.len() {
        let next = changes[at];
        match kept
            .checked_sub(1)
            .filter(|last| *last >= start && changes[*last].token == next.token)
        {
            Some(last) if changes[last].bias != 0.0 && next.bias != 0.0 => return None,
            Some(last) => {
                let one = &mut changes[last];
                (one.bias, one.count) = (one.bias + next.bias, one.count + next.count);
                one.forbidden |= next.forbidden;
            }
            None => {
                changes[kept] = next;
                kept += 1;
            }
        }
    }
    changes.truncate(kept);
    Some(kept - start)
}

impl SamplerState {
    /// How the next token is drawn; `key` is seed and choice.
    fn row(&self, params: &SamplingParams, key: (u64, u32)) -> RowSampling {
        RowSampling {
            temperature: if params.is_greedy() { 0.0 } else { params.temperature },
            top_k: u32::try_from(params.top_k).unwrap_or(u32::MAX),
            top_p: params.top_p,
            min_p: params.min_p,
            seed: key.0,
            choice: key.1,
            position: self.generated as u32,
            repetition: params.repetition_penalty,
            frequency: params.frequency_penalty,
            presence: params.presence_penalty,
            changes: 0,
        }
    }

    /// Biases, counted tokens and ends that may not come yet, in no order; a token may be in
    /// each.
    fn changes(&self, params: &SamplingParams, ends: &[TokenId], changes: &mut Vec<LogitChange>) {
        let none = |token| LogitChange { token, bias: 0.0, count: 0, forbidden: false };
        changes.extend(params.logit_bias.iter().map(|b| LogitChange { bias: b.1, ..none(b.0) }));
        changes.extend(self.counts.iter().map(|(t, n)| LogitChange { count: *n, ..none(*t) }));
        if self.generated < params.min_new_tokens {
            changes.extend(ends.iter().map(|end| LogitChange { forbidden: true, ..none(*end) }));
        }
    }
}
