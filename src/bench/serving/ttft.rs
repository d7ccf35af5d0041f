//! The time to the first token, taken apart: from the client's send to the client's read, by the
//! stamps of a server that tells them (`pacer serve`). Pure.
//!
//! Client and server stamp with the same clock if they run on the same boot of the same machine.
//! Then the parts follow each other without a gap, and what cannot be given to one part, because
//! a stamp between two others is missing or out of order, is the residual: parts and residual sum
//! to the time to the first token exactly. On two machines only the server's parts are known, and
//! the residual is the network and the client.

use serde_json::{Value, json};

use super::text::{entry, rule};
use crate::bench::load::record::Record;
use crate::measure::json::number;
use crate::measure::stats;

/// The server's stamp at the end of each part, and what the part is called.
const PARTS: [(&str, &str); COUNT - 1] = [
    ("accepted", "connect and accept"),
    ("first_byte", "send"),
    ("received", "receive"),
    ("worker", "wait for a worker"),
    ("parsed", "parse"),
    ("tokenised", "tokenise"),
    ("submitted", "hand to the engine"),
    ("begun", "wait for a step"),
    ("computed", "prefill steps"),
    ("sampled", "sample"),
    ("detokenised", "detokenise"),
    ("taken", "hand to the event loop"),
    ("formatted", "make the event"),
    (WRITTEN, "write to the socket"),
];
const WRITTEN: &str = "written";
/// The last part ends with the client's own stamp.
const LAST: &str = "client reads";
const COUNT: usize = 15;
/// A request that finds its connection open has no such stamp.
const OPTIONAL: &str = "accepted";

/// One request's way to its first token, nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    pub ttft: u64,
    /// In the order of [`names`].
    pub parts: [u64; COUNT],
    pub residual: u64,
    /// Client and server stamp with one clock.
    pub one_clock: bool,
    pub prefill_steps: u64,
}

/// What the parts are called, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    PARTS.iter().map(|p| p.1).chain([LAST])
}

/// Takes one request apart; `None` if its server told no stamps, or its first token had no text, so
/// that the client's time is of a later one. `boot` names this machine's clock.
pub fn way(record: &Record, boot: &str) -> Option<Way> {
    let timing = record.timing.as_ref().filter(|_| record.ok())?;
    let first = record.first().filter(|at| Some(*at) == record.first_token())?;
    let ttft = first.saturating_sub(record.sent);
    let stamp = |name: &str| timing.stamps_ns.get(name).copied().filter(|at| *at > 0);
    let one_clock = !boot.is_empty() && timing.boot == boot;
    // On another clock the server's own parts stand alone.
    let (start, end) = match one_clock {
        true => (record.origin_ns + record.sent, record.origin_ns + first),
        false => (stamp("first_byte")?, stamp(WRITTEN).or(stamp("formatted"))?),
    };
    let (mut parts, mut last, mut whole) = ([0; COUNT], start, true);
    for (part, (name, _)) in parts.iter_mut().zip(PARTS) {
        // Only the return from the last write may be later than the client's read.
        let at = stamp(name).map(|at| if name == WRITTEN { at.min(end) } else { at });
        match at.filter(|at| (last..=end).contains(at)) {
            Some(at) => {
                *part = if whole { at - last } else { 0 };
                (last, whole) = (at, true);
            }
            None => whole &= name == OPTIONAL,
        }
    }
    if one_clock && whole {
        parts[COUNT - 1] = end.saturating_sub(last);
    }
    let explained = parts.iter().sum::<u64>().min(ttft);
    let (residual, prefill_steps) = (ttft - explained, timing.prefill_steps);
    Some(Way { ttft, parts, residual, one_clock, prefill_steps })
}

/// All requests together.
#[derive(Debug, Clone, PartialEq)]
pub struct Decomposition {
    pub requests: usize,
    pub one_clock: bool,
    /// Seconds.
    pub mean_ttft: f64,
    /// Name, mean and 99th percentile, seconds.
    pub parts: Vec<(&'static str, f64, f64)>,
    pub mean_residual: f64,
    /// The largest share of the residual in one request.
    pub worst_residual_share: f64,
    pub mean_prefill_steps: f64,
}

/// `None` if no request can be taken apart.
pub fn decompose(records: &[Record], boot: &str) -> Option<Decomposition> {
    let ways: Vec<Way> = records.iter().filter_map(|r| way(r, boot)).collect();
    let count = ways.len().max(1) as f64;
    let mean = |f: &dyn Fn(&Way) -> f64| ways.iter().map(f).sum::<f64>() / count;
    let part = |(i, name)| {
        let each: Vec<f64> = ways.iter().map(|w| w.parts[i] as f64 * 1e-9).collect();
        (name, mean(&|w| w.parts[i] as f64 * 1e-9), stats::percentile(&each, 99.0).unwrap_or(0.0))
    };
    let share = |w: &Way| w.residual as f64 / w.ttft.max(1) as f64;
    (!ways.is_empty()).then(|| Decomposition {
        requests: ways.len(),
        one_clock: ways.iter().all(|w| w.one_clock),
        mean_ttft: mean(&|w| w.ttft as f64 * 1e-9),
        parts: names().enumerate().map(part).collect(),
        mean_residual: mean(&|w| w.residual as f64 * 1e-9),
        worst_residual_share: ways.iter().map(share).fold(0.0, f64::max),
        mean_prefill_steps: mean(&|w| w.prefill_steps as f64),
    })
}

impl Decomposition {
    fn share(&self, seconds: f64) -> f64 {
        if self.mean_ttft > 0.0 { seconds / self.mean_ttft } else { 0.0 }
    }

    pub fn json(&self) -> Value {
        let part = |(name, mean, p99): &(&str, f64, f64)| {
            json!({"part": name, "mean_s": number(*mean), "p99_s": number(*p99),
                "share": number(self.share(*mean))})
        };
        json!({
            "requests": self.requests,
            "clock": if self.one_clock { "shared" } else { "the server's" },
            "mean_ttft_s": number(self.mean_ttft),
            "parts": self.parts.iter().map(part).collect::<Vec<_>>(),
            "residual_mean_s": number(self.mean_residual),
            "residual_share": number(self.share(self.mean_residual)),
            "worst_residual_share": number(self.worst_residual_share),
            "mean_prefill_steps": number(self.mean_prefill_steps),
        })
    }

    /// The printed block.
    pub fn lines(&self) -> Vec<String> {
        let line = |name: &str, mean: f64, more: String| {
            let share = 100.0 * self.share(mean);
            entry(&format!("{name} (ms):"), format!("{:.3} {share:5.1} %{more}", mean * 1e3))
        };
        let mut lines = vec![rule("TTFT, taken apart", '-')];
        for (name, mean, p99) in &self.parts {
            lines.push(line(name, *mean, format!("   p99 {:.3}", p99 * 1e3)));
        }
        let what = if self.one_clock { "residual" } else { "network and client" };
        lines.push(line(what, self.mean_residual, String::new()));
        let more = format!("   of {} requests", self.requests);
        lines.push(line("mean TTFT", self.mean_ttft, more));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::record::{Chunk, ServerTiming};

    /// Sent at 1000 of a client that began at 5000; each part takes as many nanoseconds as its
    /// place.
    fn record() -> Record {
        let mut at = 6000;
        let stamps = PARTS.iter().enumerate().map(|(i, (name, _))| {
            at += i as u64 + 1;
            ((*name).to_owned(), at)
        });
        let stamps_ns = stamps.collect();
        let timing = ServerTiming { boot: "b".into(), prefill_steps: 3, stamps_ns };
        let first = at - 5000 + COUNT as u64;
        Record {
            origin_ns: 5000,
            sent: 1000,
            chunks: vec![Chunk { at: first, tokens: 1, text: true }],
            timing: Some(Box::new(timing)),
            ..Record::default()
        }
    }

    fn change(name: &str, at: u64) -> Record {
        let mut r = record();
        if let Some(t) = &mut r.timing {
            t.stamps_ns.insert(name.into(), at);
        }
        r
    }

    fn sum(w: &Way) -> u64 {
        w.parts.iter().sum::<u64>() + w.residual
    }

    #[test]
    fn parts_follow_each_other_from_send_to_read() {
        let w = way(&record(), "b").unwrap();
        let wanted: Vec<u64> = (1..=COUNT as u64).collect();
        assert_eq!((w.parts.to_vec(), w.residual, w.prefill_steps), (wanted, 0, 3));
        assert_eq!(sum(&w), w.ttft);
        let d = decompose(&[record(), record(), Record::default()], "b").unwrap();
        assert_eq!((d.requests, d.parts.len(), d.mean_residual), (2, COUNT, 0.0));
        let sum: f64 = d.parts.iter().map(|p| p.1).sum();
        assert!((sum - d.mean_ttft).abs() < 1e-15);
        assert!(d.lines().iter().any(|l| l.starts_with("residual (ms):")), "{:?}", d.lines());
        assert!(decompose(&[Record::default()], "b").is_none());
    }

    #[test]
    fn what_cannot_be_given_to_a_part_is_the_residual() {
        // A stamp is missing: nobody knows where its part ended.
        let w = way(&change("parsed", 0), "b").unwrap();
        assert_eq!((w.parts[4], w.parts[5], w.residual), (0, 0, 5 + 6));
        assert_eq!(sum(&w), w.ttft);
        // Out of order is as good as missing.
        let w = way(&change("parsed", 77), "b").unwrap();
        assert_eq!((w.residual, sum(&w)), (11, w.ttft));
        // Nor can the server have parsed what the client had the answer to.
        let w = way(&change("parsed", 1 << 40), "b").unwrap();
        assert_eq!((w.residual, sum(&w)), (11, w.ttft));
        // An open connection was not accepted; its part is the sending.
        let w = way(&change("accepted", 0), "b").unwrap();
        assert_eq!((w.parts[0], w.parts[1], w.residual), (0, 3, 0));
        // The client reads before the server has come back from writing.
        let w = way(&change("written", 1 << 40), "b").unwrap();
        assert_eq!((w.parts[13], w.parts[14], w.residual), (14 + 15, 0, 0));
        // One chunk: the end of writing is not known.
        let w = way(&change("written", 0), "b").unwrap();
        assert_eq!((w.parts[13], w.parts[14], w.residual), (0, 0, 14 + 15));
        assert_eq!(sum(&w), w.ttft);
    }

    #[test]
    fn on_another_machine_the_rest_is_network_and_client() {
        let w = way(&record(), "c").unwrap();
        assert!(!w.one_clock);
        assert_eq!(w.residual, 1 + 2 + 15);
        assert_eq!(sum(&w), w.ttft);
        let late = Record { chunks: vec![], ..record() };
        assert_eq!(way(&late, "b"), None);
        let mut textless = record();
        textless.chunks.insert(0, Chunk { at: 1001, tokens: 1, text: false });
        assert_eq!(way(&textless, "b"), None);
    }
}
