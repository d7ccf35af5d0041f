//! The status page: one embedded file without outside assets, and the numbers it shows.

use std::time::Instant;

use serde_json::{Value, json};

use super::super::auth::Access;
use super::{Call, Reply, Route};
use crate::http::{Refused, Response};
use crate::measure::json::optional;
use crate::measure::stats::percentile;

pub const ROUTES: &[Route] = &[
    Route { path: "/", methods: &["GET"], access: Access::Open, handle: page },
    Route { path: "/status.json", methods: &["GET"], access: Access::User, handle: status },
];

const PAGE: &str = include_str!("status.html");

/// The page holds no figure, so it is open; what it fetches is not.
fn page(_: &mut Call) -> Result<Reply, Refused> {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                  connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'";
    let response = Response::new(200, "text/html; charset=utf-8", PAGE);
    let response = response.with("Content-Security-Policy", policy);
    Ok(Reply::Now(response.with("Cache-Control", "no-cache")))
}

fn percentiles(samples: &[f64]) -> Value {
    let at = |q| optional(percentile(samples, q));
    json!({ "p50": at(50.0), "p90": at(90.0), "p99": at(99.0) })
}

fn status(call: &mut Call) -> Result<Reply, Refused> {
    let (stats, health) = (call.stats, call.context.engine.health().snapshot());
    let model = call.context.model.get();
    let recent = |pick: fn(&super::super::stats::Latencies) -> Option<f64>| -> Vec<f64> {
        stats.recent.iter().filter_map(pick).collect()
    };
    let state = if call.draining { "draining" } else { health.state.name() };
    let body = json!({
        "state": state,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime": call.context.started.elapsed().as_secs_f64(),
        "model": model.map(|m| m.served_name.clone()),
        "device": model.map(|m| m.device.clone()),
        "dtype": model.map(|m| m.dtype.clone()),
        "context": model.map(|m| m.context),
        "capacity": model.map(|m| m.capacity),
        "page_size": model.map(|m| m.page_size),
        "throughput": stats.throughput(Instant::now()),
        "generation_tokens": stats.generation_tokens,
        "running": health.running,
        "queued": health.queued,
        "preempted": health.preempted,
        "queued_tokens": health.queued_tokens,
        "pages_used": health.pages_used,
        "pages_cached": health.pages_cached,
        "pages_total": health.pages_total,
        "requests": stats.requests,
        "aborted": stats.aborted,
        "connections": call.connections,
        "steps": health.steps_total,
        "ttft": percentiles(&recent(|l| Some(l.ttft))),
        "itl": percentiles(&recent(|l| l.itl)),
        "e2e": percentiles(&recent(|l| Some(l.e2e))),
        "loop_busy_max": stats.loop_busy_max,
        "loop_blocked_max": stats.loop_blocked_max,
        "profile": super::all().any(|route| route.path == "/start_profile"),
    });
    Ok(Reply::Now(Response::json(200, &body).with("Cache-Control", "no-store")))
}
