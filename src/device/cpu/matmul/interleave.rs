//! From rows as they lie in a file to an interleaved panel ([`super::layout`]).

use half::{bf16, f16};

use super::layout::{self, BLOCK, OCTET, PANEL};
use crate::types::Dtype;

/// One row's share of a unit: codes in column order, and scales.
struct RowUnit {
    codes: [u8; 256],
    d: [u8; 2],
    m: [u8; 2],
    /// K types: scales and minima of the 32-column blocks, or 16 scales of 16 columns.
    subs: [u8; 16],
}

/// Writes the panel of `rows` (at most 16; missing ones are zero) into `out`, which must be zero.
/// Each row is `(dtype, bytes)` in file form; plain rows are converted to `dtype`.
pub fn panel(dtype: Dtype, rows: &[(Dtype, &[u8])], cols: usize, out: &mut [u8]) {
    if dtype.is_quantised() {
        for (lane, (_, bytes)) in rows.iter().enumerate() {
            quantised_row(dtype, bytes, lane, out);
        }
        return;
    }
    for (lane, &(from, bytes)) in rows.iter().enumerate() {
        match (from, dtype) {
            (Dtype::F32, Dtype::F32) => copy_row::<4>(bytes, lane, cols, out),
            (Dtype::F16, Dtype::F16) | (Dtype::BF16, Dtype::BF16) => {
                copy_row::<2>(bytes, lane, cols, out);
            }
            _ => convert_row(from, bytes, dtype, lane, cols, out),
        }
    }
}

fn copy_row<const N: usize>(bytes: &[u8], lane: usize, cols: usize, out: &mut [u8]) {
    let numbers = bytes.as_chunks::<N>().0;
    let places = out.as_chunks_mut::<N>().0;
    for (k, number) in numbers.iter().take(cols).enumerate() {
        places[k * PANEL + lane] = *number;
    }
}

fn convert_row(from: Dtype, bytes: &[u8], to: Dtype, lane: usize, cols: usize, out: &mut [u8]) {
    for k in 0..cols {
        let value = plain_at(from, bytes, k);
        let at = k * PANEL + lane;
        match to {
            Dtype::F16 => out[2 * at..][..2].copy_from_slice(&f16::from_f32(value).to_le_bytes()),
            Dtype::BF16 => out[2 * at..][..2].copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
            _ => out[4 * at..][..4].copy_from_slice(&value.to_le_bytes()),
        }
    }
}

/// Number `index` of plain bytes of type `dtype`.
pub fn plain_at(dtype: Dtype, bytes: &[u8], index: usize) -> f32 {
    match dtype {
        Dtype::F16 => f16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f32(),
        Dtype::BF16 => bf16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]]).to_f32(),
        _ => f32::from_le_bytes(bytes.as_chunks::<4>().0[index]),
    }
}

fn quantised_row(dtype: Dtype, bytes: &[u8], lane: usize, out: &mut [u8]) {
    if matches!(dtype, Dtype::Q8_0 | Dtype::Q4_0 | Dtype::Q4_1) {
        return whole_bytes_row(dtype, bytes, lane, out);
    }
    let units = out.chunks_exact_mut(layout::unit_bytes(dtype));
    for (block, unit) in bytes.chunks_exact(dtype.block_bytes()).zip(units) {
        let row = split(dtype, block);
        for b in 0..layout::unit_len(dtype) / BLOCK {
            let at = layout::codes_offset(dtype, b);
            let octet = &mut unit[at + lane / OCTET * layout::octet_bytes(dtype)..];
            write_codes(dtype, &row.codes[b * BLOCK..][..BLOCK], 4 * (lane % OCTET), octet);
        }
        write_scales(dtype, &row, lane, unit);
    }
}

/// As [`quantised_row`] for types whose bytes are kept: two nibbles share a byte as in the file.
/// These are the common types, and loading a model is mostly this.
fn whole_bytes_row(dtype: Dtype, bytes: &[u8], lane: usize, out: &mut [u8]) {
    let octet = lane / OCTET * layout::octet_bytes(dtype) + 4 * (lane % OCTET);
    let tail = 2 * layout::octet_bytes(dtype) + 2 * lane;
    let scales = if dtype == Dtype::Q4_1 { 4 } else { 2 };
    let units = out.chunks_exact_mut(layout::unit_bytes(dtype));
    for (block, unit) in bytes.chunks_exact(dtype.block_bytes()).zip(units) {
        let (head, codes) = block.split_at(scales);
        for (step, quad) in codes.as_chunks::<4>().0.iter().enumerate() {
            unit[octet + 32 * step..][..4].copy_from_slice(quad);
        }
        for (i, scale) in head.as_chunks::<2>().0.iter().enumerate() {
            unit[tail + 2 * PANEL * i..][..2].copy_from_slice(scale);
        }
    }
}

/// Puts the 32 codes of one row at byte `i` of an octet's vectors.
fn write_codes(dtype: Dtype, codes: &[u8], i: usize, octet: &mut [u8]) {
    let bits = layout::code_bits(dtype);
    for (step, quad) in codes.as_chunks::<4>().0.iter().enumerate() {
        let quad = u32::from_le_bytes(*quad);
        if bits == 8 {
            or_quad(octet, 32 * step + i, quad);
            continue;
        }
        or_quad(octet, 32 * (step % 4) + i, (quad & 0x0f0f_0f0f) << (4 * (step / 4)));
        let high = quad >> 4 & 0x0303_0303;
        match bits {
            5 => or_quad(octet, 128 + i, high << step),
            6 => or_quad(octet, 128 + 32 * (step / 4) + i, high << (2 * (step % 4))),
            _ => {}
        }
    }
}

fn or_quad(bytes: &mut [u8], at: usize, quad: u32) {
    for (byte, bits) in bytes[at..at + 4].iter_mut().zip(quad.to_le_bytes()) {
        *byte |= bits;
    }
}

fn write_scales(dtype: Dtype, row: &RowUnit, lane: usize, unit: &mut [u8]) {
    let head = match dtype {
        Dtype::Q4K | Dtype::Q5K | Dtype::Q6K => 0,
        _ => 2 * layout::octet_bytes(dtype),
    };
    unit[head + 2 * lane..][..2].copy_from_slice(&row.d);
    if matches!(dtype, Dtype::Q4_1 | Dtype::Q5_1 | Dtype::Q4K | Dtype::Q5K) {
        unit[head + 2 * PANEL + 2 * lane..][..2].copy_from_slice(&row.m);
    }
    if layout::unit_len(dtype) == 256 {
        for (i, &sub) in row.subs.iter().enumerate() {
            let block = layout::head_bytes(dtype) + i / 2 * layout::block_stride(dtype);
            unit[block + i % 2 * PANEL + lane] = sub;
        }
    }
}

/// Takes a GGUF block apart.
fn split(dtype: Dtype, block: &[u8]) -> RowUnit {
    let mut row = RowUnit { codes: [0; 256], d: [block[0], block[1]], m: [0; 2], subs: [0; 16] };
    match dtype {
        Dtype::Q8_0 => row.codes[..32].copy_from_slice(&block[2..34]),
        Dtype::Q4_0 => nibbles(&block[2..18], &mut row.codes),
        Dtype::Q4_1 => {
            row.m = [block[2], block[3]];
            nibbles(&block[4..20], &mut row.codes);
        }
        Dtype::Q5_0 => {
            nibbles(&block[6..22], &mut row.codes);
            fifth_bits(&block[2..6], &mut row.codes);
        }
        Dtype::Q5_1 => {
            row.m = [block[2], block[3]];
            nibbles(&block[8..24], &mut row.codes);
            fifth_bits(&block[4..8], &mut row.codes);
        }
        Dtype::Q4K => split_k(block, None, &block[16..144], &mut row),
        Dtype::Q5K => split_k(block, Some(&block[16..48]), &block[48..176], &mut row),
        Dtype::Q6K => split_q6k(block, &mut row),
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => {}
    }
    row
}

/// Low nibbles are the first half of the columns, high nibbles the second.
fn nibbles(packed: &[u8], codes: &mut [u8]) {
    for (i, byte) in packed.iter().enumerate() {
        codes[i] = byte & 15;
        codes[i + packed.len()] = byte >> 4;
    }
}

/// Bit i of the little-endian word is bit 4 of column i.
fn fifth_bits(word: &[u8], codes: &mut [u8]) {
    for (i, code) in codes[..32].iter_mut().enumerate() {
        *code |= (word[i / 8] >> (i % 8) & 1) << 4;
    }
}

/// Q4_K and Q5_K: four groups of 64 columns, low nibbles the first 32, and one bit plane each.
fn split_k(block: &[u8], high: Option<&[u8]>, packed: &[u8], row: &mut RowUnit) {
    row.m = [block[2], block[3]];
    for group in 0..4 {
        nibbles(&packed[32 * group..][..32], &mut row.codes[64 * group..]);
    }
    if let Some(high) = high {
        for (i, code) in row.codes.iter_mut().enumerate() {
            *code |= (high[i % 32] >> (i / 32) & 1) << 4;
        }
    }
    let packed = &block[4..16];
    for j in 0..4 {
        row.subs[2 * j] = packed[j] & 63;
        row.subs[2 * j + 1] = packed[j + 4] & 63;
        row.subs[2 * j + 8] = packed[j + 8] & 15 | packed[j] >> 6 << 4;
        row.subs[2 * j + 9] = packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4;
    }
}

/// Q6_K: two halves of 128 columns; column `32 q + l` of a half has nibble `q / 2` of low byte
/// `32 (q % 2) + l` and bits `2 q..` of high byte l.
fn split_q6k(block: &[u8], row: &mut RowUnit) {
    for (i, code) in row.codes.iter_mut().enumerate() {
        let (half, quarter, l) = (i / 128, i % 128 / 32, i % 32);
        let low = block[64 * half + 32 * (quarter % 2) + l] >> (4 * (quarter / 2)) & 15;
        let high = block[128 + 32 * half + l] >> (2 * quarter) & 3;
        *code = low | high << 4;
    }
    row.subs.copy_from_slice(&block[192..208]);
    row.d = [block[208], block[209]];
}
