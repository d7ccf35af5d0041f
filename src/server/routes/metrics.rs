//! `/metrics`.

use super::super::auth::Access;
use super::super::prometheus;
use super::{Call, Reply, Route};
use crate::http::{Refused, Response};

pub const ROUTES: &[Route] =
    &[Route { path: "/metrics", methods: &["GET"], access: Access::User, handle: metrics }];

fn metrics(call: &mut Call) -> Result<Reply, Refused> {
    let text = prometheus::text(call.context, call.stats, call.connections);
    Ok(Reply::Now(Response::new(200, "text/plain; version=0.0.4; charset=utf-8", text)))
}
