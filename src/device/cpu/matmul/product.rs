//! Blocking and the split over threads.
//!
//! Activation rows go through in slabs that stay in the second-level cache; a task is a few
//! neighbouring panels times one slab. Within a task columns go chunk by chunk: a panel's chunk
//! is brought into the first-level cache (unpacked, where its type needs it) and multiplied with
//! every row of the slab. One row or a thousand: each weight is read from memory once per slab.

use super::kernels::{
    AHEAD, Ahead, FLOAT_CHUNK, FloatTile, INT_CHUNK, INT_ROWS, IntTile, Kernels, Out, Source,
    TALL_ROWS,
};
use super::layout::{self, BLOCK, PANEL};
use super::memory::Chunks;
use super::pack::{PackedMatrix, Section};
use super::scratch::{Buffers, INT_SLAB, SLAB, Scratch, Stored};
use super::streams::streams;
use crate::device::cpu::pool::Pool;
use crate::types::Dtype;

/// How quantised weights are multiplied. Plain weights do not care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Activations are quantised in blocks of 32 and multiplied as integers: to 8 bits for
    /// weights of 4 to 6 bits, or 16 in blocks with outliers (see [`integer`](super::integer));
    /// to 16 bits for 8-bit weights.
    Int8,
    /// Activations are quantised to 16 bits for all weights.
    #[default]
    Int16,
    /// Weights are dequantised to f32 and multiplied as such.
    Exact,
}

/// What a section's kernels multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Float,
    Wide,
    Bytes,
}

impl Mode {
    pub(super) fn kind(self, dtype: Dtype) -> Kind {
        match self {
            _ if !dtype.is_quantised() => Kind::Float,
            Mode::Exact => Kind::Float,
            Mode::Int8 if layout::code_bits(dtype) < 8 => Kind::Bytes,
            Mode::Int8 | Mode::Int16 => Kind::Wide,
        }
    }
}

/// Up to this many rows, activations are read where they are; beyond, they are copied into
/// chunks first, so that rows a power of two apart do not fight for the same cache lines.
const IN_PLACE_ROWS: usize = 12;

/// Up to this many rows, whose activations fit the first-level cache, panels are read front to
/// back; beyond, a chunk of activations is kept there for all panels of a task.
const FEW_ROWS: usize = 16;

/// Up to this many rows, integer tiles take packed weights; beyond, weights are unpacked once for
/// all tiles, or in [`tall`](super::kernels::IntKernels::tall) ones.
const PACKED_ROWS: usize = INT_ROWS;

/// `y[r, ..rows] = x[r, ..cols] · matrixᵀ + bias` for r < `m`; x has row stride `ldx`, y `ldy`.
///
/// # Panics
/// If a slice is too short, or the product is larger than `scratch` was made for.
#[expect(clippy::too_many_arguments, reason = "the usual arguments of a matrix product")]
pub fn matmul(
    pool: &Pool,
    scratch: &mut Scratch,
    mode: Mode,
    x: &[f32],
    ldx: usize,
    m: usize,
    matrix: &PackedMatrix,
    bias: Option<&[f32]>,
    y: &mut [f32],
    ldy: usize,
) {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    if m == 0 || rows == 0 {
        return;
    }
    assert!(ldx >= cols && x.len() >= (m - 1) * ldx + cols, "x is too short");
    assert!(ldy >= rows && y.len() >= (m - 1) * ldy + rows, "y is too short");
    assert!(bias.is_none_or(|b| b.len() >= rows), "the bias is too short");
    assert!(cols <= scratch.max_k(), "the scratch is for fewer columns");
    assert!(pool.threads() <= scratch.threads(), "the scratch is for fewer threads");
    let slab = slab(scratch, mode, matrix, m);
    for first in (0..m).step_by(slab) {
        let rows = slab.min(m - first);
        let (x, y) = (&x[first * ldx..], &mut y[first * ldy..]);
        let packed = prepare(pool, scratch, mode, x, ldx, rows, matrix);
        let slab = Slab { scratch, mode, m: rows, x, ldx, packed, matrix, bias, ldy };
        slab.run(pool, Chunks::new(y, 1));
    }
}

/// Rows of a slab of `m` rows: slabs of nearly equal height, of whole tiles.
fn slab(scratch: &Scratch, mode: Mode, matrix: &PackedMatrix, m: usize) -> usize {
    let float = matrix.sections.iter().all(|s| mode.kind(s.dtype) == Kind::Float);
    let (tile, most) =
        if float { (scratch.kernels.float_rows, SLAB) } else { (INT_ROWS, INT_SLAB) };
    let most = scratch.slab().min(most);
    m.div_ceil(m.div_ceil(most)).next_multiple_of(tile).min(most)
}

/// Brings a slab's activations into the layouts that the matrix's types need; says whether the
/// float kernels are to read the packed copy.
fn prepare(
    pool: &Pool,
    scratch: &mut Scratch,
    mode: Mode,
    x: &[f32],
    ldx: usize,
    m: usize,
    matrix: &PackedMatrix,
) -> bool {
    let any = |kind: Kind| matrix.sections.iter().any(|s| mode.kind(s.dtype) == kind);
    let packed = m > IN_PLACE_ROWS && any(Kind::Float);
    if packed {
        scratch.pack_float(pool, x, ldx, m, (matrix.cols(), chunk_len(matrix, FLOAT_CHUNK)));
    }
    let columns = (matrix.cols(), chunk_len(matrix, INT_CHUNK));
    if any(Kind::Wide) {
        scratch.quantise::<i16>(pool, x, ldx, m, columns);
    }
    if any(Kind::Bytes) {
        scratch.quantise::<i8>(pool, x, ldx, m, columns);
    }
    packed
}

/// Columns of one partial sum, at most `most`: whole units, of nearly equal length.
pub(super) fn chunk_len(matrix: &PackedMatrix, most: usize) -> usize {
    let unit = matrix.sections.iter().map(|s| layout::unit_len(s.dtype)).max().unwrap_or(1);
    let unit = unit.max(BLOCK);
    let chunks = matrix.cols().div_ceil(most / unit * unit).max(1);
    matrix.cols().div_ceil(chunks).next_multiple_of(unit)
}

/// A product of at most a slab of rows.
pub(super) struct Slab<'a> {
    pub(super) scratch: &'a Scratch,
    pub(super) mode: Mode,
    pub(super) m: usize,
    pub(super) x: &'a [f32],
    pub(super) ldx: usize,
    pub(super) packed: bool,
    pub(super) matrix: &'a PackedMatrix,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) ldy: usize,
}

impl Slab<'_> {
    fn run(&self, pool: &Pool, y: Chunks<'_, f32>) {
        let streams = streams(self.scratch, self.mode, self.matrix, self.m);
        if streams > 1 {
            return self.run_streams(pool, streams, &y);
        }
        let panels = self.matrix.panels();
        let most = if self.m <= FEW_ROWS { 2 } else { 8 };
        let group = (panels / (pool.threads() * 8)).clamp(1, most);
        let tasks = self.matrix.sections.iter().map(|s| s.panels().div_ceil(group)).sum();
        pool.spread(tasks, &|thread, task| {
            let mut buffers = self.scratch.thread(thread);
            let (section, first) = self.matrix.begin(task, group);
            let panels = first..section.panels().min(first + group);
            if let Some(bias) = self.bias {
                for panel in panels.clone() {
                    let column = section.first_row + panel * PANEL;
                    self.start(&self.out(section, panel, &y), &bias[column..]);
                }
            }
            self.multiply(section, panels, &y, &mut buffers);
        });
    }

    /// The output columns of a panel.
    pub(super) fn out(&self, section: &Section, panel: usize, y: &Chunks<'_, f32>) -> Out {
        let column = section.first_row + panel * PANEL;
        // SAFETY: the column is inside the first row of y (`matmul` checked its length).
        let y = unsafe { y.as_ptr().add(column) };
        let cols = PANEL.min(section.rows - panel * PANEL);
        Out { y, ldy: self.ldy, cols, fresh: false }
    }

    /// Sets a panel's output columns to the bias, whose part for them begins `bias`.
    pub(super) fn start(&self, out: &Out, bias: &[f32]) {
        let bias = &bias[..out.cols];
        for r in 0..self.m {
            // SAFETY: row r < m and the panel's columns are inside y (`matmul` checked its
            // length), and they belong to this task alone.
            unsafe { out.y.add(r * out.ldy).copy_from_nonoverlapping(bias.as_ptr(), bias.len()) };
        }
    }

    fn multiply(
        &self,
        section: &Section,
        panels: std::ops::Range<usize>,
        y: &Chunks<'_, f32>,
        buffers: &mut Buffers,
    ) {
        let kind = self.mode.kind(section.dtype);
        let most = if kind == Kind::Float { FLOAT_CHUNK } else { INT_CHUNK };
        let chunk = chunk_len(self.matrix, most);
        let (cols, dtype) = (self.matrix.cols(), section.dtype);
        let (chunks, count) = (cols.div_ceil(chunk), panels.len());
        // Panel and chunk of piece `n`; the last is followed by those of the next task.
        let place = |n: usize| match self.m <= FEW_ROWS || n == chunks * count {
            true => (panels.start + n / chunks, n % chunks),
            false => (panels.start + n % count, n / count),
        };
        let bytes = |n: usize| -> &[u8] {
            let (panel, index) = place(n);
            let first = index * chunk;
            let there = panel < section.panels();
            if there { piece(section, panel, first, chunk.min(cols - first)) } else { &[] }
        };
        for n in 0..chunks * count {
            let (panel, index) = place(n);
            let fresh = index == 0 && self.bias.is_none();
            let out = Out { fresh, ..self.out(section, panel, y) };
            let piece =
                Piece { dtype, index, first: index * chunk, bytes: bytes(n), next: bytes(n + 1) };
            match kind {
                Kind::Float => self.float_chunk(&piece, &out, buffers),
                Kind::Wide => self.int_chunk::<i16>(&piece, &out, buffers),
                Kind::Bytes => self.int_chunk::<i8>(&piece, &out, buffers),
            }
        }
    }

    /// Multiplies one chunk of a panel, as floats, with every row of the slab.
    fn float_chunk(&self, piece: &Piece, out: &Out, buffers: &mut Buffers) {
        let kernels = self.scratch.kernels;
        let k = piece.columns();
        let (weights, dtype) = bring_in(kernels, piece, self.m, buffers);
        let (a, lda) = if self.packed {
            (self.scratch.float_rows(piece.index, self.m), FLOAT_CHUNK)
        } else {
            (&self.x[piece.first..], self.ldx)
        };
        let in_place = weights.as_ptr() == piece.bytes.as_ptr();
        // All tiles together ask for the next piece.
        let share = piece.next.len().div_ceil(self.m.div_ceil(kernels.float_rows));
        let mut soon = piece.next.chunks(share.next_multiple_of(64).max(64));
        for (first, rows) in tiles(self.m, kernels.float_rows) {
            let a = &a[first * lda..];
            assert!(a.len() >= (rows - 1) * lda + k && weights.len() >= k * PANEL * 2);
            let ahead = match self.packed {
                _ if self.m <= FEW_ROWS && first == 0 && in_place => Ahead::Weights,
                true => Ahead::Rows,
                false => Ahead::Nothing,
            };
            let soon = soon.next().filter(|_| ahead != Ahead::Weights).unwrap_or_default();
            let out = rows_from(out, first);
            let tile = FloatTile {
                rows,
                a,
                lda,
                weights,
                dtype,
                k,
                ahead,
                soon,
                beside: &[],
                once: false,
                out,
            };
            // SAFETY: this CPU's kernels; lengths as just checked; the output rows and columns
            // are inside y and belong to this task.
            unsafe { (kernels.float_tile)(&tile) };
        }
    }

    /// Multiplies one chunk of a quantised panel, as integers, with every row of the slab.
    fn int_chunk<A: Stored>(&self, piece: &Piece, out: &Out, buffers: &mut Buffers) {
        let kernels = A::kernels(self.scratch.kernels);
        let Piece { dtype, index, bytes, next, .. } = *piece;
        let one_scale = layout::scales_per_block(dtype) == 1;
        let tall = kernels.tall.filter(|_| one_scale && self.m <= TALL_ROWS);
        let (run, height) = tall.map_or((kernels.tile, INT_ROWS), |tall| (tall, TALL_ROWS));
        let packed = self.m <= PACKED_ROWS || tall.is_some();
        let mut ahead = match next.is_empty() {
            // Pieces of few rows lie one after another.
            _ if packed && self.m <= FEW_ROWS => bytes.as_ptr().wrapping_add(AHEAD),
            true => std::ptr::null(),
            false => next.as_ptr(),
        };
        let weights = if packed {
            Source::Packed(bytes)
        } else {
            // SAFETY: this CPU's kernels; a piece is at most INT_CHUNK columns of whole units.
            unsafe { (kernels.expand)(dtype, bytes, &mut buffers.codes) };
            Source::Unpacked(&buffers.codes)
        };
        let blocks = piece.columns() / BLOCK;
        for (first, rows) in tiles(self.m, height) {
            let (a, out) = (self.scratch.rows(index, self.m, first), rows_from(out, first));
            let next_rows = self.m > FEW_ROWS;
            let tile = IntTile::<A> {
                rows,
                a,
                weights,
                dtype,
                blocks,
                ahead,
                next_rows,
                beside: &[],
                once: false,
                out,
            };
            // SAFETY: as for the float tile; `a` holds `rows` rows of a chunk.
            unsafe { run(&tile) };
            ahead = std::ptr::null();
        }
    }
}

/// The bytes of columns `first .. first + k` of a panel.
pub(super) fn piece(section: &Section, panel: usize, first: usize, k: usize) -> &[u8] {
    let (len, bytes) = (layout::unit_len(section.dtype), layout::unit_bytes(section.dtype));
    &section.panel(panel)[first / len * bytes..][..k / len * bytes]
}

/// One chunk of a panel.
struct Piece<'a> {
    dtype: Dtype,
    /// Which chunk, and its first column.
    index: usize,
    first: usize,
    bytes: &'a [u8],
    /// What is multiplied next, if that is known: to be brought near meanwhile.
    next: &'a [u8],
}

impl Piece<'_> {
    fn columns(&self) -> usize {
        self.bytes.len() / layout::unit_bytes(self.dtype) * layout::unit_len(self.dtype)
    }
}

/// A panel's chunk as numbers that the float tile takes: as it is, or unpacked to f32.
fn bring_in<'a>(
    kernels: &Kernels,
    piece: &Piece<'a>,
    m: usize,
    buffers: &'a mut Buffers,
) -> (&'a [u8], Dtype) {
    let (dtype, piece, k) = (piece.dtype, piece.bytes, piece.columns());
    let weights = &mut buffers.weights[..k * PANEL];
    if dtype.is_quantised() {
        // SAFETY: this CPU's kernels; a piece is at most FLOAT_CHUNK columns of whole units.
        unsafe {
            (kernels.wide.expand)(dtype, piece, &mut buffers.codes);
            (kernels.dequantise)(dtype, &buffers.codes, k / BLOCK, weights);
        }
    } else if dtype != Dtype::F32 && m > kernels.float_rows {
        // SAFETY: this CPU's kernels; both slices hold `k` · 16 numbers.
        unsafe { (kernels.widen)(dtype, piece, weights) };
    } else {
        return (piece, dtype);
    }
    // SAFETY: f32 numbers are plain bytes.
    let bytes =
        unsafe { std::slice::from_raw_parts(weights.as_ptr().cast::<u8>(), 4 * weights.len()) };
    (bytes, Dtype::F32)
}

pub(super) fn rows_from(out: &Out, first: usize) -> Out {
    // SAFETY: row `first` < m is inside y (`matmul` checked its length).
    Out { y: unsafe { out.y.add(first * out.ldy) }, ..*out }
}

/// Cuts `m` rows into `(first, rows)` tiles of nearly equal height, at most `most`.
pub(super) fn tiles(m: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = m.div_ceil(most);
    let (base, longer) = (m / count, m % count);
    (0..count).map(move |t| (t * base + t.min(longer), base + usize::from(t < longer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_row_once() {
        for m in 1..40 {
            let mut next = 0;
            for (first, rows) in tiles(m, 6) {
                assert_eq!(first, next);
                assert!((1..=6).contains(&rows));
                next += rows;
            }
            assert_eq!(next, m);
        }
    }
}
