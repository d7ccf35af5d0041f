//! What a seed stands for: sizes, features, requests, cancels and faults, as plain data. Each
//! seed switches a random subset of features off (swarm testing, Groce et al. 2012).

use crate::scheduler::{Limits, Policy, Request};

/// Splitmix64.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// `low ..= high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub fn size(&mut self, low: usize, high: usize) -> usize {
        self.range(low as u64, high as u64) as usize
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }
}

pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A request, when it comes and when it is cancelled.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Its own, whatever its id and whoever else is left.
    pub number: u64,
    pub tick: u64,
    pub request: Request,
    /// It ends where the oracle's stop token comes, if it does.
    pub stops: bool,
    pub cancel: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub seed: u64,
    pub limits: Limits,
    pub requests: Vec<Arrival>,
    /// Steps in flight at once.
    pub depth: usize,
    /// Results come back so many ticks late at most.
    pub late: u64,
    /// One step in so many fails; 0 never.
    pub failing: u64,
    /// The step with which the device is lost.
    pub lost: Option<u64>,
    /// The results of one step in so many never come, and are given up after a while; 0 none.
    pub silent: u64,
    /// Results of one step in so many come twice; 0 none.
    pub twice: u64,
    /// One allocation of a page in so many is refused, 0 none, up to so many allocations.
    pub refuse: (u64, u64),
    /// The prefix cache is flushed every so many ticks; 0 never.
    pub flush: u64,
}

/// Which features a seed has.
struct Features {
    choices: bool,
    logprobs: bool,
    salts: bool,
    cancels: bool,
    oversize: bool,
    stops: bool,
    bursts: bool,
}

impl Scenario {
    pub fn new(seed: u64) -> Scenario {
        let mut rng = Rng(mix(seed ^ 0x5EED));
        let limits = limits(&mut rng);
        let mut on = |chance| rng.percent(chance);
        let features = Features {
            choices: on(50),
            logprobs: on(40),
            salts: on(40),
            cancels: on(70),
            oversize: on(30),
            stops: on(60),
            bursts: on(50),
        };
        let count = rng.size(3, 20);
        let requests =
            (0..count as u64).map(|id| arrival(id, &mut rng, &features, &limits)).collect();
        Scenario {
            seed,
            limits,
            requests,
            depth: if rng.percent(70) { 2 } else { 1 },
            late: if rng.percent(70) { rng.range(0, 5) } else { 0 },
            failing: if rng.percent(25) { rng.range(5, 30) } else { 0 },
            lost: rng.percent(4).then(|| rng.range(1, 30)),
            flush: if rng.percent(20) { rng.range(3, 20) } else { 0 },
            silent: if rng.percent(15) { rng.range(5, 30) } else { 0 },
            twice: if rng.percent(30) { rng.range(2, 9) } else { 0 },
            refuse: if rng.percent(25) { (rng.range(2, 20), rng.range(10, 400)) } else { (0, 0) },
        }
    }

    /// The same requests on another machine: more of everything, other policy, no faults.
    pub fn with_other_sizes(&self) -> Scenario {
        let mut other = self.clone();
        let limits = &mut other.limits;
        limits.pages = limits.pages * 3 + 5;
        limits.max_running += 3;
        limits.step_tokens = limits.step_tokens * 2 + 1;
        limits.logit_rows += 7;
        limits.max_queued_requests = 1000;
        limits.max_queued_tokens = 100_000;
        limits.prefix_cache = !limits.prefix_cache;
        limits.policy = if limits.policy == Policy::Fcfs { Policy::Lpm } else { Policy::Fcfs };
        (other.failing, other.lost, other.depth) = (0, None, 3 - other.depth);
        (other.silent, other.refuse) = (0, (0, 0));
        other
    }
}

fn limits(rng: &mut Rng) -> Limits {
    let caps = rng.percent(15);
    Limits {
        pages: rng.size(8, 32),
        page_size: [1, 2, 4, 4, 4, 4][rng.size(0, 5)],
        max_running: rng.size(2, 8),
        step_tokens: rng.size(4, 32),
        max_prefill_tokens: if rng.percent(30) { rng.size(2, 16) } else { 1000 },
        mixed_prefill_tokens: if rng.percent(30) { rng.size(1, 6) } else { usize::MAX },
        logit_rows: rng.size(2, 24),
        context: 64,
        max_queued_requests: if caps { rng.size(1, 6) } else { 1000 },
        max_queued_tokens: if caps { rng.size(10, 60) } else { 100_000 },
        policy: match rng.size(0, 15) {
            0 => Policy::Static,
            1..=6 => Policy::Lpm,
            _ => Policy::Fcfs,
        },
        prefix_cache: rng.percent(80),
        max_preemptions: rng.range(1, 4) as u32,
        max_bypass: rng.range(0, 3) as u32,
        preempt_every: if rng.percent(30) { rng.range(2, 9) } else { 0 },
        ..Limits::default()
    }
}

fn arrival(id: u64, rng: &mut Rng, on: &Features, limits: &Limits) -> Arrival {
    let prompt = prompt(rng, limits.page_size);
    let max_new_tokens = match rng.size(0, 9) {
        0 => 0,
        1 => 1,
        _ => rng.size(2, 14),
    };
    let oversize = on.oversize && rng.percent(15);
    let wants_logprobs = on.logprobs && rng.percent(40);
    let logprob_start = wants_logprobs.then(|| rng.size(0, prompt.len()));
    let tick = if on.bursts { rng.range(0, 3) * 12 } else { rng.range(0, 50) };
    Arrival {
        number: id,
        tick,
        request: Request {
            // Some ids come twice: the second one is refused while the first one lives.
            id: if rng.percent(3) { id / 2 } else { id },
            prompt,
            max_new_tokens: if oversize { rng.size(15, 200) } else { max_new_tokens },
            choices: if on.choices && rng.percent(40) { rng.range(0, 4) as u32 } else { 1 },
            logprob_start,
            salt: if on.salts { rng.range(0, 1) } else { 0 },
        },
        stops: on.stops && rng.percent(60),
        cancel: (on.cancels && rng.percent(40)).then(|| tick + rng.range(0, 30)),
    }
}

/// Whole blocks out of three, then a few loose tokens: prompts share beginnings, middles after
/// different beginnings, and whole prompts.
fn prompt(rng: &mut Rng, page_size: usize) -> Vec<u32> {
    let blocks = rng.size(0, 4);
    let mut prompt = Vec::new();
    for _ in 0..blocks {
        let kind = rng.range(0, 2) as u32;
        prompt.extend((0..page_size as u32).map(|i| kind * 10 + i % 3));
    }
    let loose = if rng.percent(30) { 0 } else { rng.size(0, page_size + 2) };
    prompt.extend((0..loose).map(|_| rng.range(0, 2) as u32));
    prompt
}
