//! `--plot-throughput`: the run over time as bars in a terminal. Pure.

use super::overlap;
use crate::bench::load::record::Record;

/// Stretches of time, and columns of the longest bar.
const STRETCHES: usize = 20;
const COLUMNS: f64 = 40.0;

/// Output throughput and concurrency in [`STRETCHES`] stretches of the run.
pub fn over_time(records: &[Record], duration: f64) -> Vec<String> {
    let s = overlap::series(records, duration, STRETCHES);
    let mut lines = bars("output throughput (tok/s)", &s.output_throughput, s.step);
    lines.extend(bars("concurrent requests", &s.concurrency, s.step));
    lines
}

fn bars(title: &str, values: &[f64], step: f64) -> Vec<String> {
    let most = values.iter().copied().fold(0.0, f64::max);
    let mut lines = vec![format!("{title}, by seconds since the start")];
    for (i, value) in values.iter().enumerate() {
        let share = if most > 0.0 { value / most } else { 0.0 };
        let bar = "#".repeat((share * COLUMNS).round() as usize);
        lines.push(format!("{:>8.2} | {bar:<40} {value:.1}", i as f64 * step));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_width() {
        let lines = bars("t", &[0.0, 5.0, 10.0], 0.5);
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[1].matches('#').count(), 0);
        assert_eq!((lines[2].matches('#').count(), lines[3].matches('#').count()), (20, 40));
        assert!(lines[3].contains("1.00 |") && lines[3].ends_with("10.0"), "{}", lines[3]);
        assert!(!over_time(&[], 0.0).is_empty());
    }
}
