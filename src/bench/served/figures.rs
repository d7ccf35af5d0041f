//! SGLang's figures of one batch. Pure.

use super::stream::BatchReader;

/// Times in seconds, throughputs in tokens a second.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    pub latency: f64,
    /// When the last request of the batch had its first token.
    pub last_ttft: f64,
    pub input_throughput: Option<f64>,
    /// `None` for one output token, where there is nothing to divide by.
    pub output_throughput: Option<f64>,
    pub overall_throughput: f64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cached_tokens: u64,
    pub early_stopped: usize,
    /// From the last first token to the first end.
    pub steady: Option<(f64, f64)>,
}

/// Of a finished stream; `input_tokens` as the prompts have them, `output_len` as asked.
pub fn figures(r: &BatchReader, input_tokens: u64, output_len: usize, ignore_eos: bool) -> Figures {
    let seconds = |ns: u64| ns as f64 * 1e-9;
    let latency = seconds(r.end);
    let last_first = r.tracks.iter().filter_map(|t| t.first()).max().unwrap_or(r.end);
    let last_ttft = seconds(last_first);
    let output: u64 = r.tracks.iter().map(|t| t.tokens()).sum();
    let after: f64 = r.tracks.iter().map(|t| t.tokens() as f64 - t.tokens_at(last_first)).sum();
    let generated = if ignore_eos { output as f64 } else { after };
    let rest = latency - last_ttft;
    let per = |tokens: f64, time: f64| (time > 0.0).then(|| tokens / time);
    Figures {
        latency,
        last_ttft,
        input_throughput: per(input_tokens as f64, last_ttft),
        output_throughput: per(generated, rest).filter(|_| output_len > 1),
        overall_throughput: per((input_tokens + output) as f64, latency).unwrap_or(0.0),
        input_tokens,
        output_tokens: output,
        cached_tokens: r.tracks.iter().filter_map(|t| t.cached_tokens).sum(),
        early_stopped: r.tracks.iter().filter(|t| t.finish.as_deref() == Some("stop")).count(),
        steady: steady(r, last_first),
    }
}

/// Throughput and length of the window in which every request generates.
fn steady(r: &BatchReader, from: u64) -> Option<(f64, f64)> {
    let to = r.tracks.iter().filter_map(|t| t.last()).min()?;
    let window = to.checked_sub(from).filter(|n| *n > 0)? as f64 * 1e-9;
    let tokens: f64 = r.tracks.iter().map(|t| t.tokens_at(to) - t.tokens_at(from)).sum();
    Some((tokens / window, window))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::served::stream::Track;

    const S: u64 = 1_000_000_000;

    #[test]
    fn formulas() {
        let track = |counts: &[(u64, u64)]| Track {
            counts: counts.iter().map(|&(t, n)| (t * S, n)).collect(),
            finish: Some("length".into()),
            ..Track::default()
        };
        let tracks = vec![track(&[(1, 1), (3, 5), (5, 9)]), track(&[(2, 1), (6, 9)])];
        let r = BatchReader { tracks, done: true, end: 6 * S };
        let f = figures(&r, 20, 9, true);
        assert_eq!((f.latency, f.last_ttft), (6.0, 2.0));
        assert_eq!((f.input_throughput, f.output_throughput), (Some(10.0), Some(4.5)));
        assert_eq!(f.overall_throughput, 38.0 / 6.0);
        // From 2 s to 5 s: the first from 3 to 9, the second from 1 to 7.
        assert_eq!(f.steady, Some((4.0, 3.0)));
        // Counting only what came after 2 s: 9 − 3 and 9 − 1.
        assert_eq!(figures(&r, 20, 9, false).output_throughput, Some(14.0 / 4.0));
        assert_eq!(figures(&r, 20, 1, true).output_throughput, None);
        let nothing = figures(&BatchReader::new(1), 5, 3, true);
        assert_eq!((nothing.latency, nothing.input_throughput, nothing.steady), (0.0, None, None));
    }
}
