//! A recount of everything, for tests after every step and for the engine whenever it is idle.

use super::core::Scheduler;
use super::sequence::{Sequence, Slot, State};

impl Scheduler {
    /// Checks pages (`free + held + cached + fenced = total`, holders against page tables) and
    /// queues (every sequence in exactly one) and names the first thing that is wrong.
    pub fn audit(&self) -> Result<(), String> {
        self.pages.audit(self.sequences.iter().map(|(_, s)| s.pages.as_slice()))?;
        let listed = self.running.len() + self.preempted.len() + self.queue.len();
        if listed != self.sequences.count() {
            return Err(format!("{listed} queued or running, {} live", self.sequences.count()));
        }
        let running = self.running.iter().map(|&slot| (slot, State::Running));
        let preempted = self.preempted.iter().map(|&slot| (slot, State::Preempted));
        let queued = self.queue.iter().map(|&slot| (slot, State::Queued));
        let mut seen = vec![false; self.sequences.iter().last().map_or(0, |(slot, _)| slot + 1)];
        for (slot, state) in running.chain(preempted).chain(queued) {
            if std::mem::replace(&mut seen[slot], true) {
                return Err(format!("slot {slot} is listed twice"));
            }
            self.audit_sequence(slot, state)?;
        }
        self.audit_order()
    }

    fn audit_order(&self) -> Result<(), String> {
        let queue: Vec<Slot> = self.queue.iter().copied().collect();
        for list in [&self.running, &self.preempted, &queue] {
            let order = |slot: Slot| self.sequences[slot].order;
            if !list.windows(2).all(|pair| order(pair[0]) < order(pair[1])) {
                return Err(format!("not in order of arrival: {list:?}"));
            }
        }
        let tokens: usize = queue.iter().map(|&slot| self.sequences[slot].prompt_len).sum();
        if tokens != self.queued_tokens {
            return Err(format!("{tokens} tokens in the queue, {} counted", self.queued_tokens));
        }
        if self.running.len() > self.limits.running() {
            return Err(format!("{} sequences run", self.running.len()));
        }
        Ok(())
    }

    fn audit_sequence(&self, slot: Slot, state: State) -> Result<(), String> {
        let s = &self.sequences[slot];
        let name = format!("request {} choice {}", s.id, s.choice);
        if s.state != state {
            return Err(format!("{name} is {:?} in the list of {state:?}", s.state));
        }
        let in_flight = self.in_flight.iter().flat_map(|step| &step.entries);
        let unknown = in_flight.filter(|e| e.order == s.order && e.samples).count();
        if s.unknown != unknown {
            return Err(format!("{name} waits for {} tokens, {unknown} in flight", s.unknown));
        }
        self.audit_table(s).map_err(|fault| format!("{name}: {fault}"))
    }

    fn audit_table(&self, s: &Sequence) -> Result<(), String> {
        if s.state != State::Running {
            let empty = s.pages.is_empty() && s.planned == 0 && s.computed == 0;
            return if empty { Ok(()) } else { Err("has pages and does not run".to_owned()) };
        }
        let wanted = self.limits.pages_for(s.planned.max(s.reserved));
        if s.pages.len() != wanted {
            return Err(format!("{} pages, needs {wanted}", s.pages.len()));
        }
        if s.computed > s.planned || s.planned > s.len() || s.planned > s.goal() {
            let lens = (s.computed, s.planned, s.len(), s.goal());
            return Err(format!("computed, planned, length, goal {lens:?} do not rise"));
        }
        if s.preemptions > self.limits.max_preemptions {
            return Err(format!("preempted {} times", s.preemptions));
        }
        if self.limits.prefix_cache {
            let shared = s.pages.iter().take(s.published);
            if let Some(page) = shared.into_iter().find(|&&p| !self.pages.is_published(p)) {
                return Err(format!("page {page} is not in the prefix tree"));
            }
            let own = s.pages.iter().skip(s.published);
            if let Some(page) = own.into_iter().find(|&&p| self.pages.references(p) != 1) {
                return Err(format!("page {page} is written by more than one"));
            }
        }
        Ok(())
    }
}
