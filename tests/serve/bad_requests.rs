//! Reliability R13 to R15: bodies and parameters that must be refused, each with a 400 that names
//! its field, and none of which harms anybody else.

use serde_json::{Value, json};

use super::harness::{Running, default, post};

/// Refused with 400 and JSON; the named field, if one is.
fn refused(server: &Running, path: &str, body: &str) -> Option<String> {
    let answer = server.connect().ask(&post(path, body));
    let shown: String = body.chars().take(80).collect();
    assert_eq!(answer.status, 400, "{path} {shown}: {}", answer.text());
    let error = &answer.json()["error"];
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{shown}");
    error["param"].as_str().map(str::to_owned)
}

#[test]
fn bodies_that_are_no_json_object() {
    let server = default();
    let deep = format!("{{\"text\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let deeper = "[".repeat(100_000);
    let bodies = [
        "{",
        "}",
        "[]",
        "1",
        "\"a\"",
        "null",
        "true",
        "{\"text\"}",
        "{\"text\":}",
        "{text:1}",
        "{'text':'a'}",
        "{\"text\":\"a\",}",
        "{\"text\":\"a\"}x",
        "{\"text\":\"a\"}{}",
        "{\"text\":\"a\",\"text\":\"b\"}",
        "{\"text\":NaN}",
        "{\"text\":Infinity}",
        "{\"text\":1e400}",
        "{\"text\":\"\\ud800\"}",
        "{\"text\":\"\\x\"}",
        "\u{feff}{}",
        "{\"text\":\"a\tb\"}",
        "{\"text\":01}",
        "{\"text\":+1}",
        "{\"text\":.5}",
        "{\"text\":\"a",
        "// a\n{}",
        &deep,
        &deeper,
    ];
    for path in ["/generate", "/v1/completions", "/v1/chat/completions", "/tokenize"] {
        for body in bodies {
            refused(&server, path, body);
        }
    }
    let alive = json!({"text": "a", "sampling_params": {"max_new_tokens": 1}});
    assert_eq!(server.post("/generate", &alive).status, 200);
}

#[test]
fn fields_of_the_wrong_kind() {
    let server = default();
    let wrong = [json!(true), json!({"a": 1}), json!([[[1]]]), json!(-1), json!(1.5)];
    for (path, field) in [
        ("/generate", "text"),
        ("/generate", "input_ids"),
        ("/v1/completions", "prompt"),
        ("/v1/chat/completions", "messages"),
        ("/tokenize", "prompt"),
        ("/detokenize", "tokens"),
    ] {
        for value in &wrong {
            let body = json!({ field: value }).to_string();
            let named = refused(&server, path, &body);
            assert!(named.is_some_and(|n| n.starts_with(field)), "{path} {body}");
        }
    }
}

/// Every numeric parameter with values in and out of its range.
#[test]
fn parameters_have_ranges() {
    let server = default();
    let (int, far) = (json!(1u64 << 31), json!(1u64 << 63));
    let table: &[(&str, Vec<Value>, Vec<Value>)] = &[
        (
            "temperature",
            vec![json!(0), json!(2), json!("0.5"), Value::Null],
            vec![json!(-1), json!(1e300), json!("x")],
        ),
        ("top_p", vec![json!(1), json!(0.1)], vec![json!(0), json!(1.1), json!(-1), json!([])]),
        ("top_k", vec![json!(-1), json!(1), int.clone()], vec![json!(0), json!(-2), json!(1.5)]),
        ("min_p", vec![json!(0), json!(1)], vec![json!(-0.1), json!(2)]),
        ("frequency_penalty", vec![json!(-2), json!(2)], vec![json!(-2.1), json!(3)]),
        ("presence_penalty", vec![json!(-2), json!(2)], vec![json!(-3), json!(1e300)]),
        ("repetition_penalty", vec![json!(0.1), json!(2)], vec![json!(0), json!(2.1)]),
        (
            "n",
            vec![json!(1), json!(3), json!("2")],
            vec![json!(0), json!(-1), json!(129), int.clone(), far.clone(), json!(1e18)],
        ),
        (
            "stop",
            vec![json!("a"), json!(["a", "b"])],
            vec![json!(1), json!(vec!["a"; 33]), json!("a".repeat(257))],
        ),
        (
            "stop_token_ids",
            vec![json!([1])],
            vec![json!([-1]), json!([576]), json!([1u64 << 31]), json!([1u64 << 63]), json!(1)],
        ),
        (
            "logit_bias",
            vec![json!({"1": 2})],
            vec![
                json!({"576": 1}),
                json!({"-1": 1}),
                json!({"a": 1}),
                json!([1]),
                json!({"1": 1e300}),
            ],
        ),
        ("ignore_eos", vec![json!(true)], vec![json!("maybe"), json!(3)]),
    ];
    for (name, good, bad) in table {
        for value in good {
            let params = json!({ "max_new_tokens": 1, *name: value });
            let answer = server.post("/generate", &json!({"text": "a", "sampling_params": params}));
            assert_eq!(answer.status, 200, "{name} {value}: {}", answer.text());
        }
        for value in bad {
            let params = json!({ "max_new_tokens": 1, *name: value });
            let body = json!({"text": "a", "sampling_params": params}).to_string();
            let answer = server.connect().ask(&post("/generate", &body));
            assert_eq!(answer.status, 400, "{name} {value}");
            assert!(answer.text().contains(name), "{name} {value}: {}", answer.text());
            let body = json!({ "prompt": "a", "max_tokens": 1, *name: value }).to_string();
            refused(&server, "/v1/completions", &body);
        }
    }
    for (path, field, prompt) in [
        ("/v1/completions", "max_tokens", json!({"prompt": "a"})),
        (
            "/v1/chat/completions",
            "max_completion_tokens",
            json!({"messages": [{"role": "user", "content": "a"}]}),
        ),
    ] {
        for bad in [json!(0), json!(-1), int.clone(), far.clone(), json!(1e300), json!("x")] {
            let mut body = prompt.clone();
            body[field] = bad;
            assert_eq!(refused(&server, path, &body.to_string()).as_deref(), Some(field), "{body}");
        }
    }
}

#[test]
fn prompts_that_cannot_be_served() {
    let server = default();
    for (bad, what) in [
        (json!({"input_ids": []}), "tokens"),
        (json!({"input_ids": [[]]}), "tokens"),
        (json!({"text": ""}), "tokens"),
        (json!({"input_ids": [576]}), "vocabulary"),
        (json!({"input_ids": vec![1; 513]}), "context"),
        (json!({"input_ids": [1], "sampling_params": {"max_new_tokens": 512}}), "context"),
        (
            json!({"input_ids": [1], "return_logprob": true, "logprob_start_len": 5}),
            "logprob_start_len",
        ),
    ] {
        let answer = server.post("/generate", &bad);
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains(what), "{what}: {}", answer.text());
    }
    let streamed = json!({"input_ids": [[1], [576]], "stream": true});
    assert_eq!(server.post("/generate", &streamed).status, 400, "no stream of an error");
}
