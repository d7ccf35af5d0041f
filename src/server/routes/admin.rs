//! Flushing the prefix cache and ending requests.

use std::time::Duration;

use super::super::auth::Access;
use super::{Call, Reply, Route};
use crate::http::{Refused, api};

pub const ROUTES: &[Route] = &[
    Route { path: "/flush_cache", methods: &["POST", "GET"], access: Access::Admin, handle: flush },
    Route { path: "/reset_prefix_cache", methods: &["POST"], access: Access::Admin, handle: flush },
    Route { path: "/abort_request", methods: &["POST"], access: Access::Admin, handle: abort },
];

/// Longest that a flush may wait for an idle engine.
const MAX_WAIT: f64 = 600.0;

fn flush(call: &mut Call) -> Result<Reply, Refused> {
    let Some(text) = call.head.parameter("timeout") else {
        return Ok(Reply::Flush(Duration::ZERO));
    };
    let seconds: Option<f64> = text.parse().ok().filter(|s| (0.0..=MAX_WAIT).contains(s));
    let wait = seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        Refused::field("timeout", format!("timeout must be 0 to {MAX_WAIT} seconds"))
    })?;
    Ok(Reply::Flush(wait))
}

fn abort(call: &mut Call) -> Result<Reply, Refused> {
    Ok(Reply::Abort(api::abort(&api::parse(&call.body)?)?))
}
