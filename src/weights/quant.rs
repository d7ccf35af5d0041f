//! Exact dequantisation of every stored type to float32: the reference that fast code is held to.
//!
//! GGUF's block formats, all little-endian; `d`, `m` are float16, `q` unsigned unless said.
//! In blocks of 32 (`j` counts 0..16; the low nibble of byte j is element j, the high j + 16):
//!
//! | type | bytes | y |
//! | --- | --- | --- |
//! | Q8_0 | d, 32 × i8 | d·q |
//! | Q4_0 | d, 16 × nibbles | d·(q - 8) |
//! | Q4_1 | d, m, 16 × nibbles | d·q + m |
//! | Q5_0 | d, u32 of fifth bits, 16 × nibbles | d·(q - 16) |
//! | Q5_1 | d, m, u32 of fifth bits, 16 × nibbles | d·q + m |
//!
//! The K types hold 256 elements in sub-blocks with small integer scales; see their functions.

use half::{bf16, f16};

use crate::types::Dtype;

/// Converts `bytes`, numbers of type `dtype`, to `out`.
///
/// # Panics
/// If `bytes` is not exactly `out.len()` numbers of `dtype`.
pub fn dequantise(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(dtype.bytes(out.len()), Some(bytes.len()), "a row's bytes and numbers agree");
    match dtype {
        Dtype::F32 => each(bytes, out, f32::from_le_bytes),
        Dtype::F16 => each(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::Q8_0 => blocks(bytes, out, q8_0),
        Dtype::Q4_0 => blocks(bytes, out, q4_0),
        Dtype::Q4_1 => blocks(bytes, out, q4_1),
        Dtype::Q5_0 => blocks(bytes, out, q5_0),
        Dtype::Q5_1 => blocks(bytes, out, q5_1),
        Dtype::Q4K => blocks(bytes, out, q4_k),
        Dtype::Q5K => blocks(bytes, out, q5_k),
        Dtype::Q6K => blocks(bytes, out, q6_k),
    }
}

fn each<const B: usize>(bytes: &[u8], out: &mut [f32], convert: impl Fn([u8; B]) -> f32) {
    for (y, b) in out.iter_mut().zip(bytes.as_chunks::<B>().0) {
        *y = convert(*b);
    }
}

fn blocks<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    convert: impl Fn(&[u8; B], &mut [f32; N]),
) {
    for (y, b) in out.as_chunks_mut::<N>().0.iter_mut().zip(bytes.as_chunks::<B>().0) {
        convert(b, y);
    }
}

/// The float16 at `bytes[at..at + 2]`.
fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn q8_0(b: &[u8; 34], y: &mut [f32; 32]) {
    let d = half(b, 0);
    for (y, &q) in y.iter_mut().zip(&b[2..]) {
        *y = d * f32::from(q as i8);
    }
}

fn q4_0(b: &[u8; 18], y: &mut [f32; 32]) {
    let d = half(b, 0);
    for (j, &q) in b[2..].iter().enumerate() {
        y[j] = d * (f32::from(q & 15) - 8.0);
        y[j + 16] = d * (f32::from(q >> 4) - 8.0);
    }
}

fn q4_1(b: &[u8; 20], y: &mut [f32; 32]) {
    let (d, m) = (half(b, 0), half(b, 2));
    for (j, &q) in b[4..].iter().enumerate() {
        y[j] = d * f32::from(q & 15) + m;
        y[j + 16] = d * f32::from(q >> 4) + m;
    }
}

/// The 5-bit numbers of elements j and j + 16: a nibble each, and bits j and j + 16 of `high`.
fn five_bits(nibbles: u8, high: u32, j: usize) -> (f32, f32) {
    let low = u32::from(nibbles & 15) | (high >> j & 1) << 4;
    let top = u32::from(nibbles >> 4) | (high >> (j + 16) & 1) << 4;
    (low as f32, top as f32)
}

fn q5_0(b: &[u8; 22], y: &mut [f32; 32]) {
    let d = half(b, 0);
    let high = u32::from_le_bytes([b[2], b[3], b[4], b[5]]);
    for (j, &q) in b[6..].iter().enumerate() {
        let (low, top) = five_bits(q, high, j);
        y[j] = d * (low - 16.0);
        y[j + 16] = d * (top - 16.0);
    }
}

fn q5_1(b: &[u8; 24], y: &mut [f32; 32]) {
    let (d, m) = (half(b, 0), half(b, 2));
    let high = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
    for (j, &q) in b[8..].iter().enumerate() {
        let (low, top) = five_bits(q, high, j);
        y[j] = d * low + m;
        y[j + 16] = d * top + m;
    }
}

/// The 6-bit scale and minimum of sub-block `s` (0..8) in the 12 bytes that Q4_K and Q5_K pack
/// them into: bytes 0..4 hold scales 0..4 in six bits, bytes 4..8 the minima likewise; sub-blocks
/// 4..8 have their low nibbles in bytes 8..12 and their top two bits in bytes 0..8's spare ones.
fn scale_min(packed: &[u8], s: usize) -> (f32, f32) {
    let (scale, min) = if s < 4 {
        (packed[s] & 63, packed[s + 4] & 63)
    } else {
        let low = packed[s + 4];
        (low & 15 | packed[s - 4] >> 6 << 4, low >> 4 | packed[s] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

/// d, dmin, 12 bytes of scales and minima, 128 × nibbles: `y = (d·scale)·q - dmin·min`.
/// 32 bytes hold sub-block 2i in their low nibbles, 2i + 1 in their high ones.
fn q4_k(b: &[u8; 144], y: &mut [f32; 256]) {
    let (d, dmin) = (half(b, 0), half(b, 2));
    for (s, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_min(&b[4..16], s);
        let (scale, min) = (d * scale, dmin * min);
        let nibbles = &b[16 + 32 * (s / 2)..][..32];
        for (y, &q) in y.iter_mut().zip(nibbles) {
            *y = scale * f32::from(q >> (4 * (s % 2)) & 15) - min;
        }
    }
}

/// As Q4_K, with 32 bytes of fifth bits between: bit s of byte j belongs to element j of
/// sub-block s.
fn q5_k(b: &[u8; 176], y: &mut [f32; 256]) {
    let (d, dmin) = (half(b, 0), half(b, 2));
    let high = &b[16..48];
    for (s, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_min(&b[4..16], s);
        let (scale, min) = (d * scale, dmin * min);
        let nibbles = &b[48 + 32 * (s / 2)..][..32];
        for (j, y) in y.iter_mut().enumerate() {
            let q = nibbles[j] >> (4 * (s % 2)) & 15 | (high[j] >> s & 1) << 4;
            *y = scale * f32::from(q) - min;
        }
    }
}

/// 128 bytes of low nibbles, 64 of top bit pairs, 16 × i8 scales (one for 16 elements), d:
/// `y = (d·scale)·(q - 32)`. Each half of 128 elements uses 64 + 32 bytes: quarter k (0..4) of 32
/// elements has its nibbles in bytes 32·(k % 2).., low ones for k < 2, and its bit pair at 2k.
fn q6_k(b: &[u8; 210], y: &mut [f32; 256]) {
    let d = half(b, 208);
    for (s, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (half, quarter) = (s / 4, s % 4);
        let nibbles = &b[64 * half + 32 * (quarter % 2)..][..32];
        let pairs = &b[128 + 32 * half..][..32];
        let scales = &b[192 + 2 * s..][..2];
        for (j, y) in y.iter_mut().enumerate() {
            let low = nibbles[j] >> (4 * (quarter / 2)) & 15;
            let q = low | (pairs[j] >> (2 * quarter) & 3) << 4;
            *y = d * f32::from(scales[j / 16] as i8) * (f32::from(q) - 32.0);
        }
    }
}
