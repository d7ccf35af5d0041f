//! The ops' formulas in plain f64, row by row: what the CPU's reference is made of and what GPU
//! kernels are checked against.

use crate::model::plan::Activation;

/// `Σ aᵢ bᵢ`
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `to += factor · from`
pub fn add(to: &mut [f64], from: &[f64], factor: f64) {
    to.iter_mut().zip(from).for_each(|(a, b)| *a += factor * b);
}

/// Each of `groups` equal segments over its root mean square, times `weight`.
pub fn rms_norm(row: &[f64], weight: &[f64], eps: f64, groups: usize) -> Vec<f64> {
    let segment = row.len() / groups;
    let norm = |x: &[f64]| {
        let scale = 1.0 / (dot(x, x) / segment as f64 + eps).sqrt();
        x.iter().zip(weight).map(|(x, w)| x * scale * w).collect::<Vec<f64>>()
    };
    row.chunks(segment).flat_map(norm).collect()
}

/// `cap · tanh(x / cap)`
pub fn soft_cap(x: f64, cap: f64) -> f64 {
    cap * (x / cap).tanh()
}

/// `exp(s - max) / Σ exp(s - max)`
pub fn softmax(scores: &[f64]) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// Indices of the `count` largest, best first; of equals the lower index.
pub fn largest(values: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    order.truncate(count);
    order
}

/// `act(gate) ⊙ up` of a row that holds gate, then up.
pub fn gated(row: &[f64], act: Activation) -> Vec<f64> {
    let (gate, up) = row.split_at(row.len() / 2);
    gate.iter().zip(up).map(|(g, u)| activate(*g, act) * u).collect()
}

/// A gated unit's function.
pub fn activate(x: f64, act: Activation) -> f64 {
    use std::f64::consts::{FRAC_1_SQRT_2, PI};
    match act {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2)),
    }
}

/// The error function by its series `2/√π e^-x² Σ 2ⁿ x²ⁿ⁺¹ / (2n+1)!!`, which has no cancellation.
pub fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let mut term = x;
    let mut sum = x;
    let mut n = 0.0;
    while term.abs() > 1e-17 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_matches_its_table() {
        for (x, want) in [(0.0, 0.0), (0.5, 0.5204998778), (1.0, 0.8427007929), (3.0, 0.9999779095)]
        {
            assert!((erf(x) - want).abs() < 1e-10 && (erf(-x) + want).abs() < 1e-10);
        }
    }

    #[test]
    fn ties_go_to_the_lower_index() {
        assert_eq!(largest(&[1.0, 3.0, 3.0, 2.0, 3.0], 2), [1, 2]);
    }
}
