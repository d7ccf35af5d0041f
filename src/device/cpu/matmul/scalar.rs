//! Kernels in plain Rust: the fallback on every CPU, and what the SIMD ones are tested against.

use std::ops::Range;

use super::interleave::plain_at;
use super::kernels::{
    BYTE_MAX, ByteRows, ByteTile, Codes, FLOAT_ROWS, FloatTile, INT_CHUNK, INT_ROWS, IntRows,
    IntTile, Kernels, Out, PackedRow, RowScale, WIDE_MAX,
};
use super::layout::{self, BLOCK, OCTET, PANEL, STEPS};
use crate::types::Dtype;

pub static KERNELS: Kernels = Kernels {
    float_tile,
    int_tile,
    byte_tile,
    int_row,
    byte_row,
    widen,
    expand,
    expand_bytes,
    dequantise,
    quantise,
    quantise_bytes,
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
            unsafe { *out.y.add(r * out.ldy + c) += sum };
        }
    }
}

unsafe fn int_tile(t: &IntTile<'_>) {
    let dot = |r: usize, block: usize, c: usize, columns: Range<usize>| {
        let q = &t.a.q[r * INT_CHUNK + block * BLOCK..][..BLOCK];
        let term = |k| code(t.codes, block, k, c) * i32::from(q[layout::paired(k)]);
        columns.map(term).sum()
    };
    // SAFETY: the caller's promise about `out`.
    unsafe { blocks((t.rows, t.blocks, t.dtype), t.a.scales, t.codes, &dot, &t.out) };
}

unsafe fn byte_tile(t: &ByteTile<'_>) {
    let dot = |r: usize, block: usize, c: usize, columns: Range<usize>| {
        let q = &t.a.q[r * INT_CHUNK + block * BLOCK..][..BLOCK];
        let codes = &t.codes.bytes[(block * 2 + c / OCTET) * BLOCK * OCTET..];
        let at = |k: usize| k / 4 * 4 * OCTET + 4 * (c % OCTET) + k % 4;
        columns.map(|k| i32::from(codes[at(k)]) * i32::from(q[k])).sum()
    };
    // SAFETY: the caller's promise about `out`.
    unsafe { blocks((t.rows, t.blocks, t.dtype), t.a.scales, t.codes, &dot, &t.out) };
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

/// The unpacked code of column `k` of a block, panel row `c`.
fn code(codes: &Codes, block: usize, k: usize, c: usize) -> i32 {
    i32::from(codes.q[place(block * 2 + c / OCTET, k / 4, 4 * (c % OCTET) + k % 4)])
}

/// Where byte `i` of step `step` of an octet goes when it is unpacked.
fn place(octet: usize, step: usize, i: usize) -> usize {
    ((octet * STEPS + step) * 2 + i % 2) * 2 * OCTET + i / 2
}

unsafe fn int_row(row: &PackedRow<'_, IntRows<'_>>) {
    let (mut codes, dtype) = (Box::new(Codes::ZERO), row.dtype);
    let blocks = row.blocks();
    // SAFETY: passed on.
    unsafe {
        expand(dtype, row.units, &mut codes);
        int_tile(&IntTile { rows: 1, a: row.a, codes: &codes, dtype, blocks, out: row.out });
    }
}

unsafe fn byte_row(row: &PackedRow<'_, ByteRows<'_>>) {
    let (mut codes, dtype) = (Box::new(Codes::ZERO), row.dtype);
    let blocks = row.blocks();
    // SAFETY: passed on.
    unsafe {
        expand_bytes(dtype, row.units, &mut codes);
        byte_tile(&ByteTile { rows: 1, a: row.a, codes: &codes, dtype, blocks, out: row.out });
    }
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
            *out = codes.d[at] * code(codes, block, k, c) as f32 + codes.m[at];
        }
    }
}

unsafe fn quantise(x: &[f32], out: &mut [i16], scales: &mut [RowScale]) {
    let put = &mut |b, k, q| out[b * BLOCK + layout::paired(k)] = q as i16;
    quantise_to(WIDE_MAX, x, put, scales);
}

unsafe fn quantise_bytes(x: &[f32], out: &mut [i8], scales: &mut [RowScale]) {
    quantise_to(BYTE_MAX, x, &mut |b, k, q| out[b * BLOCK + k] = q as i8, scales);
}

/// Calls `put(block, column, q)` for every number.
fn quantise_to(
    most: f32,
    x: &[f32],
    put: &mut dyn FnMut(usize, usize, i32),
    scales: &mut [RowScale],
) {
    for (b, x) in x.chunks_exact(BLOCK).enumerate() {
        let bits = x.iter().fold(0, |max, v| max.max(v.abs().to_bits()));
        let (d, inverse) = block_scale(bits, most);
        let mut sums = [0; 2];
        for (k, v) in x.iter().enumerate() {
            let q = (v * inverse).round_ties_even() as i32;
            put(b, k, q);
            sums[k / 16] += q;
        }
        scales[b] = row_scale(d, sums);
    }
}

/// `(d, 1/d)` from the bits of the largest magnitude of a block, which becomes `most`. As bits,
/// NaN is larger than
/// infinity is larger than every number, so one comparison finds what cannot be quantised: such
/// a block gets a NaN scale, which the products carry on.
pub fn block_scale(max_bits: u32, most: f32) -> (f32, f32) {
    /// Below this 1/d overflows; such activations count as zero.
    const TINY: f32 = 1e-30;
    let max = f32::from_bits(max_bits);
    if !max.is_finite() {
        (f32::NAN, 0.0)
    } else if max < TINY {
        (0.0, 0.0)
    } else {
        (max / most, most / max)
    }
}

/// A block's scale and its scaled sums, from the integer sums of its halves.
pub fn row_scale(d: f32, sums: [i32; 2]) -> RowScale {
    RowScale {
        d,
        sum: d * (sums[0] + sums[1]) as f32,
        halves: [d * sums[0] as f32, d * sums[1] as f32],
    }
}
