//! SGLang's `/generate`: every event repeats the whole text so far.

use serde_json::{Map, Value, json};

use super::super::context::unix_time;
use super::super::generate::{Generation, Running};
use super::{Choice, push, scores};
use crate::engine::collect::reason_json;
use crate::engine::request::FinishReason;
use crate::http::Response;

/// One object, or a list of them for a batch or for several choices.
pub fn whole(generation: &Generation, batch: bool) -> Response {
    let mut body = Vec::new();
    let list = is_list(generation, batch);
    if list {
        body.push(b'[');
    }
    for (p, running) in generation.running.iter().enumerate() {
        for c in 0..running.choices.len() {
            if body.len() > 1 {
                body.push(b',');
            }
            object(generation, p, c, None, &mut body);
        }
    }
    if list {
        body.push(b']');
    }
    Response::new(200, "application/json", body)
}

fn is_list(generation: &Generation, batch: bool) -> bool {
    batch || generation.running.iter().map(|r| r.choices.len()).sum::<usize>() > 1
}

/// The next event of a choice.
pub fn event(
    generation: &Generation,
    batch: bool,
    prompt: usize,
    choice: usize,
    out: &mut Vec<u8>,
) {
    let before: usize = generation.running[..prompt].iter().map(|r| r.choices.len()).sum();
    let index = is_list(generation, batch).then_some(before + choice);
    object(generation, prompt, choice, index, out);
}

fn object(
    generation: &Generation,
    prompt: usize,
    choice: usize,
    index: Option<usize>,
    out: &mut Vec<u8>,
) {
    let running = &generation.running[prompt];
    let choice = &running.choices[choice];
    out.extend_from_slice(b"{\"text\":\"");
    out.extend_from_slice(&choice.text_json);
    out.extend_from_slice(b"\",\"output_ids\":[");
    out.extend_from_slice(&choice.ids_json);
    out.extend_from_slice(b"],\"meta_info\":");
    push(out, &Value::Object(meta(generation, running, choice)));
    if out.pop().is_some() {
        scores::native(running.logprobs, choice, out);
        out.push(b'}');
    }
    if let Some(index) = index {
        out.extend_from_slice(format!(",\"index\":{index}").as_bytes());
    }
    out.push(b'}');
}

fn meta(generation: &Generation, running: &Running, choice: &Choice) -> Map<String, Value> {
    let mut meta = Map::new();
    let usage = choice.finished.as_ref().map(|f| f.usage);
    let reason = choice.finished.as_ref().map(|f| match &f.reason {
        FinishReason::Cancelled => json!({ "type": "abort", "message": "Aborted",
            "status_code": null, "err_type": null }),
        reason => reason_json(reason, choice.ids.len()),
    });
    meta.insert("id".into(), running.rid.clone().into());
    meta.insert("finish_reason".into(), reason.unwrap_or(Value::Null));
    meta.insert("prompt_tokens".into(), running.prompt.len().into());
    meta.insert("weight_version".into(), "default".into());
    meta.insert("num_retractions".into(), usage.map_or(0, |u| u.preemptions).into());
    meta.insert("reasoning_tokens".into(), 0.into());
    meta.insert("completion_tokens".into(), choice.ids.len().into());
    meta.insert("cached_tokens".into(), choice.cached_tokens().into());
    meta.insert("dp_rank".into(), Value::Null);
    times(generation, choice, &mut meta);
    meta
}

/// When what happened: `…_ts` in seconds since 1970, the others in seconds.
fn times(generation: &Generation, choice: &Choice, meta: &mut Map<String, Value>) {
    let since = |at| -> f64 {
        let at: std::time::Instant = at;
        at.saturating_duration_since(generation.received).as_secs_f64()
    };
    meta.insert("request_received_ts".into(), generation.received_unix.into());
    let dispatched = generation.dispatched_unix;
    meta.insert("api_server_dispatch_finish_ts".into(), dispatched.into());
    if let Some(started) = choice.started {
        let at = since(started.at);
        let dispatch = dispatched - generation.received_unix;
        meta.insert("queue_time".into(), (at - dispatch).max(0.0).into());
        meta.insert("forward_entry_time".into(), (generation.received_unix + at).into());
    }
    if let Some(first) = choice.first_token {
        let finished = generation.received_unix + since(first);
        meta.insert("prefill_finished_time".into(), finished.into());
        meta.insert("first_token_latency".into(), since(first).into());
    }
    let (Some(_), Some(last)) = (&choice.finished, choice.last_token) else { return };
    meta.insert("e2e_latency".into(), since(last).into());
    meta.insert("request_finished_ts".into(), (generation.received_unix + since(last)).into());
    meta.insert("response_sent_to_client_ts".into(), unix_time().into());
    let decoded = choice.ids.len().saturating_sub(1);
    if let Some(first) = choice.first_token.filter(|first| decoded > 0 && last > *first) {
        let rate = decoded as f64 / (last - first).as_secs_f64();
        meta.insert("decode_throughput".into(), rate.into());
    }
}
