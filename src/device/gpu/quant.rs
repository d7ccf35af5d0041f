//! GGUF's blocks of 32 weights in the order in which `cuda/quant_gemm.cu` reads them.
//!
//! Groups of 8 rows × 64 columns, row groups outermost, each group one contiguous piece: for each
//! lane of a warp its numbers of the four B fragments of `mma.m16n8k16`, then f16 scales `[2][8]`
//! (block, row), then for Q4_1 minima likewise. Rows and columns beyond the matrix are zero.

use crate::error::{Error, Result};
use crate::types::Dtype;

/// Weights of a block.
const BLOCK: usize = 32;
/// Rows of a group, and its columns.
pub const ROWS: usize = 8;
const COLUMNS: usize = 64;
/// Bytes of a group's scales.
const SCALES: usize = 2 * ROWS * 2;

/// How a format's blocks and groups are made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// As symbols spell it.
    pub name: &'static str,
    /// Bytes of a GGUF block, and of what stands before its numbers.
    block_bytes: usize,
    head: usize,
    /// Bits of a number.
    bits: usize,
    /// Whether blocks have minima beside scales.
    minima: bool,
}

const Q8_0: Packing = Packing { name: "q8_0", block_bytes: 34, head: 2, bits: 8, minima: false };
const Q4_0: Packing = Packing { name: "q4_0", block_bytes: 18, head: 2, bits: 4, minima: false };
const Q4_1: Packing = Packing { name: "q4_1", block_bytes: 20, head: 4, bits: 4, minima: true };

impl Packing {
    /// The packing of a stored type; `None` if the GPU has no kernel for it.
    pub fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::Q8_0 => Some(Q8_0),
            Dtype::Q4_0 => Some(Q4_0),
            Dtype::Q4_1 => Some(Q4_1),
            _ => None,
        }
    }

    /// The stored type that it packs.
    pub fn dtype(self) -> Dtype {
        match (self.bits, self.minima) {
            (8, _) => Dtype::Q8_0,
            (_, true) => Dtype::Q4_1,
            _ => Dtype::Q4_0,
        }
    }

    /// Bytes of a group.
    pub fn group_bytes(self) -> usize {
        ROWS * COLUMNS * self.bits / 8 + SCALES * if self.minima { 2 } else { 1 }
    }

    /// Bytes of a packed matrix.
    pub fn bytes(self, rows: usize, cols: usize) -> usize {
        rows.div_ceil(ROWS) * cols.div_ceil(COLUMNS) * self.group_bytes()
    }

    /// Packs a matrix `[rows, cols]` stored as GGUF blocks, row by row.
    ///
    /// # Errors
    /// `cols` is no multiple of 32, or `blocks` has another length than the matrix.
    pub fn pack(self, blocks: &[u8], rows: usize, cols: usize) -> Result<Vec<u8>> {
        let per_row = cols / BLOCK;
        if cols % BLOCK != 0 || blocks.len() != rows * per_row * self.block_bytes {
            return Err(Error::unsupported(format!(
                "a {} matrix of {rows} × {cols} in {} bytes: rows must be whole blocks of 32",
                self.name,
                blocks.len()
            )));
        }
        let groups = cols.div_ceil(COLUMNS);
        let mut out = vec![0; self.bytes(rows, cols)];
        for (i, block) in blocks.chunks_exact(self.block_bytes).enumerate() {
            let (row, at) = (i / per_row, i % per_row);
            let group = (row / ROWS * groups + at / 2) * self.group_bytes();
            let place = &mut out[group..][..self.group_bytes()];
            self.place(block, row % ROWS, at % 2, place);
        }
        Ok(out)
    }

    /// Puts block `half` (of two) of row `row` into its group.
    fn place(self, block: &[u8], row: usize, half: usize, group: &mut [u8]) {
        let (head, numbers) = block.split_at(self.head);
        let quants = ROWS * COLUMNS * self.bits / 8;
        let scale = quants + (half * ROWS + row) * 2;
        group[scale..][..2].copy_from_slice(&head[..2]);
        if self.minima {
            group[scale + SCALES..][..2].copy_from_slice(&head[2..]);
        }
        for k in 0..BLOCK {
            // Column 16 s + 8 r + 2 t + e is number e of register r of step s of lane 4 row + t.
            let (s, r, t, e) = (half * 2 + k / 16, k / 8 % 2, k / 2 % 4, k % 2);
            let lane = row * 4 + t;
            if self.bits == 8 {
                group[lane * 16 + s * 4 + r * 2 + e] = numbers[k] ^ 0x80;
            } else {
                let number = numbers[k % 16] >> (k / 16 * 4) & 15;
                // Pairs lie in nibbles j and j + 4 of a word, j = 2 (s mod 2) + r.
                let nibble = s % 2 * 2 + r + e * 4;
                group[lane * 8 + s / 2 * 4 + nibble / 2] |= number << (nibble % 2 * 4);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's view: number (row, column) of a group, less its bias.
    fn number(p: Packing, group: &[u8], row: usize, column: usize) -> i32 {
        let (s, r, t, e) = (column / 16, column / 8 % 2, column / 2 % 4, column % 2);
        let lane = row * 4 + t;
        if p.bits == 8 {
            return i32::from(group[lane * 16 + s * 4 + r * 2 + e]) - 128;
        }
        let at = lane * 8 + s / 2 * 4;
        let word = u32::from_le_bytes([group[at], group[at + 1], group[at + 2], group[at + 3]]);
        (word >> (s % 2 * 8 + r * 4 + e * 16) & 15) as i32
    }

    #[test]
    fn every_number_and_scale_has_its_place() {
        for p in [Q8_0, Q4_0, Q4_1] {
            let (rows, cols) = (11, 96);
            let count = rows * cols / BLOCK * p.block_bytes;
            let blocks: Vec<u8> = (0..count).map(|i| (i * 37 % 251) as u8).collect();
            let packed = p.pack(&blocks, rows, cols).unwrap();
            assert_eq!(packed.len(), 2 * 2 * p.group_bytes());
            for row in 0..rows {
                for column in 0..cols {
                    let block = &blocks[(row * 3 + column / 32) * p.block_bytes..][..p.block_bytes];
                    let group = (row / 8 * 2 + column / 64) * p.group_bytes();
                    let group = &packed[group..][..p.group_bytes()];
                    let k = column % 32;
                    let want = match p.bits {
                        8 => i32::from(block[2 + k] as i8),
                        _ => i32::from(block[p.head + k % 16] >> (k / 16 * 4) & 15),
                    };
                    assert_eq!(number(p, group, row % 8, column % 64), want, "{row} {column}");
                    let scale = 64 * p.bits + (column / 32 % 2 * 8 + row % 8) * 2;
                    assert_eq!(group[scale..][..2], block[..2]);
                    assert!(!p.minima || group[scale + 32..][..2] == block[2..4]);
                }
            }
            // The second half of the last group of columns stays zero.
            let scales = &packed[p.group_bytes() + 64 * p.bits + 16..][..16];
            assert!(scales.iter().all(|b| *b == 0));
            assert!(p.pack(&blocks[1..], rows, cols).is_err());
            assert!(p.pack(&blocks, rows, 33).is_err());
        }
    }
}
