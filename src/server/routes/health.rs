//! Whether the server works, tied to the progress of steps: a server that answers while its
//! engine stands still would be worse than one that is down.

use super::super::auth::Access;
use super::super::generate::{Made, Plan, Planned, Shape};
use super::super::pool::Worked;
use super::{Call, Reply, Route};
use crate::engine::params::SamplingParams;
use crate::engine::request::LogprobOptions;
use crate::engine::service::State;
use crate::http::{Refused, Response};

pub const ROUTES: &[Route] = &[
    Route { path: "/health", methods: &["GET"], access: Access::Open, handle: health },
    Route { path: "/ping", methods: &["GET"], access: Access::Open, handle: health },
    Route { path: "/ready", methods: &["GET"], access: Access::Open, handle: health },
    Route { path: "/health_generate", methods: &["GET"], access: Access::User, handle: generate },
];

fn health(call: &mut Call) -> Result<Reply, Refused> {
    check(call)?;
    Ok(Reply::Now(Response::text(200, "OK\n")))
}

/// # Errors
/// 503 while starting or draining, after a fault, and when work waits and no step comes back.
fn check(call: &Call) -> Result<(), Refused> {
    let health = call.context.engine.health();
    let state = health.state();
    if call.draining || state != State::Ready {
        let name = if call.draining { "draining" } else { state.name() };
        return Err(Refused::new(503, format!("the server is {name}")));
    }
    let limit = call.context.options.watchdog;
    match health.stalled_for().filter(|stalled| *stalled > limit) {
        Some(stalled) => {
            let seconds = stalled.as_secs();
            Err(Refused::new(503, format!("no step has come back for {seconds} s")))
        }
        None => Ok(()),
    }
}

/// One token through the engine.
fn generate(call: &mut Call) -> Result<Reply, Refused> {
    check(call)?;
    Ok(Reply::Work(Box::new(|context| {
        let model = context.model()?;
        let bos = model.tokenizer.as_ref().and_then(|t| t.bos_id()).unwrap_or(0);
        let params = SamplingParams {
            max_new_tokens: Some(1),
            temperature: 0.0,
            ..SamplingParams::default()
        };
        let planned = Planned {
            prompt: vec![bos],
            params: params.into(),
            logprobs: LogprobOptions::default(),
            rid: "health".into(),
            salt: 0,
        };
        let tokenizer = model.tokenizer.clone();
        let plan = Plan {
            prompts: vec![planned],
            shape: Shape::Health,
            stream: false,
            tokenizer,
            made: Made::default(),
        };
        Ok(Worked::Generate(Box::new(plan)))
    })))
}
