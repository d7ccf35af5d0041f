//! The engine fails under the server, and the server is told to stop.

use std::time::{Duration, Instant};

use serde_json::json;

use pacer::device::faulty::Fault;
use pacer::error::Kind;

use super::harness::{Setup, default, post, start, wait_for};

fn long(tokens: usize, stream: bool) -> String {
    let params = json!({"max_new_tokens": tokens, "ignore_eos": true});
    post(
        "/generate",
        &json!({"text": "a", "stream": stream, "sampling_params": params}).to_string(),
    )
}

#[test]
fn a_failed_step_ends_its_requests_and_no_others() {
    let server = default();
    server.faults.next_step(Fault::Recoverable);
    let failed = server.connect().ask(&long(5, false));
    assert_eq!(failed.status, 500, "{}", failed.text());
    assert!(failed.text().contains("injected"));
    assert_eq!(server.connect().ask(&long(5, false)).status, 200);
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.figure("pages_used"), 0.0);
}

#[test]
fn in_a_stream_the_failure_is_an_event() {
    let server = start(Setup { step: Duration::from_millis(5), ..Setup::default() });
    let mut client = server.connect();
    client.send(&long(200, true));
    assert_eq!(client.head().map(|a| a.status), Some(200));
    client.chunk().expect("a token");
    server.faults.next_step(Fault::Recoverable);
    let mut text = String::new();
    while let Some(chunk) = client.chunk() {
        text.push_str(&String::from_utf8(chunk).expect("UTF-8"));
    }
    let events: Vec<&str> = text.split("\n\n").filter(|e| !e.is_empty()).collect();
    assert_eq!(events.last(), Some(&"data: [DONE]"));
    let error = events[events.len() - 2].strip_prefix("data: ").expect("data");
    let error: serde_json::Value = serde_json::from_str(error).expect("JSON");
    assert!(error["error"]["message"].as_str().is_some_and(|m| m.contains("injected")));
}

/// Reliability R31: everybody is answered, health says so, and the process ends with an error.
#[test]
fn a_lost_device_ends_the_server_with_answers() {
    for fault in [Fault::Sticky, Fault::Panic] {
        let server = start(Setup { step: Duration::from_millis(2), ..Setup::default() });
        let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(|c| c.send(&long(400, false)));
        wait_for("work", || server.figure("running") == 4.0);
        server.faults.next_step(fault);
        for client in &mut clients {
            assert_eq!(client.answer().map(|a| a.status), Some(500));
        }
        assert_eq!(server.get("/health").status, 503, "still answers");
        assert_eq!(server.connect().ask(&long(1, false)).status, 503);
        let error = server.ended().expect_err("a fault is no success");
        assert_eq!(error.kind, Kind::DeviceLost, "{error}");
    }
}

/// Reliability R32.
#[test]
fn a_hanging_step_is_seen_and_the_loop_goes_on() {
    let mut setup = Setup::default();
    setup.options.watchdog = Duration::from_millis(200);
    let server = start(setup);
    server.faults.next_step(Fault::Hang(Duration::from_secs(3)));
    let mut client = server.connect();
    client.send(&long(3, false));
    wait_for("the watchdog", || server.get("/health").status == 503);
    assert_eq!(server.get("/v1/models").status, 200, "the loop is free");
    assert_eq!(client.answer().map(|a| a.status), Some(200));
    wait_for("health again", || server.get("/health").status == 200);
}

/// Reliability R28.
#[test]
fn a_stop_lets_running_requests_finish() {
    let server = start(Setup { step: Duration::from_millis(5), ..Setup::default() });
    let mut running = server.connect();
    running.send(&long(60, true));
    running.head().expect("a head");
    running.chunk().expect("a token");
    let mut idle = server.connect();
    let address = server.address;
    server.stopper.stop();
    assert!(idle.closed(), "idle connections end");
    wait_for("a closed port", || std::net::TcpStream::connect(address).is_err());
    let mut events = 0;
    while running.chunk().is_some() {
        events += 1;
    }
    assert!(events > 30, "{events}");
    server.ended().expect("a clean end");
}

#[test]
fn what_does_not_finish_in_time_is_cut_off_with_a_word() {
    let mut setup = Setup { step: Duration::from_millis(20), ..Setup::default() };
    setup.options.shutdown_timeout = Duration::from_millis(200);
    let server = start(setup);
    let mut client = server.connect();
    client.send(&long(400, false));
    wait_for("work", || server.figure("running") == 1.0);
    let begun = Instant::now();
    server.stopper.stop();
    let answer = client.answer().expect("an answer");
    assert_eq!((answer.status, answer.field("connection")), (500, Some("close")));
    assert!(begun.elapsed() >= Duration::from_millis(150));
    server.ended().expect("a clean end");
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_server() {
    let options = pacer::server::Options { port: 0, ..Default::default() };
    let build = || Err(pacer::error::Error::usage("no such model"));
    let server = pacer::server::Server::bind(options, Default::default(), build).expect("bound");
    let error = server.serve(&mut |_, _| {}).expect_err("no model");
    assert!(error.message.contains("no such model"), "{error}");
}

#[test]
fn a_stop_while_the_model_is_loading_waits_for_nothing() {
    let options = pacer::server::Options { port: 0, ..Default::default() };
    let build = || {
        std::thread::sleep(Duration::from_secs(30));
        Err(pacer::error::Error::usage("never got here"))
    };
    let server = pacer::server::Server::bind(options, Default::default(), build).expect("bound");
    let (address, stopper) = (server.address(), server.stopper());
    let thread = std::thread::spawn(move || server.serve(&mut |_, _| {}));
    let mut client = std::net::TcpStream::connect(address).expect("a connection");
    std::io::Write::write_all(&mut client, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("sent");
    let mut answer = [0; 12];
    std::io::Read::read_exact(&mut client, &mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 503");
    let begun = Instant::now();
    stopper.stop();
    thread.join().expect("no panic").expect("a clean end");
    assert!(begun.elapsed() < Duration::from_secs(20));
}
