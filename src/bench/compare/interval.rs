//! The difference between two sets of samples with an interval that keeps its promise for few
//! samples too.
//!
//! Everything happens to logarithms, so that "2 % slower" and "2 % faster" are alike. Intervals
//! are expanded percentile bootstraps (Hesterberg, "What Teachers Should Know About the
//! Bootstrap", 2015, section 4.3): the plain percentile interval of `n` samples is too narrow by
//! about `sqrt((n−1)/n) · z / t`, so more extreme percentiles are taken that make up for it.

use crate::measure::rng;
use crate::measure::stats;

/// `b / a − 1` with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    pub ratio: f64,
    pub low: f64,
    pub high: f64,
    /// Samples of the smaller side, or blocks.
    pub n: usize,
}

impl Change {
    /// The interval leaves no change out.
    pub fn is_clear(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// Bootstrap resamples: enough that percentiles of 1 in 1,000 are steady.
const RESAMPLES: usize = 4000;

/// Of samples taken in blocks `(a, b)` next to each other: the mean of the blocks' log ratios.
/// `confidence` such as 0.95. `None` for fewer than two blocks, or figures that are not positive.
pub fn paired(blocks: &[(Vec<f64>, Vec<f64>)], confidence: f64, seed: u64) -> Option<Change> {
    let ratio = |(a, b): &(Vec<f64>, Vec<f64>)| Some(mean_log(b)? - mean_log(a)?);
    let logs: Vec<f64> = blocks.iter().map(ratio).collect::<Option<_>>()?;
    let n = logs.len();
    if n < 2 {
        return None;
    }
    let mut counter = 0;
    let estimates = (0..RESAMPLES).filter_map(|_| mean(&draw(&logs, seed, &mut counter))).collect();
    change(mean(&logs)?, estimates, n, confidence)
}

/// Of two independent sets: the difference of their mean logarithms.
pub fn independent(a: &[f64], b: &[f64], confidence: f64, seed: u64) -> Option<Change> {
    let logs = |v: &[f64]| -> Option<Vec<f64>> {
        let fine = v.iter().all(|x| *x > 0.0 && x.is_finite());
        (fine && v.len() >= 2).then(|| v.iter().map(|x| x.ln()).collect())
    };
    let (a, b) = (logs(a)?, logs(b)?);
    let mut counter = 0;
    let estimates = (0..RESAMPLES)
        .filter_map(|_| {
            let x = mean(&draw(&a, seed, &mut counter))?;
            Some(mean(&draw(&b, seed, &mut counter))? - x)
        })
        .collect();
    change(mean(&b)? - mean(&a)?, estimates, a.len().min(b.len()), confidence)
}

fn mean_log(v: &[f64]) -> Option<f64> {
    let fine = v.iter().all(|x| *x > 0.0 && x.is_finite());
    if fine { mean(&v.iter().map(|x| x.ln()).collect::<Vec<_>>()) } else { None }
}

fn mean(v: &[f64]) -> Option<f64> {
    stats::mean(v)
}

fn draw(from: &[f64], seed: u64, counter: &mut u64) -> Vec<f64> {
    let mut one = || {
        *counter += 1;
        from.get(rng::below(seed, *counter, from.len() as u64) as usize).copied()
    };
    (0..from.len()).filter_map(|_| one()).collect()
}

fn change(estimate: f64, mut estimates: Vec<f64>, n: usize, confidence: f64) -> Option<Change> {
    estimates.sort_by(f64::total_cmp);
    let tail = expanded_tail(n, (1.0 - confidence) / 2.0) * 100.0;
    let low = stats::percentile_of_sorted(&estimates, tail)?;
    let high = stats::percentile_of_sorted(&estimates, 100.0 - tail)?;
    // Percentiles cannot reach beyond the samples: for few of them Student's interval does.
    let width = student_half_width(&estimates, n, (1.0 - confidence) / 2.0);
    let (low, high) = (low.min(estimate - width), high.max(estimate + width));
    let percent = |log: f64| log.exp_m1();
    Some(Change { ratio: percent(estimate), low: percent(low), high: percent(high), n })
}

/// The tail to cut instead of `tail`: `Φ(−sqrt(n / (n − 1)) · t)`.
fn expanded_tail(n: usize, tail: f64) -> f64 {
    let n = n.max(2) as f64;
    normal_below(-(n / (n - 1.0)).sqrt() * student_quantile(n - 1.0, tail))
}

/// `t · standard error`, with the bootstrap's own standard error made unbiased.
fn student_half_width(estimates: &[f64], n: usize, tail: f64) -> f64 {
    let Some(mean) = mean(estimates) else { return 0.0 };
    let var = estimates.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / estimates.len() as f64;
    let n = n.max(2) as f64;
    student_quantile(n - 1.0, tail) * (var * n / (n - 1.0)).sqrt()
}

/// Standard normal distribution function.
fn normal_below(x: f64) -> f64 {
    0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

/// The `x` with `P(T > x) = tail` for Student's t with `df` degrees of freedom, by bisection of
/// its distribution function.
fn student_quantile(df: f64, tail: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1e4);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if student_above(middle, df) > tail { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// `P(T > x)` for `x ≥ 0`: half the regularised incomplete beta function of `df / (df + x²)`.
fn student_above(x: f64, df: f64) -> f64 {
    0.5 * incomplete_beta(df / 2.0, 0.5, df / (df + x * x))
}

/// Regularised incomplete beta function by its continued fraction (Abramowitz and Stegun 26.5.8),
/// evaluated with Lentz's method.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front =
        libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * x.ln() + b * (1.0 - x).ln();
    let small = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let (mut c, mut d) = (1.0, 1.0 / small(1.0 - (a + b) * x / (a + 1.0)));
    let mut f = d;
    for m in 1..300 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        for term in [even, odd] {
            d = 1.0 / small(1.0 + term * d);
            c = small(1.0 + term / c);
            f *= d * c;
        }
        if (d * c - 1.0).abs() < 1e-14 {
            break;
        }
    }
    front.exp() * f / a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::draws::Draws;

    #[test]
    fn quantiles_from_the_tables() {
        for (df, tail, want) in [
            (1.0, 0.025, 12.7062),
            (2.0, 0.025, 4.30265),
            (4.0, 0.025, 2.77645),
            (9.0, 0.005, 3.24984),
            (30.0, 0.025, 2.04227),
            (1000.0, 0.025, 1.96234),
        ] {
            let got = student_quantile(df, tail);
            assert!((got - want).abs() < 1e-4 * want, "df {df}: {got} instead of {want}");
        }
        assert!((normal_below(-1.959964) - 0.025).abs() < 1e-6);
    }

    /// ABBA blocks around 100 with relative noise `sd`, a drift over the session, and `b` slower
    /// by `planted`.
    fn blocks(seed: u64, n: usize, sd: f64, drift: f64, planted: f64) -> Vec<(Vec<f64>, Vec<f64>)> {
        let mut draws = Draws::new(seed);
        let mut at = 0.0;
        let mut sample = |factor: f64| {
            at += 1.0;
            let noise: f64 = (0..12).map(|_| draws.uniform()).sum::<f64>() - 6.0;
            100.0 * factor * (1.0 + sd * noise) * (1.0 + drift * at)
        };
        (0..n)
            .map(|_| {
                let (a, b) = (1.0, 1.0 + planted);
                let (a1, b1, b2, a2) = (sample(a), sample(b), sample(b), sample(a));
                (vec![a1, a2], vec![b1, b2])
            })
            .collect()
    }

    fn alarms(trials: u64, n: usize, sd: f64, planted: f64) -> f64 {
        let clear = (0..trials).filter(|t| {
            let blocks = blocks(*t * 7919 + 1, n, sd, 2e-4, planted);
            paired(&blocks, 0.95, *t).unwrap().is_clear()
        });
        clear.count() as f64 / trials as f64
    }

    #[test]
    fn a_against_a_stays_quiet() {
        for n in [3, 5, 10] {
            let rate = alarms(300, n, 0.01, 0.0);
            // 5 % nominal; of 300 trials one in a thousand goes above 9 %.
            assert!(rate < 0.09, "{n} blocks: {rate} false alarms");
        }
    }

    #[test]
    fn two_percent_are_found() {
        let found = alarms(200, 6, 0.01, 0.02);
        assert!(found > 0.9, "6 rounds at 1 % noise: {found}");
        let change = paired(&blocks(3, 10, 0.005, 0.0, 0.02), 0.95, 1).unwrap();
        assert!(change.low > 0.01 && change.high < 0.03, "{change:?}");
        assert!((change.ratio - 0.02).abs() < 0.005);
    }

    #[test]
    fn independent_sets() {
        let set = |seed: u64, factor: f64| -> Vec<f64> {
            let mut d = Draws::new(seed);
            let noise = |d: &mut Draws| (0..12).map(|_| d.uniform()).sum::<f64>() - 6.0;
            (0..12).map(|_| 50.0 * factor * (1.0 + 0.01 * noise(&mut d))).collect()
        };
        let quiet = (0..200).filter(|t| {
            let (a, b) = (set(t * 2, 1.0), set(t * 2 + 1, 1.0));
            !independent(&a, &b, 0.95, *t).unwrap().is_clear()
        });
        assert!(quiet.count() > 182);
        let found = (0..100).filter(|t| {
            let (a, b) = (set(t * 2, 1.0), set(t * 2 + 1, 1.02));
            independent(&a, &b, 0.95, *t).unwrap().is_clear()
        });
        assert!(found.count() > 90);
        assert_eq!(independent(&[1.0], &[1.0, 2.0], 0.95, 1), None);
        assert_eq!(independent(&[1.0, 0.0], &[1.0, 2.0], 0.95, 1), None);
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let b = blocks(1, 4, 0.01, 0.0, 0.0);
        assert_eq!(paired(&b, 0.95, 9), paired(&b, 0.95, 9));
    }
}
