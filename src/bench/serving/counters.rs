//! The server's own counters, from its Prometheus page: what the client counted is held against
//! them. Pure but for [`read`].

use std::time::Duration;

use crate::bench::load::plain;
use crate::bench::load::target::Target;

/// Totals since the server began; `None` for those it does not export.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counters {
    pub requests: Option<f64>,
    pub prompt_tokens: Option<f64>,
    pub output_tokens: Option<f64>,
    pub cached_tokens: Option<f64>,
}

const REQUESTS: &[&str] = &["sglang:num_requests_total", "vllm:request_success_total"];
const PROMPT: &[&str] =
    &["sglang:prompt_tokens_total", "vllm:prompt_tokens_total", "llamacpp:prompt_tokens_total"];
const OUTPUT: &[&str] = &[
    "sglang:generation_tokens_total",
    "vllm:generation_tokens_total",
    "llamacpp:tokens_predicted_total",
];
const CACHED: &[&str] = &["sglang:cached_tokens_total", "vllm:prefix_cache_hits_total"];

/// The counters in `text`, each summed over its label sets.
pub fn parse(text: &str) -> Counters {
    let sum = |names: &[&str]| {
        names.iter().find_map(|name| {
            let values = text.lines().filter_map(|line| {
                let rest = line.strip_prefix(name)?;
                let labelled = rest.starts_with('{') || rest.starts_with(' ');
                let value = rest.rsplit_once(['}', ' '].as_slice())?.1.trim();
                if labelled { value.parse::<f64>().ok() } else { None }
            });
            values.fold(None, |total: Option<f64>, x| Some(total.unwrap_or(0.0) + x))
        })
    };
    Counters {
        requests: sum(REQUESTS),
        prompt_tokens: sum(PROMPT),
        output_tokens: sum(OUTPUT),
        cached_tokens: sum(CACHED),
    }
}

/// From `/metrics`; `None` if the server has no such page.
pub fn read(target: &Target) -> Option<Counters> {
    let answer = plain::call(target, "GET", "/metrics", b"", Duration::from_secs(10)).ok()?;
    answer.ok().then(|| parse(&String::from_utf8_lossy(&answer.body)))
}

impl Counters {
    /// What was added since `before`.
    pub fn since(&self, before: &Counters) -> Counters {
        // A counter that appears with its first use was 0.
        let diff = |a: Option<f64>, b: Option<f64>| a.map(|a| a - b.unwrap_or(0.0));
        Counters {
            requests: diff(self.requests, before.requests),
            prompt_tokens: diff(self.prompt_tokens, before.prompt_tokens),
            output_tokens: diff(self.output_tokens, before.output_tokens),
            cached_tokens: diff(self.cached_tokens, before.cached_tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_sets_are_summed() {
        let text = "# TYPE sglang:prompt_tokens_total counter\n\
                    sglang:prompt_tokens_total{model=\"a b\"} 10.0\n\
                    sglang:prompt_tokens_total{model=\"c\"} 5\n\
                    sglang:prompt_tokens_total_other{model=\"c\"} 99\n\
                    sglang:generation_tokens_total 7\n";
        let c = parse(text);
        assert_eq!((c.prompt_tokens, c.output_tokens), (Some(15.0), Some(7.0)));
        assert_eq!((c.requests, c.cached_tokens), (None, None));
        let d = parse("sglang:generation_tokens_total 9\nsglang:num_requests_total{} 2").since(&c);
        assert_eq!((d.output_tokens, d.requests), (Some(2.0), Some(2.0)));
    }

    #[test]
    fn other_servers() {
        let c = parse("llamacpp:tokens_predicted_total 3\nllamacpp:prompt_tokens_total 4\n");
        assert_eq!((c.prompt_tokens, c.output_tokens), (Some(4.0), Some(3.0)));
    }
}
