//! OpenAI's `/v1/chat/completions`.

use serde_json::{Map, Value, json};

use super::fields::{Fields, wrong};
use super::openai::{MAX_TOKENS, OpenAi};
use super::{Logprobs, MAX_TOP_LOGPROBS};
use crate::http::refused::Refused;

/// Most messages of one request.
const MAX_MESSAGES: usize = 8192;

/// Fields that ask for what is not available here.
const UNAVAILABLE: &[&str] = &["functions", "chat_template", "documents"];

/// A chat to be put through the model's template.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// Objects with `role` and `content`; content of parts is joined to one text.
    pub messages: Value,
    /// More names for the template.
    pub kwargs: Map<String, Value>,
    /// The template opens the assistant's turn.
    pub add_generation_prompt: bool,
    pub logprobs: Logprobs,
    pub openai: OpenAi,
}

/// Reads the body.
///
/// # Errors
/// 400 that names the field.
pub fn chat(body: &Map<String, Value>) -> Result<ChatRequest, Refused> {
    let fields = Fields(body);
    fields.unavailable(UNAVAILABLE)?;
    fields.unavailable(&["continue_final_message"])?;
    let mut openai = OpenAi::read(fields)?;
    let tokens = match fields.whole("max_completion_tokens", 1, MAX_TOKENS)? {
        Some(tokens) => Some(tokens),
        None => fields.whole("max_tokens", 1, MAX_TOKENS)?,
    };
    openai.sampling.insert("max_new_tokens".into(), tokens.map_or(Value::Null, Value::from));
    let top = fields.whole("top_logprobs", 0, MAX_TOP_LOGPROBS)?.unwrap_or(0) as usize;
    let output = fields.flag("logprobs")?.unwrap_or(false);
    if top > 0 && !output {
        return Err(Refused::field("top_logprobs", "top_logprobs is only for logprobs: true"));
    }
    let mut kwargs = fields.object("chat_template_kwargs")?.cloned().unwrap_or_default();
    for fixed in ["messages", "add_generation_prompt"] {
        kwargs.remove(fixed);
    }
    if let Some(tools) = tools(fields)? {
        kwargs.insert("tools".into(), tools);
    }
    Ok(ChatRequest {
        messages: messages(fields)?,
        kwargs,
        add_generation_prompt: fields.flag("add_generation_prompt")?.unwrap_or(true),
        logprobs: Logprobs { output, prompt_start: None, top },
        openai,
    })
}

/// Tools are shown to the model; its calls come back as text.
fn tools(fields: Fields) -> Result<Option<Value>, Refused> {
    let choice = fields.get("tool_choice");
    match choice {
        None | Some(Value::String(_)) => {}
        Some(other) => return Err(wrong("tool_choice", other, "auto or none")),
    }
    let choice = choice.and_then(Value::as_str);
    if !matches!(choice, None | Some("auto" | "none")) {
        return Err(wrong("tool_choice", &json!(choice), "auto or none"));
    }
    let tools = fields.list("tools")?.filter(|list| !list.is_empty());
    Ok(tools.filter(|_| choice != Some("none")).map(|list| Value::Array(list.clone())))
}

fn messages(fields: Fields) -> Result<Value, Refused> {
    let list = fields.list("messages")?;
    let list = list.ok_or_else(|| Refused::field("messages", "messages is missing"))?;
    if !(1..=MAX_MESSAGES).contains(&list.len()) {
        let what = format!("{} messages, expected 1 to {MAX_MESSAGES}", list.len());
        return Err(Refused::field("messages", what));
    }
    let all: Result<Vec<Value>, Refused> =
        list.iter().enumerate().map(|(i, message)| one(i, message)).collect();
    all.map(Value::Array)
}

fn one(index: usize, message: &Value) -> Result<Value, Refused> {
    let place = |field: &str| format!("messages[{index}]{field}");
    let Value::Object(map) = message else {
        return Err(wrong(&place(""), message, "an object with role and content"));
    };
    let fields = Fields(map);
    let role = fields.text("role").map_err(|_| {
        wrong(&place(".role"), fields.get("role").unwrap_or(&Value::Null), "a string")
    })?;
    if role.is_none_or(str::is_empty) {
        return Err(Refused::field(place(".role"), format!("{} is missing", place(".role"))));
    }
    let content = match fields.get("content") {
        None => Value::Null,
        Some(Value::String(text)) => text.clone().into(),
        Some(Value::Array(parts)) => join(&place(".content"), parts)?.into(),
        Some(other) => {
            return Err(wrong(&place(".content"), other, "a string or a list of parts"));
        }
    };
    let mut map = map.clone();
    map.insert("content".into(), content);
    Ok(Value::Object(map))
}

/// `[{"type": "text", "text": …}, …]` as one text.
fn join(place: &str, parts: &[Value]) -> Result<String, Refused> {
    let mut joined = String::new();
    for part in parts {
        let kind = part.get("type").and_then(Value::as_str);
        let text = part.get("text").and_then(Value::as_str).or(part.as_str());
        match (kind, text) {
            (Some("text" | "input_text" | "refusal") | None, Some(text)) => joined.push_str(text),
            _ => return Err(wrong(place, part, "parts of type text")),
        }
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<ChatRequest, Refused> {
        chat(value.as_object().unwrap())
    }

    #[test]
    fn parts_are_joined_and_the_newer_limit_holds() {
        let request = read(json!({
            "messages": [{"role": "user", "content": [{"type": "text", "text": "a"},
                {"type": "text", "text": "b"}]}],
            "max_completion_tokens": 5, "max_tokens": 9, "logprobs": true, "top_logprobs": 2,
            "tools": [{"type": "function"}]
        }))
        .unwrap();
        assert_eq!(request.messages[0]["content"], "ab");
        assert_eq!(request.openai.sampling["max_new_tokens"], 5);
        assert_eq!(request.logprobs.top, 2);
        assert!(request.kwargs.contains_key("tools"));
    }

    #[test]
    fn errors_name_the_field() {
        let user = json!([{"role": "user", "content": "a"}]);
        for (bad, field) in [
            (json!({}), "messages"),
            (json!({"messages": []}), "messages"),
            (json!({"messages": ["a"]}), "messages[0]"),
            (json!({"messages": [{"content": "a"}]}), "messages[0].role"),
            (json!({"messages": [{"role": "user", "content": 1}]}), "messages[0].content"),
            (
                json!({"messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "http://x"}}]}]}),
                "messages[0].content",
            ),
            (json!({"messages": user, "max_tokens": -1}), "max_tokens"),
            (json!({"messages": user, "top_logprobs": 3}), "top_logprobs"),
            (json!({"messages": user, "logprobs": true, "top_logprobs": 21}), "top_logprobs"),
            (json!({"messages": user, "chat_template": "{{ x }}"}), "chat_template"),
            (json!({"messages": user, "tool_choice": "required"}), "tool_choice"),
        ] {
            let error = read(bad.clone()).expect_err(&bad.to_string());
            assert_eq!((error.status, error.param.as_deref()), (400, Some(field)), "{bad}");
        }
    }
}
