//! Timed traces in Mooncake's format (Qin et al., "Mooncake", 2024): one JSON object a line with
//! `timestamp` (ms), `hash_ids` (equal ids, equal blocks of the prompt), `input_length`,
//! `output_length`.

use serde_json::Value;

use super::{Prompt, Row};
use crate::error::{Error, Result};
use crate::measure::rng;
use crate::types::TokenId;

/// Tokens that one hash id of the published traces stands for.
pub const BLOCK: usize = 512;

/// Tokens of the question that a further round adds.
const QUESTION: usize = 32;

/// Rows of the trace `text` (from `path`, for errors), at most `most`. Prompts are ids below
/// `vocab`: each hash id gives the same block of tokens wherever it stands.
pub fn rows(text: &str, path: &str, most: usize, slowdown: f64, vocab: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut first = None;
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    for (number, line) in lines.take(most) {
        let at = |what: &str| Error::file(path, format!("line {}: {what}", number + 1));
        let row: Value = serde_json::from_str(line).map_err(|e| at(&e.to_string()))?;
        let field = |name: &str| row.get(name).and_then(Value::as_f64);
        let time = field("timestamp").ok_or_else(|| at("no number `timestamp`"))?;
        let output = field("output_length").ok_or_else(|| at("no number `output_length`"))?;
        let hashes = row.get("hash_ids").and_then(Value::as_array);
        let hashes = hashes.ok_or_else(|| at("no list `hash_ids`"))?;
        let whole = hashes.len() * BLOCK;
        let length = field("input_length").map_or(whole, |n| n.max(1.0) as usize);
        let mut ids = Vec::with_capacity(length);
        for hash in hashes {
            let hash = hash.as_u64().ok_or_else(|| at("a hash id that is no whole number"))?;
            block(hash, BLOCK.min(length - ids.len().min(length)), vocab, &mut ids);
        }
        // A prompt beyond its hashed blocks is this request's own.
        let missing = length.saturating_sub(ids.len());
        block(!(number as u64), missing, vocab, &mut ids);
        ids.truncate(length);
        let since = time - *first.get_or_insert(time);
        let mut made = Row::ids(ids, output.max(1.0) as usize);
        made.at = Some((since / 1000.0 * slowdown).max(0.0));
        rows.push(made);
    }
    if rows.is_empty() {
        return Err(super::none_left(path, "it has no lines"));
    }
    rows.sort_by(|a, b| a.at.unwrap_or(0.0).total_cmp(&b.at.unwrap_or(0.0)));
    Ok(rows)
}

/// Each row and, at the same time, `rounds - 1` more: the prompt of the one before, an answer of
/// the row's output length that nobody gave, and a question.
pub fn with_rounds(rows: Vec<Row>, rounds: usize, vocab: usize) -> Vec<Row> {
    let mut all = Vec::with_capacity(rows.len() * rounds.max(1));
    for (number, row) in rows.into_iter().enumerate() {
        let Prompt::Ids(mut ids) = row.prompt.clone() else { continue };
        for round in 1..rounds as u64 {
            let before =
                Row { prompt: Prompt::Ids(ids.clone()), prompt_len: ids.len(), ..row.clone() };
            all.push(before);
            let seed = !(((number as u64) << 16) | round) ^ 0x0A05_3E25;
            block(seed, row.output_len + QUESTION, vocab, &mut ids);
        }
        all.push(Row { prompt_len: ids.len(), prompt: Prompt::Ids(ids), ..row });
    }
    all
}

fn block(hash: u64, tokens: usize, vocab: usize, ids: &mut Vec<TokenId>) {
    ids.extend((0..tokens as u64).map(|i| rng::below(hash, i, vocab.max(1) as u64) as TokenId));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_times_and_lengths() {
        let text = "{\"timestamp\": 3000, \"hash_ids\": [7, 8], \"input_length\": 700, \"output_length\": 5}\n\
                    \n{\"timestamp\": 4500, \"hash_ids\": [7, 9], \"input_length\": 1100, \"output_length\": 1}\n";
        let rows = rows(text, "t", 10, 2.0, 1000).unwrap();
        let ids = |r: &Row| match &r.prompt {
            Prompt::Ids(ids) => ids.clone(),
            _ => Vec::new(),
        };
        let (a, b) = (ids(&rows[0]), ids(&rows[1]));
        assert_eq!((a.len(), b.len(), rows[0].prompt_len), (700, 1100, 700));
        assert_eq!(a[..512], b[..512]);
        assert_ne!(a[512..700], b[512..700]);
        assert_eq!((rows[0].at, rows[1].at), (Some(0.0), Some(3.0)));
        assert_eq!((rows[0].output_len, rows[1].output_len), (5, 1));
    }

    #[test]
    fn rounds_grow_and_come_together() {
        let text =
            "{\"timestamp\": 0, \"hash_ids\": [7], \"input_length\": 20, \"output_length\": 5}\n";
        let one = rows(text, "t", 10, 1.0, 1000).unwrap();
        assert_eq!(with_rounds(one.clone(), 1, 1000), one);
        let three = with_rounds(one, 3, 1000);
        let ids = |r: &Row| match &r.prompt {
            Prompt::Ids(ids) => ids.clone(),
            _ => Vec::new(),
        };
        let lens: Vec<usize> = three.iter().map(|r| r.prompt_len).collect();
        assert_eq!(lens, [20, 57, 94]);
        for pair in three.windows(2) {
            assert!(ids(&pair[1]).starts_with(&ids(&pair[0])));
            assert_eq!((pair[0].at, pair[0].output_len), (pair[1].at, pair[1].output_len));
        }
    }

    #[test]
    fn damage_names_its_line() {
        for bad in
            ["{", "{\"timestamp\":1}", "{\"timestamp\":1,\"output_length\":1,\"hash_ids\":[\"x\"]}"]
        {
            let error = rows(bad, "trace.jsonl", 9, 1.0, 9).unwrap_err();
            assert!(error.message.contains("trace.jsonl: line 1"), "{error}");
        }
        assert!(rows("\n", "t", 9, 1.0, 9).is_err());
    }
}
