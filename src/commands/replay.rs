//! `pacer bench-one-batch --replay FILE`: a step that a server saved, run again.

use std::path::Path;

use super::bench_one_batch::BenchOneBatch;
use super::{load, out};
use crate::bench::one_batch::case::Effort;
use crate::bench::one_batch::replay::{self, Wanted};
use crate::engine::sizes;
use crate::error::{Error, Result};
use crate::measure::clock::RealClock;
use crate::measure::interrupt::Interrupt;
use crate::measure::json::JsonLines;
use crate::profile::step::StepFile;

/// Largest file of a step, bytes.
const LARGEST: u64 = 64 << 20;

/// Runs it and prints what it took beside what was recorded.
pub fn run(flags: &BenchOneBatch, name: &str) -> Result<()> {
    let other = [
        ("--correctness-test", flags.correctness_test),
        ("--profile", flags.profile),
        ("--prompt-filename", flags.prompt_filename.is_some()),
        ("--batch-size", !flags.batch_size.is_empty()),
        ("--input-len", !flags.input_len.is_empty()),
        ("--output-len", !flags.output_len.is_empty()),
    ];
    if let Some((flag, _)) = other.into_iter().find(|(_, given)| *given) {
        return Err(Error::usage(format!("{flag}: not together with --replay, which has its own")));
    }
    let file = read(Path::new(name))?;
    let model_flags = flags.model()?;
    model_flags.notes.iter().for_each(|n| out::note(format_args!("note: {n}")));
    let interrupt = Interrupt::on_signals()?;
    let model = load::model(&model_flags)?;
    let device = load::device(&model_flags)?;
    let wanted = Wanted {
        effort: Effort { warmup: flags.warmup, repeat: flags.repeat },
        seed: flags.seed,
        page_size: load::engine_options(&model_flags).page_size.unwrap_or(sizes::PAGE_SIZE),
    };
    let mut results = match flags.result_filename.as_str() {
        "" => None,
        name => Some(JsonLines::open(name)?),
    };
    let clock = RealClock::new();
    let again = replay::run(&model, device.as_ref(), &file, &wanted, (&clock, &interrupt))
        .map_err(|e| e.context(format!("--replay {name}")))?;
    let row = replay::row(name, &file, &again);
    if let Some(results) = &mut results {
        results.append(&row)?;
    }
    match flags.json {
        true => out::line(row),
        false => replay::text(&file, &again).iter().try_for_each(out::line),
    }
}

fn read(path: &Path) -> Result<StepFile> {
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?.len();
    if size > LARGEST {
        return Err(Error::file(path, format!("{size} bytes; a step has at most {LARGEST}")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    let value = serde_json::from_str(&text).map_err(|e| Error::file(path, e))?;
    StepFile::from_json(&value).map_err(|e| Error::file(path, e))
}
