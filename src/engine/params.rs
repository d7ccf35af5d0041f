//! Sampling parameters: names, defaults and ranges as SGLang has them.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::text::grammar::GrammarSpec;
use crate::types::TokenId;

/// Most stop strings, and most bytes of each.
pub const MAX_STOPS: usize = 32;
pub const MAX_STOP_BYTES: usize = 256;
/// Most parallel choices of one prompt.
pub const MAX_CHOICES: usize = 128;
/// Most entries of `logit_bias`.
const MAX_BIASES: usize = 4096;

/// How a request's tokens are chosen and when it ends.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Tokens to generate; `None`: to the end of the context.
    pub max_new_tokens: Option<usize>,
    /// No end-of-sequence token and no stop string before that many tokens.
    pub min_new_tokens: usize,
    /// 0 is greedy.
    pub temperature: f32,
    pub top_p: f32,
    /// 0 keeps all.
    pub top_k: usize,
    pub min_p: f32,
    /// Taken off a token's logit for each time it was generated.
    pub frequency_penalty: f32,
    /// Taken off a token's logit if it was generated.
    pub presence_penalty: f32,
    /// Divides a generated token's positive logit, multiplies a negative one.
    pub repetition_penalty: f32,
    /// Added to logits before anything else.
    pub logit_bias: Vec<(TokenId, f32)>,
    pub stop: Vec<String>,
    pub stop_token_ids: Vec<TokenId>,
    pub stop_regex: Vec<String>,
    pub ignore_eos: bool,
    pub skip_special_tokens: bool,
    pub spaces_between_special_tokens: bool,
    /// Keeps the stop string or token in the output.
    pub no_stop_trim: bool,
    pub n: usize,
    /// Draws depend on it alone; `None`: the engine gives one.
    pub seed: Option<u64>,
    /// The output follows this schema, expression or grammar.
    pub grammar: Option<GrammarSpec>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams {
            max_new_tokens: Some(128),
            min_new_tokens: 0,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            stop_regex: Vec::new(),
            ignore_eos: false,
            skip_special_tokens: true,
            spaces_between_special_tokens: true,
            no_stop_trim: false,
            n: 1,
            seed: None,
            grammar: None,
        }
    }
}

impl SamplingParams {
    /// Temperatures below this are greedy, as in SGLang.
    const GREEDY_BELOW: f32 = 1e-6;

    pub fn is_greedy(&self) -> bool {
        self.temperature < Self::GREEDY_BELOW || self.top_k == 1
    }

    pub fn has_penalties(&self) -> bool {
        self.frequency_penalty != 0.0
            || self.presence_penalty != 0.0
            || self.repetition_penalty != 1.0
    }

    /// Refuses values outside their ranges; ids must lie in the vocabulary, because each becomes
    /// an index.
    ///
    /// # Errors
    /// Names the parameter, the value and the accepted range.
    pub fn validate(&self, vocab: usize) -> Result<()> {
        let range = |name: &str, value: f32, low: f32, high: f32| {
            if value >= low && value <= high {
                return Ok(());
            }
            let from =
                if low == f32::MIN_POSITIVE { "above 0 and up".into() } else { low.to_string() };
            Err(Error::usage(format!("{name} is {value}, expected {from} to {high}")))
        };
        range("temperature", self.temperature, 0.0, 1e4)?;
        range("top_p", self.top_p, f32::MIN_POSITIVE, 1.0)?;
        range("min_p", self.min_p, 0.0, 1.0)?;
        range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        range("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        range("repetition_penalty", self.repetition_penalty, f32::MIN_POSITIVE, 2.0)?;
        count("n", self.n, 1, MAX_CHOICES)?;
        if let Some(max) = self.max_new_tokens {
            count("max_new_tokens", max, 0, 1 << 30)?;
            count("min_new_tokens", self.min_new_tokens, 0, max)?;
        }
        self.grammar.as_ref().map_or(Ok(()), GrammarSpec::check)?;
        self.validate_stops()?;
        self.validate_ids(vocab)
    }

    fn validate_stops(&self) -> Result<()> {
        for (name, list) in [("stop", &self.stop), ("stop_regex", &self.stop_regex)] {
            count(&format!("the number of {name} strings"), list.len(), 0, MAX_STOPS)?;
            for text in list {
                count(&format!("the length of a {name} string"), text.len(), 1, MAX_STOP_BYTES)?;
            }
        }
        Ok(())
    }

    fn validate_ids(&self, vocab: usize) -> Result<()> {
        count("the number of logit_bias entries", self.logit_bias.len(), 0, MAX_BIASES)?;
        count("the number of stop_token_ids", self.stop_token_ids.len(), 0, MAX_BIASES)?;
        let biased = self.logit_bias.iter().map(|(id, _)| ("logit_bias", *id));
        let stops = self.stop_token_ids.iter().map(|id| ("stop_token_ids", *id));
        for (name, id) in biased.chain(stops) {
            if id as usize >= vocab {
                let message = format!("{name}: token id {id} is outside the vocabulary of {vocab}");
                return Err(Error::usage(message));
            }
        }
        if let Some((id, bias)) = self.logit_bias.iter().find(|(_, b)| !b.is_finite()) {
            return Err(Error::usage(format!("logit_bias of token {id} is {bias}, not finite")));
        }
        Ok(())
    }

    /// Reads SGLang's `sampling_params` object; nulls mean the default, numeric strings count.
    ///
    /// # Errors
    /// Names the field that is unknown, of the wrong type or not available.
    pub fn from_json(json: &Value) -> Result<Self> {
        let mut p = SamplingParams::default();
        let Value::Object(map) = json else {
            return Err(Error::usage("sampling_params: expected a JSON object"));
        };
        for (name, value) in map.iter().filter(|(_, v)| !v.is_null()) {
            p.set(name, value)?;
        }
        Ok(p)
    }

    fn set(&mut self, name: &str, v: &Value) -> Result<()> {
        match name {
            "max_new_tokens" => self.max_new_tokens = Some(whole(name, v)?),
            "min_new_tokens" => self.min_new_tokens = whole(name, v)?,
            "temperature" => self.temperature = number(name, v)?,
            "top_p" => self.top_p = number(name, v)?,
            "top_k" => self.top_k = top_k(v)?,
            "min_p" => self.min_p = number(name, v)?,
            "frequency_penalty" => self.frequency_penalty = number(name, v)?,
            "presence_penalty" => self.presence_penalty = number(name, v)?,
            "repetition_penalty" => self.repetition_penalty = number(name, v)?,
            "logit_bias" => self.logit_bias = biases(v)?,
            "stop" => self.stop = strings(name, v)?,
            "stop_token_ids" => self.stop_token_ids = ids(name, v)?,
            "stop_regex" => self.stop_regex = strings(name, v)?,
            "ignore_eos" => self.ignore_eos = flag(name, v)?,
            "skip_special_tokens" => self.skip_special_tokens = flag(name, v)?,
            "spaces_between_special_tokens" => {
                self.spaces_between_special_tokens = flag(name, v)?;
            }
            "no_stop_trim" => self.no_stop_trim = flag(name, v)?,
            "n" => self.n = whole(name, v)?,
            "sampling_seed" | "seed" => self.seed = Some(whole(name, v)? as u64),
            // Streaming granularity is the server's business; a custom object has no effect.
            "stream_interval" | "custom_params" => {}
            "json_schema" | "regex" | "ebnf" | "structural_tag" if v.as_str() == Some("") => {}
            "json_schema" | "regex" | "ebnf" => self.set_grammar(name, v)?,
            "structural_tag" | "beam_width" => {
                return Err(Error::unsupported(format!("{name} is not available in this build")));
            }
            _ => return Err(Error::usage(format!("sampling_params: {name:?} is not known"))),
        }
        Ok(())
    }
}

impl SamplingParams {
    /// A schema may be text or JSON. Only one constraint at a time.
    fn set_grammar(&mut self, name: &str, v: &Value) -> Result<()> {
        let text = match v {
            Value::String(text) => text.clone(),
            Value::Object(_) if name == "json_schema" => v.to_string(),
            _ => return Err(wrong(name, v, "a string")),
        };
        let spec = match name {
            "json_schema" => GrammarSpec::JsonSchema(text),
            "regex" => GrammarSpec::Regex(text),
            _ => GrammarSpec::Ebnf(text),
        };
        if let Some(other) = self.grammar.replace(spec) {
            let other = other.name();
            return Err(Error::usage(format!("{other} and {name} exclude each other; give one")));
        }
        Ok(())
    }
}

fn count(name: &str, value: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::usage(format!("{name} is {value}, expected {low} to {high}")))
}

fn wrong(name: &str, v: &Value, wanted: &str) -> Error {
    let text: String = v.to_string().chars().take(60).collect();
    Error::usage(format!("{name} is {text}, expected {wanted}"))
}

fn number(name: &str, v: &Value) -> Result<f32> {
    let number = v.as_f64().or_else(|| v.as_str()?.trim().parse().ok());
    let number = number.map(|n| n as f32).filter(|n| n.is_finite());
    number.ok_or_else(|| wrong(name, v, "a finite number"))
}

fn whole(name: &str, v: &Value) -> Result<usize> {
    let n = v.as_u64().or_else(|| v.as_str()?.trim().parse().ok());
    n.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| wrong(name, v, "a whole number from 0"))
}

/// -1 keeps all, as does any number at or above the vocabulary.
fn top_k(v: &Value) -> Result<usize> {
    let n = v.as_i64().or_else(|| v.as_str()?.trim().parse().ok());
    match n {
        Some(-1) => Ok(0),
        Some(k) if k >= 1 => Ok(k as usize),
        _ => Err(wrong("top_k", v, "-1 (all) or a number from 1")),
    }
}

fn flag(name: &str, v: &Value) -> Result<bool> {
    v.as_bool().ok_or_else(|| wrong(name, v, "true or false"))
}

fn strings(name: &str, v: &Value) -> Result<Vec<String>> {
    let list = match v {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(list) => list.iter().map(|s| s.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    let list = list.ok_or_else(|| wrong(name, v, "a string or a list of strings"))?;
    Ok(list.into_iter().filter(|s| !s.is_empty()).collect())
}

fn ids(name: &str, v: &Value) -> Result<Vec<TokenId>> {
    let id = |v: &Value| v.as_u64().and_then(|n| TokenId::try_from(n).ok());
    let list = v.as_array().and_then(|list| list.iter().map(id).collect());
    list.ok_or_else(|| wrong(name, v, "a list of token ids"))
}

fn biases(v: &Value) -> Result<Vec<(TokenId, f32)>> {
    let Value::Object(map) = v else {
        return Err(wrong("logit_bias", v, "an object of token id to number"));
    };
    let entry = |(id, bias): (&String, &Value)| {
        let id = id.parse().map_err(|_| wrong("logit_bias", v, "token ids as keys"))?;
        Ok((id, number("logit_bias", bias)?))
    };
    map.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_clients_send() {
        let p = SamplingParams::from_json(&json!({
            "temperature": "0.5", "top_k": -1, "stop": "###", "max_new_tokens": 7, "top_p": null,
            "logit_bias": {"3": -1.5}, "regex": "", "stop_token_ids": [2, 5]
        }))
        .unwrap();
        assert_eq!((p.temperature, p.top_k, p.top_p), (0.5, 0, 1.0));
        assert_eq!(p.stop, ["###"]);
        assert_eq!(p.logit_bias, [(3, -1.5)]);
        assert_eq!(p.stop_token_ids, [2, 5]);
    }

    #[test]
    fn refuses_what_cannot_be_meant() {
        let read = |v| SamplingParams::from_json(&v).and_then(|p| p.validate(100).map(|()| p));
        for (bad, named) in [
            (json!({"temperature": -1}), "temperature"),
            (json!({"temperature": "hot"}), "temperature"),
            (json!({"temperature": 1e300}), "temperature"),
            (json!({"top_p": 0}), "top_p"),
            (json!({"top_k": 0}), "top_k"),
            (json!({"n": 0}), "n is 0"),
            (json!({"n": 1u64 << 31}), "n is"),
            (json!({"max_new_tokens": -1}), "max_new_tokens"),
            (json!({"min_new_tokens": 9, "max_new_tokens": 3}), "min_new_tokens"),
            (json!({"stop_token_ids": [100]}), "100"),
            (json!({"stop_token_ids": [-1]}), "stop_token_ids"),
            (json!({"stop_token_ids": [1u64 << 63]}), "stop_token_ids"),
            (json!({"logit_bias": {"100": 1}}), "logit_bias"),
            (json!({"logit_bias": {"x": 1}}), "logit_bias"),
            (json!({"stop": vec!["x"; 33]}), "stop"),
            (json!({"regex": 7}), "regex"),
            (json!({"regex": "a+", "ebnf": "root ::= \"a\""}), "exclude"),
            (json!({"regex": "(".repeat(60_000)}), "regex has 60000 bytes"),
            (json!({"regex": "(".repeat(9000)}), "nested"),
            (json!({"structural_tag": "{}"}), "structural_tag"),
            (json!({"tempreature": 1}), "tempreature"),
            (json!([]), "object"),
        ] {
            let error = read(bad.clone()).expect_err(&bad.to_string());
            assert!(error.message.contains(named), "{bad}: {error}");
        }
    }
}
