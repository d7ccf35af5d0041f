//! The highest request rate that keeps its objectives: bracketing, then bisection, each rate
//! judged by a sequential test. Pure: trials are run by whoever calls.

/// What one trial at a rate showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    pub requests: usize,
    /// Requests that met every objective.
    pub good: usize,
    /// The server fell behind the arrivals: latencies would grow without end.
    pub saturated: bool,
    /// Hardly any two requests were in flight at once: what fails here fails at every rate.
    pub idle: bool,
}

/// Whether a rate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    Holds,
    Breaks,
}

/// Wald's sequential probability ratio test (1945) of "at least `share` of requests are good"
/// against "`share − gap` are", with 5 % errors either way.
#[derive(Debug, Clone, Copy)]
pub struct Sequential {
    log_ratio: f64,
    good: f64,
    bad: f64,
}

/// The log likelihood ratio at which Wald's test decides, for errors of 5 %: `ln(0.95 / 0.05)`.
const DECIDED: f64 = 2.944_438_979_166_44;

impl Sequential {
    pub fn new(share: f64) -> Self {
        // Halfway between the wanted share of bad requests and three times that.
        let bad = (1.0 - share).max(1e-4);
        let worse = (3.0 * bad).min(0.9);
        Sequential {
            log_ratio: 0.0,
            good: ((1.0 - worse) / (1.0 - bad)).ln(),
            bad: (worse / bad).ln(),
        }
    }

    /// Adds a trial; a decision as soon as there is one.
    pub fn add(&mut self, trial: &Trial) -> Option<Judgement> {
        if trial.saturated {
            return Some(Judgement::Breaks);
        }
        let missed = trial.requests - trial.good;
        self.log_ratio += trial.good as f64 * self.good + missed as f64 * self.bad;
        match self.log_ratio {
            x if x >= DECIDED => Some(Judgement::Breaks),
            x if x <= -DECIDED => Some(Judgement::Holds),
            _ => None,
        }
    }

    /// Which way it leans when trials run out.
    pub fn leaning(&self) -> Judgement {
        if self.log_ratio > 0.0 { Judgement::Breaks } else { Judgement::Holds }
    }
}

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    /// The first rate tried.
    pub start: f64,
    /// Share of requests that must be good.
    pub share: f64,
    /// The search ends when the bracket's ends differ by less than this share.
    pub precision: f64,
    /// Trials of one rate at most; then the test's leaning decides.
    pub trials: usize,
    /// Rates tried at most.
    pub rates: usize,
}

/// A rate with its judgement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub rate: f64,
    pub judgement: Judgement,
    pub requests: usize,
    pub good: usize,
    pub idle: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Found {
    /// The highest rate that held, and the lowest that broke.
    pub holds: Option<f64>,
    pub breaks: Option<f64>,
    pub steps: Vec<Step>,
}

/// Searches; `trial(rate, number)` runs one trial, or `None` to stop (an interruption).
pub fn search(s: &Search, trial: &mut dyn FnMut(f64, usize) -> Option<Trial>) -> Found {
    let mut found = Found::default();
    while found.steps.len() < s.rates {
        let rate = match (found.holds, found.breaks) {
            (None, None) => s.start,
            (Some(low), None) => low * 2.0,
            (None, Some(high)) => high / 2.0,
            (Some(low), Some(high)) if high / low <= 1.0 + s.precision => break,
            (Some(low), Some(high)) => (low * high).sqrt(),
        };
        let Some(step) = judge(s, rate, trial) else { break };
        match step.judgement {
            Judgement::Holds => found.holds = Some(rate),
            Judgement::Breaks => found.breaks = Some(rate),
        }
        found.steps.push(step);
        if step.idle && step.judgement == Judgement::Breaks {
            break;
        }
    }
    found
}

fn judge(
    s: &Search,
    rate: f64,
    trial: &mut dyn FnMut(f64, usize) -> Option<Trial>,
) -> Option<Step> {
    let mut test = Sequential::new(s.share);
    let mut step = Step { rate, judgement: Judgement::Breaks, requests: 0, good: 0, idle: true };
    for number in 0..s.trials.max(1) {
        let seen = trial(rate, number)?;
        step.requests += seen.requests;
        step.good += seen.good;
        step.idle &= seen.idle;
        if let Some(judgement) = test.add(&seen) {
            return Some(Step { judgement, ..step });
        }
    }
    Some(Step { judgement: test.leaning(), ..step })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::draws::Draws;

    /// A server whose requests miss with a probability that crosses 1 % at `limit`.
    fn server(limit: f64, seed: u64) -> impl FnMut(f64, usize) -> Option<Trial> {
        let mut draws = Draws::new(seed);
        move |rate, _| {
            let miss = 0.01 * (rate / limit).powi(12);
            let good = (0..200).filter(|_| draws.uniform() >= miss).count();
            Some(Trial { requests: 200, good, saturated: rate > limit * 1.5, idle: false })
        }
    }

    const SEARCH: Search =
        Search { start: 1.0, share: 0.99, precision: 0.05, trials: 10, rates: 40 };

    #[test]
    fn the_limit_is_bracketed() {
        for (limit, start) in [(7.3, 1.0), (0.11, 4.0), (130.0, 100.0)] {
            let mut inside = 0;
            for seed in 0..20 {
                let found = search(&Search { start, ..SEARCH }, &mut server(limit, seed));
                let (low, high) = (found.holds.unwrap(), found.breaks.unwrap());
                assert!(high / low < 1.06 && found.steps.len() < 25, "{found:?}");
                // The test tells 1 % from 3 % of misses: 3 % are reached 1.1 times higher.
                inside += usize::from(low < limit * 1.15 && high > limit * 0.93);
            }
            assert!(inside >= 18, "limit {limit}: {inside} of 20 searches were right");
        }
    }

    #[test]
    fn saturation_ends_a_trial_at_once() {
        let mut calls = 0;
        let mut trial = |_: f64, _: usize| {
            calls += 1;
            Some(Trial { requests: 10, good: 10, saturated: true, idle: false })
        };
        let step = judge(&SEARCH, 5.0, &mut trial).unwrap();
        assert_eq!((step.judgement, calls), (Judgement::Breaks, 1));
    }

    #[test]
    fn an_interruption_keeps_what_is_known() {
        let mut left = 3;
        let mut trial = |_: f64, _: usize| {
            left -= 1;
            (left > 0).then_some(Trial {
                requests: 1000,
                good: 1000,
                saturated: false,
                idle: false,
            })
        };
        let found = search(&SEARCH, &mut trial);
        assert_eq!((found.holds, found.breaks, found.steps.len()), (Some(2.0), None, 2));
    }

    #[test]
    fn what_an_idle_server_misses_is_not_searched_below() {
        let mut rates = Vec::new();
        let mut trial = |rate: f64, _: usize| {
            rates.push(rate);
            Some(Trial { requests: 900, good: 0, saturated: false, idle: rate < 0.3 })
        };
        let found = search(&SEARCH, &mut trial);
        assert_eq!((found.holds, found.breaks), (None, Some(0.25)));
        assert_eq!(rates, [1.0, 0.5, 0.25]);
    }

    #[test]
    fn a_server_that_never_breaks_is_not_searched_for_ever() {
        let mut trial = |_: f64, _: usize| {
            Some(Trial { requests: 900, good: 900, saturated: false, idle: false })
        };
        let found = search(&Search { rates: 6, ..SEARCH }, &mut trial);
        assert_eq!((found.holds, found.breaks), (Some(32.0), None));
    }
}
