//! What the simulation knows by itself of every choice: what it must say (the oracle), what it
//! has said, where it must be.

use crate::scenario::{Arrival, mix};
use crate::scheduler::{End, Finish, State};

/// Token ids of the oracle.
const VOCAB: u64 = 50;
/// One token in so many is a stop token.
const STOP: u64 = 9;

/// Hash of a prefix: what a cache slot must hold once its token has been computed.
pub fn extend(prefix: u64, token: u32) -> u64 {
    mix(prefix ^ (u64::from(token) + 1).wrapping_mul(0x2545_F491_4F6C_DD1D))
}

/// The hash of the empty prefix; tenants differ.
pub fn root(salt: u64) -> u64 {
    mix(salt.wrapping_add(77))
}

/// What is sampled after a prefix.
pub fn sample(prefix: u64, id: u64, choice: u32) -> u32 {
    (mix(prefix ^ mix(id * 31 + u64::from(choice))) % VOCAB) as u32
}

/// One choice of an accepted request.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// [`Arrival::number`].
    pub number: u64,
    pub id: u64,
    pub choice: u32,
    /// Order of arrival, over all choices.
    pub order: u64,
    pub salt: u64,
    pub prompt_len: usize,
    pub max_new: usize,
    /// Prompt and everything it would say up to `max_new`.
    pub tokens: Vec<u32>,
    /// `prefixes[p]`: the hash of tokens `0 ..= p`.
    pub prefixes: Vec<u64>,
    /// Output tokens until its natural end, and how that end is called.
    pub natural: (usize, Finish),
    pub stops: bool,
    /// Tokens told to the client.
    pub told: usize,
    /// Tokens that steps in flight sample.
    pub in_flight: usize,
    pub end: Option<End>,
    pub ran: bool,
    /// Where it was after the last plan.
    pub state: Option<State>,
    /// Positions planned since the last admission, and how many were known then.
    pub planned: usize,
    pub prefill_len: usize,
    /// Prompt positions whose logits are still to come, from here on.
    pub rows_from: usize,
    pub preemptions: u32,
    /// Later arrivals that ran first.
    pub bypassed: u32,
}

impl Mirror {
    pub fn new(arrival: &Arrival, choice: u32, order: u64) -> Mirror {
        let request = &arrival.request;
        let mut tokens = request.prompt.clone();
        let mut prefixes = Vec::new();
        let mut prefix = root(request.salt);
        for at in 0.. {
            if at >= tokens.len() {
                if tokens.len() >= request.prompt.len() + request.max_new_tokens {
                    break;
                }
                tokens.push(sample(prefix, request.id, choice));
            }
            prefix = extend(prefix, tokens[at]);
            prefixes.push(prefix);
        }
        let output = &tokens[request.prompt.len()..];
        let stop = output.iter().position(|&t| arrival.stops && is_stop(t));
        let natural = match stop {
            Some(at) => (at + 1, Finish::Stop),
            None => (request.max_new_tokens, Finish::Length),
        };
        let rows = if choice == 0 { request.logprob_start } else { None };
        Mirror {
            number: arrival.number,
            id: request.id,
            choice,
            order,
            salt: request.salt,
            prompt_len: request.prompt.len(),
            max_new: request.max_new_tokens,
            tokens,
            prefixes,
            natural,
            stops: arrival.stops,
            told: 0,
            in_flight: 0,
            end: None,
            ran: false,
            state: None,
            planned: 0,
            prefill_len: 0,
            rows_from: rows.unwrap_or(request.prompt.len()),
            preemptions: 0,
            bypassed: 0,
        }
    }

    pub fn key(&self) -> (u64, u32) {
        (self.id, self.choice)
    }

    pub fn live(&self) -> bool {
        self.end.is_none()
    }

    /// Tokens that exist, known to the host or not.
    pub fn len(&self) -> usize {
        self.prompt_len + self.told + self.in_flight
    }

    /// Positions that it computes at most.
    pub fn goal(&self) -> usize {
        self.prompt_len + self.max_new.saturating_sub(1)
    }

    /// It runs, its prefill is planned, and a token waits to be computed.
    pub fn decodes(&self) -> bool {
        self.ran && self.planned >= self.prefill_len && self.len().min(self.goal()) > self.planned
    }
}

pub fn is_stop(token: u32) -> bool {
    u64::from(token) % STOP == 4
}
