//! `--profile`: one more pass of a case with a capture around its prefill and around some of its
//! decode steps. No reported time includes it.

use serde_json::Value;

use super::OneBatch;
use super::case::Shape;
use super::sweep::Observer;
use crate::error::{Error, Kind, Result};
use crate::profile::control::Wanted;
use crate::profile::describe::Ceiling;
use crate::profile::profiler::{Answer, Options, Profiler, Source};
use crate::profile::request::{Activities, ProfileRequest};
use crate::types::TokenId;

/// What `--profile…` asks for.
#[derive(Debug, Clone)]
pub struct CaseProfile {
    pub prefill: bool,
    pub decode: bool,
    pub activities: Activities,
    pub shapes: bool,
    pub prefix: String,
    /// First decode step to record, from 0; half of the output by default.
    pub start_step: Option<usize>,
    pub steps: usize,
    pub ceiling: Option<Ceiling>,
    pub options: Options,
}

/// Records kept: several prefill chunks of a large model.
const RECORDS: usize = 1 << 18;

/// Runs the case once more and records it. Files are named as SGLang names them:
/// `{prefix}_batch{b}_input{i}_output{o}_{stage}.trace.json.gz`.
pub fn run(
    subject: &mut dyn OneBatch,
    shape: Shape,
    ids: &[Vec<TokenId>],
    wanted: &CaseProfile,
    observer: &mut dyn Observer,
) -> Result<()> {
    let profiler = Profiler::new(wanted.options.clone())?;
    if let Some(model) = subject.described() {
        profiler.describe(model, wanted.ceiling.clone());
    }
    let usual = subject.swap_recorder(profiler.recorder(Source::Engine, RECORDS));
    let outcome = record(subject, shape, ids, wanted, &profiler);
    // Also after a failure nothing is left recording.
    drop(profiler.stop_and_wait());
    drop(subject.swap_recorder(usual));
    for answer in outcome? {
        for file in answer["files"].as_array().into_iter().flatten() {
            observer.line(&format!("profile: {}", file.as_str().unwrap_or_default()))?;
        }
        let table = answer["table"].as_str().unwrap_or_default();
        table.trim_end().lines().try_for_each(|line| observer.line(line))?;
    }
    Ok(())
}

fn record(
    subject: &mut dyn OneBatch,
    shape: Shape,
    ids: &[Vec<TokenId>],
    wanted: &CaseProfile,
    profiler: &Profiler,
) -> Result<Vec<Value>> {
    let mut answers = Vec::new();
    subject.clear()?;
    if wanted.prefill {
        start(profiler, wanted, shape, "prefill", None)?;
        subject.prefill(ids)?;
        answers.push(well(profiler.stop_and_wait())?);
    } else {
        subject.prefill(ids)?;
    }
    let decode_steps = shape.output_len - 1;
    if !wanted.decode || decode_steps == 0 {
        return Ok(answers);
    }
    let (first, steps) = window(wanted, decode_steps);
    for step in 0..first + steps {
        if step == first {
            start(profiler, wanted, shape, "decode", Some(steps as u64))?;
        }
        subject.decode_step()?;
    }
    answers.push(well(profiler.stop_and_wait())?);
    Ok(answers)
}

/// The first decode step to record and how many, moved forward where the output is too short.
fn window(wanted: &CaseProfile, decode_steps: usize) -> (usize, usize) {
    let steps = wanted.steps.clamp(1, decode_steps);
    let half = decode_steps.div_ceil(2);
    let first = wanted.start_step.unwrap_or(half).min(decode_steps - steps);
    (first, steps)
}

fn start(
    profiler: &Profiler,
    wanted: &CaseProfile,
    shape: Shape,
    stage: &str,
    num_steps: Option<u64>,
) -> Result<()> {
    let Shape { batch_size, input_len, output_len } = shape;
    let case = format!("batch{batch_size}_input{input_len}_output{output_len}");
    let request = ProfileRequest {
        wanted: Wanted { num_steps, ..Wanted::default() },
        activities: wanted.activities,
        no_shapes: !wanted.shapes,
        stem: Some(format!("{}_{case}_{stage}", wanted.prefix)),
        ..ProfileRequest::default()
    };
    well(profiler.start(&request)).map(drop)
}

/// The body of an answer that is no failure. A window that has closed by itself is in `last`.
fn well(answer: Answer) -> Result<Value> {
    match answer.status {
        200 => Ok(answer.body),
        409 if answer.body["last"]["files"].is_array() => Ok(answer.body["last"].clone()),
        status => {
            let message = answer.body["error"]["message"].as_str().unwrap_or("no reason given");
            let kind = if status == 400 { Kind::Usage } else { Kind::Io };
            Err(Error::new(kind, format!("--profile: {message}")))
        }
    }
}
