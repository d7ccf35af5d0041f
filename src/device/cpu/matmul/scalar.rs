//! Kernels in plain Rust: the fallback on every CPU, and what the SIMD ones are tested against.

use super::interleave::plain_at;
use super::kernels::{
    ACTIVATION_MAX, Codes, FLOAT_ROWS, FloatTile, INT_CHUNK, INT_ROWS, IntTile, Kernels, Out,
    RowScale,
};
use super::layout::{self, BLOCK, OCTET, PANEL, STEPS};
use crate::types::Dtype;

pub static KERNELS: Kernels = Kernels { float_tile, int_tile, widen, expand, dequantise, quantise };

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

unsafe fn int_tile(tile: &IntTile<'_>) {
    let mut sums = [[0.0; PANEL]; INT_ROWS];
    let halves = layout::scales_per_block(tile.dtype);
    for block in 0..tile.blocks {
        for (r, sums) in sums[..tile.rows].iter_mut().enumerate() {
            let scale = tile.a.scales[r * (INT_CHUNK / BLOCK) + block];
            for (c, sum) in sums.iter_mut().enumerate() {
                for half in 0..halves {
                    let at = (block * halves + half) * PANEL + c;
                    let dot = dot(tile, r, block, half, c) as f32;
                    *sum += dot * (tile.codes.d[at] * scale.d);
                    if layout::code_bits(tile.dtype) < 8 {
                        let total = if halves == 2 { scale.halves[half] } else { scale.sum };
                        *sum += tile.codes.m[at] * total;
                    }
                }
            }
        }
    }
    // SAFETY: the caller's promise about `out`.
    unsafe { add_to(&tile.out, &sums[..tile.rows]) };
}

/// `Σ q_w q_a` over one block, or one half of it where halves have their own scales.
fn dot(tile: &IntTile<'_>, r: usize, block: usize, half: usize, c: usize) -> i32 {
    let len = BLOCK / layout::scales_per_block(tile.dtype);
    (half * len..(half + 1) * len)
        .map(|k| {
            let at = r * INT_CHUNK + block * BLOCK + k;
            let weight = code(tile.dtype, tile.codes, block, k, c);
            let a = if layout::code_bits(tile.dtype) == 8 {
                i32::from(tile.a.wide[at])
            } else {
                let high = r * 2 * INT_CHUNK + block * BLOCK + k;
                256 * i32::from(tile.a.bytes[high]) + i32::from(tile.a.bytes[high + INT_CHUNK])
            };
            weight * a
        })
        .sum()
}

/// The unpacked code of column `k` of a block, panel row `c`.
fn code(dtype: Dtype, codes: &Codes, block: usize, k: usize, c: usize) -> i32 {
    let octet = block * 2 + c / OCTET;
    if layout::code_bits(dtype) == 8 {
        let at = 2 * ((octet * 2 * STEPS + k / 2) * 2 * OCTET + 2 * (c % OCTET) + k % 2);
        i32::from(i16::from_le_bytes([codes.q[at], codes.q[at + 1]]))
    } else {
        i32::from(codes.q[(octet * STEPS + k / 4) * 32 + 4 * (c % OCTET) + k % 4])
    }
}

unsafe fn widen(dtype: Dtype, numbers: &[u8], out: &mut [f32]) {
    out.iter_mut().enumerate().for_each(|(i, out)| *out = plain_at(dtype, numbers, i));
}

unsafe fn expand(dtype: Dtype, units: &[u8], out: &mut Codes) {
    let (blocks, halves) = (layout::unit_len(dtype) / BLOCK, layout::scales_per_block(dtype));
    for (u, unit) in units.chunks_exact(layout::unit_bytes(dtype)).enumerate() {
        for b in 0..blocks {
            let block = u * blocks + b;
            for octet in 0..2 {
                let at = layout::codes_offset(dtype, b) + octet * layout::octet_bytes(dtype);
                expand_octet(dtype, &unit[at..], (block * 2 + octet) * STEPS, out);
            }
            for (i, (d, m)) in scales(dtype, unit, b).enumerate() {
                out.d[block * halves * PANEL + i] = d;
                out.m[block * halves * PANEL + i] = m;
            }
        }
    }
}

fn scales(dtype: Dtype, unit: &[u8], block: usize) -> impl Iterator<Item = (f32, f32)> + '_ {
    (0..layout::scales_per_block(dtype) * PANEL)
        .map(move |i| layout::scale(dtype, unit, block, i / PANEL, i % PANEL))
}

fn expand_octet(dtype: Dtype, octet: &[u8], first_step: usize, out: &mut Codes) {
    for step in 0..STEPS {
        for i in 0..32 {
            let code = layout::code(dtype, octet, i, step);
            if layout::code_bits(dtype) < 8 {
                out.q[(first_step + step) * 32 + i] = code;
            } else {
                let (row, pair, k) = (i / 4, i % 4 / 2, i % 2);
                let at = 2 * (((first_step + step) * 2 + pair) * 2 * OCTET + 2 * row + k);
                out.q[at..at + 2].copy_from_slice(&i16::from(code as i8).to_le_bytes());
            }
        }
    }
}

unsafe fn dequantise(dtype: Dtype, codes: &Codes, blocks: usize, out: &mut [f32]) {
    let halves = layout::scales_per_block(dtype);
    for (k, out) in out.chunks_exact_mut(PANEL).take(blocks * BLOCK).enumerate() {
        let (block, k) = (k / BLOCK, k % BLOCK);
        for (c, out) in out.iter_mut().enumerate() {
            let at = (block * halves + k * halves / BLOCK) * PANEL + c;
            *out = codes.d[at] * code(dtype, codes, block, k, c) as f32 + codes.m[at];
        }
    }
}

unsafe fn quantise(x: &[f32], bytes: &mut [i8], wide: &mut [i16], scales: &mut [RowScale]) {
    for (b, x) in x.chunks_exact(BLOCK).enumerate() {
        let (d, inverse) = block_scale(x.iter().fold(0, |max, v| max.max(v.abs().to_bits())));
        let mut sums = [0; 2];
        for (k, v) in x.iter().enumerate() {
            let q = (v * inverse).round_ties_even() as i32;
            let high = (q + 128) >> 8;
            bytes[b * BLOCK + k] = high as i8;
            bytes[INT_CHUNK + b * BLOCK + k] = (q - 256 * high) as i8;
            if let Some(wide) = wide.get_mut(b * BLOCK + k) {
                *wide = q as i16;
            }
            sums[k / 16] += q;
        }
        scales[b] = row_scale(d, sums);
    }
}

/// `(d, 1/d)` from the bits of the largest magnitude of a block. As bits, NaN is larger than
/// infinity is larger than every number, so one comparison finds what cannot be quantised: such
/// a block gets a NaN scale, which the products carry on.
pub fn block_scale(max_bits: u32) -> (f32, f32) {
    /// Below this 1/d overflows; such activations count as zero.
    const TINY: f32 = 1e-30;
    let max = f32::from_bits(max_bits);
    if !max.is_finite() {
        (f32::NAN, 0.0)
    } else if max < TINY {
        (0.0, 0.0)
    } else {
        (max / ACTIVATION_MAX, ACTIVATION_MAX / max)
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
