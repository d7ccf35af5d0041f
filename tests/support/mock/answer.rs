//! What the mock says: routes without load, and one answer, piece by piece.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Seen, Timing, Truth};

/// Takes a whole request off `input`: path and body.
pub fn request(input: &mut Vec<u8>) -> Option<(String, String)> {
    let end = input.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&input[..end]).into_owned();
    let length = head
        .lines()
        .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    if input.len() < end + length {
        return None;
    }
    let body = String::from_utf8_lossy(&input[end..end + length]).into_owned();
    input.drain(..end + length);
    let path = head.split(' ').nth(1)?.to_string();
    Some((path, body))
}

const BEHAVIOURS: &[&str] = &[
    "silent",
    "midchunk",
    "error_event",
    "garbage",
    "huge_line",
    "s500",
    "double_done",
    "no_usage",
    "early",
    "no_end",
    "closes",
    "cached",
    "half_head",
    "not_http",
    "usage_each",
    "no_done",
    "short_usage",
    "empty",
    "heats",
    "overcounts",
];

/// `/silent/generate` as `silent` and `/generate`.
pub fn split(path: &str) -> (&str, &str) {
    let path = path.split('?').next().unwrap_or(path);
    let rest = path.trim_start_matches('/');
    match rest.split_once('/') {
        Some((first, _)) if BEHAVIOURS.contains(&first) => (first, &path[first.len() + 1..]),
        _ => ("", path),
    }
}

fn json_answer(value: &Value) -> String {
    plain_answer("application/json", &value.to_string())
}

fn plain_answer(kind: &str, text: &str) -> String {
    let n = text.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {n}\r\n\r\n{text}")
}

/// The answer of a route that generates nothing.
pub fn plain(route: &str, body: &str, seen: &mut Seen) -> Option<String> {
    Some(match route {
        "/v1/models" => json_answer(&json!({ "data": [{ "id": "mock", "root": "mock" }] })),
        "/model_info" => json_answer(&json!({ "model_path": "mock", "tokenizer_path": "" })),
        "/server_info" => json_answer(&json!({
            "version": "mock", "api_key": "secret",
            "internal_states": [{
                "effective_max_running_requests_per_dp": 4096,
                "memory_usage": { "token_capacity": 1_000_000 },
                "last_gen_throughput": 12.5,
            }],
        })),
        "/health" => json_answer(&json!({})),
        "/flush_cache" | "/reset_prefix_cache" => {
            seen.flushes += 1;
            plain_answer("text/plain", "Cache flushed.")
        }
        "/start_profile" | "/stop_profile" => {
            seen.profile_calls.push(format!("{route} {body}"));
            json_answer(&json!({ "state": "ok" }))
        }
        "/mark" => {
            seen.mark = seen.requests.len();
            json_answer(&json!({}))
        }
        "/truth" => json_answer(&truth(&seen.requests[seen.mark..])),
        "/metrics" => {
            let text = format!(
                "sglang:prompt_tokens_total{{m=\"x\"}} {}\nsglang:generation_tokens_total{{m=\"x\"}} \
                 {}\nsglang:num_requests_total{{m=\"x\"}} {}\n",
                seen.prompt_tokens,
                seen.output_tokens,
                seen.requests.len()
            );
            plain_answer("text/plain", &text)
        }
        _ => return None,
    })
}

/// `[received, first chunk, last chunk, done, tokens]` of each request, microseconds after the
/// first was received.
fn truth(requests: &[Truth]) -> Value {
    let start = requests.iter().filter_map(|r| r.received).min();
    let us = |at: Option<Instant>| {
        at.zip(start).map(|(at, start)| at.duration_since(start).as_nanos() as f64 * 1e-3)
    };
    let one = |r: &Truth| {
        let at = |chunk: Option<&(Instant, usize)>| us(chunk.map(|c| c.0));
        let tokens: usize = r.chunks.iter().map(|c| c.1).sum();
        json!([us(r.received), at(r.chunks.first()), at(r.chunks.last()), us(r.done), tokens])
    };
    requests.iter().map(one).collect()
}

/// What comes next of an answer.
pub enum Action {
    Write {
        bytes: Vec<u8>,
        tokens: usize,
        wait: Duration,
    },
    Last {
        bytes: Vec<u8>,
        close: bool,
    },
    /// Bytes without end.
    Endless,
    Nothing,
}

#[derive(Clone, Copy, PartialEq)]
enum Api {
    Generate,
    Completions,
    Chat,
}

/// One answer in progress.
pub struct Answer {
    pub index: usize,
    pub prompt_tokens: usize,
    behaviour: String,
    api: Api,
    stream: bool,
    usage: bool,
    wanted: usize,
    made: usize,
    timing: Timing,
    started: bool,
}

impl Answer {
    pub fn new(behaviour: &str, route: &str, body: &str, timing: Timing, index: usize) -> Answer {
        let body: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        let api = match route {
            "/generate" => Api::Generate,
            "/v1/completions" => Api::Completions,
            _ => Api::Chat,
        };
        let first = |keys: &[&str]| keys.iter().find_map(|k| body.get(*k));
        let prompt = first(&["input_ids", "prompt", "text", "messages"]);
        let prompt_tokens = match prompt {
            Some(Value::Array(ids)) => ids.len(),
            Some(Value::String(text)) => text.split_whitespace().count(),
            _ => 0,
        };
        let params = body.get("sampling_params").unwrap_or(&body);
        let lengths = ["max_new_tokens", "max_tokens", "max_completion_tokens"];
        let wanted = lengths.iter().find_map(|k| params.get(*k)?.as_u64()).unwrap_or(16) as usize;
        let wanted = if behaviour == "early" { wanted.div_ceil(2) } else { wanted };
        Answer {
            index,
            prompt_tokens,
            behaviour: behaviour.to_string(),
            api,
            stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
            usage: body["stream_options"]["include_usage"].as_bool().unwrap_or(false)
                && behaviour != "no_usage",
            wanted,
            made: 0,
            timing,
            started: false,
        }
    }

    pub fn first_wait(&self) -> Duration {
        match self.stream {
            true => self.timing.first,
            false => self.timing.first + self.timing.gap * (self.wanted.max(1) as u32 - 1),
        }
    }

    pub fn next(&mut self) -> Action {
        match (self.behaviour.as_str(), self.made) {
            ("silent", _) => return Action::Nothing,
            ("s500", _) => {
                let text = "HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\noops";
                return Action::Last { bytes: text.into(), close: false };
            }
            ("not_http", _) => {
                return Action::Last { bytes: b"220 mail ready\r\n".to_vec(), close: false };
            }
            ("half_head", _) => {
                let text = b"HTTP/1.1 200 OK\r\nContent-Ty".to_vec();
                return Action::Last { bytes: text, close: true };
            }
            ("garbage", 1..) => return self.end(&chunk("data: {not json\n\n"), false),
            ("error_event", 1..) => {
                let event = "data: {\"error\":{\"message\":\"planted\"}}\n\ndata: [DONE]\n\n";
                return self.end(&chunk(event), false);
            }
            ("midchunk", 1..) => return self.end(b"ff\r\ndata: {\"te", true),
            ("huge_line", 1..) => return Action::Endless,
            ("empty", _) => return self.end(&chunk("data: [DONE]\n\n"), false),
            _ => {}
        }
        if !self.stream {
            return self.whole();
        }
        if self.made >= self.wanted {
            return self.finish();
        }
        self.tokens()
    }

    fn head(&mut self) -> Vec<u8> {
        if std::mem::replace(&mut self.started, true) {
            return Vec::new();
        }
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_vec()
    }

    fn end(&mut self, bytes: &[u8], close: bool) -> Action {
        let mut all = self.head();
        all.extend_from_slice(bytes);
        if !close {
            all.extend_from_slice(b"0\r\n\r\n");
        }
        Action::Last { bytes: all, close }
    }

    fn tokens(&mut self) -> Action {
        let n = self.timing.tokens_a_chunk.min(self.wanted - self.made).max(1);
        let mut bytes = self.head();
        self.made += n;
        let event = self.event(n);
        bytes.extend_from_slice(&chunk(&format!("data: {event}\n\n")));
        // The end follows the last token at once.
        let wait = if self.made >= self.wanted { Duration::ZERO } else { self.gap() };
        Action::Write { bytes, tokens: n, wait }
    }

    /// A server that grows hot is slower with each request.
    fn gap(&self) -> Duration {
        let slower = if self.behaviour == "heats" { 1 + self.index as u32 } else { 1 };
        self.timing.gap * slower
    }

    fn event(&self, n: usize) -> Value {
        let text = "tok ".repeat(n);
        let last = self.made >= self.wanted;
        let reason = last.then_some("length");
        match self.api {
            Api::Generate => {
                let cached = if self.behaviour == "cached" { self.prompt_tokens / 2 } else { 0 };
                let finish = last.then(|| json!({ "type": "length", "length": self.made }));
                let ids = last.then(|| (0..self.made).collect::<Vec<usize>>());
                json!({
                    "text": "tok ".repeat(self.made),
                    "output_ids": ids,
                    "meta_info": {
                        "prompt_tokens": self.prompt_tokens,
                        "completion_tokens": self.made,
                        "cached_tokens": cached,
                        "finish_reason": finish,
                    },
                })
            }
            Api::Completions => {
                let usage = (self.behaviour == "usage_each").then(|| self.usage_json());
                json!({ "choices": [{ "text": text, "finish_reason": reason }], "usage": usage })
            }
            Api::Chat => {
                json!({ "choices": [{ "delta": { "content": text }, "finish_reason": reason }] })
            }
        }
    }

    fn usage_json(&self) -> Value {
        json!({ "prompt_tokens": self.prompt_tokens, "completion_tokens": self.made })
    }

    fn finish(&mut self) -> Action {
        let mut text = String::new();
        if self.usage && self.api != Api::Generate {
            text.push_str(&format!(
                "data: {}\n\n",
                json!({ "choices": [], "usage": self.usage_json() })
            ));
        }
        match self.behaviour.as_str() {
            "no_done" => {}
            "double_done" => text.push_str("data: [DONE]\n\ndata: [DONE]\n\n"),
            _ => text.push_str("data: [DONE]\n\n"),
        }
        let close = self.behaviour == "closes";
        let mut bytes = if text.is_empty() { Vec::new() } else { chunk(&text) };
        if self.behaviour != "no_end" {
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        Action::Last { bytes, close }
    }

    fn whole(&mut self) -> Action {
        if self.made == 0 {
            self.made = self.wanted;
            // Counted now, written with the next step.
            return Action::Write { bytes: Vec::new(), tokens: self.made, wait: Duration::ZERO };
        }
        let mut event = self.event(self.made);
        if self.api != Api::Generate {
            event["usage"] = self.usage_json();
            if self.api == Api::Chat {
                let delta = event["choices"][0]["delta"].take();
                event["choices"][0]["message"] = delta;
            }
        }
        Action::Last { bytes: json_answer(&event).into_bytes(), close: false }
    }
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}
