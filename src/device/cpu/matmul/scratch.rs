//! Scratch memory of the products: activations in the kernels' layout, and each thread's
//! unpacked piece of a panel.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::kernels::{ByteRows, Codes, FLOAT_CHUNK, INT_CHUNK, IntRows, Isa, Kernels, RowScale};
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
    /// `[chunk][row][INT_CHUNK]`, both.
    int: Vec<i16>,
    bytes: Vec<i8>,
    /// `[chunk][row][INT_CHUNK / BLOCK]`.
    scales: Vec<RowScale>,
    byte_scales: Vec<RowScale>,
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
            int: vec![0; int],
            bytes: vec![0; int],
            scales: vec![RowScale::default(); int / BLOCK],
            byte_scales: vec![RowScale::default(); int / BLOCK],
            threads: (0..threads.max(1)).map(|_| Mutex::new(buffers())).collect(),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        4 * self.float.len()
            + 3 * self.int.len()
            + 2 * size_of::<RowScale>() * self.scales.len()
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

    /// Quantises `m` rows of `x`, `k` columns in chunks of `chunk`.
    pub(super) fn quantise(
        &mut self,
        pool: &Pool,
        x: &[f32],
        ldx: usize,
        m: usize,
        (k, chunk): (usize, usize),
    ) {
        let kernels = self.kernels;
        let out = Chunks::new(&mut self.int, INT_CHUNK);
        let scales_out = Chunks::new(&mut self.scales, INT_CHUNK / BLOCK);
        each_row(pool, m, k, &|row| {
            for (c, piece) in x[row * ldx..][..k].chunks(chunk).enumerate() {
                let at = c * m + row;
                // SAFETY: piece `c · m + row` belongs to this row alone (see above); the kernels
                // are this CPU's.
                unsafe { (kernels.quantise)(piece, out.take(at), scales_out.take(at)) };
            }
        });
    }

    /// Quantises `m` rows of `x` to bytes.
    pub(super) fn quantise_bytes(
        &mut self,
        pool: &Pool,
        x: &[f32],
        ldx: usize,
        m: usize,
        (k, chunk): (usize, usize),
    ) {
        let kernels = self.kernels;
        let out = Chunks::new(&mut self.bytes, INT_CHUNK);
        let scales_out = Chunks::new(&mut self.byte_scales, INT_CHUNK / BLOCK);
        each_row(pool, m, k, &|row| {
            for (c, piece) in x[row * ldx..][..k].chunks(chunk).enumerate() {
                let at = c * m + row;
                // SAFETY: as in `quantise`.
                unsafe { (kernels.quantise_bytes)(piece, out.take(at), scales_out.take(at)) };
            }
        });
    }

    /// Rows from `row` on of chunk `chunk` of what [`Scratch::quantise_bytes`] quantised.
    pub(super) fn byte_rows(&self, chunk: usize, m: usize, row: usize) -> ByteRows<'_> {
        let (first, rows) = (chunk * m + row, m - row);
        let scales = INT_CHUNK / BLOCK;
        ByteRows {
            q: &self.bytes[first * INT_CHUNK..][..rows * INT_CHUNK],
            scales: &self.byte_scales[first * scales..][..rows * scales],
        }
    }

    /// Rows from `row` on of chunk `chunk` of what [`Scratch::quantise`] quantised.
    pub(super) fn int_rows(&self, chunk: usize, m: usize, row: usize) -> IntRows<'_> {
        let (first, rows) = (chunk * m + row, m - row);
        IntRows {
            q: &self.int[first * INT_CHUNK..][..rows * INT_CHUNK],
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
