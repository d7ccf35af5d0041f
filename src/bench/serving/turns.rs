//! Conversations: the prompt of a later turn is everything that was said before it, the server's
//! answers included, and what the user says then.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::body;
use super::run::Plan;
use crate::bench::data::{Prompt, Row, files};
use crate::bench::load::client::{Follow, Job};
use crate::bench::load::protocol::Api;
use crate::bench::load::record::{Failure, Reason, Record};

/// Makes the later turns of a plan's rows.
pub struct Conversations<'a> {
    plan: &'a Plan,
    /// Whole prompts of later turns in flight, by row.
    said: Mutex<BTreeMap<usize, Prompt>>,
}

impl<'a> Conversations<'a> {
    /// `None` if no row follows another.
    pub fn of(plan: &'a Plan) -> Option<Self> {
        let any = plan.rows.iter().any(|r| r.follows);
        any.then(|| Conversations { plan, said: Mutex::new(BTreeMap::new()) })
    }

    fn job(&self, record: &Record, row: &Row) -> Result<Job, Failure> {
        let (plan, index) = (self.plan, record.index + 1);
        let lock = || self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let first = || plan.rows.get(record.index).map(|r| r.prompt.clone());
        let before = lock().remove(&record.index).or_else(first);
        let before = before.ok_or_else(|| malformed("a row that is not there"))?;
        let prompt = joined(plan.common.api, before, record, &row.prompt)?;
        let whole = Row { prompt: prompt.clone(), ..row.clone() };
        let body = body::body(&plan.common, &whole).map_err(|e| malformed(&e.message))?;
        lock().insert(index, prompt);
        let bytes = super::run::request(plan, row, &body);
        Ok(Job { index, scheduled: None, bytes, rest: self.behind(index).len() })
    }
}

impl Follow for Conversations<'_> {
    fn next(&self, record: &Record) -> Option<Result<Job, Failure>> {
        let row = self.plan.rows.get(record.index + 1).filter(|r| r.follows);
        let Some(row) = row else {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            said.remove(&record.index);
            return None;
        };
        Some(self.job(record, row))
    }

    fn behind(&self, index: usize) -> Range<usize> {
        behind(&self.plan.rows, index)
    }
}

/// The rows behind `index` that belong to its conversation.
pub fn behind(rows: &[Row], index: usize) -> Range<usize> {
    let later = rows.get(index + 1..).unwrap_or_default();
    index + 1..index + 1 + later.iter().take_while(|r| r.follows).count()
}

fn malformed(what: &str) -> Failure {
    Failure::new(Reason::Malformed, what)
}

/// What was said, the answer in `record`, what the user says next.
fn joined(api: Api, said: Prompt, record: &Record, next: &Prompt) -> Result<Prompt, Failure> {
    match (said, next) {
        (Prompt::Ids(mut ids), Prompt::Ids(next)) => {
            if record.output_ids.len() as u64 != record.output_tokens() {
                return Err(malformed("the answer does not hold its token ids"));
            }
            ids.extend_from_slice(&record.output_ids);
            ids.extend_from_slice(next);
            Ok(Prompt::Ids(ids))
        }
        (Prompt::Text(said), next) if api == Api::Chat => {
            joined(api, Prompt::Messages(files::as_message(&said)), record, next)
        }
        (Prompt::Messages(mut messages), Prompt::Text(next)) => {
            if let Value::Array(list) = &mut messages {
                list.push(json!({ "role": "assistant", "content": record.text }));
                list.push(json!({ "role": "user", "content": next }));
            }
            Ok(Prompt::Messages(messages))
        }
        (Prompt::Text(said), Prompt::Text(next)) => {
            Ok(Prompt::Text(format!("{said}{}\n\n{next}", record.text)))
        }
        _ => Err(malformed("turns of different kinds")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(ids: &[u32], text: &str) -> Record {
        let completion_tokens = Some(2);
        Record {
            output_ids: ids.to_vec(),
            text: text.into(),
            completion_tokens,
            ..Record::default()
        }
    }

    #[test]
    fn answers_become_part_of_the_prompt() {
        let ids = |ids: &[u32]| Prompt::Ids(ids.to_vec());
        let text = |t: &str| Prompt::Text(t.into());
        let joined = |api, said, record: &Record, next| joined(api, said, record, &next);
        let got = joined(Api::Generate, ids(&[1]), &record(&[7, 8], ""), ids(&[2, 3]));
        assert_eq!(got, Ok(ids(&[1, 7, 8, 2, 3])));
        let got = joined(Api::Generate, ids(&[1]), &record(&[7], ""), ids(&[2]));
        assert_eq!(got.unwrap_err().reason, Reason::Malformed, "a token is missing");
        let got = joined(Api::Completions, text("a"), &record(&[], "b"), text("c"));
        assert_eq!(got, Ok(text("ab\n\nc")));
        let said = joined(Api::Chat, text("a"), &record(&[], "b"), text("c")).unwrap();
        let said = joined(Api::Chat, said, &record(&[], "d"), text("e")).unwrap();
        let Prompt::Messages(Value::Array(list)) = said else { panic!("messages") };
        let said: Vec<(&str, &str)> = list
            .iter()
            .map(|m| (m["role"].as_str().unwrap(), m["content"].as_str().unwrap()))
            .collect();
        let (user, assistant) = ("user", "assistant");
        assert_eq!(
            said,
            [(user, "a"), (assistant, "b"), (user, "c"), (assistant, "d"), (user, "e")]
        );
    }

    #[test]
    fn conversations_end_where_the_next_begins() {
        let mut rows = vec![Row::ids(vec![1], 1); 5];
        (rows[1].follows, rows[2].follows, rows[4].follows) = (true, true, true);
        let behind: Vec<usize> = (0..5).map(|i| behind(&rows, i).len()).collect();
        assert_eq!(behind, [2, 1, 0, 1, 0]);
    }
}
