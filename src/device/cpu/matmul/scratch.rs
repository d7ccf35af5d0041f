//! Scratch memory of the products: activations in the kernels' layout, and each thread's
//! unpacked piece of a panel.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::kernels::{Codes, FLOAT_CHUNK, INT_CHUNK, IntRows, Isa, Kernels, RowScale};
use super::layout::{BLOCK, PANEL};
use super::memory::Chunks;
use crate::device::cpu::pool::Pool;

/// Most activation rows that are multiplied with a panel before the next panel is read: with
/// [`FLOAT_CHUNK`] columns they take 192 KiB of the second-level cache.
pub(super) const SLAB: usize = 192;

/// Memory for products of up to `max_k` columns, allocated once.
pub struct Scratch {
    pub(super) kernels: &'static Kernels,
    slab: usize,
    max_k: usize,
    /// `[chunk][row][FLOAT_CHUNK]`.
    float: Vec<f32>,
    /// `[chunk][row][2 · INT_CHUNK]` and `[chunk][row][INT_CHUNK]`.
    bytes: Vec<i8>,
    wide: Vec<i16>,
    /// `[chunk][row][INT_CHUNK / BLOCK]`.
    scales: Vec<RowScale>,
    threads: Vec<Mutex<Box<Buffers>>>,
}

/// One thread's unpacked piece of a panel.
#[repr(C, align(64))]
pub(super) struct Buffers {
    pub codes: Codes,
    pub weights: [f32; FLOAT_CHUNK * PANEL],
}

impl Scratch {
    /// Scratch for products of at most `max_m` rows and `max_k` columns on `threads` threads,
    /// with the best kernels of this CPU.
    pub fn new(max_m: usize, max_k: usize, threads: usize) -> Scratch {
        Scratch::with_isa(max_m, max_k, threads, Isa::detect())
    }

    /// As [`Scratch::new`] with chosen kernels; scalar ones where the CPU lacks `isa`.
    pub fn with_isa(max_m: usize, max_k: usize, threads: usize, isa: Isa) -> Scratch {
        let slab = max_m.clamp(1, SLAB);
        let float = slab * max_k.next_multiple_of(FLOAT_CHUNK);
        let int = slab * max_k.next_multiple_of(INT_CHUNK);
        let buffers =
            || Box::new(Buffers { codes: Codes::ZERO, weights: [0.0; FLOAT_CHUNK * PANEL] });
        Scratch {
            kernels: isa.kernels(),
            slab,
            max_k,
            float: vec![0.0; float],
            bytes: vec![0; 2 * int],
            wide: vec![0; int],
            scales: vec![RowScale::default(); int / BLOCK],
            threads: (0..threads.max(1)).map(|_| Mutex::new(buffers())).collect(),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        4 * self.float.len()
            + self.bytes.len()
            + 2 * self.wide.len()
            + size_of::<RowScale>() * self.scales.len()
            + size_of::<Buffers>() * self.threads.len()
    }

    /// Rows of one slab.
    pub(super) fn slab(&self) -> usize {
        self.slab
    }

    pub(super) fn max_k(&self) -> usize {
        self.max_k
    }

    pub(super) fn threads(&self) -> usize {
        self.threads.len()
    }

    pub(super) fn thread(&self, thread: usize) -> MutexGuard<'_, Box<Buffers>> {
        self.threads[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies `m` rows of `x` into chunks, for the float kernels.
    pub(super) fn pack_float(&mut self, pool: &Pool, x: &[f32], ldx: usize, m: usize, k: usize) {
        let out = Chunks::new(&mut self.float, FLOAT_CHUNK);
        each_row(pool, m, k, &|row| {
            for (c, piece) in x[row * ldx..][..k].chunks(FLOAT_CHUNK).enumerate() {
                // SAFETY: piece `c · m + row` belongs to this row alone, `each_row` gives every
                // row to one thread.
                let to = unsafe { out.take(c * m + row) };
                to[..piece.len()].copy_from_slice(piece);
            }
        });
    }

    /// Chunk `chunk` of what [`Scratch::pack_float`] packed.
    pub(super) fn float_rows(&self, chunk: usize, m: usize) -> &[f32] {
        &self.float[chunk * m * FLOAT_CHUNK..][..m * FLOAT_CHUNK]
    }

    /// Quantises `m` rows of `x`; `wide` also as 16-bit numbers.
    pub(super) fn quantise(
        &mut self,
        pool: &Pool,
        x: &[f32],
        ldx: usize,
        (m, k): (usize, usize),
        wide: bool,
    ) {
        let kernels = self.kernels;
        let bytes_out = Chunks::new(&mut self.bytes, 2 * INT_CHUNK);
        let wide_out = Chunks::new(&mut self.wide, INT_CHUNK);
        let scales_out = Chunks::new(&mut self.scales, INT_CHUNK / BLOCK);
        each_row(pool, m, k, &|row| {
            for (c, piece) in x[row * ldx..][..k].chunks(INT_CHUNK).enumerate() {
                let at = c * m + row;
                // SAFETY: piece `c · m + row` belongs to this row alone (see above); the kernels
                // are this CPU's.
                unsafe {
                    let wide = if wide { wide_out.take(at) } else { &mut [] };
                    (kernels.quantise)(piece, bytes_out.take(at), wide, scales_out.take(at));
                }
            }
        });
    }

    /// Rows from `row` on of chunk `chunk` of what [`Scratch::quantise`] quantised.
    pub(super) fn int_rows(&self, chunk: usize, m: usize, row: usize) -> IntRows<'_> {
        let (first, rows) = (chunk * m + row, m - row);
        IntRows {
            bytes: &self.bytes[2 * first * INT_CHUNK..][..2 * rows * INT_CHUNK],
            wide: &self.wide[first * INT_CHUNK..][..rows * INT_CHUNK],
            scales: &self.scales[first * (INT_CHUNK / BLOCK)..][..rows * (INT_CHUNK / BLOCK)],
        }
    }
}

/// Calls `body` for every row, on the pool where that pays.
fn each_row(pool: &Pool, m: usize, k: usize, body: &(dyn Fn(usize) + Sync)) {
    /// Numbers that one thread handles in about the time of waking another.
    const SERIAL: usize = 1 << 14;
    if m * k <= SERIAL {
        (0..m).for_each(body);
    } else {
        pool.for_each(m, (SERIAL / 4).div_ceil(k), &|_, rows| rows.for_each(body));
    }
}
