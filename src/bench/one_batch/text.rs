//! The printed lines: SGLang's, then ours.

use super::SubjectInfo;
use super::case::{Effort, Samples, Shape};
use super::figures::{Ceiling, Figures, Utilisation};
use super::ops::{Gpu, OpTable, OpTime, Rates};
use crate::measure::stats::Summary;

/// What SGLang prints once the model is loaded, with what is loaded in front.
pub fn loaded(info: &SubjectInfo, capacity_tokens: usize) -> String {
    format!(
        "{} ({}, {}) on {}: {}, {}, {} threads. max_total_num_tokens={capacity_tokens}",
        info.model,
        info.load_format,
        info.dtype,
        info.device_kind,
        info.device_name,
        info.device_detail,
        info.threads
    )
}

/// SGLang's message for a shape that does not fit.
pub fn skipped(shape: Shape) -> String {
    let Shape { batch_size, input_len, output_len } = shape;
    format!("skipping ({batch_size}, {input_len}, {output_len}) due to max batch size limit")
}

/// SGLang's lines of one case. With several passes each number is the median over them; with one
/// pass they are what SGLang would print. `log_interval` > 0 adds every so many steps.
pub fn sglang(samples: &Samples, figures: &Figures, log_interval: usize) -> Vec<String> {
    let batch = samples.shape.batch_size;
    let mut lines = vec![format!(
        "Prefill. latency: {:6.5} s, throughput: {:9.2} token/s",
        figures.prefill.median, figures.prefill_throughput
    )];
    if let Some(decode) = &figures.decode {
        for (i, latency) in decode.each_step.iter().enumerate() {
            if i < 5 || (log_interval > 0 && i % log_interval == 0) {
                lines.push(format!(
                    "Decode {i}. Batch size: {batch}, latency: {latency:6.5} s, \
                     throughput: {:9.2} token/s",
                    batch as f64 / latency
                ));
            }
        }
        lines.push(format!(
            "Decode.  median latency: {:6.5} s, median throughput: {:9.2} token/s",
            decode.median, decode.throughput
        ));
    }
    lines.push(format!(
        "Total. latency: {:6.3} s, throughput: {:9.2} token/s",
        figures.total.median, figures.overall_throughput
    ));
    lines
}

/// Our lines of one case.
pub fn ours(
    samples: &Samples,
    figures: &Figures,
    effort: Effort,
    ceiling: &Ceiling,
    peak_memory: Option<u64>,
) -> Vec<String> {
    let Shape { batch_size, output_len, .. } = samples.shape;
    let mut lines = vec![format!(
        "  batch {batch_size}, input {}, output {output_len}: {} measured passes after {} \
         warm-up; [ ] = {:.1}% interval of the median",
        lens(&samples.input_lens),
        samples.passes.len(),
        effort.warmup,
        figures.prefill.interval.coverage * 100.0
    )];
    let used = figures.prefill_use.as_ref();
    lines.push(format!("  prefill                {}{}", times(&figures.prefill), shares(used)));
    if let Some(d) = &figures.decode {
        let used = figures.decode_use.as_ref();
        lines.push(format!(
            "  decode, synchronised   {}/step, p90 {} p99 {}{}",
            times(&d.pass_medians),
            ms(d.p90),
            ms(d.p99),
            shares(used)
        ));
    }
    if let Some(b) = &figures.back_to_back {
        let used = figures.back_to_back_use.as_ref();
        lines.push(format!(
            "  decode, back to back   {}/step, p90 {} p99 {}{}, {:.2} token/s",
            times(&b.summary),
            ms(b.p90),
            ms(b.p99),
            shares(used),
            b.throughput
        ));
    }
    if [&samples.prefill_ops, &samples.decode_ops].iter().any(|t| t.projected()) {
        lines.push(
            "  the times above are the PTX machine's own and say nothing of a GPU; the projected \
             ones are in these tables:"
                .to_owned(),
        );
    }
    lines.extend(slowest("prefill", &samples.prefill_ops, ceiling));
    lines.extend(slowest("decode", &samples.decode_ops, ceiling));
    lines.push(match ceiling {
        Ok(c) => format!(
            "  ceilings ({}, {} threads, {}): {:.1} GB/s read, {:.1} GFLOP/s float32{}",
            c.isa,
            c.threads,
            c.date,
            c.bytes_per_s * 1e-9,
            c.flops_per_s * 1e-9,
            c.int8_ops_per_s.map_or(String::new(), |x| format!(", {:.1} GOP/s int8", x * 1e-9))
        ),
        Err(reason) => format!("  MFU, MBU and share of ceiling unknown: {reason}"),
    });
    if let Some(bytes) = peak_memory {
        lines.push(format!("  peak memory {:.1} MiB", bytes as f64 / (1 << 20) as f64));
    }
    lines.push(format!("  {}", figures.validity.line()));
    lines
}

/// `64`, or `12 to 80` for prompts of different lengths.
fn lens(lens: &[usize]) -> String {
    let (low, high) = (lens.iter().min(), lens.iter().max());
    match (low, high) {
        (Some(low), Some(high)) if low == high => low.to_string(),
        (Some(low), Some(high)) => format!("{low} to {high}"),
        _ => "0".into(),
    }
}

fn ms(seconds: f64) -> String {
    format!("{:.3} ms", seconds * 1e3)
}

fn times(s: &Summary) -> String {
    let (low, high) = (s.interval.low * 1e3, s.interval.high * 1e3);
    format!("{} [{low:.3}, {high:.3}]", ms(s.median))
}

fn shares(used: Option<&Utilisation>) -> String {
    let percent = |x: f64| format!("{:.1}%", x * 100.0);
    used.map_or(String::new(), |u| {
        format!(
            ", MFU {}, MBU {}, {} of the {} ceiling",
            percent(u.mfu),
            percent(u.mbu),
            percent(u.share_of_ceiling),
            u.bound
        )
    })
}

/// A line for each of the slowest eight ops of a phase: its share of all ops' time, and of the
/// ceiling that it is nearest to. Then where there is most to gain.
fn slowest(phase: &str, table: &OpTable, ceiling: &Ceiling) -> Vec<String> {
    let total = table.total();
    if total <= 0.0 {
        return Vec::new();
    }
    let rates = table.rates(ceiling.as_ref().ok());
    let rates = rates.as_ref();
    if let Some(gpu) = &table.gpu {
        return on_gpu(phase, table, gpu, rates);
    }
    let of_ceiling = |o: &OpTime| {
        rates.map_or(String::new(), |c| {
            format!(", {:5.1}% of {}", o.share_of_ceiling(c) * 100.0, o.floor(c).bound)
        })
    };
    let line = |o: &OpTime| {
        let (took, share) = (o.total * 1e3, o.total / total * 100.0);
        format!("    {took:9.3} ms {share:5.1}%{}  {} {}", of_ceiling(o), o.op, o.scope)
    };
    let mut lines = vec![format!("  {phase}, one pass by op ({:.3} ms):", total * 1e3)];
    lines.extend(table.ops.iter().take(8).map(line));
    lines.extend(gain(table, rates));
    lines
}

fn gain(table: &OpTable, rates: Option<&Rates>) -> Option<String> {
    let (op, seconds) = table.most_to_gain(rates?)?;
    Some(format!("    most to gain: {:.3} ms in {} {}", seconds * 1e3, op.op, op.scope))
}

/// The same as a table, by a GPU's own account: every op, with its launches and least work. Times
/// that nothing was measured for are called projected.
fn on_gpu(phase: &str, table: &OpTable, gpu: &Gpu, rates: Option<&Rates>) -> Vec<String> {
    let word = if gpu.projected { "projected " } else { "" };
    let total = table.total();
    let mut lines = vec![
        format!(
            "  {phase}, one pass by op: {word}{:.3} ms of work in {} launches and copies, \
             {word}{:.3} ms in all ({})",
            total * 1e3,
            gpu.launches,
            gpu.elapsed * 1e3,
            gpu.source
        ),
        format!(
            "    {:>12} {:>6} {:>8} {:>10} {:>10}  {:>18}  op",
            format!("{word}ms"),
            "share",
            "launches",
            "MB",
            "GFLOP",
            "of ceiling"
        ),
    ];
    let of_ceiling = |o: &OpTime| match rates.filter(|_| o.cost.bytes() + o.cost.flops > 0) {
        Some(r) => format!("{:5.1}% of {:>9}", o.share_of_ceiling(r) * 100.0, o.floor(r).bound),
        None => String::new(),
    };
    lines.extend(table.ops.iter().map(|o| {
        format!(
            "    {:12.4} {:5.1}% {:8} {:10.3} {:10.3}  {:>18}  {} {}",
            o.total * 1e3,
            o.total / total * 100.0,
            o.count,
            o.cost.bytes() as f64 * 1e-6,
            o.cost.flops as f64 * 1e-9,
            of_ceiling(o),
            o.op,
            o.scope
        )
    }));
    lines.extend(gain(table, rates));
    if let (Some(rates), Some(card)) = (rates, &gpu.ceiling) {
        lines.push(format!(
            "    ceilings: {:.2} TB/s, {:.0} TFLOP/s in 16 bits ({})",
            rates.bytes_per_s * 1e-12,
            rates.flops_per_s * 1e-12,
            card.source
        ));
    }
    lines
}
