//! What a step costs: `t = a + b · tokens + c · reads`, fitted to recorded steps by least squares,
//! with what the fit leaves over. `tokens` are the step's rows, `reads` the cached positions that
//! its rows attend to. Pure.

use serde_json::{Value, json};

use crate::measure::json::number;
use crate::measure::stats;

/// A recorded step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub tokens: f64,
    pub reads: f64,
    pub seconds: f64,
}

/// The model, and how well it fits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepCost {
    /// Seconds of any step, of each row, and of each position read.
    pub base: f64,
    pub per_token: f64,
    pub per_read: f64,
    /// Share of the variance that it explains.
    pub r_squared: f64,
    /// Median and largest of |measured − modelled| / measured.
    pub median_residual: f64,
    pub max_residual: f64,
    pub steps: usize,
}

impl StepCost {
    pub fn seconds(&self, tokens: f64, reads: f64) -> f64 {
        self.base + self.per_token * tokens + self.per_read * reads
    }

    pub fn to_json(&self) -> Value {
        json!({
            "base_s": number(self.base),
            "per_token_s": number(self.per_token),
            "per_kv_read_s": number(self.per_read),
            "r_squared": number(self.r_squared),
            "median_residual": number(self.median_residual),
            "max_residual": number(self.max_residual),
            "steps": self.steps,
        })
    }

    pub fn line(&self) -> String {
        format!(
            "step cost: {:.3} ms + {:.4} ms a token + {:.4} µs a cached position read \
             (R² {:.3}, residual median {:.1} %, max {:.0} %, {} steps)",
            self.base * 1e3,
            self.per_token * 1e3,
            self.per_read * 1e6,
            self.r_squared,
            self.median_residual * 100.0,
            self.max_residual * 100.0,
            self.steps
        )
    }
}

/// Fits the model. `None` for fewer than eight steps, or steps that are all alike and tell
/// nothing of what tokens cost. Terms that would be negative, which no cost is, are left out.
pub fn fit(points: &[Point]) -> Option<StepCost> {
    if points.len() < 8 {
        return None;
    }
    // Which of base, tokens and reads take part: all, or those that come out positive.
    let subsets: [&[usize]; 4] = [&[0, 1, 2], &[0, 1], &[1, 2], &[1]];
    let solved = subsets.iter().find_map(|terms| {
        let x = solve(points, terms)?;
        x.iter().all(|v| *v >= 0.0).then_some((*terms, x))
    });
    let (terms, x) = solved?;
    let value = |term| terms.iter().position(|t| *t == term).map_or(0.0, |i| x[i]);
    let mut cost = StepCost {
        base: value(0),
        per_token: value(1),
        per_read: value(2),
        r_squared: 0.0,
        median_residual: 0.0,
        max_residual: 0.0,
        steps: points.len(),
    };
    let times: Vec<f64> = points.iter().map(|p| p.seconds).collect();
    let mean = stats::mean(&times)?;
    let (mut left, mut all) = (0.0, 0.0);
    let mut relative = Vec::with_capacity(points.len());
    for p in points {
        let off = p.seconds - cost.seconds(p.tokens, p.reads);
        left += off * off;
        all += (p.seconds - mean).powi(2);
        relative.push(off.abs() / p.seconds.max(1e-12));
    }
    cost.r_squared = if all > 0.0 { 1.0 - left / all } else { 0.0 };
    cost.median_residual = stats::median(&relative)?;
    cost.max_residual = relative.iter().copied().fold(0.0, f64::max);
    Some(cost)
}

/// Least squares over `terms` by normal equations, each column scaled to its largest value.
fn solve(points: &[Point], terms: &[usize]) -> Option<Vec<f64>> {
    let n = terms.len();
    let column = |p: &Point, term: usize| [1.0, p.tokens, p.reads][term];
    let scale: Vec<f64> = terms
        .iter()
        .map(|&t| points.iter().map(|p| column(p, t).abs()).fold(0.0, f64::max).max(1e-300))
        .collect();
    let mut a = vec![vec![0.0; n + 1]; n];
    for p in points {
        let row: Vec<f64> = (0..n).map(|i| column(p, terms[i]) / scale[i]).collect();
        for i in 0..n {
            for j in 0..n {
                a[i][j] += row[i] * row[j];
            }
            a[i][n] += row[i] * p.seconds;
        }
    }
    for i in 0..n {
        let pivot = (i..n).max_by(|x, y| a[*x][i].abs().total_cmp(&a[*y][i].abs()))?;
        a.swap(i, pivot);
        if a[i][i].abs() < 1e-9 * points.len() as f64 {
            return None;
        }
        for k in 0..n {
            if k != i {
                let factor = a[k][i] / a[i][i];
                for j in i..=n {
                    a[k][j] -= factor * a[i][j];
                }
            }
        }
    }
    Some((0..n).map(|i| a[i][n] / a[i][i] / scale[i]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::draws::Draws;

    fn points(noise: f64) -> Vec<Point> {
        let mut d = Draws::new(4);
        (0..200)
            .map(|i| {
                let tokens = if i % 5 == 0 { 512.0 } else { 1.0 + d.below(32) as f64 };
                let reads = tokens * (50.0 + d.below(2000) as f64);
                let exact = 0.002 + 3e-5 * tokens + 4e-9 * reads;
                Point { tokens, reads, seconds: exact * (1.0 + noise * (d.uniform() - 0.5)) }
            })
            .collect()
    }

    #[test]
    fn known_costs_come_back() {
        let cost = fit(&points(0.0)).unwrap();
        assert!((cost.base / 0.002 - 1.0).abs() < 1e-6, "{cost:?}");
        assert!((cost.per_token / 3e-5 - 1.0).abs() < 1e-6);
        assert!((cost.per_read / 4e-9 - 1.0).abs() < 1e-6);
        assert!(cost.r_squared > 0.999_999 && cost.max_residual < 1e-6);
        let noisy = fit(&points(0.1)).unwrap();
        assert!((noisy.per_token / 3e-5 - 1.0).abs() < 0.1 && noisy.r_squared > 0.98, "{noisy:?}");
        assert!(noisy.median_residual > 0.01 && noisy.max_residual < 0.2);
    }

    #[test]
    fn what_cannot_be_told_is_not() {
        assert_eq!(fit(&points(0.0)[..7]), None);
        // All steps alike: base and tokens cannot be told apart, so the tokens carry it.
        let same = vec![Point { tokens: 4.0, reads: 0.0, seconds: 0.01 }; 20];
        let cost = fit(&same).unwrap();
        assert!((cost.seconds(4.0, 0.0) - 0.01).abs() < 1e-9, "{cost:?}");
        // A cost is never negative.
        let falling: Vec<Point> = (1..20)
            .map(|i| Point { tokens: f64::from(i), reads: 0.0, seconds: 1.0 / f64::from(i) })
            .collect();
        assert!(fit(&falling).is_none_or(|c| c.per_token >= 0.0 && c.base >= 0.0));
    }
}
