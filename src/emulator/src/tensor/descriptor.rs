//! The 64-bit descriptor by which wgmma finds an operand in shared memory.
//!
//! | bits | field |
//! |---|---|
//! | 0–13 | start address, in units of 16 bytes |
//! | 16–29 | leading-dimension byte offset, in units of 16 bytes |
//! | 32–45 | stride-dimension byte offset, in units of 16 bytes |
//! | 49–51 | base offset: 128-byte line, modulo 8, where the swizzle pattern starts |
//! | 62–63 | swizzle: 0 none, 1 128 B, 2 64 B, 3 32 B |
//!
//! Address of element (mn, k), where mn is the row of A or the column of B, with chunks of
//! T = 16 bytes' worth of elements and span S of the swizzle:
//!
//! * K-major, no swizzle: 8×T core matrices of 128 contiguous bytes; the next along K lies a
//!   leading offset on, the next 8 of mn a stride offset on.
//! * K-major, swizzled: rows of S bytes, 8 rows contiguous; the next 8 of mn a stride offset on;
//!   the leading offset is not used.
//! * MN-major, no swizzle: 8 rows (one k each) of T elements of mn, contiguous; the next T of mn a
//!   stride offset on, the next 8 of k a leading offset on.
//! * MN-major, swizzled: rows (one k each) of S bytes of mn, 8 rows contiguous; the next S bytes
//!   of mn a leading offset on, the next 8 of k a stride offset on.
//!
//! The swizzle then permutes the resulting shared-memory address.

use super::element::Element;
use super::swizzle::Swizzle;

/// Which dimension is contiguous in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Major {
    /// K runs fastest (the usual layout; wgmma's transpose bit 0).
    K,
    /// M or N runs fastest (transpose bit 1; 16-bit types only).
    Mn,
}

/// A decoded descriptor; offsets and the start in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Shared-memory address of the operand's first byte.
    pub start: u32,
    /// Leading-dimension byte offset.
    pub leading: u32,
    /// Stride-dimension byte offset.
    pub stride: u32,
    /// 128-byte line, modulo 8, at which the swizzle pattern starts.
    pub base_offset: u32,
    /// Swizzle mode.
    pub swizzle: Swizzle,
}

/// A 16-byte piece of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// First row of A or column of B in the piece.
    pub mn: u32,
    /// First k in the piece.
    pub k: u32,
    /// Shared-memory address, a multiple of 16.
    pub address: u32,
}

impl Descriptor {
    /// Reads the fields of a descriptor.
    pub fn decode(bits: u64) -> Self {
        let field = |shift: u32| ((bits >> shift) as u32 & 0x3fff) << 4;
        let swizzle = match bits >> 62 {
            0 => Swizzle::None,
            1 => Swizzle::B128,
            2 => Swizzle::B64,
            _ => Swizzle::B32,
        };
        Self {
            start: field(0),
            leading: field(16),
            stride: field(32),
            base_offset: (bits >> 49) as u32 & 7,
            swizzle,
        }
    }

    /// The descriptor's bits; addresses and offsets lose what lies outside bits 4 to 17.
    pub fn encode(self) -> u64 {
        let field = |x: u32, shift: u32| u64::from((x & 0x3ffff) >> 4) << shift;
        let swizzle = match self.swizzle {
            Swizzle::None => 0,
            Swizzle::B128 => 1,
            Swizzle::B64 => 2,
            Swizzle::B32 => 3u64,
        };
        field(self.start, 0)
            | field(self.leading, 16)
            | field(self.stride, 32)
            | u64::from(self.base_offset & 7) << 49
            | swizzle << 62
    }

    /// Shared-memory address of the 16 bytes that hold chunk `chunk` of row `row`: along K-major
    /// operands a row is one mn and chunks run along k; along MN-major ones a row is one k.
    fn chunk_address(self, major: Major, row: u32, chunk: u32) -> u32 {
        let per_row = self.swizzle.span() / 16;
        let (group, within) = (row / 8, row % 8);
        let (next_chunk, next_group) = match (major, self.swizzle) {
            (Major::K, _) | (Major::Mn, Swizzle::B32 | Swizzle::B64 | Swizzle::B128) => {
                (self.leading, self.stride)
            }
            (Major::Mn, Swizzle::None) => (self.stride, self.leading),
        };
        // A swizzled K-major operand is one span wide: later chunks continue in the row.
        let along = if major == Major::K && self.swizzle != Swizzle::None {
            chunk * 16
        } else {
            (chunk / per_row).wrapping_mul(next_chunk) + chunk % per_row * 16
        };
        let logical = self
            .start
            .wrapping_add(group.wrapping_mul(next_group))
            .wrapping_add(within * self.swizzle.span())
            .wrapping_add(along);
        self.swizzle.apply_from(logical, self.base_offset)
    }

    /// Shared-memory address of element (mn, k).
    pub fn element_address(self, major: Major, element: Element, mn: u32, k: u32) -> u32 {
        let bytes = element.bytes() as u32;
        let (row, byte) = match major {
            Major::K => (mn, k * bytes),
            Major::Mn => (k, mn * bytes),
        };
        self.chunk_address(major, row, byte / 16) + byte % 16
    }

    /// The 16-byte pieces of an operand of `mn` × `k` elements, each once.
    pub fn chunks(
        self,
        major: Major,
        element: Element,
        mn: u32,
        k: u32,
    ) -> impl Iterator<Item = Chunk> {
        let per_chunk = 16 / element.bytes() as u32;
        let (rows, chunks) = match major {
            Major::K => (mn, k / per_chunk),
            Major::Mn => (k, mn / per_chunk),
        };
        (0..rows).flat_map(move |row| {
            (0..chunks).map(move |chunk| {
                let address = self.chunk_address(major, row, chunk);
                match major {
                    Major::K => Chunk { mn: row, k: chunk * per_chunk, address },
                    Major::Mn => Chunk { mn: chunk * per_chunk, k: row, address },
                }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const MODES: [Swizzle; 4] = [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128];

    fn descriptor(swizzle: Swizzle, leading: u32, stride: u32) -> Descriptor {
        Descriptor { start: 0x2000, leading, stride, base_offset: 0, swizzle }
    }

    #[test]
    fn fields_sit_at_the_isas_bits() {
        let d = Descriptor::decode(0x4000_0040_0001_0200);
        assert_eq!((d.start, d.leading, d.stride), (0x2000, 16, 1024));
        assert_eq!((d.base_offset, d.swizzle), (0, Swizzle::B128));
        let d = Descriptor::decode(3 << 62 | 5 << 49 | 0x3fff << 32);
        assert_eq!((d.base_offset, d.swizzle, d.stride), (5, Swizzle::B32, 0x3fff0));
        for swizzle in MODES {
            let d =
                Descriptor { start: 0x1230, leading: 0x80, stride: 0x400, base_offset: 3, swizzle };
            assert_eq!(Descriptor::decode(d.encode()), d);
        }
    }

    /// K-major without swizzle: core matrices of 8 rows by 16 bytes.
    #[test]
    fn k_major_core_matrices() {
        let d = descriptor(Swizzle::None, 0x100, 0x800);
        let at = |mn, k| d.element_address(Major::K, Element::Bf16, mn, k) - d.start;
        for mn in 0..64 {
            for k in 0..16 {
                let want = (mn / 8) * 0x800 + (mn % 8) * 16 + (k / 8) * 0x100 + (k % 8) * 2;
                assert_eq!(at(mn, k), want);
            }
        }
    }

    /// K-major, swizzled: what a TMA box of span-wide rows leaves in shared memory.
    #[test]
    fn k_major_swizzled_matches_a_box_of_rows() {
        for swizzle in [Swizzle::B32, Swizzle::B64, Swizzle::B128] {
            let span = swizzle.span();
            // The leading offset must not matter.
            let d = descriptor(swizzle, 0x3330, 8 * span);
            for step in 0..span / 32 {
                let d = Descriptor { start: d.start + step * 32, ..d };
                for mn in 0..128 {
                    for k in 0..16 {
                        let box_byte = mn * span + step * 32 + k * 2;
                        let want = swizzle.apply(0x2000 + box_byte);
                        assert_eq!(d.element_address(Major::K, Element::F16, mn, k), want);
                    }
                }
            }
        }
    }

    /// MN-major without swizzle, and the roles of the two offsets there.
    #[test]
    fn mn_major_core_matrices() {
        let d = descriptor(Swizzle::None, 0x900, 0x100);
        for mn in 0..64 {
            for k in 0..16 {
                let want = (mn / 8) * 0x100 + (mn % 8) * 2 + (k % 8) * 16 + (k / 8) * 0x900;
                let got = d.element_address(Major::Mn, Element::Bf16, mn, k) - d.start;
                assert_eq!(got, want);
            }
        }
    }

    #[test]
    fn mn_major_swizzled_spans_then_leading_offsets() {
        for swizzle in [Swizzle::B32, Swizzle::B64, Swizzle::B128] {
            let span = swizzle.span();
            let wide = span / 2;
            let d = descriptor(swizzle, 0x1000, 8 * span);
            for mn in 0..128 {
                for k in 0..16 {
                    let logical = (mn / wide) * 0x1000
                        + (mn % wide) * 2
                        + (k % 8) * span
                        + (k / 8) * 8 * span;
                    let want = swizzle.apply(d.start + logical);
                    assert_eq!(d.element_address(Major::Mn, Element::F16, mn, k), want);
                }
            }
        }
    }

    #[test]
    fn chunks_cover_every_element_once() {
        for swizzle in MODES {
            for (major, element) in
                [(Major::K, Element::F16), (Major::K, Element::E4m3), (Major::Mn, Element::Bf16)]
            {
                let k = 32 / element.bytes() as u32;
                let d = descriptor(swizzle, 0x2000, if k == 0 { 0 } else { 0x400 });
                let mut addresses = HashSet::new();
                for c in d.chunks(major, element, 64, k) {
                    assert_eq!(c.address % 16, 0);
                    assert_eq!(c.address, d.element_address(major, element, c.mn, c.k));
                    assert!(addresses.insert(c.address));
                }
                assert_eq!(addresses.len(), 64 * 2);
            }
        }
    }
}
