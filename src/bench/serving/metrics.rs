//! Figures out of records: SGLang's formulas under SGLang's names, and the corrected ones beside
//! them. Pure: seconds and counts in, no clock.

use super::overlap;
use crate::bench::load::record::Record;
use crate::measure::stats;

/// Mean, spread and percentiles of one latency, in milliseconds. `None` without samples.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spread {
    pub n: usize,
    pub mean: f64,
    pub median: f64,
    /// Population standard deviation, as numpy computes by default.
    pub std: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

/// What SGLang's and our reports say of a run. Times in seconds where the name has no unit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    pub sent: usize,
    pub completed: usize,
    /// From the start of the run to the end of the last request.
    pub duration: f64,
    /// Prompt tokens of successful requests: the server's count, else the data set's.
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub request_throughput: f64,
    pub input_throughput: f64,
    pub output_throughput: f64,
    pub total_throughput: f64,
    /// `Σ latency / duration`.
    pub concurrency: f64,
    /// Most requests in flight at one instant.
    pub peak_concurrency: usize,
    /// Most output tokens in any window of one second (of the whole run if it is shorter).
    pub peak_output_throughput: f64,
    pub ttft: Option<Spread>,
    pub tpot: Option<Spread>,
    pub itl: Option<Spread>,
    pub e2e: Option<Spread>,
    /// The same from the time a request should have been sent.
    pub ttft_from_schedule: Option<Spread>,
    pub e2e_from_schedule: Option<Spread>,
    /// From sending to the first token, though it had no text.
    pub ttft_first_token: Option<Spread>,
    /// Gap before a chunk, undivided: what a reader of the stream waits.
    pub chunk_gap: Option<Spread>,
    /// From its scheduled time to the moment it could be sent.
    pub client_queue: Option<Spread>,
    /// From that moment to its sending: the client's own lateness.
    pub lateness: Option<Spread>,
}

/// Nanoseconds to milliseconds.
fn ms(ns: u64) -> f64 {
    ns as f64 * 1e-6
}

/// `latency` from sending to the last event, milliseconds.
pub fn e2e_ms(r: &Record) -> f64 {
    ms(r.end.saturating_sub(r.sent))
}

/// From sending to the first text; `None` if none came.
pub fn ttft_ms(r: &Record) -> Option<f64> {
    r.first().map(|at| ms(at.saturating_sub(r.sent)))
}

/// `(latency − ttft) / (output tokens − 1)`; `None` for fewer than two tokens.
pub fn tpot_ms(r: &Record) -> Option<f64> {
    let tokens = r.output_tokens();
    let first = ttft_ms(r)?;
    (tokens > 1).then(|| (e2e_ms(r) - first) / (tokens - 1) as f64)
}

/// One entry for each token after the first chunk with text: a chunk of `n` tokens gives `n`
/// times its gap over `n`. Chunks without text, if others have some, are passed over.
pub fn itl_ms(r: &Record) -> Vec<f64> {
    let mut gaps = Vec::new();
    for (gap, tokens) in chunk_gaps(r) {
        gaps.extend((0..tokens).map(|_| gap / f64::from(tokens)));
    }
    gaps
}

/// `(gap before it in ms, tokens)` of every chunk after the first one that counts.
pub fn chunk_gaps(r: &Record) -> Vec<(f64, u32)> {
    let texts = r.chunks.iter().any(|c| c.text);
    let mut counted = r.chunks.iter().filter(|c| c.text || !texts);
    let Some(first) = counted.next() else { return Vec::new() };
    let mut last = first.at;
    counted
        .map(|c| {
            let gap = ms(c.at.saturating_sub(last));
            last = c.at;
            (gap, c.tokens)
        })
        .collect()
}

/// Mean, deviation and percentiles of `samples` (milliseconds).
pub fn spread(samples: &[f64]) -> Option<Spread> {
    let mut v: Vec<f64> = samples.iter().copied().filter(|x| x.is_finite()).collect();
    v.sort_by(f64::total_cmp);
    let mean = stats::mean(&v)?;
    let var = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64;
    let at = |q| stats::percentile_of_sorted(&v, q).unwrap_or(0.0);
    Some(Spread {
        n: v.len(),
        mean,
        median: at(50.0),
        std: var.sqrt(),
        p90: at(90.0),
        p95: at(95.0),
        p99: at(99.0),
        max: at(100.0),
    })
}

/// The prompt tokens of `r`, as the server counted, else as `lens` (by row) has them.
pub fn input_tokens(r: &Record, lens: &[usize]) -> u64 {
    r.prompt_tokens.unwrap_or_else(|| lens.get(r.index).map_or(0, |&n| n as u64))
}

/// All figures of a run that lasted `duration` seconds. `lens` are the prompt lengths of the data
/// set, by row; latencies are over successful requests.
pub fn metrics(records: &[Record], lens: &[usize], duration: f64) -> Metrics {
    let good: Vec<&Record> = records.iter().filter(|r| r.ok()).collect();
    let of = |f: &dyn Fn(&Record) -> f64| spread(&good.iter().map(|r| f(r)).collect::<Vec<_>>());
    let some = |f: &dyn Fn(&Record) -> Option<f64>| {
        spread(&good.iter().filter_map(|r| f(r)).collect::<Vec<_>>())
    };
    let input_tokens: u64 = good.iter().map(|r| input_tokens(r, lens)).sum();
    let output_tokens: u64 = good.iter().map(|r| r.output_tokens()).sum();
    let per_second = |n: f64| if duration > 0.0 { n / duration } else { 0.0 };
    let itl: Vec<f64> = good.iter().flat_map(|r| itl_ms(r)).collect();
    let gaps: Vec<f64> = good.iter().flat_map(|r| chunk_gaps(r)).map(|(gap, _)| gap).collect();
    Metrics {
        sent: records.len(),
        completed: good.len(),
        duration,
        input_tokens,
        output_tokens,
        request_throughput: per_second(good.len() as f64),
        input_throughput: per_second(input_tokens as f64),
        output_throughput: per_second(output_tokens as f64),
        total_throughput: per_second((input_tokens + output_tokens) as f64),
        concurrency: per_second(good.iter().map(|r| e2e_ms(r)).sum::<f64>() * 1e-3),
        peak_concurrency: overlap::peak_concurrency(records),
        peak_output_throughput: overlap::peak_tokens_per_second(&good, duration),
        ttft: some(&ttft_ms),
        tpot: some(&tpot_ms),
        itl: spread(&itl),
        e2e: of(&e2e_ms),
        ttft_from_schedule: some(&|r| r.first().map(|at| ms(at.saturating_sub(r.scheduled)))),
        e2e_from_schedule: of(&|r| ms(r.end.saturating_sub(r.scheduled))),
        ttft_first_token: some(&|r| r.first_token().map(|at| ms(at.saturating_sub(r.sent)))),
        chunk_gap: spread(&gaps),
        client_queue: spread_all(records, &|r| ms(r.ready.saturating_sub(r.scheduled))),
        lateness: spread_all(records, &lateness_ms),
    }
}

/// How much later than it could a request was sent.
pub fn lateness_ms(r: &Record) -> f64 {
    ms(r.sent.saturating_sub(r.ready))
}

fn spread_all(records: &[Record], f: &dyn Fn(&Record) -> f64) -> Option<Spread> {
    spread(&records.iter().map(f).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::record::{Chunk, Failure, Reason};

    const MS: u64 = 1_000_000;

    /// Sent at `sent` ms; chunks `(at ms, tokens, text)`; ended at `end` ms.
    fn record(sent: u64, chunks: &[(u64, u32, bool)], end: u64) -> Record {
        let chunk = |&(at, tokens, text): &(u64, u32, bool)| Chunk { at: at * MS, tokens, text };
        Record {
            scheduled: sent * MS,
            ready: sent * MS,
            sent: sent * MS,
            chunks: chunks.iter().map(chunk).collect(),
            end: end * MS,
            ..Record::default()
        }
    }

    #[test]
    fn one_token_at_a_time() {
        let r = record(10, &[(30, 1, true), (34, 1, true), (40, 1, true)], 41);
        assert_eq!((ttft_ms(&r), e2e_ms(&r)), (Some(20.0), 31.0));
        assert_eq!(tpot_ms(&r), Some(5.5));
        assert_eq!(itl_ms(&r), [4.0, 6.0]);
    }

    #[test]
    fn chunks_of_several_tokens_split_their_gap() {
        let r = record(0, &[(10, 2, true), (16, 3, true)], 16);
        assert_eq!(itl_ms(&r), [2.0, 2.0, 2.0]);
        assert_eq!(chunk_gaps(&r), [(6.0, 3)]);
        // (16 − 10) / (5 − 1)
        assert_eq!(tpot_ms(&r), Some(1.5));
    }

    #[test]
    fn the_servers_count_beats_the_chunks() {
        let mut r = record(0, &[(10, 1, true), (16, 1, true)], 18);
        r.completion_tokens = Some(5);
        assert_eq!(tpot_ms(&r), Some(2.0));
        assert_eq!(r.output_tokens(), 5);
    }

    #[test]
    fn tokens_without_text() {
        // Half a character first: the first text is the third chunk.
        let r = record(0, &[(10, 1, false), (12, 1, false), (15, 1, true), (18, 1, true)], 18);
        assert_eq!((ttft_ms(&r), r.first_token()), (Some(15.0), Some(10 * MS)));
        assert_eq!(itl_ms(&r), [3.0]);
        // A server without tokenizer: no text at all, so tokens count.
        let r = record(0, &[(10, 1, false), (12, 1, false)], 12);
        assert_eq!((ttft_ms(&r), itl_ms(&r)), (Some(10.0), vec![2.0]));
        assert_eq!(ttft_ms(&record(0, &[], 5)), None);
        assert_eq!(tpot_ms(&record(0, &[(3, 1, true)], 5)), None);
    }

    #[test]
    fn from_the_schedule() {
        let mut r = record(0, &[(130, 1, true)], 150);
        (r.scheduled, r.ready, r.sent) = (20 * MS, 90 * MS, 100 * MS);
        let m = metrics(&[r], &[7], 0.2);
        assert_eq!(m.ttft.unwrap().mean, 30.0);
        assert_eq!(m.ttft_from_schedule.unwrap().mean, 110.0);
        assert_eq!(m.e2e_from_schedule.unwrap().mean, 130.0);
        assert_eq!(m.client_queue.unwrap().mean, 70.0);
        assert_eq!(m.lateness.unwrap().mean, 10.0);
    }

    #[test]
    fn totals_are_over_successes_and_failures_are_left_out() {
        let mut a = record(0, &[(10, 1, true), (20, 1, true)], 20);
        a.prompt_tokens = Some(5);
        let b = Record { index: 1, ..record(0, &[(10, 1, true)], 40) };
        let mut c = record(0, &[(10, 1, true), (12, 1, true)], 12);
        c.failure = Some(Failure::new(Reason::ErrorEvent, "x"));
        let m = metrics(&[a, b, c], &[4, 3, 9], 0.5);
        assert_eq!((m.sent, m.completed, m.input_tokens, m.output_tokens), (3, 2, 8, 3));
        assert_eq!((m.request_throughput, m.output_throughput), (4.0, 6.0));
        assert_eq!((m.input_throughput, m.total_throughput), (16.0, 22.0));
        assert!((m.concurrency - 0.12).abs() < 1e-12, "{}", m.concurrency);
        assert_eq!(m.itl.unwrap().n, 1);
    }

    #[test]
    fn nothing_succeeded() {
        let mut r = record(0, &[], 10);
        r.failure = Some(Failure::new(Reason::Connect, "refused"));
        let m = metrics(&[r], &[4], 0.1);
        assert_eq!((m.completed, m.ttft, m.e2e, m.concurrency), (0, None, None, 0.0));
        assert_eq!(metrics(&[], &[], 0.0).request_throughput, 0.0);
    }

    #[test]
    fn spreads_as_numpy() {
        // numpy.std([1, 2, 3, 4]) = 1.118033988749895, percentile 90 = 3.7
        let s = spread(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((s.mean, s.median, s.max, s.n), (2.5, 2.5, 4.0, 4));
        assert!((s.std - 1.118033988749895).abs() < 1e-12 && (s.p90 - 3.7).abs() < 1e-12);
        assert!((s.p95 - 3.85).abs() < 1e-12 && (s.p99 - 3.97).abs() < 1e-12);
    }
}
