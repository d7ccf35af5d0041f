//! A device that computes hashes instead of keys and values. Every slot of its cache holds the
//! hash of the tokens up to its position, so a stale, shared, moved or overwritten page shows as
//! soon as it is read.
//!
//! A step's writes happen when it executes and once more when its results are taken, which may
//! be after the next step has executed: pages that were given away too early are overwritten.

use std::collections::BTreeMap;

use crate::kv::PageId;
use crate::mirror::{Mirror, extend, root, sample};
use crate::scenario::mix;
use crate::scheduler::Step;

/// The cache, and what was sampled last.
pub struct Device {
    page_size: usize,
    slots: Vec<u64>,
    samples: Vec<u32>,
}

/// A step under way: its tables were captured when it was planned.
pub struct Launched {
    pub step: Step,
    /// Which sequence each of the step's is, by order of arrival.
    pub orders: Vec<u64>,
    pub fails: bool,
    /// Its results never come.
    pub silent: bool,
    pub due: u64,
    pub executed: bool,
    pub outputs: Vec<u32>,
    writes: Vec<(usize, u64)>,
    /// Sequences whose step before failed: what they compute is worthless, and dropped.
    pub tainted: Vec<u64>,
}

impl Launched {
    pub fn new(step: Step, orders: Vec<u64>, fails: bool, due: u64) -> Self {
        let (outputs, writes, tainted) = Default::default();
        let (silent, executed) = (false, false);
        Launched { step, orders, fails, silent, due, executed, outputs, writes, tainted }
    }

    /// Every page that the device may touch for it.
    pub fn pages(&self) -> impl Iterator<Item = PageId> {
        let copies = self.step.copies.iter().flat_map(|c| [c.from, c.to]);
        self.step.pages.iter().copied().chain(copies)
    }
}

impl Device {
    pub fn new(pages: usize, page_size: usize) -> Self {
        Device { page_size, slots: vec![0; pages * page_size], samples: Vec::new() }
    }

    fn slot(&self, table: &[PageId], position: usize) -> Result<usize, String> {
        let page = table.get(position / self.page_size);
        let page = *page.ok_or(format!("position {position} is outside the page table"))?;
        Ok(page as usize * self.page_size + position % self.page_size)
    }

    /// Runs a step: copies, then reads of what was there, then new rows.
    pub fn execute(
        &mut self,
        launched: &mut Launched,
        mirrors: &BTreeMap<u64, Mirror>,
    ) -> Result<(), String> {
        self.copy(launched)?;
        let step = &launched.step;
        let mut samples = vec![0; step.samples];
        let mut writes = Vec::new();
        for (s, order) in step.sequences.iter().zip(&launched.orders) {
            let (key, table) = ((s.id, s.choice), step.table(s));
            let mirror = mirrors.get(order).ok_or(format!("{key:?} was never accepted"))?;
            let sound = !launched.fails && !launched.tainted.contains(order);
            for position in 0..s.past {
                let found = self.slots[self.slot(table, position)?];
                if sound && found != mirror.prefixes[position] {
                    return Err(format!("{key:?}: position {position} is not its own prefix"));
                }
            }
            let mut prefix = match s.past.checked_sub(1) {
                Some(before) => self.slots[self.slot(table, before)?],
                None => root(mirror.salt),
            };
            for at in 0..s.len {
                let position = s.past + at;
                let mut token = step.tokens[s.start + at];
                if let Some(index) = s.pending {
                    token = *self.samples.get(index).ok_or("a pending token was not sampled")?;
                }
                if sound && token != mirror.tokens[position] {
                    return Err(format!("{key:?}: token {token} at position {position}"));
                }
                prefix = extend(prefix, token);
                let value = if sound { prefix } else { mix(prefix) };
                writes.push((self.slot(table, position)?, value));
            }
            if let Some(index) = s.sample {
                samples[index] = sample(prefix, s.id, s.choice);
            }
        }
        let mut slots: Vec<usize> = writes.iter().map(|w| w.0).collect();
        slots.sort_unstable();
        if slots.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("two rows of a step write the same slot".to_owned());
        }
        writes.iter().for_each(|&(slot, value)| self.slots[slot] = value);
        (launched.writes, launched.outputs, launched.executed) = (writes, samples.clone(), true);
        self.samples = samples;
        Ok(())
    }

    fn copy(&mut self, launched: &Launched) -> Result<(), String> {
        let copies = &launched.step.copies;
        for copy in copies {
            if copies.iter().any(|other| other.to == copy.from) {
                return Err(format!("page {} is copied to and from in one step", copy.from));
            }
            if copy.tokens == 0 {
                return Err(format!("nothing of page {} is copied", copy.from));
            }
            let size = self.page_size;
            let (from, to) = (copy.from as usize * size, copy.to as usize * size);
            self.slots.copy_within(from..from + copy.tokens, to);
        }
        Ok(())
    }

    /// The last writes of a step land.
    pub fn land(&mut self, launched: &Launched) -> Result<(), String> {
        self.copy(launched)?;
        launched.writes.iter().for_each(|&(slot, value)| self.slots[slot] = value);
        Ok(())
    }
}
