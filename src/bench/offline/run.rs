//! The run itself, over a [`Subject`], so that figures are tested without a model.

use crate::bench::data::{Prompt, Row};
use crate::error::{Error, Result};
use crate::measure::clock::Clock;
use crate::measure::interrupt::Interrupt;
use crate::types::TokenId;

/// A prompt to continue.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub id: u64,
    pub prompt: Vec<TokenId>,
    pub max_new_tokens: usize,
}

/// What a request came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Done {
    pub id: u64,
    pub output_tokens: usize,
    pub cached_tokens: usize,
    /// It failed, for this reason.
    pub failed: Option<String>,
}

/// One step of the engine.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepSample {
    /// Rows of prompts, and rows that decode.
    pub prefill_tokens: usize,
    pub decode_tokens: usize,
    /// Sequences in the step.
    pub sequences: usize,
    /// Cached positions that the step's rows attend to, over all rows.
    pub kv_reads: u64,
    /// When it ended, nanoseconds after the start.
    pub end_ns: u64,
    /// How long it took.
    pub ns: u64,
}

/// What a step brought.
#[derive(Debug, Clone, Default)]
pub struct Stepped {
    pub sample: StepSample,
    /// `(request, new tokens)`.
    pub tokens: Vec<(u64, usize)>,
    pub done: Vec<Done>,
}

/// An engine that batches continuously.
pub trait Subject {
    /// Takes a request.
    fn submit(&mut self, request: &Request) -> Result<()>;

    /// Runs one step; `None` if there is nothing to run.
    fn step(&mut self) -> Result<Option<Stepped>>;

    /// Forgets requests and everything cached.
    fn reset(&mut self) -> Result<()>;

    /// Longest sequence, prompt and output together.
    fn context(&self) -> usize;
}

/// What happened to one request; nanoseconds after the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    pub prompt_tokens: usize,
    pub wanted: usize,
    pub output_tokens: usize,
    pub cached_tokens: usize,
    pub first_ns: Option<u64>,
    pub end_ns: Option<u64>,
    pub failed: Option<String>,
}

/// What a run recorded.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    pub requests: Vec<Outcome>,
    pub steps: Vec<StepSample>,
    pub wall_ns: u64,
    pub interrupted: bool,
}

/// Requests that wait in the engine at most: its queue is bounded.
const AHEAD: usize = 1024;

/// Checks that every row is ids and fits the context.
///
/// # Errors
/// `Limit`, naming the row.
pub fn check(rows: &[Row], context: usize) -> Result<()> {
    for (i, row) in rows.iter().enumerate() {
        let Prompt::Ids(ids) = &row.prompt else {
            return Err(Error::usage(format!("row {}: no token ids", i + 1)));
        };
        let all = ids.len().saturating_add(row.output_len);
        if all > context {
            return Err(Error::limit(format!(
                "row {}: {} prompt and {} output tokens exceed the context of {context}; shorter \
                 lengths or --sharegpt-context-len {context} would fit",
                i + 1,
                ids.len(),
                row.output_len
            )));
        }
    }
    Ok(())
}

/// Puts all `rows` through `subject`; `progress` hears how many have ended.
///
/// # Errors
/// What the subject reports. Requests that fail are in their outcomes.
pub fn run(
    subject: &mut dyn Subject,
    rows: &[Row],
    clock: &dyn Clock,
    interrupt: &Interrupt,
    progress: &mut dyn FnMut(usize),
) -> Result<Recorded> {
    let fresh = |r: &Row| Outcome {
        prompt_tokens: r.prompt_len,
        wanted: r.output_len,
        ..Outcome::default()
    };
    let mut out = Recorded { requests: rows.iter().map(fresh).collect(), ..Recorded::default() };
    let (mut next, mut ended) = (0, 0);
    let start = clock.now_ns();
    loop {
        while next < rows.len() && next - ended < AHEAD {
            let Prompt::Ids(prompt) = &rows[next].prompt else { break };
            let (prompt, max_new_tokens) = (prompt.clone(), rows[next].output_len);
            let request = Request { id: next as u64, prompt, max_new_tokens };
            if let Err(error) = subject.submit(&request) {
                out.requests[next].failed = Some(error.message);
                ended += 1;
            }
            next += 1;
        }
        let before = clock.now_ns();
        let Some(stepped) = subject.step()? else { break };
        let now = clock.now_ns();
        let sample = StepSample { end_ns: now - start, ns: now - before, ..stepped.sample };
        out.steps.push(sample);
        for (id, tokens) in &stepped.tokens {
            if let Some(request) = out.requests.get_mut(*id as usize) {
                request.output_tokens += tokens;
                request.first_ns.get_or_insert(now - start);
            }
        }
        for done in stepped.done {
            ended += 1;
            if let Some(request) = out.requests.get_mut(done.id as usize) {
                request.end_ns = Some(now - start);
                request.cached_tokens = done.cached_tokens;
                request.failed = done.failed;
            }
        }
        progress(ended);
        if interrupt.asked() {
            out.interrupted = true;
            break;
        }
    }
    out.wall_ns = clock.now_ns() - start;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::clock::FakeClock;
    use std::collections::VecDeque;

    /// Runs up to `batch` requests; a step takes 1 ms and 1 ms a row.
    struct Fake {
        pub clock: FakeClock,
        pub batch: usize,
        pub queue: VecDeque<(Request, usize)>,
        pub refuse: Option<u64>,
    }

    impl Fake {
        pub fn new(clock: &FakeClock, batch: usize) -> Self {
            Fake { clock: clock.clone(), batch, queue: VecDeque::new(), refuse: None }
        }
    }

    impl Subject for Fake {
        fn submit(&mut self, request: &Request) -> Result<()> {
            if self.refuse == Some(request.id) {
                return Err(Error::limit("planted"));
            }
            self.queue.push_back((request.clone(), 0));
            Ok(())
        }

        fn step(&mut self) -> Result<Option<Stepped>> {
            let mut out = Stepped::default();
            for (request, made) in self.queue.iter_mut().take(self.batch) {
                let rows = if *made == 0 { request.prompt.len() } else { 1 };
                match *made {
                    0 => out.sample.prefill_tokens += rows,
                    _ => out.sample.decode_tokens += rows,
                }
                out.sample.sequences += 1;
                out.sample.kv_reads += (request.prompt.len() + *made) as u64;
                *made += 1;
                out.tokens.push((request.id, 1));
                self.clock.advance(1_000_000 * rows as u64);
            }
            if out.tokens.is_empty() {
                return Ok(None);
            }
            self.clock.advance(1_000_000);
            let ended = |(r, made): &(Request, usize)| *made >= r.max_new_tokens;
            for (r, made) in self.queue.iter().filter(|q| ended(q)) {
                out.done.push(Done { id: r.id, output_tokens: *made, ..Done::default() });
            }
            self.queue.retain(|q| !ended(q));
            Ok(Some(out))
        }

        fn reset(&mut self) -> Result<()> {
            self.queue.clear();
            Ok(())
        }

        fn context(&self) -> usize {
            100
        }
    }

    fn rows(n: usize, input: usize, output: usize) -> Vec<Row> {
        (0..n).map(|_| Row::ids(vec![1; input], output)).collect()
    }

    #[test]
    fn known_times() {
        let clock = FakeClock::new();
        let mut fake = Fake::new(&clock, 2);
        let out = run(&mut fake, &rows(2, 3, 2), &clock, &Interrupt::never(), &mut |_| {}).unwrap();
        // Prefill of two prompts of three: 7 ms; one decode step of two: 3 ms.
        assert_eq!(out.wall_ns, 10_000_000);
        assert_eq!(out.steps.len(), 2);
        assert_eq!((out.steps[0].ns, out.steps[1].ns), (7_000_000, 3_000_000));
        assert_eq!((out.steps[0].prefill_tokens, out.steps[1].decode_tokens), (6, 2));
        let request = &out.requests[1];
        assert_eq!((request.first_ns, request.end_ns), (Some(7_000_000), Some(10_000_000)));
        assert_eq!(request.output_tokens, 2);
    }

    #[test]
    fn refusals_and_interruptions_are_kept() {
        let clock = FakeClock::new();
        let mut fake = Fake::new(&clock, 1);
        fake.refuse = Some(1);
        let interrupt = Interrupt::never();
        let asked = interrupt.clone();
        let mut stop = |ended: usize| {
            if ended >= 3 {
                asked.ask();
            }
        };
        let out = run(&mut fake, &rows(6, 2, 1), &clock, &interrupt, &mut stop).unwrap();
        assert!(out.interrupted);
        assert_eq!(out.requests[1].failed.as_deref(), Some("planted"));
        assert_eq!(out.requests.iter().filter(|r| r.end_ns.is_some()).count(), 2);
    }

    #[test]
    fn rows_must_fit() {
        assert!(check(&rows(2, 90, 10), 100).is_ok());
        let error = check(&rows(2, 91, 10), 100).unwrap_err();
        assert!(error.message.contains("row 1") && error.message.contains("100"), "{error}");
        assert!(check(&[Row::new(Prompt::Text("x".into()), 1, 1)], 9).is_err());
    }
}
