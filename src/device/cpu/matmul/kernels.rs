//! The kernels of one instruction set, as a table, and what they are called with.
//!
//! Every kernel computes an output element from its own activation row and weight row in one
//! fixed order: f32 partial sums over [`FLOAT_CHUNK`] or [`INT_CHUNK`] columns, added to the
//! output chunk after chunk. How many rows a tile has, and which thread runs it, changes nothing.

use super::layout::{self, BLOCK, PANEL};
use super::scalar;
use crate::types::Dtype;

/// Columns of one partial sum of the float kernels; a panel chunk is 16 KiB, half of a usual L1.
pub const FLOAT_CHUNK: usize = 256;
/// Most columns of one partial sum of the integer kernels: 16 rows of codes in 16 bits take 24 KiB.
pub const INT_CHUNK: usize = 768;
/// Most rows of a float tile: 6 × 16 sums fill 12 of 16 vector registers.
pub const FLOAT_ROWS: usize = 6;
/// Most rows of an integer tile: 4 × 16 sums fill 8 of 16 vector registers.
pub const INT_ROWS: usize = 4;
/// Largest magnitudes of a quantised activation, of 16 bits and of 8.
pub const WIDE_MAX: f32 = 32767.0;
pub const BYTE_MAX: f32 = 127.0;

/// Where a tile's sums are added: `y[r · ldy + c]`, c < `cols` ≤ 16.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    pub y: *mut f32,
    pub ldy: usize,
    pub cols: usize,
}

/// `y[r, c] += Σ_k a[r, k] · w[k, c]` in f32, k ascending.
#[derive(Debug)]
pub struct FloatTile<'a> {
    /// 1 to [`FLOAT_ROWS`].
    pub rows: usize,
    /// Row r begins at `r · lda`.
    pub a: &'a [f32],
    pub lda: usize,
    /// `[k][16]` numbers of a plain type.
    pub weights: &'a [u8],
    pub dtype: Dtype,
    pub k: usize,
    pub out: Out,
}

/// Activations quantised to 16 bits in blocks of 32: `x ≈ d · q`, |q| ≤ [`WIDE_MAX`], so that
/// what is lost is a hundredth of what quantised weights have lost already. Their products with
/// codes, and a block's sums of them, are exact in 32 bits: 32 · 128 · 32767 < 2²⁷.
#[derive(Debug, Clone, Copy)]
pub struct IntRows<'a> {
    /// Row r begins at `r · INT_CHUNK`; column k of a block stands at [`layout::paired`]`(k)`.
    ///
    /// [`layout::paired`]: super::layout::paired
    pub q: &'a [i16],
    /// Row r begins at `r · INT_CHUNK / BLOCK`.
    pub scales: &'a [RowScale],
}

/// Activations quantised to 8 bits in blocks of 32, |q| ≤ [`BYTE_MAX`], for unsigned codes of at
/// most 6 bits: twice as many products an instruction.
#[derive(Debug, Clone, Copy)]
pub struct ByteRows<'a> {
    /// Row r begins at `r · INT_CHUNK`, in column order.
    pub q: &'a [i8],
    /// Row r begins at `r · INT_CHUNK / BLOCK`.
    pub scales: &'a [RowScale],
}

/// Scale of a block of 32 activations, and `scale · Σ q` of the block and of its halves.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(C)]
pub struct RowScale {
    pub d: f32,
    pub sum: f32,
    pub halves: [f32; 2],
}

/// `y[r, c] += Σ_blocks d_w · d_a · Σ q_w q_a + m_w · (d_a Σ q_a)`, blocks ascending.
#[derive(Debug)]
pub struct IntTile<'a> {
    /// 1 to [`INT_ROWS`].
    pub rows: usize,
    pub a: IntRows<'a>,
    pub codes: &'a Codes,
    pub dtype: Dtype,
    pub blocks: usize,
    pub out: Out,
}

/// As [`IntTile`] with 8-bit activations; `codes.bytes` are its codes.
#[derive(Debug)]
pub struct ByteTile<'a> {
    /// 1 to [`INT_ROWS`].
    pub rows: usize,
    pub a: ByteRows<'a>,
    pub codes: &'a Codes,
    pub dtype: Dtype,
    pub blocks: usize,
    pub out: Out,
}

/// The same for one activation row and weights as they are packed: at one row, unpacking to
/// memory would cost more than the product.
#[derive(Debug)]
pub struct PackedRow<'a, A> {
    pub a: A,
    /// Whole units of at most [`INT_CHUNK`] columns.
    pub units: &'a [u8],
    pub dtype: Dtype,
    pub out: Out,
}

impl<A> PackedRow<'_, A> {
    /// Blocks of 32 columns.
    pub fn blocks(&self) -> usize {
        let len = layout::unit_len(self.dtype) / BLOCK;
        self.units.len() / layout::unit_bytes(self.dtype) * len
    }
}

/// A chunk of a quantised panel, unpacked.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Codes {
    /// `[block][octet][8 steps][2][8 rows][2]`: of a step's 4 columns the even, then the odd ones.
    pub q: [i16; INT_CHUNK * PANEL],
    /// The same codes, if unsigned, as `[block][octet][8 steps][8 rows][4]`: one of the two is in
    /// use.
    pub bytes: [u8; INT_CHUNK * PANEL],
    /// `[block][1 or 2 halves][16]`.
    pub d: [f32; 2 * INT_CHUNK / BLOCK * PANEL],
    /// As `d`; not used by 8-bit types.
    pub m: [f32; 2 * INT_CHUNK / BLOCK * PANEL],
}

impl Codes {
    pub const ZERO: Codes = Codes {
        q: [0; INT_CHUNK * PANEL],
        bytes: [0; INT_CHUNK * PANEL],
        d: [0.0; 2 * INT_CHUNK / BLOCK * PANEL],
        m: [0.0; 2 * INT_CHUNK / BLOCK * PANEL],
    };
}

/// The kernels of one instruction set.
///
/// # Safety
/// All are to be called only where the CPU has the instruction set; tiles must hold what their
/// fields say (slices long enough, `out` writable and not written by others).
pub struct Kernels {
    pub float_tile: unsafe fn(&FloatTile<'_>),
    pub int_tile: unsafe fn(&IntTile<'_>),
    pub byte_tile: unsafe fn(&ByteTile<'_>),
    /// To the bit what unpacking and an integer tile of one row give.
    pub int_row: unsafe fn(&PackedRow<'_, IntRows<'_>>),
    pub byte_row: unsafe fn(&PackedRow<'_, ByteRows<'_>>),
    /// Plain 16-bit numbers to f32.
    pub widen: unsafe fn(Dtype, &[u8], &mut [f32]),
    /// Unpacks whole units of a quantised panel, to `q` or to `bytes`.
    pub expand: unsafe fn(Dtype, &[u8], &mut Codes),
    pub expand_bytes: unsafe fn(Dtype, &[u8], &mut Codes),
    /// `[32 · blocks][16]` f32 weights from unpacked codes.
    pub dequantise: unsafe fn(Dtype, &Codes, usize, &mut [f32]),
    /// Quantises one row of at most `INT_CHUNK` columns: `x`, paired numbers, scales.
    pub quantise: unsafe fn(&[f32], &mut [i16], &mut [RowScale]),
    /// The same to bytes in column order.
    pub quantise_bytes: unsafe fn(&[f32], &mut [i8], &mut [RowScale]),
}

/// Which kernels to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust, on every CPU.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
}

impl Isa {
    /// The best that this CPU has.
    pub fn detect() -> Isa {
        if Isa::Avx2.is_available() { Isa::Avx2 } else { Isa::Scalar }
    }

    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 => false,
        }
    }

    /// The kernel table; scalar where the CPU lacks the instruction set.
    pub(super) fn kernels(self) -> &'static Kernels {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 if self.is_available() => &super::avx2::KERNELS,
            _ => &scalar::KERNELS,
        }
    }
}
