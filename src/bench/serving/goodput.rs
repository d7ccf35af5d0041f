//! Goodput: requests that met every objective. Pure.

use super::metrics;
use crate::bench::load::record::Record;
use crate::error::{Error, Result};

/// Upper bounds in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Objectives {
    pub ttft: Option<f64>,
    pub tpot: Option<f64>,
    pub e2el: Option<f64>,
}

impl Objectives {
    /// From `ttft:200 tpot:50 e2el:5000`; `flag` is named in errors.
    pub fn parse(words: &[String], flag: &str) -> Result<Option<Self>> {
        if words.is_empty() {
            return Ok(None);
        }
        let mut all = Objectives::default();
        for word in words {
            let wrong = || {
                let what = "expected ttft:MS, tpot:MS or e2el:MS with a number above 0";
                Error::usage(format!("{flag} {word}: {what}"))
            };
            let (name, value) = word.split_once(':').ok_or_else(wrong)?;
            let bound: f64 = value.parse().map_err(|_| wrong())?;
            if !(bound.is_finite() && bound > 0.0) {
                return Err(wrong());
            }
            match name {
                "ttft" => all.ttft = Some(bound),
                "tpot" => all.tpot = Some(bound),
                "e2el" => all.e2el = Some(bound),
                _ => return Err(wrong()),
            }
        }
        Ok(Some(all))
    }

    /// `(name, bound)` of those that are set.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        let all = [("ttft", self.ttft), ("tpot", self.tpot), ("e2el", self.e2el)];
        all.into_iter().filter_map(|(name, bound)| Some((name, bound?))).collect()
    }
}

/// Where a request's clock starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// When it was sent, as SGLang's goodput has it.
    Sent,
    /// When it should have been sent.
    Scheduled,
}

/// How a request did on one objective, milliseconds. One-token answers have a TPOT of 0.
fn figure(r: &Record, name: &str, from: From) -> Option<f64> {
    let late = match from {
        From::Sent => 0.0,
        From::Scheduled => r.sent.saturating_sub(r.scheduled) as f64 * 1e-6,
    };
    match name {
        "ttft" => metrics::ttft_ms(r).map(|x| x + late),
        "tpot" => Some(metrics::tpot_ms(r).unwrap_or(0.0)),
        _ => Some(metrics::e2e_ms(r) + late),
    }
}

/// Did `r` succeed and meet objective `name`?
fn met(r: &Record, name: &str, bound: f64, from: From) -> bool {
    r.ok() && figure(r, name, from).is_some_and(|x| x <= bound)
}

/// Did `r` succeed and meet them all?
pub fn good(r: &Record, objectives: &Objectives, from: From) -> bool {
    r.ok() && objectives.named().iter().all(|&(name, bound)| met(r, name, bound, from))
}

/// What a run achieved; shares are of all requests sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Goodput {
    pub requests_per_second: f64,
    pub attainment: f64,
    pub by_metric: Vec<(&'static str, f64)>,
}

/// Goodput over `duration` seconds.
pub fn goodput(records: &[Record], o: &Objectives, from: From, duration: f64) -> Goodput {
    let sent = records.len().max(1) as f64;
    let count = |f: &dyn Fn(&Record) -> bool| records.iter().filter(|r| f(r)).count() as f64;
    let all = count(&|r| good(r, o, from));
    let by_metric = o
        .named()
        .into_iter()
        .map(|(name, bound)| (name, count(&|r| met(r, name, bound, from)) / sent))
        .collect();
    let rate = if duration > 0.0 { all / duration } else { 0.0 };
    Goodput { requests_per_second: rate, attainment: all / sent, by_metric }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::record::{Chunk, Failure, Reason};

    fn record(scheduled: u64, sent: u64, first: u64, end: u64, tokens: u32) -> Record {
        let ms = 1_000_000;
        let mut chunks = vec![Chunk { at: first * ms, tokens: 1, text: true }];
        if tokens > 1 {
            chunks.push(Chunk { at: end * ms, tokens: tokens - 1, text: true });
        }
        Record {
            scheduled: scheduled * ms,
            sent: sent * ms,
            end: end * ms,
            chunks,
            ..Record::default()
        }
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_string).collect()
    }

    #[test]
    fn all_objectives_must_hold() {
        let o = Objectives::parse(&words("ttft:20 tpot:5"), "--goodput").unwrap().unwrap();
        let mut failed = record(0, 0, 10, 20, 3);
        failed.failure = Some(Failure::new(Reason::Closed, ""));
        let records = [
            record(0, 0, 20, 30, 3),  // both, at their bounds
            record(0, 0, 21, 30, 3),  // ttft missed
            record(0, 0, 10, 30, 3),  // tpot 10 missed
            record(0, 0, 10, 100, 1), // one token: tpot 0
            record(0, 50, 60, 66, 2), // good only from sending
            failed,
        ];
        let g = goodput(&records, &o, From::Sent, 2.0);
        assert_eq!((g.requests_per_second, g.attainment), (1.0, 2.0 / 6.0));
        assert_eq!(g.by_metric, [("ttft", 4.0 / 6.0), ("tpot", 3.0 / 6.0)]);
        assert_eq!(goodput(&records, &o, From::Scheduled, 2.0).by_metric[0].1, 3.0 / 6.0);
    }

    #[test]
    fn objectives_are_checked() {
        assert_eq!(Objectives::parse(&[], "--slo").unwrap(), None);
        for bad in ["ttft", "ttft:x", "ttft:0", "ttft:inf", "p99:3"] {
            let error = Objectives::parse(&words(bad), "--slo").unwrap_err();
            assert!(error.message.starts_with("--slo"), "{error}");
        }
    }
}
