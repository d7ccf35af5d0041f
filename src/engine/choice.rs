//! One running choice: its sampler, its text, and whether it has ended.

use std::sync::Arc;

use regex::Regex;

use crate::error::{Error, Result};
use crate::text::detokenizer::Detokenizer;
use crate::text::grammar::Constraint;
use crate::text::grammar::constraint::Progress;
use crate::text::stop::StopMatcher;
use crate::text::tokenizer::Tokenizer;
use crate::types::TokenId;

use super::logprobs::TokenLogprob;
use super::params::SamplingParams;
use super::request::{FinishReason, GenerateRequest, LogprobOptions, Started};
use super::sampler::SamplerState;

/// Stop expressions are searched in this many of the last bytes of text.
const REGEX_TAIL: usize = 4096;
/// Largest compiled stop expression.
const REGEX_SIZE: usize = 1 << 20;

/// Everything that is kept of a choice while it runs.
pub struct Choice {
    pub params: Arc<SamplingParams>,
    pub logprobs: LogprobOptions,
    pub sampler: SamplerState,
    /// Key of its draws: seed and choice.
    pub key: (u64, u32),
    pub prompt: Arc<[TokenId]>,
    pub prompt_logprobs: Vec<TokenLogprob>,
    /// Tokens that end it: of the model, unless ignored, and of the request.
    pub ends: Arc<[TokenId]>,
    pub constraint: Option<Constraint>,
    /// The last step that was planned before it came: results of steps up to this one belong to
    /// an older request of the same id.
    pub born: u64,
    /// When it first ran, until that is told.
    pub started: Option<Started>,
    /// Why it cannot go on, if a part of its prompt already made that certain.
    pub stuck: Option<String>,
    text: Option<TextState>,
    generated: usize,
}

struct TextState {
    detokenizer: Detokenizer,
    stops: StopMatcher,
    expressions: Arc<[Regex]>,
    tail: String,
}

/// What accepting a token led to.
#[derive(Debug, Default, PartialEq)]
pub struct Accepted {
    pub text: String,
    pub finish: Option<FinishReason>,
}

impl Choice {
    pub fn new(request: &GenerateRequest, shared: &Shared, choice: u32, seed: u64) -> Result<Self> {
        let params = &request.params;
        let text = match &shared.tokenizer {
            None => None,
            Some(tokenizer) => Some(TextState {
                detokenizer: tokenizer
                    .detokenizer_after(&request.prompt, params.skip_special_tokens),
                stops: StopMatcher::new(&params.stop, params.no_stop_trim)?,
                expressions: Arc::clone(&shared.expressions),
                tail: String::new(),
            }),
        };
        Ok(Choice {
            params: Arc::clone(params),
            logprobs: request.logprobs,
            sampler: SamplerState::default(),
            key: (params.seed.unwrap_or(seed), choice),
            prompt: Arc::clone(&shared.prompt),
            prompt_logprobs: Vec::new(),
            ends: Arc::clone(&shared.ends),
            constraint: None,
            born: 0,
            started: None,
            stuck: None,
            text,
            generated: 0,
        })
    }

    /// Takes a sampled token: turns it into text and looks for an end.
    pub fn accept(&mut self, token: TokenId) -> Accepted {
        self.generated += 1;
        let may_stop = self.generated >= self.params.min_new_tokens;
        let Some(constraint) = &mut self.constraint else {
            return self.accept_text(token, may_stop);
        };
        let (progress, end) = (constraint.accept(token), constraint.end());
        if progress == Ok(Progress::Complete) && constraint.is_end(token) {
            return self.end_at(token);
        }
        let mut accepted = self.accept_text(token, may_stop);
        match progress {
            Ok(Progress::Open) => {}
            Ok(Progress::Complete) if accepted.finish.is_some() => {}
            Ok(Progress::Complete) => {
                // What the model would have to say next is its end.
                accepted.text.push_str(&self.rest());
                let textual = FinishReason::StopText(String::new());
                accepted.finish = Some(end.map_or(textual, FinishReason::StopToken));
            }
            Err(why) => accepted.finish = Some(FinishReason::Failed(why)),
        }
        accepted
    }

    /// Finds out early what may come next: the step after needs it, and this is not waited for.
    pub fn prepare_mask(&mut self) {
        let most = self.params.max_new_tokens.unwrap_or(usize::MAX);
        if let Some(constraint) = self.constraint.as_mut().filter(|_| self.generated < most) {
            // A grammar that cannot go on says so again when it is asked for its next token.
            let _ = constraint.mask();
        }
    }

    fn accept_text(&mut self, token: TokenId, may_stop: bool) -> Accepted {
        if may_stop && self.ends.contains(&token) {
            return self.end_at(token);
        }
        let Some(state) = &mut self.text else { return Accepted::default() };
        let piece = state.detokenizer.push(token);
        if !may_stop {
            return Accepted { text: piece, finish: None };
        }
        let released = state.stops.push(&piece);
        let mut finish = released.stopped_by.and_then(|index| {
            self.params.stop.get(index).map(|s| FinishReason::StopText(s.clone()))
        });
        let mut text = released.text;
        if finish.is_none() {
            finish = state.match_expressions(&piece).map(FinishReason::StopText);
            if finish.is_some() {
                text.push_str(&state.stops.finish());
            }
        }
        Accepted { text, finish }
    }

    /// The stop token's own text appears only if it is to be kept.
    fn end_at(&mut self, token: TokenId) -> Accepted {
        let mut text = String::new();
        if let (true, Some(state)) = (self.params.no_stop_trim, &mut self.text) {
            text = state.stops.push(&state.detokenizer.push(token)).text;
        }
        text.push_str(&self.rest());
        Accepted { text, finish: Some(FinishReason::StopToken(token)) }
    }

    /// Text held back so far, when no more can come.
    pub fn rest(&mut self) -> String {
        let Some(state) = &mut self.text else { return String::new() };
        let last = state.detokenizer.finish();
        let mut text = state.stops.push(&last).text;
        text.push_str(&state.stops.finish());
        text
    }
}

impl TextState {
    /// The text that a stop expression matches in the tail, if one does.
    fn match_expressions(&mut self, piece: &str) -> Option<String> {
        if self.expressions.is_empty() {
            return None;
        }
        self.tail.push_str(piece);
        if self.tail.len() > REGEX_TAIL {
            let cut = self.tail.len() - REGEX_TAIL;
            let cut = (cut..).find(|&i| self.tail.is_char_boundary(i)).unwrap_or(cut);
            self.tail.drain(..cut);
        }
        self.expressions.iter().find_map(|e| e.find(&self.tail)).map(|m| m.as_str().to_owned())
    }
}

/// What all choices of a request share.
pub struct Shared {
    pub tokenizer: Option<Arc<Tokenizer>>,
    pub prompt: Arc<[TokenId]>,
    pub ends: Arc<[TokenId]>,
    expressions: Arc<[Regex]>,
}

impl Shared {
    /// # Errors
    /// Stop strings or expressions without a tokenizer; an expression that does not parse.
    pub fn new(
        request: &GenerateRequest,
        tokenizer: Option<Arc<Tokenizer>>,
        eos: &[TokenId],
    ) -> Result<Self> {
        let params = &request.params;
        if tokenizer.is_none() && !(params.stop.is_empty() && params.stop_regex.is_empty()) {
            return Err(Error::usage("stop strings need a tokenizer, and this model has none"));
        }
        let mut ends = params.stop_token_ids.clone();
        if !params.ignore_eos {
            ends.extend_from_slice(eos);
        }
        let compile = |text: &String| {
            regex::RegexBuilder::new(text).size_limit(REGEX_SIZE).build().map_err(|e| {
                let what = e.to_string().replace('\n', " ");
                Error::usage(format!("stop_regex {text:?}: {what}"))
            })
        };
        let expressions: Vec<Regex> =
            params.stop_regex.iter().map(compile).collect::<Result<_>>()?;
        Ok(Shared {
            tokenizer,
            prompt: request.prompt.as_slice().into(),
            ends: ends.into(),
            expressions: expressions.into(),
        })
    }
}
