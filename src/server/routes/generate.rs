//! SGLang's `/generate`.

use super::super::auth::Access;
use super::super::generate::{Made, Plan, Shape};
use super::super::pool::Worked;
use super::{Call, Reply, Route};
use crate::http::{Refused, api};

pub const ROUTES: &[Route] = &[Route {
    path: "/generate",
    methods: &["POST", "PUT"],
    access: Access::User,
    handle: generate,
}];

fn generate(call: &mut Call) -> Result<Reply, Refused> {
    let body = std::mem::take(&mut call.body);
    let id = super::request_id(call.head);
    Ok(Reply::Work(Box::new(move |context| {
        let made = Made::begin();
        let mut request = api::generate(&api::parse(&body)?)?;
        if let (true, Some(id), 1) = (request.ids.is_empty(), id, request.prompts.len()) {
            request.ids = vec![id];
        }
        let shape = Shape::Native { batch: request.batch, texts: request.logprob_texts };
        Ok(Worked::Generate(Box::new(Plan::new(context, &request, shape, made)?)))
    })))
}
