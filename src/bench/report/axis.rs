//! Axes: nice ticks, short numbers, positions.

/// How values become positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    #[default]
    Linear,
    /// Powers of ten evenly spaced; values must be above 0.
    Log,
}

/// An axis from `low` to `high`.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// With its unit: `time to first token (ms)`.
    pub label: String,
    pub scale: Scale,
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<f64>,
}

impl Axis {
    /// An axis around `values`; a linear one begins at 0.
    pub fn around(label: &str, scale: Scale, values: &[f64]) -> Axis {
        let fine = |x: &f64| x.is_finite() && (scale == Scale::Linear || *x > 0.0);
        let values: Vec<f64> = values.iter().copied().filter(fine).collect();
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let ticks = match scale {
            _ if values.is_empty() => vec![0.0, 1.0],
            Scale::Linear => linear(if high > 0.0 { high } else { 1.0 }),
            Scale::Log => log(least, high),
        };
        let (low, high) =
            (ticks.first().copied().unwrap_or(0.0), ticks.last().copied().unwrap_or(1.0));
        Axis { label: label.to_string(), scale, low, high, ticks }
    }

    /// Where `x` lies: 0 at the low end, 1 at the high end.
    pub fn place(&self, x: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (x - self.low) / (self.high - self.low),
            Scale::Log => (x / self.low).ln() / (self.high / self.low).ln(),
        };
        share.clamp(0.0, 1.0)
    }
}

/// About six steps of 1, 2 or 5 times a power of ten, from 0 to above `high`.
fn linear(high: f64) -> Vec<f64> {
    let rough = high / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power);
    let step = steps.into_iter().find(|s| *s >= rough * 0.999).unwrap_or(10.0 * power);
    let n = (high / step - 1e-9).ceil().max(1.0) as usize;
    (0..=n).map(|i| i as f64 * step).collect()
}

/// Powers of ten around the values; with 2 and 5 between where there are few.
fn log(low: f64, high: f64) -> Vec<f64> {
    let few = (high / low).log10() < 2.5;
    let parts: &[f64] = if few { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let from = low.log10().floor() as i32;
    let to = high.log10().ceil() as i32 + 1;
    let all: Vec<f64> =
        (from..=to).flat_map(|p| parts.iter().map(move |m| m * 10f64.powi(p))).collect();
    let first = all.iter().rposition(|t| *t <= low * 1.0001).unwrap_or(0);
    let last = all.iter().position(|t| *t >= high * 0.9999).unwrap_or(all.len() - 1);
    all[first..=last.max(first + 1).min(all.len() - 1)].to_vec()
}

/// `12.5k`, `0.004`, `3`: at most four characters of digits.
pub fn short(x: f64) -> String {
    let (value, unit) = match x.abs() {
        a if a >= 1e12 => (x / 1e12, "T"),
        a if a >= 1e9 => (x / 1e9, "G"),
        a if a >= 1e6 => (x / 1e6, "M"),
        a if a >= 1e4 => (x / 1e3, "k"),
        _ => (x, ""),
    };
    let decimals = match value.abs() {
        0.0 => 0,
        a if a >= 100.0 => 0,
        a if a >= 10.0 => 1,
        a if a >= 1.0 => 2,
        a => (2 - a.log10().floor() as i32).clamp(2, 6) as usize,
    };
    let text = format!("{value:.decimals$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_nice_and_cover() {
        assert_eq!(
            Axis::around("", Scale::Linear, &[3.0, 9.7]).ticks,
            [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        );
        assert_eq!(Axis::around("", Scale::Linear, &[0.0]).ticks.last(), Some(&1.0));
        let log = Axis::around("", Scale::Log, &[3.0, 40.0]);
        assert_eq!(log.ticks, [2.0, 5.0, 10.0, 20.0, 50.0]);
        let wide = Axis::around("", Scale::Log, &[0.02, 30_000.0]);
        assert_eq!((wide.low, wide.high, wide.ticks.len()), (0.01, 100_000.0, 8));
        for x in [1e-7, 0.3, 1.0, 17.0, 99.0, 1e9] {
            for scale in [Scale::Linear, Scale::Log] {
                let axis = Axis::around("", scale, &[x]);
                assert!(axis.low <= x && axis.high >= x * 0.999, "{x} {axis:?}");
                assert!(axis.high > axis.low && axis.ticks.len() <= 12, "{x} {axis:?}");
            }
        }
        assert!(Axis::around("", Scale::Log, &[]).high > 0.0);
    }

    #[test]
    fn places() {
        let axis = Axis::around("", Scale::Log, &[1.0, 100.0]);
        assert!((axis.place(10.0) - 0.5).abs() < 1e-12);
        assert_eq!(axis.place(1e9), 1.0);
    }

    #[test]
    fn numbers_are_short() {
        let want = ["0", "3", "12.5", "1234", "12.5k", "3.2M", "0.004", "0.25", "1.5G"];
        let got = [0.0, 3.0, 12.5, 1234.0, 12_500.0, 3.2e6, 0.004, 0.25, 1.5e9].map(short);
        assert_eq!(got, want);
    }
}
