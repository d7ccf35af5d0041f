//! The tables for a person.

use std::fmt::Write;

use super::{Entry, Stage, Summary};
use crate::profile::describe::Work;

/// Rows shown of a table.
const ROWS: usize = 16;

impl Summary {
    /// All tables and findings as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (stage, s) in &self.stages {
            let count = s.steps.count.max(1) as f64;
            let mean = s.steps.seconds() / count * 1e3;
            let ops = s.ops_ns as f64 * 1e-6 / count;
            let _ =
                write!(text, "{}: {} steps, {} tokens, ", stage.name(), s.steps.count, s.tokens);
            let _ = match self.projected {
                true => writeln!(
                    text,
                    "projected {ops:.3} ms of GPU work a step (emulating one took {mean:.1} ms)"
                ),
                false => {
                    let share = 100.0 * ops / mean.max(1e-9);
                    writeln!(text, "{mean:.3} ms a step, {share:.1} % of it in ops")
                }
            };
            self.text_ops(&mut text, *stage, s.ops_ns);
            self.text_kernels(&mut text, *stage);
        }
        if let Some(ceiling) = &self.ceiling {
            let _ = writeln!(
                text,
                "ceiling: {:.1} GB/s, {:.1} TFLOP/s ({})",
                ceiling.bytes_per_s * 1e-9,
                ceiling.flops_per_s * 1e-12,
                ceiling.source
            );
        }
        if self.window() > 0.0 && !self.projected {
            let _ = write!(text, "when no op ran, of {:.3} ms:", self.window() * 1e3);
            for (cause, seconds) in self.idle().into_iter().filter(|c| c.1 > 0.0) {
                let _ = write!(text, " {cause} {:.3} ms;", seconds * 1e3);
            }
            text.pop();
            text.push('\n');
        }
        for (i, finding) in self.findings().iter().enumerate() {
            let _ = writeln!(text, "{}. {}", i + 1, finding.text);
        }
        if self.ttft.count > 0 {
            let count = self.ttft.count as f64;
            let mean = self.ttft.seconds() * 1e3 / count;
            let _ = write!(text, "to the first token, {count} requests, {mean:.3} ms:");
            for (name, entry) in &self.parts {
                let _ = write!(text, " {name} {:.3} ms;", entry.seconds() * 1e3 / count);
            }
            text.pop();
            text.push('\n');
        }
        text
    }

    fn text_ops(&self, text: &mut String, stage: Stage, whole_ns: u64) {
        let rows = self.ops.iter().filter(|(k, _)| k.0 == stage);
        let rows = rows.map(|((_, op, scope), e)| (format!("{op} {scope}"), e)).collect();
        self.table(text, "op", rows, whole_ns);
    }

    fn text_kernels(&self, text: &mut String, stage: Stage) {
        let rows: Vec<_> = self.kernels.iter().filter(|(k, _)| k.0 == stage).collect();
        let whole_ns = rows.iter().map(|(_, e)| e.total_ns).sum();
        let rows = rows.into_iter().map(|((_, name, op), e)| (format!("{name} ({op})"), e));
        self.table(text, "kernel", rows.collect(), whole_ns);
    }

    fn table(&self, text: &mut String, what: &str, mut rows: Vec<(String, &Entry)>, whole: u64) {
        if rows.is_empty() {
            return;
        }
        rows.sort_by_key(|(_, e)| std::cmp::Reverse(e.total_ns));
        let _ = writeln!(
            text,
            "  {what:<60} {:>7} {:>11} {:>10} {:>7} {:>10} {:>8}",
            "count", "total ms", "mean us", "share", "floor us", "ceiling"
        );
        for (name, e) in rows.into_iter().take(ROWS) {
            let mean = e.seconds() * 1e6 / e.count.max(1) as f64;
            let floor = self.ceiling.as_ref().filter(|_| e.work != Work::default());
            let floor = floor.map(|c| e.work.floor(c) * 1e6 / e.count.max(1) as f64);
            let (floor, share) = match floor {
                Some(f) if mean > 0.0 => (format!("{f:.1}"), format!("{:.1} %", 100.0 * f / mean)),
                _ => ("-".into(), "-".into()),
            };
            let _ = writeln!(
                text,
                "  {name:<60} {:>7} {:>11.3} {mean:>10.1} {:>5.1} % {floor:>10} {share:>8}",
                e.count,
                e.seconds() * 1e3,
                100.0 * e.total_ns as f64 / whole.max(1) as f64,
            );
        }
    }
}
