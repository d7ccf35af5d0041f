//! Profiling a live server: `/start_profile`, `/stop_profile` (also called `/end_profile`),
//! `/dump_profile` and `/dump_step` for what already happened, `/profile_status`.

use serde_json::Value;

use super::super::auth::Access;
use super::super::context::Context;
use super::super::pool::Worked;
use super::{Call, Reply, Route};
use crate::http::{Refused, Response, api};
use crate::profile::profiler::steps::{Which, since};
use crate::profile::profiler::{Answer, Profiler};
use crate::profile::request::ProfileRequest;

pub const ROUTES: &[Route] = &[
    route("/start_profile", start),
    route("/stop_profile", stop),
    route("/end_profile", stop),
    route("/dump_profile", dump),
    route("/dump_step", dump_step),
    route("/profile_status", status),
];

/// SGLang takes both methods.
const fn route(path: &'static str, handle: super::Handle) -> Route {
    Route { path, methods: &["POST", "GET"], access: Access::Admin, handle }
}

/// What the flight recorder shows unless asked otherwise, seconds.
const LAST_SECONDS: f64 = 5.0;

fn start(call: &mut Call) -> Result<Reply, Refused> {
    let body = body(call)?;
    let request = ProfileRequest::from_json(&body)?;
    let work = move |context: &Context| Ok(respond(&profiler(context)?.start(&request)));
    Ok(Reply::Work(Box::new(work)))
}

fn stop(_: &mut Call) -> Result<Reply, Refused> {
    let work = |context: &Context| Ok(respond(&profiler(context)?.stop_and_wait()));
    Ok(Reply::Slow(Box::new(work)))
}

fn dump(call: &mut Call) -> Result<Reply, Refused> {
    let body = body(call)?;
    let request = ProfileRequest::from_json(&body)?;
    let seconds = last_seconds(&body);
    let work =
        move |context: &Context| Ok(respond(&profiler(context)?.dump_and_wait(&request, seconds)));
    Ok(Reply::Slow(Box::new(work)))
}

/// The step of a number, or the slowest of the last seconds, as a file for `--replay`.
fn dump_step(call: &mut Call) -> Result<Reply, Refused> {
    let body = body(call)?;
    let request = ProfileRequest::from_json(&body)?;
    let number = match &body["step"] {
        Value::Null => None,
        Value::String(text) => Some(text.parse().ok()),
        other => Some(other.as_u64()),
    };
    let which = match number {
        Some(Some(number)) => Which::Number(number),
        Some(None) => {
            let found = body["step"].to_string();
            return Err(Refused::field("step", format!("step {found}: expected a whole number")));
        }
        None => Which::SlowestSince(since(last_seconds(&body))?),
    };
    let work = move |context: &Context| {
        Ok(respond(&profiler(context)?.dump_step_and_wait(&request, which)))
    };
    Ok(Reply::Slow(Box::new(work)))
}

fn last_seconds(body: &Value) -> f64 {
    match &body["last_s"] {
        Value::Null => LAST_SECONDS,
        Value::String(text) => text.parse().unwrap_or(f64::NAN),
        other => other.as_f64().unwrap_or(f64::NAN),
    }
}

fn status(call: &mut Call) -> Result<Reply, Refused> {
    Ok(Reply::Now(response(&profiler(call.context)?.status())))
}

/// A body is JSON whatever type it is said to have; none is an empty object, and a GET may give
/// its fields in the query.
fn body(call: &mut Call) -> Result<Value, Refused> {
    if call.body.iter().all(u8::is_ascii_whitespace) {
        let fields = [
            "num_steps",
            "start_step",
            "skip_steps",
            "profile_by_stage",
            "output_dir",
            "profile_prefix",
            "profile_id",
            "merge_profiles",
            "last_s",
            "step",
        ];
        let given = fields
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), Value::from(call.head.parameter(name)?))));
        return Ok(Value::Object(given.collect()));
    }
    api::parse(&call.body).map(Value::Object)
}

fn profiler(context: &Context) -> Result<&Profiler, Refused> {
    let none = || Refused::new(503, "this server was started without a profiler");
    context.options.profiler.as_ref().ok_or_else(none)
}

fn response(answer: &Answer) -> Response {
    Response::json(answer.status, &answer.body)
}

fn respond(answer: &Answer) -> Worked {
    Worked::Respond(response(answer))
}
