//! When requests arrive: absolute times from the start, made before the run, so that nothing that
//! happens in it can shift them. Pure and seeded.

use crate::bench::draws::Draws;

/// The law of arrivals.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrivals {
    /// All at the start.
    AtOnce,
    /// As soon as there is a place: a closed loop.
    Closed,
    /// Gaps from a gamma law with shape `burstiness` and mean `1 / rate`: 1 is a Poisson process,
    /// below 1 bursts, above 1 evens out, infinity is a constant rate.
    Rate { per_second: f64, burstiness: f64 },
    /// The rate goes from `from` to `to` over the run, linearly or by a constant factor.
    Ramp { from: f64, to: f64, exponential: bool, burstiness: f64 },
    /// Given times, seconds.
    Trace(Vec<f64>),
}

/// Arrival of each of `n` requests, nanoseconds; `None` in a closed loop. The first comes at 0.
pub fn schedule(arrivals: &Arrivals, n: usize, seed: u64) -> Vec<Option<u64>> {
    match arrivals {
        Arrivals::AtOnce => vec![Some(0); n],
        Arrivals::Closed => vec![None; n],
        Arrivals::Trace(times) => times.iter().take(n).map(|t| Some(nanos(*t))).collect(),
        Arrivals::Rate { per_second, burstiness } => {
            let rate = |_| *per_second;
            from_rates(n, *burstiness, seed, &rate)
        }
        Arrivals::Ramp { from, to, exponential, burstiness } => {
            let rate = |i: usize| {
                let progress = i as f64 / (n.max(2) - 1) as f64;
                match exponential {
                    true => from * (to / from).powf(progress),
                    false => from + (to - from) * progress,
                }
            };
            from_rates(n, *burstiness, seed, &rate)
        }
    }
}

fn from_rates(
    n: usize,
    burstiness: f64,
    seed: u64,
    rate: &dyn Fn(usize) -> f64,
) -> Vec<Option<u64>> {
    let mut draws = Draws::new(seed);
    let mut at = 0.0;
    let mut times = Vec::with_capacity(n);
    for i in 0..n {
        times.push(Some(nanos(at)));
        at += draws.gap(burstiness) / rate(i);
    }
    times
}

fn nanos(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(arrivals: &Arrivals, n: usize) -> Vec<f64> {
        let at: Vec<u64> = schedule(arrivals, n, 7).into_iter().flatten().collect();
        at.windows(2).map(|w| (w[1] - w[0]) as f64 * 1e-9).collect()
    }

    /// Mean and squared coefficient of variation.
    fn moments(gaps: &[f64]) -> (f64, f64) {
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let var = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (mean, var / (mean * mean))
    }

    #[test]
    fn laws_have_their_mean_and_variance() {
        for shape in [0.25, 0.5, 1.0, 2.0, 8.0] {
            let law = Arrivals::Rate { per_second: 50.0, burstiness: shape };
            let (mean, cv2) = moments(&gaps(&law, 200_000));
            assert!((mean * 50.0 - 1.0).abs() < 0.02, "shape {shape}: mean {mean}");
            assert!((cv2 * shape - 1.0).abs() < 0.05, "shape {shape}: cv² {cv2}");
        }
        let even = Arrivals::Rate { per_second: 50.0, burstiness: f64::INFINITY };
        assert!(gaps(&even, 100).iter().all(|g| (g - 0.02).abs() < 1e-8));
    }

    #[test]
    fn ramps() {
        let even = f64::INFINITY;
        let ramp =
            |exponential| Arrivals::Ramp { from: 1.0, to: 4.0, exponential, burstiness: even };
        let linear = gaps(&ramp(false), 4);
        for (gap, want) in linear.iter().zip([1.0, 1.0 / 2.0, 1.0 / 3.0]) {
            assert!((gap - want).abs() < 1e-6, "{linear:?}");
        }
        let factor = gaps(&ramp(true), 3);
        assert!((factor[1] - 0.5).abs() < 1e-6, "{factor:?}");
    }

    #[test]
    fn the_rest_and_reproducibility() {
        assert_eq!(schedule(&Arrivals::AtOnce, 2, 0), [Some(0), Some(0)]);
        assert_eq!(schedule(&Arrivals::Closed, 2, 0), [None, None]);
        let trace = Arrivals::Trace(vec![0.0, 0.5, 2.0]);
        assert_eq!(schedule(&trace, 2, 0), [Some(0), Some(500_000_000)]);
        let law = Arrivals::Rate { per_second: 3.0, burstiness: 1.0 };
        assert_eq!(schedule(&law, 9, 1), schedule(&law, 9, 1));
        assert_ne!(schedule(&law, 9, 1), schedule(&law, 9, 2));
        assert_eq!(schedule(&law, 9, 1)[0], Some(0));
    }
}
