//! Reliability R26: every route, every kind of caller, every spelling of its path.

use serde_json::json;

use pacer::server::auth::{Access, Key, Keys};
use pacer::server::routes;

use super::harness::{Running, Setup, default, start};

const API: &str = "sentinel-api-key-7c1e";
const ADMIN: &str = "sentinel-admin-key-91fa";

fn with_keys(admin: bool) -> Running {
    let mut setup = Setup::default();
    let admin = admin.then(|| Key::new(ADMIN));
    setup.options.keys = Keys { api: Some(Key::new(API)), admin };
    start(setup)
}

/// Status, and that no key is in the answer.
fn status(server: &Running, method: &str, path: &str, key: &str) -> u16 {
    let fields = match key {
        "" => String::new(),
        key => format!("Authorization: Bearer {key}\r\n"),
    };
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
    let mut client = server.connect();
    client.send(&head);
    let answer = client.head().expect("an answer");
    let text = format!("{answer:?}{}", client.rest());
    assert!(!text.contains("sentinel"), "{method} {path} tells a key");
    answer.status
}

#[test]
fn the_matrix() {
    let server = with_keys(true);
    for route in routes::all() {
        let path = route.path.replace('*', "x");
        for method in ["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "TRACE"] {
            let wanted = if method == "HEAD" { "GET" } else { method };
            // A path may have several routes, but not of different levels.
            let here = routes::all().any(|r| r.path == route.path && r.methods.contains(&wanted));
            for key in ["", "wrong", API, ADMIN] {
                let let_in = match route.access {
                    Access::Open => true,
                    Access::User => key == API || key == ADMIN,
                    Access::Admin => key == ADMIN,
                };
                let found = status(&server, method, &path, key);
                // A method that the path has not is nobody's route: any key may learn so.
                let known = key == API || key == ADMIN;
                match (here, let_in, known) {
                    (true, true, _) => {
                        assert!(found != 401 && found != 405, "{method} {path} {key}")
                    }
                    (true, false, _) | (false, _, false) => {
                        assert_eq!(found, 401, "{method} {path} {key:?}");
                    }
                    (false, _, true) => assert_eq!(found, 405, "{method} {path} {key}"),
                }
            }
        }
    }
}

#[test]
fn no_other_spelling_of_a_path_gets_in() {
    let server = with_keys(true);
    for path in [
        "//generate",
        "/v1/../generate",
        "/GENERATE",
        "/generate/",
        "/%67enerate",
        "http://localhost/generate",
        "/health/../generate",
        "/flush_cache%00",
        "/.",
        "/x",
    ] {
        assert_eq!(status(&server, "POST", path, ""), 401, "{path}");
        let found = status(&server, "POST", path, ADMIN);
        let absolute = path.starts_with("http");
        assert_eq!(found, if absolute { 400 } else { 404 }, "{path}");
    }
    let head = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n";
    for fields in [
        format!("Authorization: {API}"),
        format!("Authorization: Basic {API}"),
        format!("Authorization: Bearer {API}\r\nAuthorization: Bearer wrong"),
        format!("X-Api-Key: {API}"),
        "Authorization: Bearer".into(),
    ] {
        let answer = server.connect().ask(&format!("{head}{fields}\r\n\r\n"));
        assert_eq!(answer.status, 401, "{fields}");
    }
}

#[test]
fn without_an_admin_key_the_api_key_is_asked_for() {
    let server = with_keys(false);
    assert_eq!(status(&server, "POST", "/flush_cache", ""), 401);
    assert_eq!(status(&server, "POST", "/flush_cache", API), 200);
}

#[test]
fn pages_of_other_origins_are_refused() {
    let server = default();
    let ask = |method: &str, path: &str, fields: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\n{fields}\r\n");
        server.connect().ask(&head).status
    };
    let local = format!("Host: {}\r\n", server.address);
    assert_eq!(ask("POST", "/flush_cache", &local), 200);
    assert_eq!(
        ask("POST", "/flush_cache", &format!("{local}Origin: http://{}\r\n", server.address)),
        200
    );
    for fields in
        ["Origin: http://evil.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"]
    {
        assert_eq!(ask("POST", "/flush_cache", &format!("{local}{fields}")), 403, "{fields}");
        assert_eq!(ask("GET", "/flush_cache", &format!("{local}{fields}")), 403, "{fields}");
    }
    assert_eq!(ask("GET", "/health", "Host: evil.example\r\n"), 403, "DNS rebinding");
}

#[test]
fn abort_needs_its_body_and_counts() {
    let server = default();
    assert_eq!(server.post("/abort_request", &json!({})).status, 400);
    let answer = server.post("/abort_request", &json!({"rid": "nobody"})).json();
    assert_eq!(answer["aborted"], 0);
}
