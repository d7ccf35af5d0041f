//! `/tokenize` and `/detokenize`.

use serde_json::json;

use super::super::auth::Access;
use super::super::pool::Worked;
use super::{Call, Handle, Reply, Route};
use crate::http::{Refused, Response, api};

const fn post(path: &'static str, handle: Handle) -> Route {
    Route { path, methods: &["POST"], access: Access::User, handle }
}

pub const ROUTES: &[Route] = &[
    post("/tokenize", tokenize),
    post("/v1/tokenize", tokenize),
    post("/detokenize", detokenize),
    post("/v1/detokenize", detokenize),
];

fn tokenize(call: &mut Call) -> Result<Reply, Refused> {
    let body = std::mem::take(&mut call.body);
    Ok(Reply::Work(Box::new(move |context| {
        let request = api::tokenize(&api::parse(&body)?)?;
        let (tokenizer, context) = (context.tokenizer()?, context.model()?.context);
        let mut all = Vec::with_capacity(request.texts.len());
        for text in &request.texts {
            all.push(tokenizer.encode(text, request.add_special_tokens)?);
        }
        let counts: Vec<usize> = all.iter().map(Vec::len).collect();
        let answer = match (request.batch, all.first()) {
            (false, Some(one)) => json!({ "tokens": one, "count": one.len(),
                "max_model_len": context }),
            _ => json!({ "tokens": all, "count": counts, "max_model_len": context }),
        };
        Ok(Worked::Respond(Response::json(200, &answer)))
    })))
}

fn detokenize(call: &mut Call) -> Result<Reply, Refused> {
    let body = std::mem::take(&mut call.body);
    Ok(Reply::Work(Box::new(move |context| {
        let request = api::detokenize(&api::parse(&body)?)?;
        let (tokenizer, vocab) = (context.tokenizer()?, context.model()?.vocab);
        if let Some(id) = request.tokens.iter().flatten().find(|id| **id as usize >= vocab) {
            let what = format!("token id {id} is outside the vocabulary of {vocab}");
            return Err(Refused::field("tokens", what));
        }
        let decode = |ids: &Vec<_>| tokenizer.decode(ids, request.skip_special_tokens);
        let texts: Vec<String> = request.tokens.iter().map(decode).collect();
        let answer = match (request.batch, texts.first()) {
            (false, Some(one)) => json!({ "text": one, "prompt": one }),
            _ => json!({ "text": texts, "prompt": texts }),
        };
        Ok(Worked::Respond(Response::json(200, &answer)))
    })))
}
