//! The shared-memory swizzles of TMA and wgmma.
//!
//! A swizzle permutes the 16-byte chunks of a pattern so that eight rows of one column fall into
//! different banks. On byte addresses it is an exclusive or: the row bits, which start at bit 7,
//! are folded onto the chunk bits, which start at bit 4. It depends on the shared-memory address
//! itself, so the pattern repeats every 256, 512 or 1024 bytes of shared memory.

/// Swizzle mode; the number is the span in bytes within which chunks move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Swizzle {
    /// No permutation.
    None,
    /// Two chunks change places.
    B32,
    /// Four chunks.
    B64,
    /// Eight chunks.
    B128,
}

impl Swizzle {
    /// Bytes of one row of the pattern; 16 for no swizzle.
    pub fn span(self) -> u32 {
        match self {
            Swizzle::None => 16,
            Swizzle::B32 => 32,
            Swizzle::B64 => 64,
            Swizzle::B128 => 128,
        }
    }

    /// Bytes after which the pattern repeats; 16 for no swizzle.
    pub fn period(self) -> u32 {
        if self == Swizzle::None { 16 } else { 8 * self.span() }
    }

    /// Address bits that change, in place.
    fn mask(self) -> u32 {
        self.span() - 16
    }

    /// Where the byte of logical address `address` lies.
    pub fn apply(self, address: u32) -> u32 {
        self.apply_from(address, 0)
    }

    /// [`Swizzle::apply`] with the pattern's rows counted from 128-byte line `first_line`
    /// (modulo 8): the base offset of a wgmma descriptor.
    pub fn apply_from(self, address: u32, first_line: u32) -> u32 {
        let line = (address >> 7).wrapping_sub(first_line);
        address ^ ((line << 4) & self.mask())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ISA's tables: which 16-byte chunk of a row lands where, rows of 128 bytes.
    #[test]
    fn chunks_land_where_the_tables_say() {
        for row in 0..8u32 {
            for chunk in 0..8u32 {
                let address = 4096 + row * 128 + chunk * 16;
                let at = |s: Swizzle| (s.apply(address) - 4096 - row * 128) / 16;
                assert_eq!(at(Swizzle::None), chunk);
                assert_eq!(at(Swizzle::B128), chunk ^ row);
                assert_eq!(at(Swizzle::B64), (chunk & 4) | ((chunk & 3) ^ (row & 3)));
                assert_eq!(at(Swizzle::B32), (chunk & 6) | ((chunk & 1) ^ (row & 1)));
            }
        }
    }

    /// A 64-byte box row: two rows share a 128-byte line, so pairs of rows share a permutation.
    #[test]
    fn narrow_rows_change_permutation_every_line() {
        let chunk_of = |row: u32, chunk: u32| {
            let to = Swizzle::B64.apply(row * 64 + chunk * 16);
            assert_eq!(to / 64, row);
            to % 64 / 16
        };
        assert_eq!([0, 1, 2, 3, 4, 5].map(|r| chunk_of(r, 0)), [0, 0, 1, 1, 2, 2]);
        let chunk_of_32 = |row: u32| Swizzle::B32.apply(row * 32) % 32 / 16;
        assert_eq!([0, 3, 4, 7, 8].map(chunk_of_32), [0, 0, 1, 1, 0]);
    }

    #[test]
    fn swizzles_undo_themselves_and_keep_bytes_together() {
        for s in [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128] {
            for address in 0..4096 {
                assert_eq!(s.apply(s.apply(address)), address);
                assert_eq!(s.apply(address) % 16, address % 16);
                assert_eq!(s.apply(address + s.period()), s.apply(address) + s.period());
            }
        }
    }

    #[test]
    fn base_offset_moves_the_first_row() {
        let pattern_start = 3 * 128;
        for row in 0..8 {
            let at = Swizzle::B128.apply_from(pattern_start + row * 128, 3);
            assert_eq!(at % 128 / 16, row);
        }
    }
}
