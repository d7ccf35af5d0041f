//! The prompts of a batch, as token ids whatever they come from.

use std::path::Path;

use serde_json::Value;

use super::super::codec::TokenizerCodec;
use super::{BatchData, BenchOneBatchServer};
use crate::bench::data::files::Take;
use crate::bench::data::random::{self, Lengths};
use crate::bench::data::shared::{Distribution, Shape};
use crate::bench::data::spec::{self, Name, Spec};
use crate::bench::data::{Codec, Prompt, RangeRule};
use crate::bench::served::row::Case;
use crate::error::{Error, Result};

/// Makes prompts.
pub struct Prompts<'a> {
    flags: &'a BenchOneBatchServer,
    vocab: usize,
    codec: Option<TokenizerCodec>,
    /// The content of `--fixed-prompt-file`.
    fixed: Option<Vec<u32>>,
    /// Batches so far: each has prompts of its own, which no prefix cache knows.
    batches: u64,
}

impl<'a> Prompts<'a> {
    /// `info` and `about` are the server's `/server_info` and `/model_info`: they name a tokenizer.
    ///
    /// # Errors
    /// A data set without the tokenizer or file that it needs.
    pub fn new(
        flags: &'a BenchOneBatchServer,
        vocab: usize,
        info: &Value,
        about: &Value,
    ) -> Result<Self> {
        let text = flags.fixed_prompt_file.is_some()
            || matches!(flags.dataset_name, BatchData::Sharegpt | BatchData::Custom);
        let told = [&info["tokenizer_path"], &info["prefill"][0]["tokenizer_path"]];
        let told = told.into_iter().chain([&about["tokenizer_path"], &about["model_path"]]);
        let here = told.filter_map(Value::as_str).find(|p| !p.is_empty() && Path::new(p).exists());
        let path = flags.local_tokenizer_path.as_deref().or(here);
        let codec = match (text, path) {
            (false, _) => None,
            (true, Some(path)) => Some(TokenizerCodec::open(path)?),
            (true, None) => {
                let error = "--local-tokenizer-path: prompts of text need the model's tokenizer";
                return Err(Error::usage(error));
            }
        };
        let mut prompts = Prompts { flags, vocab, codec, fixed: None, batches: 0 };
        if let Some(path) = &flags.fixed_prompt_file {
            prompts.fixed = Some(prompts.fixed_prompt(path)?);
        }
        if !prompts.random() && (flags.input_len.len() > 1 || !flags.input_len_list.is_empty()) {
            let error = "--input-len: the data set has lengths of its own; give it once at most";
            return Err(Error::usage(error));
        }
        Ok(prompts)
    }

    /// Lengths are those of `--input-len`.
    fn random(&self) -> bool {
        let name = self.flags.dataset_name;
        self.fixed.is_none() && matches!(name, BatchData::Random | BatchData::RandomIds)
    }

    fn fixed_prompt(&self, path: &str) -> Result<Vec<u32>> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
        let Some(codec) = &self.codec else { return Ok(Vec::new()) };
        let text = if self.flags.apply_chat_template { codec.chat(&text)? } else { text };
        match codec.encode(&text)? {
            ids if ids.is_empty() => Err(Error::file(path, "it holds no tokens")),
            ids => Ok(ids),
        }
    }

    /// The prompts of the next batch of `case`.
    pub fn next(&mut self, case: Case) -> Result<Vec<Vec<u32>>> {
        self.batches += 1;
        if let Some(ids) = &self.fixed {
            return Ok(vec![ids.clone(); case.batch_size]);
        }
        match self.random() {
            true => self.of_lengths(&self.listed(case)),
            false => self.of_data_set(case),
        }
    }

    /// Lengths of the prompts of `case`, where they are known beforehand.
    pub fn known_lengths(&self, case: Case) -> Option<Vec<usize>> {
        self.random().then(|| self.listed(case))
    }

    fn listed(&self, case: Case) -> Vec<usize> {
        let list = &self.flags.input_len_list;
        let one = |i: usize| match list.is_empty() {
            true => case.input_len,
            false => list[i % list.len()],
        };
        (0..case.batch_size).map(one).collect()
    }

    fn seed(&self) -> u64 {
        self.flags.seed ^ (self.batches << 32)
    }

    fn of_lengths(&self, lengths: &[usize]) -> Result<Vec<Vec<u32>>> {
        let running = self.flags.dataset_name == BatchData::RandomIds;
        let mut prompts = Vec::new();
        for (i, &input) in lengths.iter().enumerate() {
            let lengths = Lengths { input, output: 1, ratio: 1.0, rule: RangeRule::Sglang };
            let rows = random::rows(lengths, 1, self.vocab, running, self.seed() ^ i as u64)?;
            prompts.extend(rows.into_iter().filter_map(|r| ids(r.prompt)));
        }
        Ok(prompts)
    }

    fn of_data_set(&self, case: Case) -> Result<Vec<Vec<u32>>> {
        let flags = self.flags;
        // As many groups as asked for, and no more than requests.
        let groups = flags.gsp_num_groups.min(case.batch_size);
        let spec = Spec {
            name: match flags.dataset_name {
                BatchData::Sharegpt => Name::ShareGpt,
                BatchData::Custom => Name::Custom,
                _ => Name::SharedPrefix,
            },
            path: flags.dataset_path.clone(),
            lengths: Lengths { input: 1, output: 1, ratio: 1.0, rule: RangeRule::Sglang },
            take: Take {
                num_prompts: case.batch_size,
                output_len: Some(case.output_len.max(2)),
                seed: self.seed(),
                chat: flags.apply_chat_template,
                as_ids: true,
                ..Take::default()
            },
            shape: Shape {
                groups,
                prompts_per_group: case.batch_size.div_ceil(groups),
                turns: 1,
                system: flags.gsp_system_prompt_len,
                question: flags.gsp_question_len,
                output: flags.gsp_output_len,
                ratio: 1.0,
                distribution: Distribution::Uniform,
                ordered: true,
            },
            slowdown: 1.0,
            rounds: 1,
            vocab: self.vocab,
            ids: true,
        };
        let rows = spec::make(&spec, self.codec.as_ref().map(|c| c as &dyn Codec))?;
        let found: Vec<Vec<u32>> = rows.into_iter().filter_map(|r| ids(r.prompt)).collect();
        if found.is_empty() {
            return Err(Error::file(&flags.dataset_path, "no prompt in it became token ids"));
        }
        // A file with fewer prompts than the batch gives them again.
        Ok(found.iter().cycle().take(case.batch_size).cloned().collect())
    }
}

fn ids(prompt: Prompt) -> Option<Vec<u32>> {
    match prompt {
        Prompt::Ids(ids) => Some(ids),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::args::{Parsed, parse};

    fn flags(text: &str) -> BenchOneBatchServer {
        let words: Vec<String> = text.split_whitespace().map(str::to_string).collect();
        match parse("bench-one-batch-server", &words) {
            Ok(Parsed::Args(flags)) => flags,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn lens(text: &str, case: Case) -> Vec<usize> {
        let flags = flags(text);
        let mut prompts = Prompts::new(&flags, 50, &Value::Null, &Value::Null).unwrap();
        let (a, b) = (prompts.next(case).unwrap(), prompts.next(case).unwrap());
        assert!(a.iter().flatten().all(|id| *id < 50));
        assert_ne!(a, b, "each batch has prompts of its own");
        a.iter().map(Vec::len).collect()
    }

    #[test]
    fn lengths_of_each_data_set() {
        let case = Case { batch_size: 3, input_len: 7, output_len: 4 };
        assert_eq!(lens("", case), [7, 7, 7]);
        assert_eq!(lens("--dataset-name random-ids", case), [7, 7, 7]);
        assert_eq!(lens("--input-len-list 2,5", case), [2, 5, 2]);
        let shared = "--dataset-name generated-shared-prefix --gsp-num-groups 2 \
                      --gsp-system-prompt-len 6 --gsp-question-len 3";
        assert_eq!(lens(shared, case), [9, 9, 9]);
    }

    #[test]
    fn what_is_missing_is_said() {
        for text in ["--dataset-name sharegpt", "--fixed-prompt-file /no/file"] {
            let flags = flags(text);
            let Err(error) = Prompts::new(&flags, 50, &Value::Null, &Value::Null) else {
                panic!("{text} was accepted");
            };
            assert!(error.message.contains("--local-tokenizer-path"), "{error}");
        }
    }
}
