//! Rotary position embedding: angles as data (Su et al., RoFormer, arXiv:2104.09864).

use std::f64::consts::PI;

use crate::error::{Error, Result};

/// One rotary table: column `i` of the first `dim` turns by `position · inv_freq[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    /// Rotated columns of a head; the rest pass through (partial rotary).
    pub dim: usize,
    /// `[dim / 2]` radians per position.
    pub inv_freq: Vec<f32>,
    /// Multiplies cos and sin (yarn and longrope attention factor); 1 otherwise.
    pub scale: f32,
}

/// How the plain frequencies are stretched for longer contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    None,
    /// Position interpolation (Chen et al., arXiv:2306.15595): all frequencies divided by `factor`.
    Linear {
        factor: f64,
    },
    /// Llama 3: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_context: f64,
    },
    /// YaRN (Peng et al., arXiv:2309.00071). `attention_factor` multiplies cos and sin.
    Yarn {
        factor: f64,
        original_context: f64,
        beta_fast: f64,
        beta_slow: f64,
        attention_factor: f64,
        truncate: bool,
    },
    /// LongRoPE (Ding et al., arXiv:2402.13753): each frequency divided by its own factor, one set
    /// for contexts up to `original_context`, one beyond.
    LongRope {
        short: Vec<f64>,
        long: Vec<f64>,
        original_context: usize,
        attention_factor: f64,
    },
    /// Each frequency divided by its own factor (GGUF's `rope_freqs.weight`).
    Divided {
        factors: Vec<f64>,
    },
}

/// A rotary embedding as a config describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Rotated columns of a head, even.
    pub dim: usize,
    pub theta: f64,
    pub scaling: Scaling,
}

/// YaRN's default attention factor: `0.1 · m · ln(factor) + 1`.
pub fn yarn_mscale(factor: f64, m: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 }
}

/// LongRoPE's default attention factor: `√(1 + ln(factor) / ln(original_context))`.
pub fn longrope_attention_factor(factor: f64, original_context: usize) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original_context as f64).ln()).sqrt() }
}

impl Rope {
    /// The table for sequences of up to `context` tokens. LongRoPE picks its set of factors by
    /// that limit, not by each request's length: a token's rotation must not depend on what comes
    /// after it, or cached keys would have to change when a sequence grows past the border.
    ///
    /// # Errors
    /// A list of factors whose length is not `dim / 2`.
    pub fn table(&self, context: usize) -> Result<RopeTable> {
        let half = self.dim / 2;
        let plain: Vec<f64> =
            (0..half).map(|i| self.theta.powf(-2.0 * i as f64 / self.dim as f64)).collect();
        let (inv_freq, scale) = match &self.scaling {
            Scaling::None => (plain, 1.0),
            Scaling::Linear { factor } => (plain.iter().map(|f| f / factor).collect(), 1.0),
            Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let (low, high) = (*low_freq_factor, *high_freq_factor);
                let stretch = |f: f64| llama3_frequency(f, *factor, low, high, *original_context);
                (plain.iter().map(|&f| stretch(f)).collect(), 1.0)
            }
            Scaling::Yarn { attention_factor, .. } => (self.yarn(&plain), *attention_factor),
            Scaling::LongRope { short, long, original_context, attention_factor } => {
                let factors = if context > *original_context { long } else { short };
                (divided(&plain, factors)?, *attention_factor)
            }
            Scaling::Divided { factors } => (divided(&plain, factors)?, 1.0),
        };
        let inv_freq = inv_freq.into_iter().map(|f| f as f32).collect();
        Ok(RopeTable { dim: self.dim, inv_freq, scale: scale as f32 })
    }

    /// Blends interpolated and plain frequencies by how often each turns over the original
    /// context: `beta_fast` turns or more stay plain, `beta_slow` or fewer are interpolated.
    fn yarn(&self, plain: &[f64]) -> Vec<f64> {
        let Scaling::Yarn { factor, original_context, beta_fast, beta_slow, truncate, .. } =
            &self.scaling
        else {
            return plain.to_vec();
        };
        let dim = self.dim as f64;
        let border = |turns: f64| {
            dim * (original_context / (turns * 2.0 * PI)).ln() / (2.0 * self.theta.ln())
        };
        let (mut low, mut high) = (border(*beta_fast), border(*beta_slow));
        if *truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        if low == high {
            high += 0.001;
        }
        let blend = |(i, &f): (usize, &f64)| {
            let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            f / factor * ramp + f * (1.0 - ramp)
        };
        plain.iter().enumerate().map(blend).collect()
    }
}

fn divided(plain: &[f64], factors: &[f64]) -> Result<Vec<f64>> {
    if factors.len() != plain.len() {
        return Err(Error::unsupported(format!(
            "rope factors: found {} values, expected half the rotary dimension, {}",
            factors.len(),
            plain.len()
        )));
    }
    Ok(plain.iter().zip(factors).map(|(f, s)| f / s).collect())
}

fn llama3_frequency(f: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wavelength = 2.0 * PI / f;
    if wavelength < original / high {
        f
    } else if wavelength > original / low {
        f / factor
    } else {
        let smooth = (original / wavelength - low) / (high - low);
        (1.0 - smooth) * f / factor + smooth * f
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(scaling: Scaling) -> Rope {
        Rope { dim: 8, theta: 10_000.0, scaling }
    }

    #[test]
    fn plain_frequencies_are_powers_of_theta() {
        let table = rope(Scaling::None).table(16).unwrap();
        assert_eq!(table.inv_freq, [1.0, 0.1, 0.01, 0.001]);
        assert_eq!(table.scale, 1.0);
    }

    #[test]
    fn linear_divides_all() {
        let table = rope(Scaling::Linear { factor: 4.0 }).table(16).unwrap();
        assert_eq!(table.inv_freq[0], 0.25);
        assert_eq!(table.inv_freq[2], 0.0025);
    }

    #[test]
    fn longrope_switches_sets_at_the_original_context() {
        let scaling = Scaling::LongRope {
            short: vec![1.0; 4],
            long: vec![2.0; 4],
            original_context: 32,
            attention_factor: 1.5,
        };
        assert_eq!(rope(scaling.clone()).table(32).unwrap().inv_freq[0], 1.0);
        assert_eq!(rope(scaling).table(33).unwrap().inv_freq[0], 0.5);
    }

    #[test]
    fn factors_of_the_wrong_length_are_refused() {
        assert!(rope(Scaling::Divided { factors: vec![1.0; 3] }).table(8).is_err());
    }

    /// By hand for dim 8, theta 10000, factor 4, context 64: border(32) = -0.497 and border(1) =
    /// 1.008, so low = 0 and high = 2 after truncation, and the ramp is 0, 1/2, 1, 1.
    #[test]
    fn yarn_blends_between_its_borders() {
        let scaling = Scaling::Yarn {
            factor: 4.0,
            original_context: 64.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: yarn_mscale(4.0, 1.0),
            truncate: true,
        };
        let table = rope(scaling).table(256).unwrap();
        let expected = [1.0, 0.1 * (0.5 * 0.25 + 0.5), 0.01 * 0.25, 0.001 * 0.25];
        for (found, wanted) in table.inv_freq.iter().zip(expected) {
            assert!((f64::from(*found) - wanted).abs() < 1e-7, "{found} {wanted}");
        }
        assert!((table.scale - 1.138_629_4).abs() < 1e-6);
    }
}
