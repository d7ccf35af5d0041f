//! Statistics over raw samples. All of them ignore the order of the samples except [`drift`], and
//! none assumes that times are normally distributed.

use super::rng;

/// Sorted copy of the finite samples.
fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut v: Vec<f64> = samples.iter().copied().filter(|x| x.is_finite()).collect();
    v.sort_by(f64::total_cmp);
    v
}

/// The `q`-th percentile (0 to 100) by linear interpolation between closest ranks, as
/// `numpy.percentile` computes by default (definition 7 of Hyndman and Fan, 1996). `None` without
/// samples; samples that are not finite are left out.
pub fn percentile(samples: &[f64], q: f64) -> Option<f64> {
    percentile_of_sorted(&sorted(samples), q)
}

/// [`percentile`] of samples that are finite and in order.
pub fn percentile_of_sorted(v: &[f64], q: f64) -> Option<f64> {
    let last = v.len().checked_sub(1)?;
    let rank = (q.clamp(0.0, 100.0) / 100.0) * last as f64;
    let (low, high) = (rank.floor() as usize, rank.ceil() as usize);
    let (a, b) = (*v.get(low)?, *v.get(high.min(last))?);
    Some(a + (b - a) * (rank - low as f64))
}

/// The middle sample, or the mean of the middle two.
pub fn median(samples: &[f64]) -> Option<f64> {
    percentile(samples, 50.0)
}

/// Arithmetic mean of the finite samples.
pub fn mean(samples: &[f64]) -> Option<f64> {
    let v = sorted(samples);
    (!v.is_empty()).then(|| v.iter().sum::<f64>() / v.len() as f64)
}

/// A confidence interval and the confidence it really has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
    /// Probability that an interval made this way covers the true value.
    pub coverage: f64,
}

/// An interval for the median from order statistics: the narrowest pair of samples, equally far
/// from both ends, that covers the true median with at least 95 %, whatever the distribution.
///
/// Six samples are needed for 95 %. With fewer it is the whole range, and `coverage` says what
/// that is worth: 93.75 % for five, 50 % for two, 0 % for one. `None` without samples.
pub fn median_interval(samples: &[f64]) -> Option<Interval> {
    let v = sorted(samples);
    let n = v.len();
    if n == 0 {
        return None;
    }
    let (cut, coverage) = trim(n);
    Some(Interval { low: v[cut], high: v[n - 1 - cut], coverage })
}

/// How many of `n` sorted samples may be cut from each end, and the coverage that is left:
/// `1 − 2 · P(Binomial(n, ½) ≤ cut)`.
fn trim(n: usize) -> (usize, f64) {
    // In logarithms, because 2^-n is 0 in f64 beyond n = 1074.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut below = log_term.exp();
    let mut best = (0, (1.0 - 2.0 * below).max(0.0));
    for cut in 1..n.div_ceil(2) {
        log_term += ((n - cut + 1) as f64 / cut as f64).ln();
        below += log_term.exp();
        let coverage = 1.0 - 2.0 * below;
        if coverage < 0.95 {
            break;
        }
        best = (cut, coverage);
    }
    best
}

/// What a row says about one measured quantity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    pub n: usize,
    pub median: f64,
    pub interval: Interval,
    pub min: f64,
    pub max: f64,
}

/// Median, its interval, and the range. `None` without samples.
pub fn summary(samples: &[f64]) -> Option<Summary> {
    let v = sorted(samples);
    Some(Summary {
        n: v.len(),
        median: percentile_of_sorted(&v, 50.0)?,
        interval: median_interval(&v)?,
        min: *v.first()?,
        max: *v.last()?,
    })
}

/// Range over median: `(max − min) / median`. `None` for fewer than two samples or a median of 0.
pub fn spread(samples: &[f64]) -> Option<f64> {
    let s = summary(samples)?;
    (s.n >= 2 && s.median > 0.0).then(|| (s.max - s.min) / s.median)
}

/// How the last third differs from the first third of a series in time order:
/// `median(last) / median(first) − 1`. Below 0: it got faster, so it was not warm. `None` for
/// fewer than three samples.
pub fn drift(series: &[f64]) -> Option<f64> {
    let third = series.len() / 3;
    if third == 0 {
        return None;
    }
    let first = median(&series[..third])?;
    let last = median(&series[series.len() - third..])?;
    (first > 0.0).then(|| last / first - 1.0)
}

/// A difference between two sets of samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// `median(b) / median(a) − 1`.
    pub ratio: f64,
    /// Percentile-bootstrap interval of `ratio`.
    pub interval: Interval,
}

/// Compares the medians of two independent sets of samples by the percentile bootstrap (Efron,
/// 1979): both sets are drawn anew `resamples` times, with replacement, from the stream `seed`.
/// The interval's coverage is nominal (95 %) and optimistic for very small sets. `None` if either
/// set is empty or a median is 0.
pub fn bootstrap_difference(a: &[f64], b: &[f64], resamples: u32, seed: u64) -> Option<Difference> {
    let (a, b) = (sorted(a), sorted(b));
    let ratio = ratio_of_medians(&a, &b)?;
    let mut counter = 0u64;
    let mut ratios = Vec::with_capacity(resamples as usize);
    for _ in 0..resamples {
        let x = resample(&a, seed, &mut counter);
        let y = resample(&b, seed, &mut counter);
        ratios.extend(ratio_of_medians(&x, &y));
    }
    let ratios = sorted(&ratios);
    let low = percentile_of_sorted(&ratios, 2.5).unwrap_or(ratio);
    let high = percentile_of_sorted(&ratios, 97.5).unwrap_or(ratio);
    Some(Difference { ratio, interval: Interval { low, high, coverage: 0.95 } })
}

fn ratio_of_medians(a: &[f64], b: &[f64]) -> Option<f64> {
    let (x, y) = (percentile_of_sorted(a, 50.0)?, percentile_of_sorted(b, 50.0)?);
    (x > 0.0).then(|| y / x - 1.0)
}

/// As many samples as `from` has, drawn with replacement, sorted.
fn resample(from: &[f64], seed: u64, counter: &mut u64) -> Vec<f64> {
    let mut draw: Vec<f64> = Vec::with_capacity(from.len());
    for _ in from {
        let i = rng::below(seed, *counter, from.len() as u64) as usize;
        *counter += 1;
        draw.extend(from.get(i));
    }
    draw.sort_by(f64::total_cmp);
    draw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_as_numpy() {
        // numpy.percentile([15, 20, 35, 40, 50], [0, 5, 30, 40, 50, 90, 99, 100])
        let v = [50.0, 15.0, 40.0, 20.0, 35.0];
        let want = [15.0, 16.0, 23.0, 29.0, 35.0, 46.0, 49.6, 50.0];
        for (q, w) in [0.0, 5.0, 30.0, 40.0, 50.0, 90.0, 99.0, 100.0].into_iter().zip(want) {
            let got = percentile(&v, q).unwrap();
            assert!((got - w).abs() < 1e-12, "p{q}: {got} instead of {w}");
        }
        assert_eq!(percentile(&[], 50.0), None);
        assert_eq!(percentile(&[f64::NAN, 4.0], 50.0), Some(4.0));
        assert_eq!(median(&[1.0, 2.0, 4.0, 3.0]), Some(2.5));
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
    }

    /// Ranks from the tables of exact binomial intervals for the median.
    #[test]
    fn order_statistic_ranks() {
        for (n, cut, coverage) in [
            (1, 0, 0.0),
            (2, 0, 0.5),
            (5, 0, 0.9375),
            (6, 0, 0.96875),
            (8, 0, 0.9921875),
            (9, 1, 0.9609375),
            (10, 1, 0.978515625),
            (20, 5, 0.9586105),
            (100, 39, 0.9647998),
        ] {
            let (c, p) = trim(n);
            assert_eq!(c, cut, "n = {n}");
            assert!((p - coverage).abs() < 1e-6, "n = {n}: {p}");
        }
        let (cut, coverage) = trim(10_000);
        assert_eq!(cut, 4901);
        assert!((0.95..0.953).contains(&coverage), "{coverage}");
    }

    /// The promise itself: of many intervals, at least 95 % cover the true median.
    #[test]
    fn interval_covers_the_median_of_a_skewed_distribution() {
        let mut covered = 0;
        for trial in 0..2000u64 {
            let samples: Vec<f64> = (0..9)
                .map(|i| rng::number(17, trial * 9 + i) as f64 / u64::MAX as f64)
                .map(|u| u.powi(4))
                .collect();
            let i = median_interval(&samples).unwrap();
            covered += u32::from(i.low <= 0.0625 && 0.0625 <= i.high);
        }
        assert!((1890..1955).contains(&covered), "{covered} of 2000, expected about 1922");
    }

    #[test]
    fn spread_and_drift() {
        assert_eq!(spread(&[1.0, 2.0, 3.0]), Some(1.0));
        assert_eq!(spread(&[1.0]), None);
        assert_eq!(drift(&[4.0, 4.0, 3.0, 3.0, 2.0, 2.0]), Some(-0.5));
        assert_eq!(drift(&[2.0, 2.0, 2.0]), Some(0.0));
        assert_eq!(drift(&[2.0, 2.0]), None);
    }

    #[test]
    fn bootstrap_separates_what_differs_and_not_what_does_not() {
        let a: Vec<f64> = (0..20).map(|i| 100.0 + f64::from(i % 5)).collect();
        let b: Vec<f64> = a.iter().map(|x| x * 1.1).collect();
        let d = bootstrap_difference(&a, &b, 1000, 7).unwrap();
        assert!((d.ratio - 0.1).abs() < 1e-9);
        assert!(d.interval.low > 0.05 && d.interval.high < 0.15, "{d:?}");
        let same = bootstrap_difference(&a, &a, 1000, 7).unwrap();
        assert!(same.interval.low <= 0.0 && same.interval.high >= 0.0, "{same:?}");
        assert_eq!(bootstrap_difference(&a, &b, 1000, 7), Some(d));
        assert_eq!(bootstrap_difference(&a, &[], 10, 7), None);
    }
}
