//! Kernels in plain Rust: the fallback on every CPU, and what the SIMD ones are tested against.

use std::ops::Range;

use super::integer::{
    BYTE_MAX, FINE_MAX, Integer, RowMut, RowScale, Rows, WIDE_MAX, block_scale, row_scale, split,
};
use super::interleave::plain_at;
use super::kernels::{
    Codes, FloatTile, INT_CHUNK, INT_ROWS, IntKernels, IntTile, Kernels, Out, Source,
};
use super::layout::{self, BLOCK, OCTET, PANEL, STEPS};
use crate::types::Dtype;

/// Most rows of a float tile.
const FLOAT_ROWS: usize = 6;

pub static KERNELS: Kernels = Kernels {
    streams: 1,
    float_rows: FLOAT_ROWS,
    float_tile,
    wide: IntKernels { tile: int_tile, tall: None, expand, quantise },
    bytes: IntKernels {
        tile: int_tile,
        tall: None,
        expand: expand_bytes,
        quantise: quantise_bytes,
    },
    widen,
    dequantise,
};

unsafe fn float_tile(tile: &FloatTile<'_>) {
    let mut sums = [[0.0; PANEL]; FLOAT_ROWS];
    for k in 0..tile.k {
        let w: [f32; PANEL] =
            std::array::from_fn(|c| plain_at(tile.dtype, tile.weights, k * PANEL + c));
        for (r, sums) in sums[..tile.rows].iter_mut().enumerate() {
            let a = tile.a[r * tile.lda + k];
            sums.iter_mut().zip(w).for_each(|(sum, w)| *sum += a * w);
        }
    }
    // SAFETY: the caller's promise about `out`.
    unsafe { add_to(&tile.out, &sums[..tile.rows]) };
}

/// Adds a tile's sums to the output.
///
/// # Safety
/// `out` must be writable for these rows and not written by others.
unsafe fn add_to(out: &Out, sums: &[[f32; PANEL]]) {
    for (r, sums) in sums.iter().enumerate() {
        for (c, sum) in sums[..out.cols].iter().enumerate() {
            // SAFETY: inside the output by the caller's promise.
            let y = unsafe { &mut *out.y.add(r * out.ldy + c) };
            *y = if out.fresh { 0.0 } else { *y } + sum;
        }
    }
}

/// How a width lies in memory.
trait Width: Integer {
    /// Quantised number `k` of block `block` of row `r`.
    fn number(rows: &Rows<'_, Self>, r: usize, block: usize, k: usize) -> i32;

    /// The unpacked code of column `k` of a block, panel row `c`.
    fn code(codes: &Codes, block: usize, k: usize, c: usize) -> i32;
}

impl Width for i16 {
    fn number(rows: &Rows<'_, i16>, r: usize, block: usize, k: usize) -> i32 {
        i32::from(rows.q[r * INT_CHUNK + block * BLOCK + layout::paired(k)])
    }

    fn code(codes: &Codes, block: usize, k: usize, c: usize) -> i32 {
        i32::from(codes.q[place(block * 2 + c / OCTET, k / 4, 4 * (c % OCTET) + k % 4)])
    }
}

impl Width for i8 {
    fn number(rows: &Rows<'_, i8>, r: usize, block: usize, k: usize) -> i32 {
        let at = r * INT_CHUNK + block * BLOCK + k;
        let shift = if rows.fine[r] >> block & 1 == 1 { 8 } else { 0 };
        (i32::from(rows.q[at]) << shift) + i32::from(rows.low[at])
    }

    fn code(codes: &Codes, block: usize, k: usize, c: usize) -> i32 {
        let octet = (block * 2 + c / OCTET) * BLOCK * OCTET;
        i32::from(codes.bytes[octet + k / 4 * 4 * OCTET + 4 * (c % OCTET) + k % 4])
    }
}

unsafe fn int_tile<A: Width>(t: &IntTile<'_, A>) {
    let mut unpacked = None;
    let codes = match t.weights {
        Source::Unpacked(codes) => codes,
        Source::Packed(units) => {
            let codes = unpacked.insert(Box::new(Codes::ZERO));
            // SAFETY: whole units of a chunk by the caller's promise.
            unsafe { (A::kernels(&KERNELS).expand)(t.dtype, units, codes) };
            &**codes
        }
    };
    let dot = |r: usize, block: usize, c: usize, columns: Range<usize>| {
        let term = |k| A::code(codes, block, k, c) * A::number(&t.a, r, block, k);
        columns.map(term).sum()
    };
    // SAFETY: the caller's promise about `out`.
    unsafe { blocks((t.rows, t.blocks, t.dtype), t.a.scales, codes, &dot, &t.out) };
}

/// The scaled sum of blocks; `dot(r, block, c, columns)` is `Σ q_w q_a` over columns of a block.
///
/// # Safety
/// `out` must be writable for these rows and not written by others.
unsafe fn blocks(
    (rows, blocks, dtype): (usize, usize, Dtype),
    scales: &[RowScale],
    codes: &Codes,
    dot: &dyn Fn(usize, usize, usize, Range<usize>) -> i32,
    out: &Out,
) {
    let mut sums = [[0.0; PANEL]; INT_ROWS];
    let halves = layout::scales_per_block(dtype);
    let len = BLOCK / halves;
    for part in 0..blocks * halves {
        let (block, half) = (part / halves, part % halves);
        for (r, sums) in sums[..rows].iter_mut().enumerate() {
            let scale = scales[r * (INT_CHUNK / BLOCK) + block];
            for (c, sum) in sums.iter_mut().enumerate() {
                let dot = dot(r, block, c, half * len..(half + 1) * len) as f32;
                *sum += dot * (codes.d[part * PANEL + c] * scale.d);
                if layout::code_bits(dtype) < 8 {
                    let total = if halves == 2 { scale.halves[half] } else { scale.sum };
                    *sum += codes.m[part * PANEL + c] * total;
                }
            }
        }
    }
    // SAFETY: the caller's promise about `out`.
    unsafe { add_to(out, &sums[..rows]) };
}

/// Where byte `i` of step `step` of an octet goes when it is unpacked.
fn place(octet: usize, step: usize, i: usize) -> usize {
    ((octet * STEPS + step) * 2 + i % 2) * 2 * OCTET + i / 2
}

unsafe fn widen(dtype: Dtype, numbers: &[u8], out: &mut [f32]) {
    out.iter_mut().enumerate().for_each(|(i, out)| *out = plain_at(dtype, numbers, i));
}

unsafe fn expand(dtype: Dtype, units: &[u8], out: &mut Codes) {
    unpack_scales(dtype, units, out);
    let signed = layout::code_bits(dtype) == 8;
    each_code(dtype, units, &mut |octet, step, i, code| {
        out.q[place(octet, step, i)] = if signed { (code as i8).into() } else { code.into() };
    });
}

unsafe fn expand_bytes(dtype: Dtype, units: &[u8], out: &mut Codes) {
    unpack_scales(dtype, units, out);
    each_code(dtype, units, &mut |octet, step, i, code| {
        out.bytes[(octet * STEPS + step) * 4 * OCTET + i] = code;
    });
}

/// Calls `put(octet, step, byte of the step, code)` for every code, octets counted on.
fn each_code(dtype: Dtype, units: &[u8], put: &mut dyn FnMut(usize, usize, usize, u8)) {
    let blocks = layout::unit_len(dtype) / BLOCK;
    for (u, unit) in units.chunks_exact(layout::unit_bytes(dtype)).enumerate() {
        for octet in 0..2 * blocks {
            let at = layout::codes_offset(dtype, octet / 2);
            let from = &unit[at + octet % 2 * layout::octet_bytes(dtype)..];
            for place in 0..STEPS * 4 * OCTET {
                let (step, i) = (place / (4 * OCTET), place % (4 * OCTET));
                put(u * 2 * blocks + octet, step, i, layout::code(dtype, from, i, step));
            }
        }
    }
}

fn unpack_scales(dtype: Dtype, units: &[u8], out: &mut Codes) {
    let (blocks, halves) = (layout::unit_len(dtype) / BLOCK, layout::scales_per_block(dtype));
    for (u, unit) in units.chunks_exact(layout::unit_bytes(dtype)).enumerate() {
        for block in 0..blocks {
            for (i, (d, m)) in scales(dtype, unit, block).enumerate() {
                out.d[(u * blocks + block) * halves * PANEL + i] = d;
                out.m[(u * blocks + block) * halves * PANEL + i] = m;
            }
        }
    }
}

fn scales(dtype: Dtype, unit: &[u8], block: usize) -> impl Iterator<Item = (f32, f32)> + '_ {
    (0..layout::scales_per_block(dtype) * PANEL)
        .map(move |i| layout::scale(dtype, unit, block, i / PANEL, i % PANEL))
}

unsafe fn dequantise(dtype: Dtype, codes: &Codes, blocks: usize, out: &mut [f32]) {
    let halves = layout::scales_per_block(dtype);
    for (k, out) in out.chunks_exact_mut(PANEL).take(blocks * BLOCK).enumerate() {
        let (block, k) = (k / BLOCK, k % BLOCK);
        for (c, out) in out.iter_mut().enumerate() {
            let at = (block * halves + k * halves / BLOCK) * PANEL + c;
            *out = codes.d[at] * i16::code(codes, block, k, c) as f32 + codes.m[at];
        }
    }
}

unsafe fn quantise(x: &[f32], _: f32, out: RowMut<'_, i16>) {
    *out.fine = 0;
    for (b, x) in x.chunks_exact(BLOCK).enumerate() {
        let put = &mut |k, q| out.q[b * BLOCK + layout::paired(k)] = q as i16;
        out.scales[b] = quantise_block(x, max_bits(x), WIDE_MAX, put);
    }
}

unsafe fn quantise_bytes(x: &[f32], limit: f32, out: RowMut<'_, i8>) {
    *out.fine = 0;
    for (b, x) in x.chunks_exact(BLOCK).enumerate() {
        let (bits, at) = (max_bits(x), b * BLOCK);
        out.scales[b] = if f32::from_bits(bits) > limit {
            *out.fine |= 1 << b;
            let put = &mut |k, q| (out.q[at + k], out.low[at + k]) = split(q);
            quantise_block(x, bits, FINE_MAX, put)
        } else {
            let put = &mut |k, q| (out.q[at + k], out.low[at + k]) = (q as i8, 0);
            quantise_block(x, bits, BYTE_MAX, put)
        };
    }
}

/// Bits of the largest magnitude; magnitudes order as their bits do, NaN last.
fn max_bits(x: &[f32]) -> u32 {
    x.iter().fold(0, |max, v| max.max(v.abs().to_bits()))
}

/// Calls `put(column, q)` for every number of a block.
fn quantise_block(x: &[f32], bits: u32, most: f32, put: &mut dyn FnMut(usize, i32)) -> RowScale {
    let (d, inverse) = block_scale(bits, most);
    let mut sums = [0; 2];
    for (k, v) in x.iter().enumerate() {
        let q = (v * inverse).round_ties_even() as i32;
        put(k, q);
        sums[k / 16] += q;
    }
    row_scale(d, sums)
}
