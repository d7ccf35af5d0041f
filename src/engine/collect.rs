//! Gathers a request's updates into the response of SGLang's `/generate`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::text::tokenizer::Tokenizer;
use crate::types::TokenId;

use super::logprobs::TokenLogprob;
use super::request::{FinishReason, Finished, LogprobOptions, Update};

/// All that one choice said so far.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    pub text: String,
    pub ids: Vec<TokenId>,
    pub logprobs: Vec<TokenLogprob>,
    pub prompt_logprobs: Vec<TokenLogprob>,
    pub finished: Option<Finished>,
}

impl Collected {
    pub fn add(&mut self, update: Update) {
        self.text.push_str(&update.text);
        self.ids.extend(update.token);
        self.logprobs.extend(update.logprob);
        if let Some(scored) = update.prompt_logprobs {
            self.prompt_logprobs.extend(scored);
        }
        self.finished = update.finished.or(self.finished.take());
    }

    /// `{text, output_ids, meta_info}`; times in seconds.
    pub fn to_json(&self, about: &About) -> Value {
        let mut meta = Map::new();
        let usage = self.finished.as_ref().map(|f| f.usage);
        meta.insert("id".into(), about.id.clone().into());
        let reason = self.finished.as_ref().map(|f| reason_json(&f.reason, self.ids.len()));
        meta.insert("finish_reason".into(), reason.unwrap_or(Value::Null));
        meta.insert("prompt_tokens".into(), about.prompt.len().into());
        meta.insert("weight_version".into(), "default".into());
        meta.insert("num_retractions".into(), usage.map_or(0, |u| u.preemptions).into());
        meta.insert("completion_tokens".into(), self.ids.len().into());
        meta.insert("cached_tokens".into(), usage.map_or(0, |u| u.cached_tokens).into());
        if self.finished.is_some() {
            meta.insert("e2e_latency".into(), about.elapsed.as_secs_f64().into());
        }
        self.add_logprobs(about, &mut meta);
        json!({ "text": self.text, "output_ids": self.ids, "meta_info": meta })
    }

    fn add_logprobs(&self, about: &About, meta: &mut Map<String, Value>) {
        let options = about.logprobs;
        if let Some(start) = options.prompt_start {
            let first = about.prompt.get(start).map(|&id| (id, None, None));
            let rest = self.prompt_logprobs.iter().map(|l| (l.token, Some(l.logprob), Some(l)));
            let all: Vec<_> = first.into_iter().chain(rest).collect();
            let entries = all.iter().map(|&(id, p, _)| about.entry(id, p)).collect();
            meta.insert("input_token_logprobs".into(), entries);
            if options.top > 0 {
                let tops = all.iter().map(|(.., l)| l.map_or(Value::Null, |l| about.top(l)));
                meta.insert("input_top_logprobs".into(), tops.collect());
            }
        }
        if options.output {
            let entries: Value =
                self.logprobs.iter().map(|l| about.entry(l.token, Some(l.logprob))).collect();
            meta.insert("output_token_logprobs".into(), entries);
            meta.insert("output_token_logprobs_length".into(), self.logprobs.len().into());
            if options.top > 0 {
                let tops = self.logprobs.iter().map(|l| about.top(l)).collect();
                meta.insert("output_top_logprobs".into(), tops);
            }
        }
    }
}

/// What a response says beside what was generated.
pub struct About<'a> {
    pub id: String,
    pub prompt: &'a [TokenId],
    pub elapsed: Duration,
    pub logprobs: LogprobOptions,
    /// Puts texts into log-probability entries, if asked for.
    pub texts: Option<&'a Tokenizer>,
}

impl About<'_> {
    /// `[logprob, id, text or null]`.
    fn entry(&self, id: TokenId, logprob: Option<f32>) -> Value {
        let text = self.texts.map(|t| t.decode(&[id], false));
        json!([logprob.filter(|p| p.is_finite()), id, text])
    }

    fn top(&self, scored: &TokenLogprob) -> Value {
        scored.top.iter().map(|&(id, p)| self.entry(id, Some(p))).collect()
    }
}

/// `{"type": "length", "length": n}`, `{"type": "stop", "matched": id or text}` or an abort.
pub fn reason_json(reason: &FinishReason, length: usize) -> Value {
    match reason {
        FinishReason::Length => json!({ "type": "length", "length": length }),
        FinishReason::StopToken(id) => json!({ "type": "stop", "matched": id }),
        FinishReason::StopText(text) => json!({ "type": "stop", "matched": text }),
        FinishReason::Cancelled => json!({ "type": "abort", "message": "cancelled" }),
        FinishReason::Failed(message) => json!({ "type": "abort", "message": message }),
    }
}
