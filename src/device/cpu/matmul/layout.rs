//! How a weight panel lies in memory.
//!
//! A panel holds [`PANEL`] = 16 output rows, interleaved so that one SIMD lane belongs to one row
//! and memory is read front to back whatever the number of activation rows.
//!
//! Plain types: `[k][16]` numbers.
//!
//! Quantised types: a row of units of [`unit_len`] columns, each unit the same rows' blocks
//! side by side. The 32 columns of a block are 8 steps of 4 columns, the 16 rows 2 octets; byte
//! `i = 4 · (row % 8) + column % 4` of an octet's 32-byte vector belongs to step `column / 4`:
//!
//! ```text
//! block  = octet 0, octet 1
//! octet  = codes, high bits
//! codes  = 8-bit: 8 vectors, one a step;  else: 4 vectors, vector j = step j | step j+4 << 4
//! high   = 5-bit: 1 vector, bit s of a byte is step s;
//!          6-bit: 2 vectors, bits 2s.. of vector v are step 4v + s
//! unit of 32  = block, d f16 [16], (m f16 [16])
//! unit of 256 = d f16 [16], (dmin f16 [16]), 8 × (scale u8 [16], min u8 [16], block)
//!               6-bit: 8 × (scale i8 [2][16], block), a scale for each 16 columns
//! ```
//!
//! Every type takes the bytes it has in its file, but for Q4_K and Q5_K, whose packed 6-bit
//! scales are widened to bytes (+2.8 % and +2.3 %).

use half::f16;

use crate::types::Dtype;

/// Output rows of a panel.
pub const PANEL: usize = 16;
/// Output rows of an octet: the 32-bit lanes of a 256-bit vector.
pub const OCTET: usize = 8;
/// Columns of a quantisation block, of weights and of activations.
pub const BLOCK: usize = 32;
/// Steps of 4 columns in a block.
pub const STEPS: usize = 8;

/// Columns of one interleaved unit: 1, 32 or 256.
pub const fn unit_len(dtype: Dtype) -> usize {
    dtype.block_len()
}

/// Bytes of one unit of a panel (all 16 rows).
pub const fn unit_bytes(dtype: Dtype) -> usize {
    let per_row = match dtype {
        Dtype::Q4K => 148,
        Dtype::Q5K => 180,
        other => other.block_bytes(),
    };
    PANEL * per_row
}

/// Bytes of one octet of one 32-column block.
pub const fn octet_bytes(dtype: Dtype) -> usize {
    match dtype {
        Dtype::Q8_0 => 256,
        Dtype::Q4_0 | Dtype::Q4_1 | Dtype::Q4K => 128,
        Dtype::Q5_0 | Dtype::Q5_1 | Dtype::Q5K => 160,
        Dtype::Q6K => 192,
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => 0,
    }
}

/// Bytes of the per-unit head (super-block scales) of a 256-column unit.
pub const fn head_bytes(dtype: Dtype) -> usize {
    match dtype {
        Dtype::Q4K | Dtype::Q5K => 4 * PANEL,
        Dtype::Q6K => 2 * PANEL,
        _ => 0,
    }
}

/// Bytes of the sub-block scales that stand before each block of a 256-column unit.
pub const SUB_SCALES: usize = 2 * PANEL;

/// Bytes from one block of a unit to the next, scales included.
pub const fn block_stride(dtype: Dtype) -> usize {
    match dtype {
        Dtype::Q4K | Dtype::Q5K | Dtype::Q6K => SUB_SCALES + 2 * octet_bytes(dtype),
        other => unit_bytes(other),
    }
}

/// Where the two octets of block `block` of a unit begin.
pub const fn codes_offset(dtype: Dtype, block: usize) -> usize {
    match dtype {
        Dtype::Q4K | Dtype::Q5K | Dtype::Q6K => {
            head_bytes(dtype) + block * block_stride(dtype) + SUB_SCALES
        }
        _ => 0,
    }
}

/// Bits of a code; 8 means a signed number, fewer an unsigned one.
pub const fn code_bits(dtype: Dtype) -> usize {
    match dtype {
        Dtype::Q4_0 | Dtype::Q4_1 | Dtype::Q4K => 4,
        Dtype::Q5_0 | Dtype::Q5_1 | Dtype::Q5K => 5,
        Dtype::Q6K => 6,
        _ => 8,
    }
}

/// Scales for each 32 columns: 2 where every 16 columns have their own.
pub const fn scales_per_block(dtype: Dtype) -> usize {
    if matches!(dtype, Dtype::Q6K) { 2 } else { 1 }
}

/// Where column `k` of a block stands among quantised activations: of each 4 columns first the
/// even ones, then the odd ones, as 16-bit halves of packed bytes come apart.
pub const fn paired(k: usize) -> usize {
    k / 4 * 4 + k % 2 * 2 + k % 4 / 2
}

/// The code (8-bit: its two's complement) at byte `i` of step `step` of an octet.
pub fn code(dtype: Dtype, octet: &[u8], i: usize, step: usize) -> u8 {
    if code_bits(dtype) == 8 {
        return octet[32 * step + i];
    }
    let low = (octet[32 * (step % 4) + i] >> (4 * (step / 4))) & 15;
    match code_bits(dtype) {
        5 => low | (octet[128 + i] >> step & 1) << 4,
        6 => low | (octet[128 + 32 * (step / 4) + i] >> (2 * (step % 4)) & 3) << 4,
        _ => low,
    }
}

/// `(d, m)` of block `block`, half `half` (0 but for 6-bit types), row `row` of a unit: a weight
/// is `d · code + m`.
pub fn scale(dtype: Dtype, unit: &[u8], block: usize, half: usize, row: usize) -> (f32, f32) {
    let f16_at = |at: usize| {
        let at = at + 2 * row;
        f16::from_le_bytes([unit[at], unit[at + 1]]).to_f32()
    };
    let tail = 2 * octet_bytes(dtype);
    let subs = head_bytes(dtype) + block * block_stride(dtype);
    match dtype {
        Dtype::Q8_0 => (f16_at(tail), 0.0),
        Dtype::Q4_0 => (f16_at(tail), -8.0 * f16_at(tail)),
        Dtype::Q5_0 => (f16_at(tail), -16.0 * f16_at(tail)),
        Dtype::Q4_1 | Dtype::Q5_1 => (f16_at(tail), f16_at(tail + 2 * PANEL)),
        Dtype::Q4K | Dtype::Q5K => {
            let (scale, min) = (unit[subs + row], unit[subs + PANEL + row]);
            (f16_at(0) * f32::from(scale), -(f16_at(2 * PANEL) * f32::from(min)))
        }
        Dtype::Q6K => {
            let d = f16_at(0) * f32::from(unit[subs + half * PANEL + row] as i8);
            (d, -32.0 * d)
        }
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => (1.0, 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_its_head_and_its_blocks() {
        for dtype in [Dtype::Q4K, Dtype::Q5K, Dtype::Q6K] {
            assert_eq!(head_bytes(dtype) + 8 * block_stride(dtype), unit_bytes(dtype), "{dtype:?}");
        }
        for (dtype, scales) in
            [(Dtype::Q8_0, 1), (Dtype::Q4_0, 1), (Dtype::Q4_1, 2), (Dtype::Q5_0, 1)]
        {
            let bytes = 2 * octet_bytes(dtype) + scales * 2 * PANEL;
            assert_eq!(bytes, unit_bytes(dtype), "{dtype:?}");
        }
    }
}
