//! From a step's results to what clients are told, in two parts.
//!
//! [`pick`](Engine::pick) chooses the tokens that the next step needs, or takes those that the
//! device chose, and keeps the rows whose log-probabilities are wanted; [`settle`](Engine::settle)
//! does all the rest, which may happen while the next step runs: log-probabilities, text, stop
//! strings, grammars, updates.
//!
//! Whatever panics in a request's sampler, grammar or detokeniser ends that choice alone.

use std::collections::HashMap;
use std::time::Instant;

use crate::device::faulty::Place;
use crate::error::Result;
use crate::profile::clock;
use crate::scheduler::{self, Event, Finish, Output, Step, StepSequence};
use crate::text::grammar::Constraint;
use crate::text::guard::guarded;
use crate::types::TokenId;

use super::asked::Came;
use super::choice::Choice;
use super::core::Engine;
use super::logprobs::{TokenLogprob, token_logprob};
use super::request::{FinishReason, Finished, Started, Update, Way};
use super::sampler::{Bans, SamplerScratch};
use super::step::{Buffers, broken};
use crate::device::faulty::Faults;

/// What was chosen for one sample of a step.
#[derive(Debug)]
pub(super) struct Pick {
    id: u64,
    choice: u32,
    outcome: Picked,
}

#[derive(Debug)]
enum Picked {
    /// Nobody waits for it any more.
    Gone,
    /// The token, and how it is scored.
    Token(TokenId, Score),
    /// The sampler or the grammar cannot go on.
    Stuck(String),
}

#[derive(Debug)]
enum Score {
    /// Nobody asked.
    No,
    /// Out of that one of the kept rows.
    Row(usize),
    /// By the device.
    Done(TokenLogprob),
}

/// Rows of a step by their index.
type Rows<'r, 'a> = &'r dyn Fn(usize) -> Came<'a>;

impl Engine {
    /// Chooses a token for each sequence that wants one, into `b.tokens`, and scores prompt tokens.
    pub(super) fn pick(&mut self, b: &mut Buffers) {
        b.picks.clear();
        b.tokens.clear();
        b.rows.clear();
        let now_ns = clock::now_ns();
        let vocab = self.model.config.vocab_size;
        let faults = self.faults.as_ref();
        let logits = self.loaded.logits();
        let asked = &b.asked;
        let row = |index: usize| asked.came(index, logits, vocab);
        for sequence in &b.step.sequences {
            let (id, number) = (sequence.id, sequence.choice);
            let choice = self.choices.get_mut(&(id, number));
            // One that was born later has the id of one that has ended since.
            let choice = choice.filter(|c| c.born < b.step.number);
            let outcome = choice.map_or(Picked::Gone, |choice| {
                if sequence.first {
                    let at = b.begun.unwrap_or_else(Instant::now);
                    let begun_ns = now_ns.saturating_sub(at.elapsed().as_nanos() as u64);
                    choice.started.get_or_insert(Started {
                        at,
                        cached_tokens: sequence.past,
                        step: b.step.number,
                        way: Way { begun_ns, ..Way::default() },
                    });
                }
                if let Some(started) = &mut choice.started {
                    started.way.computed_ns = now_ns;
                    started.way.steps = b.step.number - started.step.min(b.step.number) + 1;
                }
                let (rows, scratch) = (&mut b.rows, &mut b.scratch);
                guarded(|| choice.pick(sequence, &row, scratch, rows, faults))
                    .unwrap_or_else(|what| Picked::Stuck(format!("the sampler {what}")))
            });
            // A choice that got stuck on a chunk of its prompt is told with its first sample.
            if sequence.sample.is_some() {
                b.tokens.push(if let Picked::Token(token, _) = outcome { token } else { 0 });
                b.picks.push(Pick { id, choice: number, outcome });
            } else if let (Picked::Stuck(why), Some(choice)) =
                (outcome, self.choices.get_mut(&(id, number)))
            {
                choice.stuck.get_or_insert(why);
            }
        }
        b.picked_ns = clock::now_ns();
    }

    /// Turns the picks into text and ends, commits them and tells what happened.
    pub(super) fn settle(&mut self, b: &mut Buffers, updates: &mut Vec<Update>) -> Result<()> {
        b.outputs.clear();
        b.news.clear();
        let vocab = self.model.config.vocab_size;
        for pick in b.picks.drain(..) {
            let choice = self.choices.get_mut(&(pick.id, pick.choice));
            let Some(choice) = choice.filter(|c| c.born < b.step.number) else {
                b.outputs.push(Output { token: 0, finish: None });
                continue;
            };
            let (update, output) = match pick.outcome {
                Picked::Gone => {
                    b.outputs.push(Output { token: 0, finish: None });
                    continue;
                }
                Picked::Stuck(why) => choice.stuck_at(pick.id, why),
                Picked::Token(token, score) => {
                    let (rows, faults) = (&b.rows, self.faults.as_ref());
                    let scored = |top| match score {
                        Score::No => None,
                        Score::Done(scored) => Some(scored),
                        Score::Row(at) => {
                            Some(token_logprob(&rows[at * vocab..(at + 1) * vocab], token, top))
                        }
                    };
                    guarded(|| choice.next(pick.id, token, scored, faults)).unwrap_or_else(|what| {
                        choice.stuck_at(pick.id, format!("the detokeniser {what}"))
                    })
                }
            };
            b.outputs.push(output);
            b.news.push(update);
        }
        self.scheduler.commit(b.step.number, &b.outputs, &mut b.events).map_err(broken)?;
        self.deliver(b, updates);
        Ok(())
    }

    /// Joins what was sampled with what the scheduler says of it.
    fn deliver(&mut self, b: &mut Buffers, updates: &mut Vec<Update>) {
        let mut news: HashMap<(u64, u32), Update> =
            b.news.drain(..).map(|u| ((u.id, u.choice), u)).collect();
        let (picked_ns, settled_ns) = (b.picked_ns, clock::now_ns());
        for event in b.events.drain(..) {
            let update = news.remove(&(event.id, event.choice));
            let mut update = update.unwrap_or_else(|| silent(&event));
            if let Some(started) = &mut update.started {
                started.way = Way { picked_ns, settled_ns, ..started.way };
            }
            self.close(&event, &mut update, None);
            updates.push(update);
        }
    }

    pub(super) fn report(&mut self, events: &mut Vec<Event>, updates: &mut Vec<Update>) {
        for event in events.drain(..) {
            let mut update = silent(&event);
            self.close(&event, &mut update, None);
            updates.push(update);
        }
    }

    pub(super) fn report_as(
        &mut self,
        events: &mut Vec<Event>,
        out: &mut Vec<Update>,
        why: &FinishReason,
    ) {
        for event in events.drain(..) {
            let mut update = silent(&event);
            self.close(&event, &mut update, Some(why));
            out.push(update);
        }
    }

    /// Writes the end of a choice into its update and forgets the choice.
    fn close(&mut self, event: &Event, update: &mut Update, why: Option<&FinishReason>) {
        let Some(mut usage) = event.end else { return };
        // A choice that got stuck has no last token, whatever was counted.
        usage.output_tokens -= usize::from(event.token.is_some() && update.token.is_none());
        let found = update.finished.take().map(|f| f.reason);
        let mut reason = match (usage.reason, found) {
            (Finish::Stop, Some(reason)) => reason,
            (Finish::Stop | Finish::Length, _) => FinishReason::Length,
            (Finish::Cancelled, _) => why.cloned().unwrap_or(FinishReason::Cancelled),
            (Finish::Failed, found) => {
                let unnamed = || FinishReason::Failed("the step failed".into());
                why.cloned().or(found).unwrap_or_else(unnamed)
            }
        };
        if let Some(mut choice) = self.choices.remove(&(event.id, event.choice)) {
            update.started = update.started.or(choice.started.take());
            if let Some(why) = choice.stuck.take() {
                reason = FinishReason::Failed(why);
            }
            if reason == FinishReason::Length {
                update.text.push_str(&guarded(|| choice.rest()).unwrap_or_default());
            }
            let scored = std::mem::take(&mut choice.prompt_logprobs);
            if choice.logprobs.prompt_start.is_some() && update.prompt_logprobs.is_none() {
                // Nothing was generated, so no token brought them along.
                update.prompt_logprobs = (!scored.is_empty()).then_some(scored);
            }
        }
        update.finished = Some(Finished { reason, usage });
    }
}

impl Choice {
    /// Scores prompt tokens, chooses the next token and counts it, keeps its row if that is to be
    /// scored.
    fn pick(
        &mut self,
        sequence: &StepSequence,
        row: Rows<'_, '_>,
        scratch: &mut SamplerScratch,
        kept: &mut Vec<f32>,
        faults: Option<&Faults>,
    ) -> Picked {
        let rows = sequence.logits_start..sequence.logits_start + sequence.logits;
        let first = sequence.past + sequence.len - sequence.logits;
        for (position, index) in (first..).zip(rows.clone()) {
            self.prompt_row(position, row(index));
        }
        if sequence.sample.is_none() || rows.is_empty() {
            return Picked::Gone;
        }
        if let Some(why) = self.stuck.take() {
            return Picked::Stuck(why);
        }
        plant(faults, Place::Sampler);
        let (token, score) = match row(rows.end - 1) {
            Came::Token(token, scored) => (token, scored.map_or(Score::No, Score::Done)),
            Came::Logits(row) => match self.choose(row, scratch, faults) {
                Err(why) => return Picked::Stuck(why),
                Ok(token) if self.logprobs.output => {
                    let at = kept.len() / row.len().max(1);
                    kept.extend_from_slice(row);
                    (token, Score::Row(at))
                }
                Ok(token) => (token, Score::No),
            },
        };
        // Counted here and not with its text: the next step may be asked for before that.
        self.sampler.accept(token, &self.params);
        Picked::Token(token, score)
    }

    /// Scores the prompt token that `row`, at `position`, predicts.
    fn prompt_row(&mut self, position: usize, row: Came<'_>) {
        let wanted = self.logprobs.prompt_start.is_some_and(|start| position >= start);
        if let (true, Some(&token)) = (wanted, self.prompt.get(position + 1)) {
            // After a preemption rows come again; each position is scored once.
            let start = self.logprobs.prompt_start.unwrap_or(0);
            if position - start == self.prompt_logprobs.len() {
                let scored = match row {
                    Came::Logits(row) => Some(token_logprob(row, token, self.logprobs.top)),
                    Came::Token(_, scored) => scored,
                };
                self.prompt_logprobs.extend(scored);
            }
        }
    }

    fn choose(
        &mut self,
        row: &[f32],
        scratch: &mut SamplerScratch,
        faults: Option<&Faults>,
    ) -> std::result::Result<TokenId, String> {
        if self.constraint.is_some() {
            plant(faults, Place::Grammar);
        }
        let allowed = self.constraint.as_mut().map(Constraint::mask).transpose()?;
        let bans = Bans { ends: &self.ends, allowed };
        Ok(self.sampler.sample(row, &self.params, self.key, &bans, scratch))
    }

    /// Takes the sampled token and says what to tell the client and the scheduler.
    fn next(
        &mut self,
        id: u64,
        token: TokenId,
        scored: impl FnOnce(usize) -> Option<TokenLogprob>,
        faults: Option<&Faults>,
    ) -> (Update, Output) {
        plant(faults, Place::Text);
        let logprob = scored(self.logprobs.top);
        let accepted = self.accept(token);
        let finish = accepted.finish.as_ref().map(|reason| match reason {
            FinishReason::Failed(_) => Finish::Failed,
            _ => Finish::Stop,
        });
        if finish.is_none() {
            self.prepare_mask();
        }
        let scored = std::mem::take(&mut self.prompt_logprobs);
        let update = Update {
            id,
            choice: self.key.1,
            started: self.started.take(),
            token: Some(token),
            logprob,
            text: accepted.text,
            prompt_logprobs: (!scored.is_empty()).then_some(scored),
            finished: accepted.finish.map(|reason| Finished { reason, usage: UNKNOWN }),
        };
        (update, Output { token, finish })
    }

    /// The end of a choice that cannot go on.
    fn stuck_at(&self, id: u64, why: String) -> (Update, Output) {
        let event = Event { id, choice: self.key.1, token: None, end: None };
        let reason = FinishReason::Failed(why);
        let finished = Some(Finished { reason, usage: UNKNOWN });
        let output = Output { token: 0, finish: Some(Finish::Failed) };
        (Update { finished, ..silent(&event) }, output)
    }
}

/// Lets a planned fault of a test strike.
fn plant(faults: Option<&Faults>, place: fn(u64) -> Place) {
    if let Some(faults) = faults {
        faults.count(place);
    }
}

/// Puts the tokens of the step before where the next step waits for them.
pub(super) fn fill_pending(step: &mut Step, tokens: &[TokenId]) {
    for sequence in &step.sequences {
        if let Some(&token) = sequence.pending.and_then(|at| tokens.get(at)) {
            step.tokens[sequence.start] = token;
        }
    }
}

/// Stands in an update until the scheduler says what was used.
const UNKNOWN: scheduler::End = scheduler::End {
    reason: Finish::Stop,
    prompt_tokens: 0,
    cached_tokens: 0,
    output_tokens: 0,
    preemptions: 0,
};

/// An update without a token.
fn silent(event: &Event) -> Update {
    Update {
        id: event.id,
        choice: event.choice,
        started: None,
        token: event.token,
        logprob: None,
        text: String::new(),
        prompt_logprobs: None,
        finished: None,
    }
}
