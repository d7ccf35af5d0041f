//! What activations are quantised to, in blocks of 32: 16 bits for every weight, or 8 bits for
//! unsigned codes of at most 6 bits, which multiply twice as many numbers an instruction.
//!
//! Eight bits alone lose most in blocks with an outlier, whose scale leaves the other 31 numbers
//! few bits. Such blocks are *fine*: they carry a second byte, so that `x ≈ d (256 q + low)` has
//! 16 bits. A block is fine if its largest magnitude is more than [`FINE_ABOVE`] times the mean of
//! the row's blocks' largest. So at most one block in `FINE_ABOVE` costs twice, and what the others
//! lose a number is at most `FINE_ABOVE / 254` of that mean, whatever the model.

use super::kernels::{IntKernels, Kernels};
use super::layout::BLOCK;

/// Largest magnitude of a block, over the mean of the row's blocks' largest, that 8 bits are
/// enough for. With SmolLM2-135M Q4_1 on 17 texts (883 positions), mean KL divergence to float32
/// of a position, that of the worst text, and the share of fine blocks of the inputs of 576 and of
/// 1536 columns: 2.4e-3, 4.0e-3, 2 % and 1 % with 4; 1.5e-3, 2.3e-3, 6 % and 3 % with 2.5; 1.4e-3,
/// 2.3e-3, 12 % and 10 % with 1.7. Prompts of a few words are worse: up to 1.6e-2 with 2.5.
const FINE_ABOVE: f32 = 2.5;

/// Largest magnitudes of a quantised activation: of 16 bits, of 8, and of a fine block, whose
/// bytes `q` and `low` are then both in range.
pub const WIDE_MAX: f32 = 32767.0;
pub const BYTE_MAX: f32 = 127.0;
pub const FINE_MAX: f32 = 32639.0;

/// Scale of a block of 32 activations, `scale · Σ q` of the block and of its halves, and what
/// products with codes that are [`BIAS`] too large have too much, negative.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(C)]
pub struct RowScale {
    pub d: f32,
    pub sum: f32,
    pub halves: [f32; 2],
    pub bias: i32,
}

/// What makes signed codes of 8 bits unsigned.
pub const BIAS: i32 = 128;

/// Quantised activations: rows of a chunk of columns.
///
/// Products with codes, and a block's sums of them, are exact in 32 bits: 32 · 128 · 32767 < 2²⁷,
/// with [`BIAS`] twice that.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, A> {
    /// Row r begins at `r · INT_CHUNK`. Bytes stand in column order, 16-bit numbers as
    /// [`layout::paired`](super::layout::paired) says; with NEON a block is the 32 high bytes in
    /// column order, then the 32 low ones, less 128.
    pub q: &'a [A],
    /// Low bytes, as `q`; zero where a block is not fine. Empty for 16 bits.
    pub low: &'a [A],
    /// For each row, one bit for each fine block.
    pub fine: &'a [u32],
    /// Row r begins at `r · INT_CHUNK / BLOCK`.
    pub scales: &'a [RowScale],
}

/// Where one row of a chunk is quantised to; fields as in [`Rows`].
#[derive(Debug)]
pub struct RowMut<'a, A> {
    pub q: &'a mut [A],
    pub low: &'a mut [A],
    pub fine: &'a mut u32,
    pub scales: &'a mut [RowScale],
}

/// The two widths.
pub trait Integer: Copy + Default + Send + Sync + 'static {
    /// Are there fine blocks?
    const FINE: bool;

    fn kernels(table: &Kernels) -> &IntKernels<Self>;
}

impl Integer for i16 {
    const FINE: bool = false;

    fn kernels(table: &Kernels) -> &IntKernels<i16> {
        &table.wide
    }
}

impl Integer for i8 {
    const FINE: bool = true;

    fn kernels(table: &Kernels) -> &IntKernels<i8> {
        &table.bytes
    }
}

/// The magnitude above which a block of `row`, a whole row, is fine. NaN counts as nothing.
pub fn fine_limit(row: &[f32]) -> f32 {
    let mut sum = 0.0;
    for block in row.chunks(BLOCK) {
        let (eights, rest) = block.as_chunks::<8>();
        let mut most = [0.0; 8];
        for eight in eights {
            most.iter_mut().zip(eight).for_each(|(most, x)| *most = x.abs().max(*most));
        }
        most.iter_mut().zip(rest).for_each(|(most, x)| *most = x.abs().max(*most));
        sum += most.into_iter().fold(0.0, f32::max);
    }
    sum * (FINE_ABOVE / row.len().div_ceil(BLOCK) as f32)
}

/// `(d, 1/d)` from the bits of the largest magnitude of a block, which becomes `most`. As bits,
/// NaN is larger than infinity is larger than every number, so one comparison finds what cannot
/// be quantised: such a block gets a NaN scale, which the products carry on.
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

/// A block's scale and its scaled sums, from the integer sums of its halves. What cannot be
/// quantised has a NaN scale; its integers may be any.
pub fn row_scale(d: f32, sums: [i32; 2]) -> RowScale {
    let total = sums[0].wrapping_add(sums[1]);
    RowScale {
        d,
        sum: d * total as f32,
        halves: [d * sums[0] as f32, d * sums[1] as f32],
        bias: total.wrapping_mul(-BIAS),
    }
}

/// A fine number as `(q, low)`: `256 q + low`.
pub fn split(number: i32) -> (i8, i8) {
    let q = (number + 128) >> 8;
    (q as i8, (number - (q << 8)) as i8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fine_number_is_two_bytes() {
        for number in -(FINE_MAX as i32)..=FINE_MAX as i32 {
            let (q, low) = split(number);
            assert_eq!(256 * i32::from(q) + i32::from(low), number);
            assert!(q > i8::MIN, "the sums in 16 bits count on |q| ≤ 127");
        }
    }

    #[test]
    fn the_limit_is_that_of_the_whole_row() {
        // Three blocks, the last of 5 numbers.
        let mut row = vec![1.0; 69];
        assert!((fine_limit(&row) / FINE_ABOVE - 1.0).abs() < 1e-6);
        row[68] = -4.0;
        assert!((fine_limit(&row) / FINE_ABOVE - 2.0).abs() < 1e-6);
        row[3] = f32::NAN;
        assert!((fine_limit(&row) / FINE_ABOVE - 2.0).abs() < 1e-6);
    }
}
