//! Data sets that stand in files: ShareGPT, custom and OpenAI JSONL, plain text.

use serde_json::{Map, Value, json};

use super::{Codec, Prompt, Row, none_left};
use crate::bench::draws::Draws;
use crate::error::{Error, Result};

/// What a file's rows are filtered and changed by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Take {
    pub num_prompts: usize,
    /// Output length of every row; else the file's own.
    pub output_len: Option<usize>,
    /// Rows whose prompt and output are longer together are left out.
    pub context_len: Option<usize>,
    /// Put behind each prompt.
    pub suffix: String,
    pub seed: u64,
    /// Put prompts through the chat template.
    pub chat: bool,
    /// Send prompts as ids.
    pub as_ids: bool,
}

impl Take {
    /// A file's prompt as it is sent: with the suffix (before a trailing `Assistant:`, as SGLang
    /// puts it), through the chat template.
    fn dress(&self, prompt: &str, codec: Option<&dyn Codec>) -> Result<String> {
        const ANSWER: &str = "Assistant:";
        let text = match prompt.trim_end().strip_suffix(ANSWER) {
            Some(head) if !self.suffix.is_empty() => format!("{head}{}{ANSWER}", self.suffix),
            _ => format!("{prompt}{}", self.suffix),
        };
        match codec {
            _ if !self.chat => Ok(text),
            Some(codec) => codec.chat(&text),
            None => Err(Error::usage("--apply-chat-template: give the tokenizer (--tokenizer)")),
        }
    }
}

/// Fewest tokens of a prompt and of an answer that ShareGPT's filter keeps.
const LEAST: usize = 2;
/// Output length of an OpenAI row that has none.
const OPENAI_OUTPUT: usize = 256;

/// `sharegpt`: a JSON list of `{conversations: [{value}, {value}, …]}`; the first two turns are
/// prompt and answer, the answer's length is the output's. Shuffled, filtered, at most
/// `num_prompts`.
pub fn sharegpt(text: &str, path: &str, take: &Take, codec: &dyn Codec) -> Result<Vec<Row>> {
    let list: Value = serde_json::from_str(text)
        .map_err(|e| Error::file(path, format!("expected a JSON list of conversations: {e}")))?;
    let list = list.as_array().ok_or_else(|| Error::file(path, "the JSON is no list"))?;
    let turns = list.iter().filter_map(two_turns).collect();
    conversations(turns, path, take, codec)
}

/// `custom`: the same, one JSON object a line; lines that are none are passed over.
pub fn custom(text: &str, path: &str, take: &Take, codec: &dyn Codec) -> Result<Vec<Row>> {
    let lines = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let turns = lines.filter_map(|v| two_turns(&v)).collect();
    conversations(turns, path, take, codec)
}

fn two_turns(entry: &Value) -> Option<(String, String)> {
    let turns = entry.get("conversations").or(entry.get("conversation"))?.as_array()?;
    let text = |turn: &Value| {
        let value = turn.get("value").or(turn.get("content"))?;
        value.as_str().map(str::to_string)
    };
    Some((text(turns.first()?)?, text(turns.get(1)?)?))
}

fn conversations(
    mut turns: Vec<(String, String)>,
    path: &str,
    take: &Take,
    codec: &dyn Codec,
) -> Result<Vec<Row>> {
    Draws::new(take.seed).shuffle(&mut turns);
    let mut rows = Vec::new();
    for (prompt, answer) in turns {
        if rows.len() >= take.num_prompts {
            break;
        }
        let prompt = take.dress(&prompt, Some(codec))?;
        let ids = codec.encode(&prompt)?;
        let output = match take.output_len {
            Some(n) => n,
            None => codec.encode(&answer)?.len(),
        };
        let (input, most) = (ids.len(), take.context_len.unwrap_or(usize::MAX));
        if input < LEAST || output < LEAST || input + output > most {
            continue;
        }
        let prompt = if take.as_ids { Prompt::Ids(ids) } else { Prompt::Text(prompt) };
        rows.push(Row::new(prompt, input, output));
    }
    if rows.is_empty() {
        return Err(none_left(path, "conversations of two turns with at least two tokens each"));
    }
    Ok(rows)
}

/// `openai`: one request body a line, in file order. Fields other than messages, lengths and model
/// go along with the request.
pub fn openai(text: &str, path: &str, take: &Take, codec: Option<&dyn Codec>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    for (number, line) in lines.take(take.num_prompts) {
        let at = |what: &str| Error::file(path, format!("line {}: {what}", number + 1));
        let value: Value = serde_json::from_str(line).map_err(|e| at(&e.to_string()))?;
        let Value::Object(mut body) = value else { return Err(at("no JSON object")) };
        let messages = body.remove("messages").filter(Value::is_array);
        let messages = messages.ok_or_else(|| at("no list `messages`"))?;
        let own = ["max_tokens", "max_completion_tokens"].map(|key| body.remove(key));
        body.remove("model");
        let own = own.into_iter().flatten().find_map(|v| v.as_u64());
        let output = take.output_len.or(own.map(|n| n as usize)).unwrap_or(OPENAI_OUTPUT);
        let length = match codec {
            Some(codec) => codec.encode(&contents(&messages))?.len(),
            None => 0,
        };
        let mut row = Row::new(Prompt::Messages(messages), length, output);
        row.extra = body;
        rows.push(row);
    }
    if rows.is_empty() { Err(none_left(path, "it has no lines")) } else { Ok(rows) }
}

/// All text of `messages`: nearly as many tokens as the chat template makes of it.
fn contents(messages: &Value) -> String {
    let texts = messages.as_array().into_iter().flatten().filter_map(|m| m.get("content"));
    texts.filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

/// `text`: one prompt a line, again from the start if there are too few.
pub fn text(text: &str, path: &str, take: &Take, codec: Option<&dyn Codec>) -> Result<Vec<Row>> {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    if lines.is_empty() {
        return Err(none_left(path, "it has no lines"));
    }
    let output = take.output_len.unwrap_or(128);
    let mut rows = Vec::new();
    for line in lines.iter().cycle().take(take.num_prompts) {
        let prompt = take.dress(line, codec)?;
        let ids = codec.map(|c| c.encode(&prompt)).transpose()?;
        let length = ids.as_ref().map_or(0, Vec::len);
        let prompt = match ids.filter(|_| take.as_ids) {
            Some(ids) => Prompt::Ids(ids),
            None => Prompt::Text(prompt),
        };
        rows.push(Row::new(prompt, length, output));
    }
    Ok(rows)
}

/// A prompt as the only message of a user.
pub fn as_message(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

/// A JSON object from a flag, or nothing.
pub fn object(text: &str, flag: &str) -> Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::usage(format!("{flag}: expected a JSON object"))),
        Err(e) => Err(Error::usage(format!("{flag}: expected a JSON object: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TokenId;

    /// A token a word.
    struct Words;

    impl Codec for Words {
        fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
            Ok(text.split_whitespace().map(|w| w.len() as TokenId).collect())
        }

        fn decode(&self, _: &[TokenId]) -> String {
            String::new()
        }

        fn chat(&self, user: &str) -> Result<String> {
            Ok(format!("<user>{user}"))
        }
    }

    fn take(n: usize) -> Take {
        Take { num_prompts: n, ..Take::default() }
    }

    const SHAREGPT: &str = r#"[
        {"conversations": [{"value": "one two three"}, {"value": "four five"}, {"value": "six"}]},
        {"conversation": [{"content": "a b"}, {"content": "c d e f"}]},
        {"conversations": [{"value": "short"}, {"value": "x y"}]},
        {"conversations": [{"value": "no answer here"}]},
        {"other": 1}]"#;

    #[test]
    fn sharegpt_keeps_two_turns_of_two_tokens() {
        let rows = sharegpt(SHAREGPT, "f", &take(9), &Words).unwrap();
        let mut lens: Vec<_> = rows.iter().map(|r| (r.prompt_len, r.output_len)).collect();
        lens.sort_unstable();
        assert_eq!(lens, [(2, 4), (3, 2)]);
        let short = Take { context_len: Some(5), ..take(9) };
        assert_eq!(sharegpt(SHAREGPT, "f", &short, &Words).unwrap().len(), 1);
        let fixed = Take { output_len: Some(7), as_ids: true, ..take(1) };
        let rows = sharegpt(SHAREGPT, "f", &fixed, &Words).unwrap();
        assert!(rows.len() == 1 && rows[0].output_len == 7);
        assert!(matches!(rows[0].prompt, Prompt::Ids(_)));
        assert!(sharegpt("{}", "f", &take(1), &Words).is_err());
        assert!(sharegpt("[]", "f", &take(1), &Words).is_err());
    }

    #[test]
    fn custom_passes_over_bad_lines() {
        let lines = "{\"conversations\": [{\"content\": \"a b\"}, {\"value\": \"c d\"}]}\nbad\n";
        assert_eq!(custom(lines, "f", &take(9), &Words).unwrap().len(), 1);
        assert!(custom("bad\n", "f", &take(9), &Words).is_err());
    }

    #[test]
    fn openai_rows_carry_their_fields() {
        let line = r#"{"model":"m","messages":[{"role":"user","content":"a b c"}],"max_tokens":9,"top_p":0.5}"#;
        let rows = openai(line, "f", &take(2), Some(&Words)).unwrap();
        assert_eq!((rows[0].prompt_len, rows[0].output_len), (3, 9));
        assert_eq!(Value::Object(rows[0].extra.clone()), json!({"top_p": 0.5}));
        let rows = openai(r#"{"messages":[]}"#, "f", &take(2), None).unwrap();
        assert_eq!((rows[0].prompt_len, rows[0].output_len), (0, 256));
        let error = openai("{}", "f.jsonl", &take(2), None).unwrap_err();
        assert!(error.message.contains("f.jsonl: line 1"), "{error}");
    }

    #[test]
    fn suffixes_and_templates() {
        let suffix = Take { suffix: " now".into(), ..take(1) };
        assert_eq!(suffix.dress("a b", None).unwrap(), "a b now");
        assert_eq!(suffix.dress("Q Assistant:", None).unwrap(), "Q  nowAssistant:");
        let chat = Take { chat: true, ..suffix };
        assert_eq!(chat.dress("a", Some(&Words)).unwrap(), "<user>a now");
        assert!(chat.dress("a", None).is_err());
    }

    #[test]
    fn text_lines_go_round() {
        let rows = text("a b\n\nc\n", "f", &take(3), Some(&Words)).unwrap();
        let lens: Vec<_> = rows.iter().map(|r| r.prompt_len).collect();
        assert_eq!(lens, [2, 1, 2]);
        assert!(text("\n", "f", &take(3), None).is_err());
    }
}
