//! Exponentials over a row of logits, as long as a vocabulary.

use super::{LANES, math, padded, simd_fn};

simd_fn! {
    /// The largest number; NaN does not count, -∞ if there is none.
    pub fn largest<S>(row: &[f32]) -> f32 {
        let (vectors, rest) = row.as_chunks::<LANES>();
        let mut most = S::splat(f32::NEG_INFINITY);
        for part in vectors {
            most = S::load(part).max(most);
        }
        rest.iter().fold(most.largest(), |most, x| if *x > most { *x } else { most })
    }
}

simd_fn! {
    /// `x = e^((x - max) · factor)`; what is not a number becomes 0.
    pub fn exp_scaled<S>(row: &mut [f32], max: f32, factor: f32) {
        let weight = |x: S| {
            let weight = math::exp(x.sub(S::splat(max)).mul(S::splat(factor)));
            weight.if_below(S::splat(f32::INFINITY), weight, S::splat(0.0))
        };
        let (vectors, rest) = row.as_chunks_mut::<LANES>();
        for part in vectors {
            weight(S::load(part)).store(part);
        }
        let mut last = [0.0; LANES];
        weight(S::load(&padded(rest))).store(&mut last);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

simd_fn! {
    /// `Σ e^(x - max)`: each term in f32, summed in f64, lane by lane.
    pub fn sum_exp<S>(row: &[f32], max: f32) -> f64 {
        let (vectors, rest) = row.as_chunks::<LANES>();
        let (mut sums, mut terms) = ([0.0; LANES], [0.0; LANES]);
        for part in vectors {
            math::exp(S::load(part).sub(S::splat(max))).store(&mut terms);
            sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += f64::from(term));
        }
        math::exp(S::load(&padded(rest)).sub(S::splat(max))).store(&mut terms);
        sums.iter_mut().zip(&terms[..rest.len()]).for_each(|(sum, t)| *sum += f64::from(*t));
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Isa;
    use super::*;

    #[test]
    fn rows_of_every_length_agree_with_plain_numbers() {
        for isa in [Isa::scalar(), Isa::best()] {
            for len in [1, 7, 8, 9, 100] {
                let row: Vec<f32> = (0..len).map(|i| (i * 37 % 23) as f32 * 0.7 - 9.0).collect();
                let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                assert_eq!(largest(isa, &row), max);
                let plain = |x: &f32, factor: f64| (f64::from(x - max) * factor).exp();
                let sum: f64 = row.iter().map(|x| plain(x, 1.0)).sum();
                assert!((sum_exp(isa, &row, max) / sum - 1.0).abs() < 1e-6);
                let mut weights = row.clone();
                exp_scaled(isa, &mut weights, max, 0.5);
                for (weight, x) in weights.iter().zip(&row) {
                    assert!((f64::from(*weight) / plain(x, 0.5) - 1.0).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_has_no_weight() {
        for isa in [Isa::scalar(), Isa::best()] {
            let mut row = [f32::NAN, 1.0, f32::NEG_INFINITY, 2.0, f32::NAN, 0., 0., 0., f32::NAN];
            assert_eq!(largest(isa, &row), 2.0);
            assert!(sum_exp(isa, &row, 2.0).is_nan());
            exp_scaled(isa, &mut row, 2.0, 1.0);
            assert_eq!([row[0], row[2], row[3], row[4], row[8]], [0.0, 0.0, 1.0, 0.0, 0.0]);
            assert_eq!(largest(isa, &[f32::NAN; 9]), f32::NEG_INFINITY);
        }
    }
}
