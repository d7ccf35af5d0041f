//! Triage: where most time could be won, in at most three sentences.

use serde_json::{Value, json};

use super::Summary;

/// One thing to look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub text: String,
    /// Seconds that each step would be shorter at most.
    pub gain_s: f64,
}

/// Findings given at most.
const MOST: usize = 3;
/// What would win less than this share of a step is not worth a sentence.
const WORTH: f64 = 0.01;

impl Summary {
    /// The largest possible gains, greatest first: ops above their floor, and time in which no op
    /// ran. An op without a known floor is not judged.
    pub fn findings(&self) -> Vec<Finding> {
        let steps: u64 = self.stages.values().map(|s| s.steps.count).sum();
        let in_steps: f64 = self.stages.values().map(|s| s.steps.seconds()).sum();
        if steps == 0 || in_steps <= 0.0 {
            return Vec::new();
        }
        let mut found = self.slow_ops(steps);
        found.extend(self.gaps(steps));
        found.retain(|f| f.gain_s * steps as f64 > WORTH * in_steps);
        found.sort_by(|a, b| b.gain_s.total_cmp(&a.gain_s));
        found.truncate(MOST);
        found
    }

    fn slow_ops(&self, steps: u64) -> Vec<Finding> {
        let Some(ceiling) = &self.ceiling else { return Vec::new() };
        let judge = |((stage, op, scope), e): (&(super::Stage, String, String), &super::Entry)| {
            let floor = e.work.floor(ceiling);
            let gain_s = (e.seconds() - floor) / steps as f64;
            let memory = e.work.bytes() as f64 / ceiling.bytes_per_s;
            let bound = if memory >= floor { "memory" } else { "arithmetic" };
            let text = format!(
                "{op} {scope} ({}) reaches {:.0} % of the {bound} ceiling; at the ceiling each \
                 step would be {:.3} ms shorter",
                stage.name(),
                100.0 * floor / e.seconds(),
                gain_s * 1e3
            );
            (floor > 0.0 && e.seconds() > 0.0).then_some(Finding { text, gain_s })
        };
        self.ops.iter().filter_map(judge).collect()
    }

    fn gaps(&self, steps: u64) -> Vec<Finding> {
        // The time that emulating takes says nothing of a card's.
        if self.projected {
            return Vec::new();
        }
        // Waiting for requests is no loss.
        let causes = self.idle().into_iter().filter(|(cause, _)| *cause != "no work");
        let finding = |(cause, seconds): (&str, f64)| {
            let gain_s = seconds / steps as f64;
            let text = format!("{cause}: {:.3} ms of each step in which no op runs", gain_s * 1e3);
            Finding { text, gain_s }
        };
        causes.map(finding).collect()
    }
}

/// Findings for the summary file.
pub fn json(findings: &[Finding]) -> Value {
    findings.iter().map(|f| json!({"finding": f.text, "gain_s_per_step": f.gain_s})).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::describe::{Ceiling, OpInfo, Work};
    use super::super::super::record::{Event, Stage};
    use super::*;

    #[test]
    fn the_largest_gain_comes_first() {
        let source = String::new();
        let ceiling = Ceiling { bytes_per_s: 1e9, flops_per_s: 1e12, source };
        let mut summary = Summary::new(Some(ceiling), false);
        let op = |name: &str| OpInfo { name: name.into(), scope: "m.0".into(), layer: Some(0) };
        // 1 MB at 1 GB/s: a floor of 1 ms.
        let work = Work { weight_bytes: 1_000_000, ..Work::default() };
        summary.op(Stage::Decode, &op("slow"), 9_000_000, &work);
        summary.op(Stage::Decode, &op("fast"), 1_050_000, &work);
        summary.op(Stage::Decode, &op("unknown"), 5_000_000, &Work::default());
        summary.forward(Stage::Decode, 15_050_000);
        summary.other(Event::Sample, 0, 4_000_000);
        summary.step(Stage::Decode, 1, 8, 0, 20_000_000);
        let found = summary.findings();
        let texts: Vec<&str> = found.iter().map(|f| f.text.as_str()).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts[0].starts_with("slow m.* (DECODE) reaches 11 % of the memory ceiling"));
        assert!((found[0].gain_s - 0.008).abs() < 1e-9);
        assert!(texts[1].starts_with("sampling: 4.000 ms"), "{texts:?}");
        assert!(texts[2].starts_with("rest of the step"), "{texts:?}");
        assert!(Summary::default().findings().is_empty());
        assert!(json(&found).to_string().len() < 4096);
    }
}
