//! What clients ask and get: native and OpenAI routes, whole and streamed.

use serde_json::{Value, json};

use super::harness::{default, post};

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list").iter().filter_map(Value::as_u64).collect()
}

#[test]
fn generate_whole_and_streamed_agree() {
    let server = default();
    let mut body = json!({"text": "Hello", "sampling_params": {"max_new_tokens": 12,
        "temperature": 0}, "return_logprob": true, "top_logprobs_num": 2, "logprob_start_len": 0});
    let whole = server.post("/generate", &body).json();
    let meta = &whole["meta_info"];
    assert_eq!(meta["completion_tokens"], 12);
    assert_eq!(meta["finish_reason"], json!({"type": "length", "length": 12}));
    assert_eq!(meta["input_token_logprobs"].as_array().unwrap().len(), meta["prompt_tokens"]);
    assert_eq!(meta["input_token_logprobs"][0][0], Value::Null);
    assert_eq!(meta["output_token_logprobs"].as_array().unwrap().len(), 12);
    assert_eq!(meta["output_top_logprobs"][3].as_array().unwrap().len(), 2);
    for time in ["e2e_latency", "first_token_latency", "request_received_ts"] {
        assert!(meta[time].as_f64().is_some_and(|t| t > 0.0), "{time}");
    }
    body["stream"] = true.into();
    let streamed = server.post("/generate", &body);
    assert_eq!(streamed.field("content-type"), Some("text/event-stream; charset=utf-8"));
    let events = streamed.events();
    let mut before = 0;
    for event in &events {
        let ids = ids(&event["output_ids"]);
        assert!(ids.len() > before, "cumulative");
        before = ids.len();
        assert_eq!(event["meta_info"]["completion_tokens"], before);
        assert!(event.get("index").is_none());
    }
    let last = events.last().unwrap();
    assert_eq!(last["text"], whole["text"]);
    assert_eq!(last["output_ids"], whole["output_ids"]);
    assert_eq!(last["meta_info"]["output_token_logprobs"], meta["output_token_logprobs"]);
}

#[test]
fn a_batch_is_a_list_and_its_events_have_an_index() {
    let server = default();
    let params = json!([{"max_new_tokens": 3, "temperature": 0}, {"max_new_tokens": "5"}]);
    let mut body = json!({"input_ids": [[5, 6, 7], [8]], "sampling_params": params, "rid": "b"});
    let whole = server.post("/generate", &body).json();
    let count = |v: &Value| ids(&v["output_ids"]).len();
    assert_eq!((count(&whole[0]), count(&whole[1])), (3, 5));
    assert_eq!(whole[1]["meta_info"]["id"], "b_1");
    body["stream"] = true.into();
    let events = server.post("/generate", &body).events();
    let last = |i| events.iter().rfind(|e| e["index"] == i).expect("both prompts").clone();
    assert_eq!(last(0)["output_ids"], whole[0]["output_ids"]);
    assert_eq!(count(&last(1)), 5);
    let one = server.post("/generate", &json!({"text": ["a"]})).json();
    assert_eq!(one.as_array().map(Vec::len), Some(1), "a list of one is a list");
    let two = json!({"text": "a", "sampling_params": {"n": 2, "max_new_tokens": 2}});
    assert_eq!(server.post("/generate", &two).json().as_array().map(Vec::len), Some(2));
}

#[test]
fn completions_stream_what_is_new() {
    let server = default();
    let mut body = json!({"model": "tiny", "prompt": "Hello", "max_tokens": 9, "temperature": 0,
        "logprobs": 2, "n": 2, "seed": 3});
    let whole = server.post("/v1/completions", &body).json();
    assert_eq!(whole["object"], "text_completion");
    assert_eq!(whole["usage"]["completion_tokens"], 18);
    let choices = whole["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 2);
    assert_eq!(choices[0]["logprobs"]["tokens"].as_array().unwrap().len(), 9);
    assert_eq!(choices[0]["finish_reason"], "length");
    body["stream"] = true.into();
    let events = server.post("/v1/completions", &body).events();
    assert!(events.iter().all(|e| e.get("usage").is_none()), "usage only when asked for");
    for choice in choices {
        let own = events.iter().map(|e| &e["choices"][0]).filter(|c| c["index"] == choice["index"]);
        let text: String = own.clone().filter_map(|c| c["text"].as_str()).collect();
        assert_eq!(text, choice["text"].as_str().unwrap());
        let tokens: usize =
            own.clone().map(|c| c["logprobs"]["tokens"].as_array().unwrap().len()).sum();
        assert_eq!(tokens, 9);
        let mut backwards = own.rev();
        assert_eq!(backwards.next().unwrap()["finish_reason"], "length");
    }
    body["stream_options"] = json!({"include_usage": true, "continuous_usage_stats": true});
    let events = server.post("/v1/completions", &body).events();
    let last = events.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"], whole["usage"]);
    assert!(events[0]["usage"]["completion_tokens"].as_u64().is_some_and(|n| n >= 1));
}

#[test]
fn completions_take_all_prompt_forms_and_echo() {
    let server = default();
    let ask = |prompt: Value| {
        let body = json!({"prompt": prompt, "max_tokens": 1, "temperature": 0});
        server.post("/v1/completions", &body).json()["choices"].as_array().map(Vec::len)
    };
    assert_eq!(ask(json!([1, 2, 3])), Some(1));
    assert_eq!(ask(json!(["a", "b"])), Some(2));
    assert_eq!(ask(json!([[1], [2], [3]])), Some(3));
    let body = json!({"prompt": "Hello", "max_tokens": 2, "echo": true, "logprobs": 0});
    let answer = server.post("/v1/completions", &body).json();
    let choice = &answer["choices"][0];
    assert!(choice["text"].as_str().unwrap().starts_with("Hello"));
    let scores = choice["logprobs"]["token_logprobs"].as_array().unwrap();
    let prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
    assert_eq!(scores.len(), prompt + 2);
    assert!(scores[0].is_null() && scores[1].is_number());
}

#[test]
fn chat_sends_the_role_with_the_first_token() {
    let server = default();
    let parts = json!([{"type": "text", "text": "Hi"}]);
    let mut body = json!({"model": server_path(), "messages": [{"role": "user", "content": parts}],
        "max_completion_tokens": 6, "temperature": 0, "logprobs": true, "top_logprobs": 3});
    let whole = server.post("/v1/chat/completions", &body).json();
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    let scores = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!((scores.len(), scores[0]["top_logprobs"].as_array().unwrap().len()), (6, 3));
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    let events = server.post("/v1/chat/completions", &body).events();
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String =
        events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, choice["message"]["content"].as_str().unwrap());
    let finish = &events[events.len() - 2]["choices"][0];
    assert_eq!((&finish["finish_reason"], &finish["delta"]), (&json!("length"), &json!({})));
    let usage = &events.last().unwrap()["usage"];
    assert_eq!(usage["total_tokens"], whole["usage"]["total_tokens"]);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 32, "of the first request");
}

fn server_path() -> &'static str {
    super::harness::MODEL
}

#[test]
fn stop_strings_and_unknown_models() {
    let server = default();
    let body = json!({"prompt": "Hello", "max_tokens": 30, "temperature": 0});
    let text = server.post("/v1/completions", &body).json()["choices"][0]["text"].clone();
    let text = text.as_str().unwrap();
    let stop: String = text.chars().skip(2).take(1).collect();
    let mut stopped = body.clone();
    stopped["stop"] = json!([stop]);
    let choice = server.post("/v1/completions", &stopped).json()["choices"][0].clone();
    assert_eq!((&choice["finish_reason"], &choice["matched_stop"]), (&json!("stop"), &json!(stop)));
    assert_eq!(choice["text"].as_str(), text.split(&stop).next());
    let unknown = server.post("/v1/completions", &json!({"model": "gpt", "prompt": "a"}));
    assert_eq!((unknown.status, &unknown.json()["error"]["param"]), (404, &json!("model")));
}

#[test]
fn what_clients_look_up_first() {
    let server = default();
    let models = server.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], "tiny");
    let root = models["data"][0]["root"].as_str().unwrap();
    assert!(std::path::Path::new(root).join("tokenizer.json").exists(), "loadable by a client");
    assert_eq!(server.get("/v1/models/tiny").status, 200);
    assert_eq!(server.get("/v1/models/gpt").json()["error"]["type"], "not_found_error");
    for path in ["/model_info", "/get_model_info"] {
        assert_eq!(server.get(path).json()["tokenizer_path"], root);
    }
    let info = server.get("/server_info").json();
    let state = &info["internal_states"][0];
    assert!(state["effective_max_running_requests_per_dp"].as_u64().is_some_and(|n| n > 0));
    assert_eq!(state["memory_usage"]["token_capacity"], 4096);
    assert_eq!(info["tokenizer_path"], root);
    for path in ["/health", "/ping", "/ready", "/health_generate", "/", "/version"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
}

#[test]
fn tokens_and_texts() {
    let server = default();
    let body = json!({"model": "tiny", "prompt": "Hello world", "add_special_tokens": false});
    let tokens = server.post("/tokenize", &body).json();
    assert_eq!(tokens["count"], tokens["tokens"].as_array().unwrap().len());
    let back = server.post("/detokenize", &json!({"tokens": tokens["tokens"]})).json();
    assert_eq!((&back["text"], &back["prompt"]), (&json!("Hello world"), &json!("Hello world")));
    let outside = server.post("/detokenize", &json!({"tokens": [1_000_000]}));
    assert_eq!(outside.json()["error"]["param"], "tokens");
}

#[test]
fn metrics_and_cache() {
    let server = default();
    let prompt: Vec<u32> = (10..60).collect();
    let body = json!({"input_ids": prompt, "sampling_params": {"max_new_tokens": 4}});
    server.post("/generate", &body);
    let again = server.post("/generate", &body).json();
    assert_eq!(again["meta_info"]["cached_tokens"], 48, "three pages of 16");
    let metrics = server.get("/metrics").text();
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|l| l.starts_with(&format!("{name}{{"))).expect(name);
        line.rsplit(' ').next().unwrap().parse().expect(name)
    };
    assert_eq!(value("sglang:prompt_tokens_total"), 100.0);
    assert_eq!(value("sglang:cached_tokens_total"), 48.0);
    assert_eq!(value("sglang:generation_tokens_total"), 8.0);
    assert_eq!(value("sglang:time_to_first_token_seconds_count"), 2.0);
    assert_eq!(value("sglang:inter_token_latency_seconds_count"), 6.0);
    assert!(value("pacer_steps_total") >= 8.0 && value("pacer_loop_busy_seconds_count") > 0.0);
    for path in ["/flush_cache?timeout=5", "/reset_prefix_cache"] {
        let flushed = server.connect().ask(&post(path, ""));
        assert_eq!(flushed.status, 200, "{path}");
    }
    let fresh = server.post("/generate", &body).json();
    assert_eq!(fresh["meta_info"]["cached_tokens"], 0);
}
