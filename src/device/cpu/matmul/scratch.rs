//! Scratch memory of the products: activations in the kernels' layout, and each thread's
//! unpacked piece of a panel.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::integer::{Integer, RowMut, RowScale, Rows, fine_limit};
use super::kernels::{Codes, FLOAT_CHUNK, INT_CHUNK, Isa, Kernels};
use super::layout::{BLOCK, PANEL};
use super::memory::Chunks;
use crate::device::cpu::caches;
use crate::device::cpu::pool::Pool;

/// Most activation rows that are multiplied with a panel before the next panel is read: with
/// [`FLOAT_CHUNK`] columns they take 297 KiB of the second-level cache.
pub(super) const SLAB: usize = 264;
/// The same of the integer kernels, whose chunks are longer: 288 KiB.
pub(super) const INT_SLAB: usize = 192;

/// Memory for products of up to `max_k` columns, allocated once.
pub struct Scratch {
    pub(super) kernels: &'static Kernels,
    /// Weights are more than caches hold until they are read again.
    pub(super) once: bool,
    slab: usize,
    max_k: usize,
    /// `[chunk][row][FLOAT_CHUNK]`.
    float: Vec<f32>,
    wide: Quantised<i16>,
    bytes: Quantised<i8>,
    threads: Vec<Mutex<Box<Buffers>>>,
}

/// Activations quantised to one width.
pub(super) struct Quantised<A> {
    /// `[chunk][row][INT_CHUNK]`.
    q: Vec<A>,
    /// As `q`, or empty.
    low: Vec<A>,
    /// `[chunk][row]`.
    fine: Vec<u32>,
    /// `[chunk][row][INT_CHUNK / BLOCK]`.
    scales: Vec<RowScale>,
}

/// Blocks of a chunk: each has a scale, and a bit of a word.
const BLOCKS: usize = INT_CHUNK / BLOCK;
const _: () = assert!(BLOCKS <= 32);

/// The part of the scratch that holds activations of a width.
pub(super) trait Stored: Integer {
    fn of(scratch: &Scratch) -> &Quantised<Self>;
    fn of_mut(scratch: &mut Scratch) -> &mut Quantised<Self>;
}

impl Stored for i16 {
    fn of(scratch: &Scratch) -> &Quantised<i16> {
        &scratch.wide
    }

    fn of_mut(scratch: &mut Scratch) -> &mut Quantised<i16> {
        &mut scratch.wide
    }
}

impl Stored for i8 {
    fn of(scratch: &Scratch) -> &Quantised<i8> {
        &scratch.bytes
    }

    fn of_mut(scratch: &mut Scratch) -> &mut Quantised<i8> {
        &mut scratch.bytes
    }
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
        // Units of 256 columns leave a part of each chunk empty.
        let float = slab * max_k.div_ceil(256) * FLOAT_CHUNK;
        let pieces = slab.min(INT_SLAB) * max_k.div_ceil(INT_CHUNK);
        let buffers =
            || Box::new(Buffers { codes: Codes::ZERO, weights: [0.0; FLOAT_CHUNK * PANEL] });
        Scratch {
            kernels: isa.kernels(),
            once: false,
            slab,
            max_k,
            float: vec![0.0; float],
            wide: Quantised::new(pieces),
            bytes: Quantised::new(pieces),
            threads: (0..threads.max(1)).map(|_| Mutex::new(buffers())).collect(),
        }
    }

    /// The same for products that read so many bytes of weights before any again: what caches
    /// cannot hold is kept out of them.
    pub fn for_weights(self, bytes: u64) -> Scratch {
        Scratch { once: bytes > caches::last_level(), ..self }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        4 * self.float.len()
            + self.wide.bytes()
            + self.bytes.bytes()
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

    /// Copies `m` rows of `x`, `k` columns in chunks of `chunk`, for the float kernels.
    pub(super) fn pack_float(
        &mut self,
        pool: &Pool,
        x: &[f32],
        ldx: usize,
        m: usize,
        (k, chunk): (usize, usize),
    ) {
        let out = Chunks::new(&mut self.float, FLOAT_CHUNK);
        each_row(pool, m, k, &|row| {
            for (c, piece) in x[row * ldx..][..k].chunks(chunk).enumerate() {
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
    pub(super) fn quantise<A: Stored>(
        &mut self,
        pool: &Pool,
        x: &[f32],
        ldx: usize,
        m: usize,
        (k, chunk): (usize, usize),
    ) {
        let quantise = A::kernels(self.kernels).quantise;
        let to = A::of_mut(self);
        let q = Chunks::new(&mut to.q, INT_CHUNK);
        let low = Chunks::new(&mut to.low, if A::FINE { INT_CHUNK } else { 0 });
        let (fine, scales) = (Chunks::new(&mut to.fine, 1), Chunks::new(&mut to.scales, BLOCKS));
        each_row(pool, m, k, &|row| {
            let x = &x[row * ldx..][..k];
            let limit = if A::FINE { fine_limit(x) } else { f32::INFINITY };
            for (c, piece) in x.chunks(chunk).enumerate() {
                let at = c * m + row;
                // SAFETY: piece `c · m + row` belongs to this row alone (see above); the kernels
                // are this CPU's.
                unsafe {
                    let (q, low) = (q.take(at), low.take(at));
                    let (fine, scales) = (&mut fine.take(at)[0], scales.take(at));
                    quantise(piece, limit, RowMut { q, low, fine, scales });
                }
            }
        });
    }

    /// Rows from `row` on of chunk `chunk` of what [`Scratch::quantise`] quantised.
    pub(super) fn rows<A: Stored>(&self, chunk: usize, m: usize, row: usize) -> Rows<'_, A> {
        let (from, first, rows) = (A::of(self), chunk * m + row, m - row);
        let low = if A::FINE { first..first + rows } else { 0..0 };
        Rows {
            q: &from.q[first * INT_CHUNK..][..rows * INT_CHUNK],
            low: &from.low[low.start * INT_CHUNK..low.end * INT_CHUNK],
            fine: &from.fine[first..][..rows],
            scales: &from.scales[first * BLOCKS..][..rows * BLOCKS],
        }
    }
}

impl<A: Integer> Quantised<A> {
    /// Room for `pieces`, each a chunk of a row.
    fn new(pieces: usize) -> Self {
        Quantised {
            q: vec![A::default(); pieces * INT_CHUNK],
            low: vec![A::default(); if A::FINE { pieces * INT_CHUNK } else { 0 }],
            fine: vec![0; pieces],
            scales: vec![RowScale::default(); pieces * BLOCKS],
        }
    }

    fn bytes(&self) -> usize {
        size_of::<A>() * (self.q.len() + self.low.len())
            + 4 * self.fine.len()
            + size_of::<RowScale>() * self.scales.len()
    }
}

/// Calls `body` for every row, on the pool where that pays.
fn each_row(pool: &Pool, m: usize, k: usize, body: &(dyn Fn(usize) + Sync)) {
    /// Numbers that one thread handles in about the time of waking another.
    const SERIAL: usize = 1 << 13;
    if m * k <= SERIAL {
        (0..m).for_each(body);
    } else {
        pool.for_each(m, (SERIAL / 4).div_ceil(k), &|_, rows| rows.for_each(body));
    }
}
