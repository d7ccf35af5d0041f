//! Changes in words, and what they mean for an exit code.

use serde_json::{Value, json};

use super::interval::Change;
use super::samples::Figure;
use crate::measure::json::number;
use crate::measure::words;

/// One figure of one case, compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    pub case: String,
    pub figure: Figure,
    pub a: Vec<f64>,
    pub b: Vec<f64>,
    /// `None` where there are too few samples for an interval.
    pub change: Option<Change>,
}

impl Compared {
    /// How much worse B is: positive is worse, whichever way the figure goes.
    pub fn worsening(&self) -> Option<(f64, f64, f64)> {
        let c = self.change?;
        Some(match self.figure.more_is_better {
            false => (c.ratio, c.low, c.high),
            // A throughput of b / a < 1 is worse by a / b − 1.
            true => (inverse(c.ratio), inverse(c.high), inverse(c.low)),
        })
    }

    /// B is worse beyond doubt, and by more than `percent`.
    pub fn regressed(&self, percent: f64) -> bool {
        self.worsening().is_some_and(|(x, low, _)| low > 0.0 && x * 100.0 > percent)
    }

    /// `worse by 1.8 % [1.2, 2.3]`.
    pub fn words(&self) -> String {
        let Some((x, low, high)) = self.worsening() else {
            let (a, b) = (self.a.len(), self.b.len());
            return format!("no verdict: {a} and {b} samples; an interval needs two of each");
        };
        let p = |x: f64| words::fixed(x * 100.0, 2);
        if low > 0.0 {
            format!("B is worse by {} % [{}, {}]", p(x), p(low), p(high))
        } else if high < 0.0 {
            format!("B is better by {} % [{}, {}]", p(-x), p(-high), p(-low))
        } else {
            let most = low.abs().max(high.abs());
            format!(
                "no difference found: {} % [{}, {}]; one above {} % would have been",
                p(x),
                p(low),
                p(high),
                p(most)
            )
        }
    }

    pub fn to_json(&self) -> Value {
        let change = self.change.map(|c| {
            json!({
                "ratio": number(c.ratio), "low": number(c.low), "high": number(c.high), "n": c.n,
            })
        });
        let verdict = match self.worsening() {
            None => "unknown",
            Some((_, low, _)) if low > 0.0 => "worse",
            Some((_, _, high)) if high < 0.0 => "better",
            Some(_) => "same",
        };
        json!({
            "case": self.case,
            "figure": self.figure.key,
            "a": self.a, "b": self.b,
            "change": change,
            "verdict": verdict,
            "words": self.words(),
        })
    }
}

fn inverse(ratio: f64) -> f64 {
    1.0 / (1.0 + ratio) - 1.0
}

/// The confidence of each of `figures` intervals, so that all hold together with 95 %
/// (Bonferroni).
pub fn confidence(figures: usize) -> f64 {
    1.0 - 0.05 / figures.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(more_is_better: bool, ratio: f64, low: f64, high: f64) -> Compared {
        Compared {
            case: "c".into(),
            figure: Figure { key: "k", more_is_better },
            a: vec![1.0; 4],
            b: vec![1.0; 4],
            change: Some(Change { ratio, low, high, n: 4 }),
        }
    }

    #[test]
    fn latency_up_is_worse_and_throughput_down_is() {
        let latency = compared(false, 0.02, 0.01, 0.03);
        assert_eq!(latency.words(), "B is worse by 2.00 % [1.00, 3.00]");
        assert!(latency.regressed(1.5) && !latency.regressed(2.5));
        let throughput = compared(true, -0.2, -0.25, -0.1);
        let (x, low, high) = throughput.worsening().unwrap();
        assert!((x - 0.25).abs() < 1e-12 && low > 0.1 && high > 0.3, "{x} {low} {high}");
        assert!(throughput.regressed(20.0));
        assert!(compared(true, 0.05, 0.02, 0.08).words().starts_with("B is better"));
    }

    #[test]
    fn unclear_is_no_regression() {
        let unclear = compared(false, 0.05, -0.01, 0.11);
        assert!(!unclear.regressed(0.0));
        assert!(unclear.words().starts_with("no difference found"), "{}", unclear.words());
        let tiny = compared(false, -1e-6, -2e-6, 1e-6);
        assert_eq!(
            tiny.words(),
            "no difference found: 0.00 % [0.00, 0.00]; one above 0.00 % would have been"
        );
        let few = Compared { change: None, ..unclear };
        assert!(few.words().starts_with("no verdict") && !few.regressed(0.0));
        assert_eq!(confidence(5), 0.99);
    }
}
