//! One choice of a request, from submission to its end, and the table of all that live.

use std::collections::BTreeMap;

use super::request::{End, Finish, Request};
use crate::kv::PageId;
use crate::types::TokenId;

/// Index into [`Sequences`].
pub type Slot = usize;

/// Names a sequence for ever, and orders by arrival. Slots are reused, these are not.
pub type Order = u64;

/// Where a live sequence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Never ran.
    Queued,
    Running,
    /// Ran, lost its pages, will run again.
    Preempted,
}

#[derive(Debug)]
pub struct Sequence {
    pub id: u64,
    pub choice: u32,
    pub order: Order,
    pub salt: u64,
    pub state: State,
    /// Prompt, then output as far as it is known.
    pub tokens: Vec<TokenId>,
    pub prompt_len: usize,
    pub max_new_tokens: usize,
    /// The page table; empty unless running.
    pub pages: Vec<PageId>,
    /// Positions whose keys and values are computed, or will be by a step in flight.
    pub planned: usize,
    /// Positions that have been computed.
    pub computed: usize,
    /// Leading pages that stand in the prefix tree.
    pub published: usize,
    /// Tokens known at admission: until they are planned the sequence prefills.
    pub prefill_len: usize,
    /// Positions that the page table was made to cover at admission.
    pub reserved: usize,
    /// The next prompt position whose row of logits is wanted; `prompt_len` if none.
    pub logits_from: usize,
    /// Tokens sampled by steps in flight.
    pub unknown: usize,
    /// Place of the newest of them among its step's samples.
    pub sample: usize,
    /// The last step that had its pages in a table.
    pub last_step: u64,
    pub preemptions: u32,
    pub cached_tokens: usize,
    /// Later arrivals that were served before it.
    pub bypassed: u32,
    /// Its whole prompt was computed once.
    pub prompt_done: bool,
    pub ran: bool,
    /// For choices after the first: the choice whose prompt pages they share.
    pub leader: Option<(Slot, Order)>,
}

impl Sequence {
    pub fn new(request: &Request, choice: u32, order: Order) -> Self {
        let prompt_len = request.prompt.len();
        let logits_from = if choice == 0 { request.logprob_start } else { None };
        Sequence {
            id: request.id,
            choice,
            order,
            salt: request.salt,
            state: State::Queued,
            tokens: request.prompt.clone(),
            prompt_len,
            max_new_tokens: request.max_new_tokens,
            pages: Vec::new(),
            planned: 0,
            computed: 0,
            published: 0,
            prefill_len: 0,
            reserved: 0,
            logits_from: logits_from.unwrap_or(prompt_len),
            unknown: 0,
            sample: 0,
            last_step: 0,
            preemptions: 0,
            cached_tokens: 0,
            bypassed: 0,
            prompt_done: false,
            ran: false,
            leader: None,
        }
    }

    /// Tokens that exist, known or not.
    pub fn len(&self) -> usize {
        self.tokens.len() + self.unknown
    }

    pub fn output_tokens(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }

    /// Positions it needs in the cache at most: the last token is never run.
    pub fn goal(&self) -> usize {
        self.prompt_len + self.max_new_tokens.saturating_sub(1)
    }

    /// Tokens that can run now.
    pub fn ready(&self) -> usize {
        self.len().min(self.goal()).saturating_sub(self.planned)
    }

    pub fn is_prefilling(&self) -> bool {
        self.planned < self.prefill_len
    }

    pub fn end(&self, reason: Finish) -> End {
        End {
            reason,
            prompt_tokens: self.prompt_len,
            cached_tokens: self.cached_tokens,
            output_tokens: self.output_tokens(),
            preemptions: self.preemptions,
        }
    }
}

/// All live sequences, by slot and by `(id, choice)`.
#[derive(Debug, Default)]
pub struct Sequences {
    slots: Vec<Option<Sequence>>,
    free: Vec<Slot>,
    by_id: BTreeMap<(u64, u32), Slot>,
    next_order: Order,
}

impl Sequences {
    pub fn insert(&mut self, request: &Request, choice: u32) -> Slot {
        let sequence = Sequence::new(request, choice, self.next_order);
        self.next_order += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.by_id.insert((sequence.id, choice), slot);
        self.slots[slot] = Some(sequence);
        slot
    }

    pub fn remove(&mut self, slot: Slot) {
        if let Some(sequence) = self.slots[slot].take() {
            self.by_id.remove(&(sequence.id, sequence.choice));
            self.free.push(slot);
        }
    }

    /// The sequence that `order` names, if it still lives.
    pub fn live(&self, slot: Slot, order: Order) -> Option<&Sequence> {
        self.slots.get(slot)?.as_ref().filter(|s| s.order == order)
    }

    /// The live choices of a request, in order.
    pub fn of_request(&self, id: u64) -> impl Iterator<Item = Slot> {
        self.by_id.range((id, 0)..=(id, u32::MAX)).map(|(_, &slot)| slot)
    }

    pub fn find(&self, id: u64, choice: u32) -> Option<Slot> {
        self.by_id.get(&(id, choice)).copied()
    }

    /// Live sequences in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Sequence)> {
        self.slots.iter().enumerate().filter_map(|(slot, s)| Some((slot, s.as_ref()?)))
    }

    pub fn count(&self) -> usize {
        self.by_id.len()
    }
}

impl std::ops::Index<Slot> for Sequences {
    type Output = Sequence;

    fn index(&self, slot: Slot) -> &Sequence {
        self.slots[slot].as_ref().expect("queues name live sequences only")
    }
}

impl std::ops::IndexMut<Slot> for Sequences {
    fn index_mut(&mut self, slot: Slot) -> &mut Sequence {
        self.slots[slot].as_mut().expect("queues name live sequences only")
    }
}
