//! Where a batch's time went, from the timeline that the engine recorded of it. Pure.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::measure::json::number;

/// A batch in stretches that follow one another; their sum is [`Parts::span_s`]. Seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parts {
    /// Requests are read and checked, until the last is with the engine or the first step begins.
    pub read_s: f64,
    /// Of that, text becomes tokens.
    pub tokenise_s: f64,
    /// From there to the first step.
    pub queue_s: f64,
    /// The model over steps that compute prompts, and over steps that only generate.
    pub prefill_s: f64,
    pub decode_s: f64,
    pub prefill_steps: u64,
    pub decode_steps: u64,
    /// Rows that went through the model, in all steps and in those that compute prompts.
    pub rows: u64,
    pub prefill_rows: u64,
    pub sampling_s: f64,
    /// Planning, copying pages, committing.
    pub scheduling_s: f64,
    /// What is left between the first step's begin and the last step's end: commands, gaps.
    pub between_s: f64,
    /// From the last step's end to the last byte of the answer.
    pub answer_s: f64,
}

/// One span of the timeline, microseconds.
#[derive(Debug, Clone, Copy)]
struct Span<'a> {
    name: &'a str,
    from: f64,
    to: f64,
    step: u64,
    tokens: u64,
}

impl Parts {
    pub fn span_s(&self) -> f64 {
        self.read_s
            + self.tokenise_s
            + self.queue_s
            + self.prefill_s
            + self.decode_s
            + self.sampling_s
            + self.scheduling_s
            + self.between_s
            + self.answer_s
    }

    /// Of the last batch in the events of a Chrome trace (its prompts came with one request, so
    /// they were received at one time), or of all steps if it knows of no requests. `None`: it
    /// holds no whole step.
    pub fn of_trace(events: &[Value]) -> Option<Parts> {
        let spans: Vec<Span> = events.iter().filter_map(span).collect();
        let submits = spans.iter().filter(|s| s.name == "submit").map(|s| s.from);
        let submitted = submits.max_by(f64::total_cmp);
        let mut reads = requests(events, "read and tokenise");
        reads.retain(|r| submitted.is_none_or(|at| r.0 <= at && r.1 >= at - 1.0));
        // Where the reading was not recorded, the way begins with the engine.
        let received = reads.iter().map(|r| r.0).max_by(f64::total_cmp).or(submitted);
        let later = |s: &&Span| received.is_none_or(|at| s.from >= at);
        let steps: Vec<&Span> =
            spans.iter().filter(later).filter(|s| s.name.starts_with("step[")).collect();
        let begin = steps.iter().map(|s| s.from).min_by(f64::total_cmp)?;
        let end = steps.iter().map(|s| s.to).max_by(f64::total_cmp)?;
        let mut p = inside(&spans, &steps, begin, end);
        if let Some(received) = received {
            let read = reads.iter().filter(|r| r.0 >= received).map(|r| r.1);
            let submitted = read.fold(received, f64::max).min(begin);
            let tokenise: f64 = requests(events, "tokenise")
                .iter()
                .filter(|t| t.0 >= received)
                .map(|t| t.1 - t.0)
                .sum();
            // Several threads tokenise at once: no more than the stretch itself.
            p.tokenise_s = tokenise.min(submitted - received) * 1e-6;
            p.read_s = (submitted - received) * 1e-6 - p.tokenise_s;
            p.queue_s = (begin - submitted) * 1e-6;
        }
        let written = spans.iter().filter(|s| matches!(s.name, "write" | "respond"));
        let written = written.filter(|s| s.from >= begin).map(|s| s.to).fold(end, f64::max);
        p.answer_s = (written - end) * 1e-6;
        Some(p)
    }

    pub fn to_json(&self) -> Value {
        json!({
            "read_s": number(self.read_s),
            "tokenise_s": number(self.tokenise_s),
            "queue_s": number(self.queue_s),
            "prefill_s": number(self.prefill_s),
            "decode_s": number(self.decode_s),
            "prefill_steps": self.prefill_steps,
            "decode_steps": self.decode_steps,
            "rows": self.rows,
            "prefill_rows": self.prefill_rows,
            "sampling_s": number(self.sampling_s),
            "scheduling_s": number(self.scheduling_s),
            "between_s": number(self.between_s),
            "answer_s": number(self.answer_s),
        })
    }

    /// Two stretches of the same batch, one after the other.
    pub fn and(self, next: &Parts) -> Parts {
        Parts {
            read_s: self.read_s + next.read_s,
            tokenise_s: self.tokenise_s + next.tokenise_s,
            queue_s: self.queue_s + next.queue_s,
            prefill_s: self.prefill_s + next.prefill_s,
            decode_s: self.decode_s + next.decode_s,
            prefill_steps: self.prefill_steps + next.prefill_steps,
            decode_steps: self.decode_steps + next.decode_steps,
            rows: self.rows + next.rows,
            prefill_rows: self.prefill_rows + next.prefill_rows,
            sampling_s: self.sampling_s + next.sampling_s,
            scheduling_s: self.scheduling_s + next.scheduling_s,
            between_s: self.between_s + next.between_s,
            answer_s: self.answer_s + next.answer_s,
        }
    }
}

/// What happened from the first step's begin to the last step's end.
fn inside(spans: &[Span], steps: &[&Span], begin: f64, end: f64) -> Parts {
    let stages: HashMap<u64, bool> =
        steps.iter().map(|s| (s.step, s.name.starts_with("step[DECODE"))).collect();
    let mut p = Parts::default();
    for s in spans.iter().filter(|s| s.from >= begin && s.to <= end) {
        let seconds = (s.to - s.from) * 1e-6;
        match s.name {
            "forward" if stages.get(&s.step) == Some(&true) => {
                (p.decode_s, p.decode_steps) = (p.decode_s + seconds, p.decode_steps + 1);
                p.rows += s.tokens;
            }
            "forward" => {
                (p.prefill_s, p.prefill_steps) = (p.prefill_s + seconds, p.prefill_steps + 1);
                p.rows += s.tokens;
                p.prefill_rows += s.tokens;
            }
            "sample" => p.sampling_s += seconds,
            "scheduler.plan" | "copy pages" | "scheduler.commit" => p.scheduling_s += seconds,
            _ => {}
        }
    }
    let known = p.prefill_s + p.decode_s + p.sampling_s + p.scheduling_s;
    p.between_s = (end - begin) * 1e-6 - known;
    p
}

fn span(event: &Value) -> Option<Span<'_>> {
    if event["ph"] != "X" {
        return None;
    }
    let from = event["ts"].as_f64()?;
    Some(Span {
        name: event["name"].as_str()?,
        from,
        to: from + event["dur"].as_f64()?,
        step: event["args"]["step"].as_u64().unwrap_or(0),
        tokens: event["args"]["tokens"].as_u64().unwrap_or(0),
    })
}

/// Begin and end of each request's span called `name`, microseconds.
fn requests(events: &[Value], name: &str) -> Vec<(f64, f64)> {
    let mut open: HashMap<&str, f64> = HashMap::new();
    let mut found = Vec::new();
    for event in events.iter().filter(|e| e["name"] == name) {
        let (Some(id), Some(at)) = (event["id"].as_str(), event["ts"].as_f64()) else { continue };
        match event["ph"].as_str() {
            Some("b") => _ = open.insert(id, at),
            Some("e") => found.extend(open.remove(id).map(|from| (from, at))),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x(name: &str, from: u64, dur: u64, step: u64, tokens: u64) -> Value {
        json!({ "ph": "X", "name": name, "ts": from, "dur": dur,
                "args": { "step": step, "tokens": tokens } })
    }

    fn request(name: &str, id: u64, from: u64, to: u64) -> [Value; 2] {
        let one =
            |ph: &str, at: u64| json!({ "ph": ph, "name": name, "ts": at, "id": id.to_string() });
        [one("b", from), one("e", to)]
    }

    #[test]
    fn a_known_timeline() {
        let mut events = vec![
            x("submit", 5, 0, 0, 0),
            x("submit", 180, 0, 0, 0),
            // A batch before ours.
            x("step[DECODE bs=1]", 10, 20, 1, 0),
            x("forward", 12, 10, 1, 1),
            // Two requests, then a prefill step, a mixed one and a decode step.
            x("step[EXTEND bs=1 toks=8]", 200, 100, 2, 0),
            x("scheduler.plan", 200, 5, 2, 0),
            x("forward", 210, 70, 2, 8),
            x("sample", 280, 10, 2, 0),
            x("step[MIXED bs=2 toks=9]", 310, 100, 3, 0),
            x("forward", 310, 80, 3, 9),
            x("scheduler.commit", 400, 6, 3, 0),
            x("step[DECODE bs=2]", 420, 50, 4, 0),
            x("forward", 420, 40, 4, 2),
            x("write", 350, 20, 0, 0),
            x("write", 475, 15, 0, 0),
        ];
        events.extend(request("read and tokenise", 0, 2, 5));
        events.extend(request("read and tokenise", 1, 100, 140));
        events.extend(request("read and tokenise", 2, 100, 180));
        events.extend(request("tokenise", 2, 120, 150));
        let p = Parts::of_trace(&events).unwrap();
        let us = |s: f64| (s * 1e6).round();
        assert_eq!((us(p.read_s), us(p.tokenise_s), us(p.queue_s)), (50.0, 30.0, 20.0));
        assert_eq!((us(p.prefill_s), us(p.decode_s)), (150.0, 40.0));
        assert_eq!((p.prefill_steps, p.decode_steps, p.rows, p.prefill_rows), (2, 1, 19, 17));
        assert_eq!((us(p.sampling_s), us(p.scheduling_s)), (10.0, 11.0));
        assert_eq!((us(p.between_s), us(p.answer_s)), (59.0, 20.0));
        assert_eq!(us(p.span_s()), 390.0, "from the first byte read to the last written");
        assert_eq!(Parts::of_trace(&[]), None);
    }

    #[test]
    fn a_timeline_without_requests_is_all_steps() {
        let events = [x("step[DECODE bs=1]", 10, 20, 1, 0), x("forward", 12, 10, 1, 1)];
        let p = Parts::of_trace(&events).unwrap();
        assert_eq!((p.read_s, p.queue_s, p.answer_s), (0.0, 0.0, 0.0));
        assert!((p.span_s() - 20e-6).abs() < 1e-12);
        assert!((p.clone().and(&p).decode_s - 20e-6).abs() < 1e-12);
    }
}
