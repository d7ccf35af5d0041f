//! What happened at the same time: peak concurrency, peak throughput, steady state and series over
//! time, from a sweep over events instead of one-second buckets, which count requests twice and
//! miss short peaks. Pure.

use crate::bench::load::record::Record;
use crate::measure::stats;

/// `(time, +1 or −1)` for every request, ends before beginnings at the same instant.
fn edges(records: &[Record]) -> Vec<(u64, i32)> {
    let mut edges: Vec<(u64, i32)> =
        records.iter().flat_map(|r| [(r.sent, 1), (r.end.max(r.sent), -1)]).collect();
    edges.sort_unstable();
    edges
}

/// Most requests in flight at one instant.
pub fn peak_concurrency(records: &[Record]) -> usize {
    let (mut now, mut peak) = (0i64, 0i64);
    for (_, step) in edges(records) {
        now += i64::from(step);
        peak = peak.max(now);
    }
    usize::try_from(peak).unwrap_or(0)
}

/// `(time, tokens)` of every chunk, in order.
fn arrivals(records: &[&Record]) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = records
        .iter()
        .flat_map(|r| {
            // Where usage says more than the chunks did, the rest is spread over them.
            let (counted, seen) = (r.output_tokens(), r.streamed_tokens().max(1));
            let mut given = 0;
            let mut passed = 0;
            r.chunks.iter().map(move |c| {
                passed += u64::from(c.tokens);
                let due = counted * passed / seen;
                let tokens = due - given;
                given = due;
                (c.at, tokens)
            })
        })
        .collect();
    all.sort_unstable();
    all
}

/// Most output tokens a second in any window `(t − 1 s, t]`; for runs under a second, of the run.
pub fn peak_tokens_per_second(records: &[&Record], duration: f64) -> f64 {
    let all = arrivals(records);
    let total: u64 = all.iter().map(|(_, n)| n).sum();
    if duration < 1.0 {
        return if duration > 0.0 { total as f64 / duration } else { 0.0 };
    }
    let (mut from, mut inside, mut peak) = (0, 0, 0);
    for &(at, tokens) in &all {
        inside += tokens;
        while all[from].0 + 1_000_000_000 <= at {
            inside -= all[from].1;
            from += 1;
        }
        peak = peak.max(inside);
    }
    peak as f64
}

/// The longest stretch with as many requests in flight as the run had nearly everywhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steady {
    /// Seconds after the start.
    pub from: f64,
    pub to: f64,
    /// Requests in flight were never fewer.
    pub at_least: usize,
    /// Output tokens a second, and requests ended a second, inside it.
    pub output_throughput: f64,
    pub request_throughput: f64,
}

/// The longest interval with at least `⌈ratio · peak⌉` requests in flight.
pub fn steady(records: &[Record], ratio: f64) -> Option<Steady> {
    let least = (peak_concurrency(records) as f64 * ratio).ceil() as i64;
    if least < 1 {
        return None;
    }
    let (mut now, mut since, mut best) = (0i64, 0u64, (0u64, 0u64));
    let mut edges = edges(records).into_iter().peekable();
    while let Some((at, step)) = edges.next() {
        let before = now;
        now += i64::from(step);
        // A place that is taken again at once was never free: look past edges close together.
        while let Some((_, more)) = edges.next_if(|(next, _)| next - at < 1_000_000) {
            now += i64::from(more);
        }
        if before < least && now >= least {
            since = at;
        }
        if before >= least && now < least && at - since > best.1 - best.0 {
            best = (since, at);
        }
    }
    let (from, to) = best;
    let seconds = (to.checked_sub(from).filter(|n| *n > 0)?) as f64 * 1e-9;
    let good: Vec<&Record> = records.iter().filter(|r| r.ok()).collect();
    let inside = |at: u64| at > from && at <= to;
    let tokens: u64 = arrivals(&good).iter().filter(|(at, _)| inside(*at)).map(|(_, n)| n).sum();
    Some(Steady {
        from: from as f64 * 1e-9,
        to: to as f64 * 1e-9,
        at_least: usize::try_from(least).unwrap_or(0),
        output_throughput: tokens as f64 / seconds,
        request_throughput: good.iter().filter(|r| inside(r.end)).count() as f64 / seconds,
    })
}

/// By how much an open loop's server falls short of the arrivals: of the requests that should have
/// ended by the last arrival, had latency stayed what it was in the first third, the share that
/// had not. Near 0 for a server that keeps up; for one of half the needed speed about 0.4. `None`
/// if all arrived at once or the run is too short to tell.
pub fn shortfall(records: &[Record]) -> Option<f64> {
    let mut by_arrival: Vec<&Record> = records.iter().collect();
    by_arrival.sort_by_key(|r| r.scheduled);
    let last = by_arrival.last().map(|r| r.scheduled).filter(|t| *t > 0)?;
    let third = &by_arrival[..by_arrival.len().div_ceil(3)];
    let latency = |r: &&Record| r.end.saturating_sub(r.scheduled) as f64;
    let early = stats::median(&third.iter().map(latency).collect::<Vec<_>>())?;
    let window = last as f64 - early;
    if window < early || records.len() < 20 {
        return None;
    }
    let expected = records.len() as f64 * window / last as f64;
    let ended = records.iter().filter(|r| r.end <= last).count() as f64;
    Some((1.0 - ended / expected).max(0.0))
}

/// A run cut into equal stretches.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// Length of a stretch, seconds.
    pub step: f64,
    /// Output tokens a second in each.
    pub output_throughput: Vec<f64>,
    /// Mean requests in flight in each.
    pub concurrency: Vec<f64>,
}

/// At most `points` stretches over `duration` seconds.
pub fn series(records: &[Record], duration: f64, points: usize) -> Series {
    let total = (duration * 1e9) as u64;
    if total == 0 || points == 0 {
        return Series::default();
    }
    let step = total.div_ceil(points as u64).max(1);
    let n = total.div_ceil(step) as usize;
    let (mut tokens, mut busy) = (vec![0u64; n], vec![0u64; n]);
    let good: Vec<&Record> = records.iter().filter(|r| r.ok()).collect();
    for (at, count) in arrivals(&good) {
        let place = ((at / step) as usize).min(n - 1);
        tokens[place] += count;
    }
    for r in records {
        for (i, sum) in busy.iter_mut().enumerate() {
            let (from, to) = (i as u64 * step, (i as u64 + 1) * step);
            *sum += r.end.min(to).saturating_sub(r.sent.max(from));
        }
    }
    let step_s = step as f64 * 1e-9;
    Series {
        step: step_s,
        output_throughput: tokens.iter().map(|&t| t as f64 / step_s).collect(),
        concurrency: busy.iter().map(|&b| b as f64 / step as f64).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::record::Chunk;

    const MS: u64 = 1_000_000;

    fn record(sent: u64, end: u64, chunks: &[(u64, u32)]) -> Record {
        Record {
            sent: sent * MS,
            end: end * MS,
            chunks: chunks
                .iter()
                .map(|&(at, tokens)| Chunk { at: at * MS, tokens, text: true })
                .collect(),
            ..Record::default()
        }
    }

    #[test]
    fn back_to_back_requests_are_never_two() {
        let one_by_one: Vec<Record> =
            (0..50).map(|i| record(i * 100, (i + 1) * 100, &[])).collect();
        assert_eq!(peak_concurrency(&one_by_one), 1);
        assert_eq!(peak_concurrency(&[record(0, 10, &[]), record(9, 20, &[])]), 2);
        assert_eq!(peak_concurrency(&[]), 0);
    }

    #[test]
    fn the_peak_is_never_below_the_mean() {
        // 96 tokens in 0.17 s, which one-second buckets call 96 a second.
        let r = record(0, 170, &[(100, 48), (170, 48)]);
        let peak = peak_tokens_per_second(&[&r], 0.17);
        assert!((peak - 96.0 / 0.17).abs() < 1e-9);
        // The best second straddles two whole ones.
        let r = record(0, 3000, &[(700, 10), (1200, 30), (1600, 20), (2900, 5)]);
        assert_eq!(peak_tokens_per_second(&[&r], 3.0), 60.0);
        // Exactly a second apart is not the same second.
        let r = record(0, 3000, &[(1000, 7), (2000, 9)]);
        assert_eq!(peak_tokens_per_second(&[&r], 3.0), 9.0);
    }

    #[test]
    fn usage_above_the_chunks_is_spread() {
        let mut r = record(0, 30, &[(10, 1), (20, 1)]);
        r.completion_tokens = Some(7);
        assert_eq!(arrivals(&[&r]), [(10 * MS, 3), (20 * MS, 4)]);
    }

    #[test]
    fn steady_state() {
        // Two at a time from 100 to 900 ms, handed over without a gap; ramp on both sides.
        let records = [
            record(0, 500, &[(450, 10)]),
            record(100, 600, &[(300, 10)]),
            record(500, 900, &[(850, 10)]),
            record(600, 1000, &[(950, 10)]),
        ];
        let s = steady(&records, 0.95).unwrap();
        assert_eq!((s.from, s.to, s.at_least), (0.1, 0.9, 2));
        assert!((s.output_throughput - 30.0 / 0.8).abs() < 1e-9, "{s:?}");
        assert!((s.request_throughput - 3.0 / 0.8).abs() < 1e-9);
        assert_eq!(steady(&[], 0.95), None);
    }

    #[test]
    fn a_server_that_falls_behind() {
        // Requests every 10 ms; each ends `behind` times its arrival after a latency of 50 ms.
        let run = |behind: f64| -> Vec<Record> {
            let end = |at: u64| (at as f64 * behind) as u64 + 50;
            (0..300)
                .map(|i| record(i * 10, end(i * 10), &[]))
                .map(|r| Record { scheduled: r.sent, ..r })
                .collect()
        };
        assert!(shortfall(&run(1.0)).unwrap() < 0.01);
        assert!(shortfall(&run(1.05)).unwrap() < 0.1);
        let half = shortfall(&run(2.0)).unwrap();
        assert!((0.35..0.45).contains(&half), "{half}");
        assert_eq!(shortfall(&run(1.0)[..10]), None);
        assert_eq!(shortfall(&vec![record(0, 9, &[]); 50]), None);
    }

    #[test]
    fn series_add_up() {
        let s = series(&[record(0, 500, &[(100, 4), (499, 6)])], 1.0, 4);
        assert_eq!(s.step, 0.25);
        assert_eq!(s.output_throughput, [16.0, 24.0, 0.0, 0.0]);
        assert_eq!(s.concurrency, [1.0, 1.0, 0.0, 0.0]);
    }
}
