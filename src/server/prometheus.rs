//! `/metrics` as Prometheus reads it: SGLang's names for what bench clients and dashboards look
//! up, `pacer_…` for what is ours alone.

use std::fmt::{Display, Write};
use std::time::Instant;

use super::context::Context;
use super::stats::{Histogram, Stats};

/// Text being written; every sample carries the model's name.
struct Page {
    text: String,
    labels: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, more: &str, value: impl Display) {
        let labels = &self.labels;
        let _ = writeln!(self.text, "{name}{{{labels}{more}}} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.sample(name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let mut below = 0;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            below += count;
            self.sample(&format!("{name}_bucket"), &format!(",le=\"{bound}\""), below);
        }
        self.sample(&format!("{name}_bucket"), ",le=\"+Inf\"", histogram.count());
        self.sample(&format!("{name}_sum"), "", histogram.sum);
        self.sample(&format!("{name}_count"), "", histogram.count());
    }
}

/// The whole page.
pub fn text(context: &Context, stats: &Stats, connections: usize) -> Vec<u8> {
    let name = context.model.get().map_or("", |m| &m.served_name);
    let name = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut page = Page { text: String::new(), labels: format!("model_name=\"{name}\"") };
    sglang_counters(&mut page, stats);
    sglang_gauges(&mut page, context, stats);
    own_engine(&mut page, context, stats);
    own_server(&mut page, stats, connections);
    page.text.into_bytes()
}

fn sglang_counters(page: &mut Page, stats: &Stats) {
    let counter = "counter";
    let prompt = stats.prompt_tokens;
    page.one("sglang:prompt_tokens_total", counter, "Prompt tokens of ended requests.", prompt);
    let tokens = stats.generation_tokens;
    page.one("sglang:generation_tokens_total", counter, "Tokens generated.", tokens);
    let name = "sglang:cached_tokens_total";
    page.head(name, counter, "Prompt tokens that the prefix cache had.");
    page.sample(name, ",cache_source=\"device\"", stats.cached_tokens);
    page.one("sglang:num_requests_total", counter, "Requests taken.", stats.requests);
    page.one("sglang:num_aborted_requests_total", counter, "Requests cut short.", stats.aborted);
    let ttft = "Seconds from the whole request to the first token.";
    page.histogram("sglang:time_to_first_token_seconds", ttft, &stats.ttft);
    page.histogram("sglang:inter_token_latency_seconds", "Seconds between tokens.", &stats.itl);
    let per_token = "Mean seconds between a request's tokens.";
    page.histogram("sglang:request_time_per_output_token_seconds", per_token, &stats.per_token);
    let e2e = "Seconds from the whole request to the last token.";
    page.histogram("sglang:e2e_request_latency_seconds", e2e, &stats.e2e);
    page.histogram("sglang:prompt_tokens_histogram", "Prompt lengths.", &stats.prompt_lengths);
    page.histogram("sglang:generation_tokens_histogram", "Output lengths.", &stats.output_lengths);
}

fn sglang_gauges(page: &mut Page, context: &Context, stats: &Stats) {
    let now = context.engine.health().snapshot();
    let gauge = "gauge";
    page.one("sglang:num_running_reqs", gauge, "Choices that run.", now.running);
    page.one("sglang:num_queue_reqs", gauge, "Choices that wait.", now.queued);
    page.one("sglang:num_retracted_reqs", gauge, "Choices preempted.", now.preempted);
    let model = context.model.get();
    let (capacity, size) = model.map_or((0, 0), |m| (m.capacity, m.page_size));
    page.one("sglang:num_used_tokens", gauge, "Tokens of held pages.", now.pages_used * size);
    page.one("sglang:max_total_num_tokens", gauge, "Tokens that the cache holds.", capacity);
    let usage = now.pages_used as f64 / now.pages_total.max(1) as f64;
    page.one("sglang:token_usage", gauge, "Share of pages that are held.", usage);
    let rate = stats.throughput(Instant::now());
    page.one("sglang:gen_throughput", gauge, "Tokens a second over the last 10 s.", rate);
    let looked = now.hit_tokens_total + now.prefill_tokens_total;
    let hits = now.hit_tokens_total as f64 / looked.max(1) as f64;
    page.one("sglang:cache_hit_rate", gauge, "Share of prompt tokens not computed.", hits);
    page.one("sglang:is_cuda_graph", gauge, "CUDA graphs in use.", 0);
}

fn own_engine(page: &mut Page, context: &Context, stats: &Stats) {
    let now = context.engine.health().snapshot();
    let (counter, gauge) = ("counter", "gauge");
    let states = "1 for the state that the engine is in.";
    page.head("pacer_engine_state", gauge, states);
    page.sample("pacer_engine_state", &format!(",state=\"{}\"", now.state.name()), 1);
    page.one("pacer_steps_total", counter, "Steps that came back.", now.steps_total);
    page.one("pacer_failed_steps_total", counter, "Steps that failed.", now.failed_steps_total);
    let since = now.since_last_step.map_or(f64::NAN, |d| d.as_secs_f64());
    if since.is_finite() {
        page.one("pacer_since_last_step_seconds", gauge, "Since the last step.", since);
    }
    page.histogram("pacer_step_seconds", "Whole steps.", &stats.step);
    page.histogram("pacer_device_step_seconds", "The device's part.", &stats.device_step);
    let (settle, hidden) = (now.settle_total.as_secs_f64(), now.hidden_total.as_secs_f64());
    let what = "Time that results of steps were turned into text and updates.";
    page.one("pacer_settle_seconds_total", counter, what, settle);
    let what = "How much of that the device spent on the next step, so that nobody waited.";
    page.one("pacer_settle_hidden_seconds_total", counter, what, hidden);
    let preemptions = "Choices that had to give up their pages.";
    page.one("pacer_preemptions_total", counter, preemptions, now.preemptions_total);
    let prefilled = now.prefill_tokens_total;
    page.one("pacer_prefill_tokens_total", counter, "Prompt tokens computed.", prefilled);
    let hits = now.hit_tokens_total;
    page.one("pacer_hit_tokens_total", counter, "Prompt tokens not computed.", hits);
    page.one("pacer_queued_tokens", gauge, "Prompt tokens that wait.", now.queued_tokens);
    let name = "pacer_pages";
    page.head(name, gauge, "Pages of the key-value cache.");
    let free = now.pages_total.saturating_sub(now.pages_used + now.pages_cached);
    for (state, pages) in [("used", now.pages_used), ("cached", now.pages_cached), ("free", free)] {
        page.sample(name, &format!(",state=\"{state}\""), pages);
    }
}

fn own_server(page: &mut Page, stats: &Stats, connections: usize) {
    let (counter, gauge) = ("counter", "gauge");
    let name = "pacer_http_responses_total";
    page.head(name, counter, "Responses by route and status.");
    for ((route, status), count) in &stats.responses {
        page.sample(name, &format!(",route=\"{route}\",status=\"{status}\""), count);
    }
    page.one("pacer_connections", gauge, "Open connections.", connections);
    let total = stats.connections_total;
    page.one("pacer_connections_total", counter, "Connections accepted.", total);
    let refused = stats.connections_refused;
    page.one("pacer_connections_refused_total", counter, "Connections over the cap.", refused);
    let late = "Connections closed because their client was too slow.";
    page.one("pacer_connections_late_total", counter, late, stats.connections_late);
    let busy = "How long the event loop was away from its poll.";
    page.histogram("pacer_loop_busy_seconds", busy, &stats.loop_busy);
    let most = "The longest time that the event loop was away.";
    page.one("pacer_loop_busy_seconds_max", gauge, most, stats.loop_busy_max);
    let blocked = "The longest time that the event loop computed or waited between two polls; what \
                   the system gave to others meanwhile is not in it.";
    page.one("pacer_loop_blocked_seconds_max", gauge, blocked, stats.loop_blocked_max);
}
