//! Gated activations and the soft cap.

use crate::device::cpu::simd::{LANES, Lanes, math, padded, simd_fn};
use crate::model::plan::Activation;

/// `√(2/π)`.
const GELU_SCALE: f32 = 0.797_884_6;
const GELU_CUBE: f32 = 0.044_715;

simd_fn! {
    /// `out = act(gate) ⊙ up`.
    pub fn gated<S>(out: &mut [f32], gate: &[f32], up: &[f32], act: Activation) {
        let (to, to_rest) = out.as_chunks_mut::<LANES>();
        let (gates, gate_rest) = gate.as_chunks::<LANES>();
        let (ups, up_rest) = up.as_chunks::<LANES>();
        for ((to, gate), up) in to.iter_mut().zip(gates).zip(ups) {
            activate(S::load(gate), act).mul(S::load(up)).store(to);
        }
        if !to_rest.is_empty() {
            let mut last = [0.0; LANES];
            let (gate, up) = (S::load(&padded(gate_rest)), S::load(&padded(up_rest)));
            activate(gate, act).mul(up).store(&mut last);
            to_rest.copy_from_slice(&last[..to_rest.len()]);
        }
    }
}

#[inline(always)]
fn activate<S: Lanes>(x: S, act: Activation) -> S {
    match act {
        Activation::Silu => x.mul(math::sigmoid(x)),
        // 0.5 (1 + tanh u) = sigmoid(2u)
        Activation::GeluTanh => {
            let cube = x.mul(x).mul(x).fma(S::splat(GELU_CUBE), x);
            x.mul(math::sigmoid(cube.mul(S::splat(2.0 * GELU_SCALE))))
        }
        Activation::Gelu => {
            let erf = math::erf(x.mul(S::splat(std::f32::consts::FRAC_1_SQRT_2)));
            x.mul(S::splat(0.5)).mul(S::splat(1.0).add(erf))
        }
    }
}

simd_fn! {
    /// `x = cap · tanh(x / cap)`.
    pub fn soft_cap<S>(x: &mut [f32], cap: f32) {
        let capped = |x: S| S::splat(cap).mul(math::tanh(x.div(S::splat(cap))));
        let (vectors, rest) = x.as_chunks_mut::<LANES>();
        for part in vectors {
            capped(S::load(part)).store(part);
        }
        let mut last = [0.0; LANES];
        capped(S::load(&padded(rest))).store(&mut last);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}
