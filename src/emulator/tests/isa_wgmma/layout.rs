//! Types of wgmma's operands, and where their elements lie in shared memory.

use super::support::exact::{F32, Fmt, Mode, round_f64};

/// An operand type and how wide its elements are.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Float(Fmt),
    Tf32,
    Int(bool),
}

impl Kind {
    pub fn bytes(self) -> usize {
        match self {
            Kind::Float(f) => ((1 + f.exponent + f.fraction) / 8) as usize,
            Kind::Tf32 => 4,
            Kind::Int(_) => 1,
        }
    }

    pub fn pick(self, r: u64) -> (f64, u32) {
        let small = (r % 17) as f64 - 8.0;
        match self {
            Kind::Float(f) => (small / 4.0, round_f64(f, Mode::Rn, small / 4.0)),
            Kind::Tf32 => (small / 4.0, round_f64(F32, Mode::Rn, small / 4.0)),
            Kind::Int(signed) => {
                let v = (r >> 8) as u8;
                (if signed { f64::from(v as i8) } else { f64::from(v) }, v.into())
            }
        }
    }
}

/// Swizzle: bytes of a line, and the code in the descriptor's bits 62 and 63.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Swizzle {
    pub span: usize,
    pub code: u64,
}

pub const NONE: Swizzle = Swizzle { span: 16, code: 0 };
pub const SWIZZLES: [Swizzle; 4] = [
    NONE,
    Swizzle { span: 128, code: 1 },
    Swizzle { span: 64, code: 2 },
    Swizzle { span: 32, code: 3 },
];

/// Where an operand's elements lie: offsets in bytes for the leading and the stride dimension.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub swizzle: Swizzle,
    /// The K dimension is contiguous, else M or N.
    pub k_major: bool,
    pub leading: usize,
    pub stride: usize,
}

impl Layout {
    /// Byte offset of element (`mn`, `k`), by the canonical layouts in units of 16 bytes:
    ///
    /// K-major, no swizzle: ((8, m), 2) : ((1, SBO), LBO); with a span of 2^s units: ((8, m), 2) :
    /// ((span, SBO), 1). MN-major, no swizzle: ((1, m), (8, k)) : ((-, SBO), (1, LBO)); with a
    /// span: ((span, m), (8, k)) : ((1, LBO), (span, SBO)).
    pub fn at(&self, mn: usize, k: usize, bytes: usize) -> usize {
        let per = 16 / bytes;
        let units = self.swizzle.span / 16;
        let plain = match (self.k_major, units) {
            (true, 1) => mn % 8 * 16 + mn / 8 * self.stride + k / per * self.leading,
            (true, _) => mn % 8 * 16 * units + mn / 8 * self.stride + k / per * 16,
            (false, 1) => mn / per * self.stride + k % 8 * 16 + k / 8 * self.leading,
            (false, _) => {
                let unit = mn / per;
                unit % units * 16
                    + unit / units * self.leading
                    + k % 8 * 16 * units
                    + k / 8 * self.stride
            }
        };
        let inside = if self.k_major { k % per } else { mn % per };
        // Bits 4 and up are joined with bits 7 and up, as many as the span has.
        let twist = (plain >> 7 & (units - 1)) << 4;
        (plain ^ twist) + inside * bytes
    }

    pub fn descriptor(&self, address: usize) -> u64 {
        (address as u64 >> 4 & 0x3fff)
            | (self.leading as u64 >> 4 & 0x3fff) << 16
            | (self.stride as u64 >> 4 & 0x3fff) << 32
            | self.swizzle.code << 62
    }
}

/// A layout with room for `mn` rows of one instruction's K.
pub fn layout(swizzle: Swizzle, k_major: bool, mn: usize, bytes: usize) -> Layout {
    let units = swizzle.span / 16;
    match (k_major, units) {
        // Core matrices of 128 bytes: all of the rows for one 16-byte column, then the next.
        (true, 1) => Layout { swizzle, k_major, leading: mn / 8 * 128, stride: 128 },
        (true, _) => Layout { swizzle, k_major, leading: 16, stride: 8 * swizzle.span },
        (false, 1) => Layout { swizzle, k_major, leading: 128, stride: 256 },
        (false, _) => {
            let groups = (mn * bytes).div_ceil(swizzle.span);
            Layout { swizzle, k_major, leading: 2 * 8 * swizzle.span, stride: 8 * swizzle.span }
                .check(groups)
        }
    }
}

impl Layout {
    pub fn check(self, groups: usize) -> Self {
        assert!(groups >= 1);
        self
    }
}
