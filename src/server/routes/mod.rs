//! The table of routes: what is not in it is 404. One file a group; a group is a list of
//! [`Route`]s and one line in [`TABLE`]. Every route says who may call it.

mod admin;
mod generate;
mod health;
mod info;
mod metrics;
mod openai;
mod page;
mod profile;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use super::auth::Access;
use super::context::Context;
use super::pool::Job;
use super::stats::Stats;
use crate::http::api::{Abort, is_id};
use crate::http::{Head, Refused, Response};

/// A route.
pub struct Route {
    /// Exact, or with a `*` at the end for any rest.
    pub path: &'static str,
    /// GET includes HEAD.
    pub methods: &'static [&'static str],
    pub access: Access,
    pub handle: Handle,
}

/// What answers a request.
pub type Handle = fn(&mut Call) -> Result<Reply, Refused>;

/// A request as its handler sees it. Handlers run on the loop: they look things up and never
/// wait; everything longer is a [`Reply::Work`] or [`Reply::Slow`].
pub struct Call<'a> {
    pub head: &'a Head,
    pub body: Vec<u8>,
    pub context: &'a Arc<Context>,
    pub stats: &'a Stats,
    pub connections: usize,
    /// The server is shutting down.
    pub draining: bool,
}

/// How a request is answered.
pub enum Reply {
    Now(Response),
    /// By a worker, in milliseconds.
    Work(Job),
    /// By a thread of its own, in seconds.
    Slow(Job),
    /// When the engine has forgotten its cached prefixes, or has not within this time.
    Flush(Duration),
    /// At once; requests end before the next step.
    Abort(Abort),
}

const TABLE: &[&[Route]] = &[
    page::ROUTES,
    health::ROUTES,
    generate::ROUTES,
    openai::ROUTES,
    info::ROUTES,
    tokens::ROUTES,
    admin::ROUTES,
    profile::ROUTES,
    metrics::ROUTES,
];

/// All routes, for tests and for `OPTIONS`.
pub fn all() -> impl Iterator<Item = &'static Route> {
    TABLE.iter().flat_map(|group| group.iter())
}

/// The route for a request.
///
/// # Errors
/// 404 for a path that is not in the table, 405 for a method that is not the path's.
pub fn find(method: &str, path: &str) -> Result<&'static Route, Refused> {
    let here = |route: &&Route| match route.path.strip_suffix('*') {
        Some(start) => path.len() > start.len() && path.starts_with(start),
        None => route.path == path,
    };
    let wanted = if method == "HEAD" { "GET" } else { method };
    let mut methods = Vec::new();
    for route in all().filter(here) {
        if route.methods.contains(&wanted) {
            return Ok(route);
        }
        methods.extend_from_slice(route.methods);
    }
    if path == "*" {
        return Err(Refused::new(405, "OPTIONS * has nothing to say"));
    }
    if methods.is_empty() {
        return Err(Refused::new(404, format!("there is no route {path}")));
    }
    let message = format!("{method} is not for {path}; use {}", methods.join(" or "));
    Err(Refused::new(405, message))
}

/// The client's own id for a request, if it is a plain one.
fn request_id(head: &Head) -> Option<String> {
    head.field("x-request-id").filter(|id| is_id(id)).map(str::to_owned)
}

/// Methods of a path, for the Allow field of a 405.
pub fn allowed(path: &str) -> String {
    let here = |route: &&Route| route.path == path;
    let methods: Vec<&str> = all().filter(here).flat_map(|r| r.methods).copied().collect();
    methods.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_table_is_there() {
        assert!(find("GET", "/health").is_ok() && find("HEAD", "/health").is_ok());
        for path in ["//health", "/health/", "/HEALTH", "/v1/../health", "/%68ealth", "/x", "*"] {
            assert!(find("GET", path).is_err(), "{path}");
        }
        assert_eq!(find("DELETE", "/health").err().map(|e| e.status), Some(405));
        assert_eq!(find("GET", "/v1/models/").err().map(|e| e.status), Some(404));
        assert!(find("GET", "/v1/models/a/b").is_ok());
    }

    /// Reliability R26: what answers without a key is listed here, and nothing else does.
    #[test]
    fn open_routes_are_these() {
        let open: Vec<&str> = all().filter(|r| r.access == Access::Open).map(|r| r.path).collect();
        assert_eq!(open, ["/", "/health", "/ping", "/ready"]);
        let admin = [
            "/flush_cache",
            "/reset_prefix_cache",
            "/abort_request",
            "/start_profile",
            "/stop_profile",
            "/end_profile",
            "/dump_profile",
            "/profile_status",
        ];
        for route in all().filter(|r| admin.contains(&r.path)) {
            assert_eq!(route.access, Access::Admin, "{}", route.path);
        }
    }
}
