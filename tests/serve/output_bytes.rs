//! Reliability R16: whatever bytes a model makes, every event of a stream is one line of valid
//! JSON, and the pieces are the whole text, which is the lossy decoding of all bytes.

use serde_json::{Value, json};

use pacer::engine::model::Model;
use pacer::engine::options::ModelOptions;
use pacer::types::TokenId;

use super::harness::{MODEL, Running, Setup, start};
use super::script::ScriptDevice;

/// One token for each byte of `bytes`, by the tiny model's tokenizer.
fn spell(bytes: &[u8]) -> Vec<TokenId> {
    let options = ModelOptions { path: Some(MODEL.into()), ..ModelOptions::default() };
    let model = Model::open(&options).expect("the tiny model");
    let tokenizer = model.tokenizer().expect("it has one");
    let token = |byte: &u8| {
        let is = |id: &TokenId| tokenizer.token_bytes(*id) == Some(std::slice::from_ref(byte));
        (0..504).find(is).unwrap_or_else(|| panic!("no token for byte {byte:#x}"))
    };
    bytes.iter().map(token).collect()
}

/// A server whose model says `bytes`, one a token, over and over.
fn saying(bytes: &[u8]) -> Running {
    let device = ScriptDevice { script: spell(bytes) };
    start(Setup { device: Some(Box::new(device)), ..Setup::default() })
}

/// The text of `/generate` and `/v1/completions`, whole and streamed; `events` checks each
/// event's line and JSON.
fn texts(server: &Running, tokens: usize, stop: &[&str]) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let string = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    for stream in [false, true] {
        let body = json!({"input_ids": [5], "stream": stream, "sampling_params":
            {"max_new_tokens": tokens, "temperature": 0, "ignore_eos": true, "stop": stop}});
        let answer = server.post("/generate", &body);
        let last = if stream { answer.events().pop().expect("an event") } else { answer.json() };
        found.push(("generate", string(&last["text"])));
        let body = json!({"prompt": [5], "stream": stream, "max_tokens": tokens,
            "temperature": 0, "ignore_eos": true, "stop": stop});
        let answer = server.post("/v1/completions", &body);
        let events = if stream { answer.events() } else { vec![answer.json()] };
        let text = events.iter().map(|e| string(&e["choices"][0]["text"])).collect();
        found.push(("completions", text));
    }
    found
}

/// The prompt tokens and the text of `/v1/chat/completions`, whole and streamed.
fn chats(server: &Running, tokens: usize) -> (usize, [String; 2]) {
    let ask = |stream: bool| {
        let body = json!({"messages": [{"role": "user", "content": "x"}], "stream": stream,
            "max_tokens": tokens, "temperature": 0, "ignore_eos": true});
        server.post("/v1/chat/completions", &body)
    };
    let whole = ask(false).json();
    let prompt = whole["usage"]["prompt_tokens"].as_u64().expect("a count") as usize;
    let string = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let pieces = ask(true).events();
    let pieces = pieces.iter().map(|e| string(&e["choices"][0]["delta"]["content"])).collect();
    (prompt, [string(&whole["choices"][0]["message"]["content"]), pieces])
}

/// All of `bytes`, nothing else, wherever they are cut.
fn holds(bytes: &[u8]) {
    let server = saying(bytes);
    for tokens in [bytes.len(), bytes.len() - 1, bytes.len() / 2, 1] {
        let wanted = String::from_utf8_lossy(&bytes[..tokens]);
        for (route, text) in texts(&server, tokens, &[]) {
            assert_eq!(text, wanted, "{route}, {tokens} tokens");
        }
        // The script goes by position, so a longer prompt begins further on.
        let (prompt, texts) = chats(&server, tokens);
        let said: Vec<u8> = bytes.iter().cycle().skip(prompt - 1).take(tokens).copied().collect();
        assert_eq!(
            texts,
            [(); 2].map(|()| String::from_utf8_lossy(&said)),
            "chat, {tokens} tokens"
        );
    }
}

#[test]
fn every_byte_alone_and_in_order() {
    let all: Vec<u8> = (0..=255).collect();
    holds(&all);
    let backwards: Vec<u8> = (0..=255).rev().collect();
    holds(&backwards);
}

#[test]
fn characters_of_every_length_and_their_pieces() {
    holds("aé€😀\r\n\"\\\u{2028}\0 data: x\n\ndata: [DONE]\n\n漢字".as_bytes());
    // Ends inside a character of four bytes, begins inside one, has one that is too long.
    holds(b"ok \xf0\x9f\x98");
    holds(b"\x98\x80 \xe2\x82 \xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80 end");
}

/// A stop string of several tokens, and of characters that are.
#[test]
fn stop_strings_across_tokens() {
    let said = "one\r\ntwo €uro STOP never";
    let server = saying(said.as_bytes());
    for stop in ["STOP", "€u", "\r\nt", "o €"] {
        let wanted = said.split(stop).next().unwrap();
        for (route, text) in texts(&server, said.len(), &[stop]) {
            assert_eq!(text, wanted, "{route}, stop {stop:?}");
        }
    }
    for (route, text) in texts(&server, said.len() - 6, &["STOP now"]) {
        assert_eq!(text, &said[..said.len() - 6], "{route}: held back, then let go");
    }
}
