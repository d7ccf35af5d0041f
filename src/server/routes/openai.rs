//! OpenAI's completions, chat and models.

use serde_json::{Value, json};

use super::super::answer::created;
use super::super::auth::Access;
use super::super::context::{Context, ModelFacts};
use super::super::generate::{Envelope, Made, Plan, Shape, new_id};
use super::super::pool::Worked;
use super::{Call, Reply, Route};
use crate::http::api::{self, ChatRequest, Generation, OpenAi, Prompt};
use crate::http::target;
use crate::http::{Refused, Response};

pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/completions",
        methods: &["POST"],
        access: Access::User,
        handle: completions,
    },
    Route { path: "/v1/chat/completions", methods: &["POST"], access: Access::User, handle: chat },
    Route { path: "/v1/models", methods: &["GET"], access: Access::User, handle: models },
    Route { path: "/v1/models/*", methods: &["GET"], access: Access::User, handle: model },
];

fn completions(call: &mut Call) -> Result<Reply, Refused> {
    let body = std::mem::take(&mut call.body);
    let id = super::request_id(call.head);
    Ok(Reply::Work(Box::new(move |context| {
        let made = Made::begin();
        let (mut request, openai, echo) = api::completions(&api::parse(&body)?)?;
        let mut envelope = envelope(context, &openai, "cmpl", id)?;
        if echo {
            let texts = request.prompts.iter().map(|p| text(context, p));
            envelope.echo = Some(texts.collect::<Result<_, _>>()?);
        }
        if request.prompts.len() == 1 {
            request.ids = vec![envelope.id.clone()];
        }
        let shape = Shape::Completion(envelope);
        Ok(Worked::Generate(Box::new(Plan::new(context, &request, shape, made)?)))
    })))
}

/// The text of a prompt, for `echo`.
fn text(context: &Context, prompt: &Prompt) -> Result<String, Refused> {
    match prompt {
        Prompt::Text(text) => Ok(text.clone()),
        Prompt::Ids(ids) => Ok(context.tokenizer()?.decode(ids, true)),
    }
}

fn chat(call: &mut Call) -> Result<Reply, Refused> {
    let body = std::mem::take(&mut call.body);
    let id = super::request_id(call.head);
    Ok(Reply::Work(Box::new(move |context| {
        let made = Made::begin();
        let request = api::chat(&api::parse(&body)?)?;
        let made = made.parsed();
        let envelope = envelope(context, &request.openai, "chatcmpl", id)?;
        let generation = templated(context, request, &envelope)?;
        let shape = Shape::Chat(envelope);
        Ok(Worked::Generate(Box::new(Plan::new(context, &generation, shape, made)?)))
    })))
}

/// The chat as the prompt that the model's template makes of it.
fn templated(
    context: &Context,
    request: ChatRequest,
    envelope: &Envelope,
) -> Result<Generation, Refused> {
    let model = context.model()?;
    let Some(template) = &model.chat else {
        let why = model.chat_error.as_ref().map_or("there is no chat template", |e| &e.message);
        return Err(Refused::field("messages", why));
    };
    let text = template
        .render(&request.messages, request.add_generation_prompt, &request.kwargs)
        .map_err(|e| Refused::field("messages", e.message))?;
    // The template writes special tokens itself.
    let prompt = context.tokenizer()?.encode(&text, false)?;
    Ok(Generation {
        prompts: vec![Prompt::Ids(prompt)],
        batch: false,
        sampling: vec![request.openai.sampling],
        stream: request.openai.stream,
        logprobs: vec![request.logprobs],
        logprob_texts: true,
        ids: vec![envelope.id.clone()],
        salt: request.openai.salt,
    })
}

fn envelope(
    context: &Context,
    openai: &OpenAi,
    prefix: &str,
    id: Option<String>,
) -> Result<Envelope, Refused> {
    let model = context.model()?;
    let wanted = openai.model.as_deref().unwrap_or("default");
    if !is_served(model, wanted) {
        let name: String = wanted.chars().take(80).collect();
        let message = format!("the model {name:?} is not served here; {:?} is", model.served_name);
        let mut refused = Refused::new(404, message);
        refused.param = Some("model".into());
        return Err(refused);
    }
    let id = openai.id.clone().or(id).unwrap_or_else(|| format!("{prefix}-{}", new_id()));
    Ok(Envelope {
        id,
        created: created(),
        model: model.served_name.clone(),
        include_usage: openai.include_usage,
        continuous_usage: openai.continuous_usage,
        echo: None,
    })
}

/// The served name, the model's path (which is `root` in the list of models), or no name at all.
fn is_served(model: &ModelFacts, name: &str) -> bool {
    name.is_empty() || name == "default" || name == model.served_name || name == model.path
}

fn card(context: &Context, model: &ModelFacts) -> Value {
    let created = created() - context.started.elapsed().as_secs().min(created());
    json!({
        "id": model.served_name, "object": "model", "created": created, "owned_by": "pacer",
        "root": model.path, "parent": null, "max_model_len": model.context,
    })
}

fn models(call: &mut Call) -> Result<Reply, Refused> {
    let card = card(call.context, call.context.model()?);
    Ok(Reply::Now(Response::json(200, &json!({ "object": "list", "data": [card] }))))
}

fn model(call: &mut Call) -> Result<Reply, Refused> {
    let model = call.context.model()?;
    let name = call.head.path.strip_prefix("/v1/models/").and_then(target::decode);
    match name {
        Some(name) if is_served(model, &name) => {
            Ok(Reply::Now(Response::json(200, &card(call.context, model))))
        }
        _ => {
            let mut refused = Refused::new(404, "there is no such model");
            refused.param = Some("model".into());
            Err(refused)
        }
    }
}
