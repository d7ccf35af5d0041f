//! What a step reads besides weights and cache: token ids, positions, page lists. All of it lies
//! in one block with fixed places, written once a step and copied in one piece, so that a captured
//! graph finds it where it was.

use super::abi;
use super::driver::{DevicePtr, Driver, Pinned, Stream, pinned_bytes};
use super::memory::{Memory, Purpose};
use super::trace::{self, Queued, StepTrace};
use crate::device::{Batch, Limits};
use crate::error::Result;
use crate::profile::gpu::INPUT;

/// How many of each a step has; grids follow from them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub tokens: u32,
    pub logits: u32,
    pub spans: u32,
    /// Blocks of prefill attention along the rows.
    pub tiles: u32,
    /// New tokens of the longest span, and tokens of the longest sequence.
    pub longest: u32,
    pub deepest: u32,
}

impl Counts {
    /// Every span is one token: decode attention serves it.
    pub fn is_decode(&self) -> bool {
        self.longest <= 1
    }
}

/// Rows of attention that a tile holds: heads of a group for each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    pub group: usize,
    pub rows: usize,
}

/// Where things lie in the block, bytes from its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Places {
    tokens: usize,
    positions: usize,
    slots: usize,
    logit_rows: usize,
    spans: usize,
    tiles: usize,
    pages: usize,
    end: usize,
}

impl Places {
    fn new(limits: &Limits, tiling: Tiling) -> Self {
        let mut at = 0usize;
        let mut take = |bytes: usize| {
            let start = at;
            at += bytes.next_multiple_of(256);
            start
        };
        let tiles = limits.step_sequences + limits.step_tokens * tiling.group / tiling.rows + 1;
        let each = limits.context.div_ceil(limits.page_size);
        Places {
            tokens: take(limits.step_tokens * 4),
            positions: take(limits.step_tokens * 4),
            slots: take(limits.step_tokens * 4),
            logit_rows: take(limits.logit_rows * 4),
            spans: take(limits.step_sequences * size_of::<abi::AttentionSpan>()),
            tiles: take(tiles * size_of::<abi::AttentionTile>()),
            pages: take(limits.step_sequences * each * 4),
            end: at,
        }
    }
}

/// The block on both sides.
pub struct Inputs {
    host: Pinned,
    device: DevicePtr,
    places: Places,
    tiling: Tiling,
    page_size: usize,
}

impl Inputs {
    /// # Errors
    /// If memory runs out.
    pub fn new(memory: &mut Memory, limits: &Limits, tiling: Tiling) -> Result<Self> {
        let places = Places::new(limits, tiling);
        let host = memory.pinned(places.end)?;
        let device = memory.alloc(Purpose::Scratch, places.end as u64, "step inputs")?;
        Ok(Inputs { host, device, places, tiling, page_size: limits.page_size })
    }

    pub fn tokens(&self) -> DevicePtr {
        self.device + self.places.tokens as u64
    }

    pub fn positions(&self) -> DevicePtr {
        self.device + self.places.positions as u64
    }

    pub fn slots(&self) -> DevicePtr {
        self.device + self.places.slots as u64
    }

    pub fn logit_rows(&self) -> DevicePtr {
        self.device + self.places.logit_rows as u64
    }

    pub fn spans(&self) -> DevicePtr {
        self.device + self.places.spans as u64
    }

    pub fn tiles(&self) -> DevicePtr {
        self.device + self.places.tiles as u64
    }

    pub fn pages(&self) -> DevicePtr {
        self.device + self.places.pages as u64
    }

    /// Writes a checked batch, padded to `pad` spans of one token each, and queues its copy.
    ///
    /// # Errors
    /// If the driver refuses the copy.
    pub fn send(
        &self,
        driver: &dyn Driver,
        stream: Stream,
        batch: &Batch<'_>,
        pad: usize,
        trace: Option<&mut StepTrace>,
    ) -> Result<Counts> {
        // SAFETY: every step waits for its stream before it returns, so no copy is queued.
        let block = unsafe { pinned_bytes(self.host) };
        let counts = fill(block, &self.places, self.tiling, self.page_size, batch, pad);
        let bytes = self.places.pages + batch.pages.len() * 4;
        let what = Queued::Copy { bytes: bytes as u64, to_host: false };
        trace::around(trace, stream, INPUT, what, &mut || {
            driver.upload_async(self.device, self.host, 0, bytes, stream)
        })?;
        Ok(counts)
    }
}

/// Writes consecutive numbers of 32 bits.
struct Words<'a> {
    block: &'a mut [u8],
    at: usize,
}

impl Words<'_> {
    fn push(&mut self, value: u32) {
        self.block[self.at..self.at + 4].copy_from_slice(&value.to_le_bytes());
        self.at += 4;
    }
}

fn fill(
    block: &mut [u8],
    places: &Places,
    tiling: Tiling,
    page_size: usize,
    batch: &Batch<'_>,
    pad: usize,
) -> Counts {
    let extra = pad.saturating_sub(batch.spans.len());
    let mut put = |at: usize, values: &mut dyn Iterator<Item = u32>| {
        let mut words = Words { block: &mut *block, at };
        values.for_each(|v| words.push(v));
    };
    let positions = || batch.spans.iter().flat_map(|s| s.past..s.past + s.len);
    let slot = |(span, position): (&crate::device::Span, usize)| {
        let page = batch.pages[span.pages_start + position / page_size] as usize;
        (page * page_size + position % page_size) as u32
    };
    let placed = batch.spans.iter().flat_map(|s| (s.past..s.past + s.len).map(move |p| (s, p)));
    let none = std::iter::repeat_n(0, extra);
    put(places.tokens, &mut batch.tokens.iter().copied().chain(none.clone()));
    put(places.positions, &mut positions().map(|p| p as u32).chain(none.clone()));
    // A negative slot stores nothing.
    put(places.slots, &mut placed.map(slot).chain(std::iter::repeat_n(u32::MAX, extra)));
    put(places.logit_rows, &mut batch.logit_rows.iter().map(|r| *r as u32).chain(none));
    let span = |s: &crate::device::Span| [s.start, s.len, s.past, s.pages_start].map(|n| n as u32);
    let padding = std::iter::repeat_n([0; 4], extra);
    put(places.spans, &mut batch.spans.iter().map(span).chain(padding).flatten());
    let mut tiles = 0;
    // From each span's last tile to its first: the long ones start first.
    let mut listed = batch.spans.iter().enumerate().flat_map(|(i, s)| {
        let count = (s.len * tiling.group).div_ceil(tiling.rows);
        (0..count).rev().flat_map(move |t| [i as u32, (t * tiling.rows) as u32])
    });
    put(places.tiles, &mut listed.by_ref().inspect(|_| tiles += 1));
    put(places.pages, &mut batch.pages.iter().copied());
    let most = |of: fn(&crate::device::Span) -> usize| {
        batch.spans.iter().map(of).max().unwrap_or(0) as u32
    };
    Counts {
        tokens: (batch.tokens.len() + extra) as u32,
        logits: (batch.logit_rows.len() + extra) as u32,
        spans: (batch.spans.len() + extra) as u32,
        tiles: tiles / 2,
        longest: most(|s| s.len),
        deepest: most(|s| s.past + s.len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Span;

    #[test]
    fn a_padded_batch_lies_where_the_kernels_look() {
        let limits = Limits {
            step_tokens: 8,
            step_sequences: 4,
            logit_rows: 4,
            pages: 8,
            page_size: 8,
            context: 32,
        };
        let tiling = Tiling { group: 2, rows: 4 };
        let places = Places::new(&limits, tiling);
        let mut block = vec![0xaa; places.end];
        let spans = [
            Span { start: 0, len: 3, past: 6, pages_start: 0 },
            Span { start: 3, len: 1, past: 0, pages_start: 2 },
        ];
        let batch = Batch {
            tokens: &[10, 11, 12, 13],
            spans: &spans,
            pages: &[5, 2, 7],
            logit_rows: &[2, 3],
        };
        let counts = fill(&mut block, &places, tiling, 8, &batch, 3);
        let words = |at: usize, n: usize| -> Vec<u32> {
            let bytes = block[at..at + 4 * n].chunks_exact(4);
            bytes.map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        };
        assert_eq!(words(places.tokens, 5), [10, 11, 12, 13, 0]);
        assert_eq!(words(places.positions, 5), [6, 7, 8, 0, 0]);
        assert_eq!(words(places.slots, 5), [46, 47, 16, 56, u32::MAX]);
        assert_eq!(words(places.logit_rows, 3), [2, 3, 0]);
        assert_eq!(words(places.spans, 12), [0, 3, 6, 0, 3, 1, 0, 2, 0, 0, 0, 0]);
        assert_eq!(words(places.tiles, 6), [0, 4, 0, 0, 1, 0]);
        assert_eq!(words(places.pages, 3), [5, 2, 7]);
        let want = Counts { tokens: 5, logits: 3, spans: 3, tiles: 3, longest: 3, deepest: 9 };
        assert_eq!(counts, want);
        assert!(!counts.is_decode());
    }
}
