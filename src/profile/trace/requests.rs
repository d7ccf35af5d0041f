//! The way of each request to its first token, in parts that sum to the whole.

use std::collections::HashMap;

/// What is known of a request so far; times are 0 until they are known.
#[derive(Debug, Clone, Copy, Default)]
struct Life {
    received_ns: u64,
    submitted_ns: u64,
    first_step_ns: u64,
    sampled_ns: u64,
}

/// One part of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub name: &'static str,
    pub from_ns: u64,
    pub to_ns: u64,
}

/// Names of the parts, in order.
pub const PARTS: [&str; 4] = ["read and tokenise", "waiting for a step", "prefill", "answer"];

/// Requests on their way.
#[derive(Debug, Default)]
pub struct Requests {
    lives: HashMap<u32, Life>,
    /// Requests that sample in the step that is passing by.
    sampling: Vec<u32>,
}

/// Requests remembered at most.
const REMEMBERED: usize = 1 << 16;

impl Requests {
    /// Request `id` was whole at `from_ns` and with the engine at `to_ns`.
    pub fn submitted(&mut self, id: u32, from_ns: u64, to_ns: u64) {
        if self.lives.len() < REMEMBERED {
            let life = Life { received_ns: from_ns, submitted_ns: to_ns, ..Life::default() };
            self.lives.insert(id, life);
        }
    }

    /// It is in the step that began at `begun_ns`, and samples if `samples`.
    pub fn in_step(&mut self, id: u32, begun_ns: u64, samples: bool) {
        let Some(life) = self.lives.get_mut(&id) else { return };
        if life.first_step_ns == 0 {
            life.first_step_ns = begun_ns.max(life.submitted_ns);
        }
        if samples && life.sampled_ns == 0 {
            self.sampling.push(id);
        }
    }

    pub fn step_ended(&mut self, at_ns: u64) {
        for id in self.sampling.drain(..) {
            if let Some(life) = self.lives.get_mut(&id) {
                life.sampled_ns = at_ns;
            }
        }
    }

    /// The answer carried its first token at `at_ns`. The parts of its way, `None` if it began
    /// before the recording.
    pub fn first_token(&mut self, id: u32, at_ns: u64) -> Option<[Part; 4]> {
        let life = self.lives.remove(&id)?;
        if life.first_step_ns == 0 || life.sampled_ns == 0 || at_ns < life.sampled_ns {
            return None;
        }
        let ends =
            [life.received_ns, life.submitted_ns, life.first_step_ns, life.sampled_ns, at_ns];
        let part = |i: usize| Part { name: PARTS[i], from_ns: ends[i], to_ns: ends[i + 1] };
        Some([0, 1, 2, 3].map(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_sum_to_the_whole() {
        let mut requests = Requests::default();
        requests.submitted(7, 100, 130);
        requests.in_step(7, 200, false);
        requests.step_ended(300);
        requests.in_step(7, 310, true);
        requests.step_ended(400);
        let parts = requests.first_token(7, 450).unwrap();
        let spans: Vec<u64> = parts.iter().map(|p| p.to_ns - p.from_ns).collect();
        assert_eq!(spans, [30, 70, 200, 50]);
        assert_eq!(spans.iter().sum::<u64>(), 350);
        assert_eq!(requests.first_token(7, 460), None);
        requests.submitted(8, 1, 2);
        assert_eq!(requests.first_token(8, 5), None);
    }
}
