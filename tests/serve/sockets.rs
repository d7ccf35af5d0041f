//! Connections: keep-alive, pipelining, deadlines, slow and vanishing clients, the cap.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::{Setup, default, post, start, wait_for};

const GET: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = default();
    let slow = json!({"text": "Hello", "sampling_params": {"max_new_tokens": 40}}).to_string();
    let mut client = server.connect();
    let all =
        [GET, &post("/generate", &slow), "GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n", GET];
    client.send(&all.concat());
    let statuses: Vec<u16> = (0..4).map(|_| client.answer().expect("an answer").status).collect();
    assert_eq!(statuses, [200, 200, 404, 200]);
    assert_eq!(client.ask(GET).status, 200, "and stays open");
}

#[test]
fn many_pipelined_requests_are_bounded_and_all_answered() {
    let server = default();
    let mut client = server.connect();
    let mut writer = client.socket.try_clone().expect("a socket");
    let sender = std::thread::spawn(move || writer.write_all(GET.repeat(10_000).as_bytes()));
    for i in 0..10_000 {
        assert_eq!(client.answer().map(|a| a.status), Some(200), "{i}");
    }
    sender.join().expect("no panic").expect("sent");
}

#[test]
fn continue_head_and_old_clients() {
    let server = default();
    let body = json!({"text": "a", "sampling_params": {"max_new_tokens": 1}}).to_string();
    let mut client = server.connect();
    let asks = post("/generate", "").replace("Length: 0", &format!("Length: {}", body.len()));
    client.send(&asks.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!(client.head().map(|a| a.status), Some(100));
    assert_eq!(client.ask(&body).status, 200);
    let mut client = server.connect();
    client.send("HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = client.head().expect("a head");
    assert_eq!((head.status, head.field("content-length")), (200, Some("3")));
    assert!(head.field("date").is_some());
    assert_eq!(client.ask(GET).status, 200, "no body came after HEAD");
    let mut old = server.connect();
    assert_eq!(old.ask("GET /health HTTP/1.0\r\n\r\n").status, 200);
    assert!(old.closed());
    let streamed = json!({"text": "a", "stream": true, "sampling_params": {"max_new_tokens": 2}});
    let mut old = server.connect();
    old.send(&post("/generate", &streamed.to_string()).replace("HTTP/1.1", "HTTP/1.0"));
    let head = old.head().expect("a head");
    assert_eq!(head.field("transfer-encoding"), None);
    let rest = old.rest();
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
}

#[test]
fn an_error_closes_and_answers_no_hidden_request() {
    let server = default();
    let hidden = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for bad in [
        format!("GET / HTTP/1.1\r\n\r\n{hidden}"),
        format!(
            "POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!(
            "POST /generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{hidden}"
        ),
        format!("POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n{hidden}"),
    ] {
        let mut client = server.connect();
        let answer = client.ask(&bad);
        assert!((400..500).contains(&answer.status), "{bad}");
        assert_eq!(answer.field("connection"), Some("close"));
        assert!(client.closed(), "{bad}");
    }
}

#[test]
fn too_large_is_said_before_it_is_sent() {
    let mut setup = Setup::default();
    setup.options.limits.body = 1000;
    let server = start(setup);
    let head =
        |length: usize| post("/generate", "").replace("Length: 0", &format!("Length: {length}"));
    assert_eq!(server.connect().ask(&head(1001)).status, 413);
    assert_eq!(
        server.connect().ask(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(9000))).status,
        414
    );
    let big = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "a".repeat(40_000));
    assert_eq!(server.connect().ask(&big).status, 431);
}

#[test]
fn slow_heads_and_bodies_end() {
    let mut setup = Setup::default();
    setup.options.deadlines.head = Duration::from_millis(300);
    setup.options.deadlines.body = Duration::from_millis(300);
    setup.options.deadlines.idle = Duration::from_millis(600);
    let server = start(setup);
    let mut slow: Vec<_> = (0..50).map(|_| server.connect()).collect();
    // A byte now and then does not move the deadline of a head.
    for round in 0..4 {
        for client in &mut slow {
            let piece = if round == 0 { "GET /health HTTP/1.1\r\nX: " } else { "a" };
            let _ = client.socket.write_all(piece.as_bytes());
        }
        std::thread::sleep(Duration::from_millis(60));
    }
    assert_eq!(server.get("/health").status, 200, "others are served meanwhile");
    for client in &mut slow {
        assert_eq!(client.answer().map(|a| a.status), Some(408));
        assert!(client.closed());
    }
    let mut body = server.connect();
    body.send("POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
    assert_eq!(body.answer().map(|a| a.status), Some(408));
    assert!(server.connect().closed(), "idle ones are closed without a word");
}

#[test]
fn a_client_that_leaves_frees_its_pages() {
    let mut setup = Setup { step: Duration::from_millis(15), ..Setup::default() };
    setup.engine.total_tokens = Some(65_536);
    let server = start(setup);
    let body = json!({"text": "Hello", "stream": true, "sampling_params":
        {"max_new_tokens": 400, "n": 2, "ignore_eos": true}});
    let mut clients: Vec<_> = (0..16).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&post("/generate", &body.to_string()));
    }
    for client in &mut clients {
        assert_eq!(client.head().map(|a| a.status), Some(200));
        client.chunk().expect("a token");
    }
    wait_for("all of them", || server.figure("running") >= 30.0);
    let steps = server.figure("steps");
    drop(clients);
    wait_for("free pages", || server.figure("pages_used") == 0.0);
    let more = server.figure("steps") - steps;
    assert!(more < 200.0, "{more} steps after everybody left");
    assert_eq!(server.figure("running"), 0.0);
    assert_eq!(server.figure("aborted"), 32.0);
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let mut setup = Setup::default();
    setup.options.deadlines.write = Duration::from_millis(500);
    setup.engine.total_tokens = Some(65_536);
    let server = start(setup);
    // Log-probabilities make every event large, and events are cumulative.
    let body = json!({"input_ids": vec![vec![1]; 16], "stream": true, "return_logprob": true,
        "top_logprobs_num": 20, "return_text_in_logprobs": true,
        "sampling_params": {"max_new_tokens": 500, "ignore_eos": true}});
    let mut deaf = server.connect();
    deaf.send(&post("/generate", &body.to_string()));
    let begun = Instant::now();
    let small = json!({"text": "a", "sampling_params": {"max_new_tokens": 2}});
    assert_eq!(server.post("/generate", &small).status, 200);
    wait_for("the deaf client's end", || server.figure("connections") <= 1.0);
    assert!(begun.elapsed() > Duration::from_millis(400));
    wait_for("free pages", || server.figure("pages_used") == 0.0);
}

#[test]
fn over_the_cap_there_is_a_503_at_once() {
    let mut setup = Setup::default();
    setup.options.max_connections = 8;
    let server = start(setup);
    wait_for("room", || server.figure("connections") <= 1.0);
    let held: Vec<_> = (0..8).map(|_| server.connect()).collect();
    let mut extra = server.connect();
    let answer = extra.answer().expect("an answer without asking");
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
    assert_eq!(answer.json()["error"]["code"], 503);
    drop(held);
    wait_for("room again", || {
        let mut client = server.connect();
        client.socket.write_all(GET.as_bytes()).is_ok()
            && client.answer().is_some_and(|a| a.status == 200)
    });
}

#[test]
fn a_full_queue_is_429() {
    let mut setup = Setup { step: Duration::from_millis(20), ..Setup::default() };
    setup.engine.max_running = Some(1);
    setup.engine.max_queued = 2;
    let server = start(setup);
    let body = json!({"text": "a", "sampling_params": {"max_new_tokens": 60, "ignore_eos": true}});
    let mut clients: Vec<_> = (0..24).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&post("/generate", &body.to_string()));
    }
    let answers: Vec<_> = clients.iter_mut().map(|c| c.answer().expect("an answer")).collect();
    let count = |status| answers.iter().filter(|a| a.status == status).count();
    assert_eq!(count(200) + count(429), 24, "everybody is answered");
    assert!(count(200) >= 1 && count(429) >= 18, "{} refused", count(429));
    let refused = answers.iter().find(|a| a.status == 429).expect("one");
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
}

#[test]
fn requests_are_aborted_by_their_id() {
    let server = start(Setup { step: Duration::from_millis(5), ..Setup::default() });
    let body = json!({"text": "Hello", "rid": "long", "sampling_params":
        {"max_new_tokens": 400, "ignore_eos": true}});
    let mut client = server.connect();
    client.send(&post("/generate", &body.to_string()));
    wait_for("its start", || server.figure("running") == 1.0);
    let busy = server.connect().ask(&post("/flush_cache", ""));
    assert_eq!(busy.status, 400, "not idle");
    assert_eq!(server.post("/abort_request", &json!({"rid": "lon"})).json()["aborted"], 0);
    assert_eq!(server.post("/abort_request", &json!({"rid": "long"})).json()["aborted"], 1);
    let answer = client.answer().expect("an answer").json();
    assert_eq!(answer["meta_info"]["finish_reason"]["type"], "abort");
}
