//! Random numbers for data sets and arrivals, drawn one after another from a seeded stream.

use crate::measure::rng;

/// Numbers drawn one after another from a stream.
#[derive(Debug, Clone)]
pub struct Draws {
    seed: u64,
    counter: u64,
}

impl Draws {
    pub fn new(seed: u64) -> Self {
        Draws { seed, counter: 0 }
    }

    /// Uniform in (0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.counter += 1;
        (rng::number(self.seed, self.counter) >> 11) as f64 / (1u64 << 53) as f64 + 0.5f64.powi(54)
    }

    /// Uniform in `0 .. bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.counter += 1;
        rng::below(self.seed, self.counter, bound)
    }

    /// Uniform in `low ..= high`.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below((high.saturating_sub(low) as u64).saturating_add(1)) as usize
    }

    /// Fisher and Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }

    /// A gamma variate of mean 1 and shape `shape`.
    pub fn gap(&mut self, shape: f64) -> f64 {
        if shape.is_infinite() {
            return 1.0;
        }
        if shape == 1.0 {
            return -self.uniform().ln();
        }
        self.gamma(shape) / shape
    }

    /// Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables" (2000); for shapes
    /// below 1 by their remark that `gamma(a + 1) · u^(1/a)` has shape `a`.
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let u = self.uniform();
            return self.gamma(shape + 1.0) * u.powf(1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            let u = self.uniform();
            if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// Box and Muller.
    fn normal(&mut self) -> f64 {
        let (u, v) = (self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
    }
}
