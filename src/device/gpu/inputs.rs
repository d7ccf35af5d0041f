//! What a step reads besides weights and cache: token ids, positions, page lists. All of it lies
//! in one block with fixed places, written once a step and copied in one piece, so that a captured
//! graph finds it where it was.

use super::abi;
use super::choose::attention::{Heads, SPLIT, max_splits};
use super::driver::{DevicePtr, Driver, Pinned, Stream, pinned_bytes};
use super::memory::{Memory, Purpose};
use super::trace::{self, Queued, StepTrace};
use crate::device::{Batch, Limits, Span};
use crate::error::Result;
use crate::model::cost::StepShape;
use crate::profile::gpu::INPUT;

/// How many of each a step has; grids follow from them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub tokens: u32,
    pub logits: u32,
    pub spans: u32,
    /// Of these, how many decode attention serves: the first of the list.
    pub decodes: u32,
    /// Tokens of their longest sequence.
    pub decode_deepest: u32,
    /// Blocks of prefill attention along the rows of the others.
    pub tiles: u32,
    /// New tokens of the longest span.
    pub longest: u32,
    /// Tokens of all sequences.
    pub cached: u64,
}

impl Counts {
    /// Those that say how much a step of this shape moves; which kernel serves a span is not in
    /// them.
    pub fn of(shape: &StepShape) -> Counts {
        let sequences = &shape.sequences;
        let spans = sequences.len() as u32;
        Counts {
            tokens: shape.tokens() as u32,
            logits: shape.logit_rows as u32,
            spans,
            longest: sequences.iter().map(|s| s.1).max().unwrap_or(0) as u32,
            cached: sequences.iter().map(|(past, new)| (past + new) as u64).sum(),
            ..Counts::default()
        }
    }
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
    fn new(limits: &Limits, heads: Heads) -> Self {
        let mut at = 0usize;
        let mut take = |bytes: usize| {
            let start = at;
            at += bytes.next_multiple_of(256);
            start
        };
        let rows = limits.step_tokens * heads.group();
        let tiles = limits.step_sequences + rows / heads.prefill_rows() + 1;
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
    heads: Heads,
    page_size: usize,
    /// Splits that partial results of decode attention have room for.
    splits: usize,
}

impl Inputs {
    /// # Errors
    /// If memory runs out.
    pub fn new(memory: &mut Memory, limits: &Limits, heads: Heads) -> Result<Self> {
        let places = Places::new(limits, heads);
        let tokens = limits.pages * limits.page_size;
        let splits = heads.partial_splits(limits.step_sequences, limits.context, tokens);
        let host = memory.pinned(places.end)?;
        let device = memory.alloc(Purpose::Scratch, places.end as u64, "step inputs")?;
        Ok(Inputs { host, device, places, heads, page_size: limits.page_size, splits })
    }

    /// Splits that partial results of decode attention need room for.
    pub fn partial_splits(&self) -> usize {
        self.splits
    }

    /// The longest sequence that each of `size` decode spans may have at once.
    pub fn decode_depth(&self, size: usize) -> usize {
        self.splits / size.max(1) * SPLIT
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
        let room = Room { page_size: self.page_size, splits: self.splits };
        let counts = fill(block, &self.places, self.heads, room, batch, pad);
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

/// Sizes that a step has to keep to.
#[derive(Debug, Clone, Copy)]
struct Room {
    page_size: usize,
    splits: usize,
}

/// Splits of the deepest sequence that goes to the decode kernel: as many as leave room for the
/// partial results of all spans that are no deeper.
fn most_splits(heads: Heads, splits: usize, spans: &[Span]) -> usize {
    let short =
        || spans.iter().filter(|s| heads.decodes(s.len)).map(|s| max_splits(s.past + s.len));
    let mut most = short().max().unwrap_or(0);
    while most > 0 && short().filter(|s| *s <= most).count() * most > splits {
        most -= 1;
    }
    most
}

fn fill(
    block: &mut [u8],
    places: &Places,
    heads: Heads,
    room: Room,
    batch: &Batch<'_>,
    pad: usize,
) -> Counts {
    let extra = pad.saturating_sub(batch.spans.len());
    let mut put = |at: usize, values: &mut dyn Iterator<Item = u32>| {
        let mut words = Words { block: &mut *block, at };
        values.for_each(|v| words.push(v));
    };
    let placed = || batch.spans.iter().flat_map(|s| (s.past..s.past + s.len).map(move |p| (s, p)));
    let slot = |(span, position): (&Span, usize)| {
        let page = batch.pages[span.pages_start + position / room.page_size] as usize;
        (page * room.page_size + position % room.page_size) as u32
    };
    let none = std::iter::repeat_n(0, extra);
    put(places.tokens, &mut batch.tokens.iter().copied().chain(none.clone()));
    put(places.positions, &mut placed().map(|(_, p)| p as u32).chain(none.clone()));
    // A negative slot stores nothing.
    put(places.slots, &mut placed().map(slot).chain(std::iter::repeat_n(u32::MAX, extra)));
    put(places.logit_rows, &mut batch.logit_rows.iter().map(|r| *r as u32).chain(none));

    let most = most_splits(heads, room.splits, batch.spans);
    let decoded = |s: &&Span| heads.decodes(s.len) && max_splits(s.past + s.len) <= most;
    let others = || batch.spans.iter().filter(|s| !decoded(s));
    let decodes = batch.spans.iter().filter(decoded).count();
    let words = |s: &Span| [s.start, s.len, s.past, s.pages_start].map(|n| n as u32);
    // A graph is padded with decode spans, and has no others.
    let padding = std::iter::repeat_n([0; 4], extra);
    let listed = batch.spans.iter().filter(decoded).chain(others()).map(words);
    put(places.spans, &mut listed.chain(padding).flatten());
    let mut tiles = 0;
    // From each span's last tile to its first: the long ones start first.
    let rows = heads.prefill_rows();
    let mut cut = others().enumerate().flat_map(|(i, s)| {
        let count = (s.len * heads.group()).div_ceil(rows);
        (0..count).rev().flat_map(move |t| [(decodes + i) as u32, (t * rows) as u32])
    });
    put(places.tiles, &mut cut.by_ref().inspect(|_| tiles += 1));
    put(places.pages, &mut batch.pages.iter().copied());
    let deep = |s: &Span| s.past + s.len;
    Counts {
        tokens: (batch.tokens.len() + extra) as u32,
        logits: (batch.logit_rows.len() + extra) as u32,
        spans: (batch.spans.len() + extra) as u32,
        decodes: (decodes + extra) as u32,
        decode_deepest: batch.spans.iter().filter(decoded).map(deep).max().unwrap_or(0) as u32,
        tiles: tiles / 2,
        longest: batch.spans.iter().map(|s| s.len).max().unwrap_or(0) as u32,
        cached: batch.spans.iter().map(|s| deep(s) as u64).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::gpu::choose::Half;

    const LIMITS: Limits = Limits {
        step_tokens: 64,
        step_sequences: 4,
        logit_rows: 4,
        pages: 8,
        page_size: 8,
        context: 4096,
    };
    const HEADS: Heads = Heads { half: Half::Bf16, heads: 4, kv_heads: 2, head_dim: 32 };

    fn words(block: &[u8], at: usize, n: usize) -> Vec<u32> {
        let bytes = block[at..at + 4 * n].chunks_exact(4);
        bytes.map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    #[test]
    fn a_padded_batch_lies_where_the_kernels_look() {
        let places = Places::new(&LIMITS, HEADS);
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
        let room = Room { page_size: 8, splits: 64 };
        let counts = fill(&mut block, &places, HEADS, room, &batch, 3);
        let words = |at, n| words(&block, at, n);
        assert_eq!(words(places.tokens, 5), [10, 11, 12, 13, 0]);
        assert_eq!(words(places.positions, 5), [6, 7, 8, 0, 0]);
        assert_eq!(words(places.slots, 5), [46, 47, 16, 56, u32::MAX]);
        assert_eq!(words(places.logit_rows, 3), [2, 3, 0]);
        assert_eq!(words(places.spans, 12), [0, 3, 6, 0, 3, 1, 0, 2, 0, 0, 0, 0]);
        assert_eq!(words(places.pages, 3), [5, 2, 7]);
        // Three rows of a group of two fit a block of the decode kernel.
        let want = Counts {
            tokens: 5,
            logits: 3,
            spans: 3,
            decodes: 3,
            decode_deepest: 9,
            tiles: 0,
            longest: 3,
            cached: 10,
        };
        assert_eq!(counts, want);
    }

    #[test]
    fn long_spans_go_to_the_prefill_kernel_and_short_ones_do_not() {
        let places = Places::new(&LIMITS, HEADS);
        let mut block = vec![0xaa; places.end];
        let spans = [
            Span { start: 0, len: 40, past: 0, pages_start: 0 },
            Span { start: 40, len: 1, past: 20, pages_start: 5 },
        ];
        let tokens = [1; 41];
        let batch = Batch { tokens: &tokens, spans: &spans, pages: &[0; 8], logit_rows: &[39, 40] };
        let room = Room { page_size: 8, splits: 64 };
        let counts = fill(&mut block, &places, HEADS, room, &batch, 0);
        // The decode span comes first; tiles of 64 rows name the other, the last tile first.
        assert_eq!(words(&block, places.spans, 8), [40, 1, 20, 5, 0, 40, 0, 0]);
        assert_eq!(words(&block, places.tiles, 4), [1, 64, 1, 0]);
        assert_eq!((counts.decodes, counts.tiles, counts.decode_deepest), (1, 2, 21));
    }

    #[test]
    fn spans_without_room_for_partial_results_go_to_the_prefill_kernel() {
        let span = |past| Span { start: 0, len: 1, past, pages_start: 0 };
        let spans = [span(100), span(3000), span(700), span(100)];
        assert_eq!(most_splits(HEADS, 64, &spans), 12);
        // 4 × 12 do not fit in 47; without the deepest, 3 × 3 do.
        assert_eq!(most_splits(HEADS, 47, &spans), 11);
        assert_eq!(most_splits(HEADS, 8, &spans), 2);
        assert_eq!(most_splits(HEADS, 64, &[]), 0);
    }
}
