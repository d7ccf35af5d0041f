//! The kernels of one instruction set, as a table, and what they are called with.
//!
//! Every kernel computes an output element from its own activation row and weight row in one
//! fixed order: f32 partial sums over [`FLOAT_CHUNK`] or [`INT_CHUNK`] columns, added to the
//! output chunk after chunk. How many rows a tile has, and which thread runs it, changes nothing.

use super::integer::{RowMut, Rows};
use super::layout::{BLOCK, PANEL};
use super::scalar;
use crate::types::Dtype;

/// Most columns of one partial sum of the float kernels: a panel's chunk takes 18 KiB, the rows
/// beside it 7 KiB of a usual first-level cache.
pub const FLOAT_CHUNK: usize = 288;
/// Most columns of one partial sum of the integer kernels: 16 rows of codes in 16 bits take 24 KiB.
pub const INT_CHUNK: usize = 768;
/// Most rows of an integer tile: 4 × 16 sums fill 8 of 16 vector registers.
pub const INT_ROWS: usize = 4;
/// Most rows of [`IntKernels::tall`].
pub const TALL_ROWS: usize = 32;
/// Bytes that weights are prefetched ahead: what a core reads in about 80 ns. Decoding SmolLM2-135M
/// on a Zen 2 is 2 % (Q4_1) to 9 % (F16) faster than with 4,096: so far ahead the requests only
/// take room from those of the hardware's own prefetching.
pub const AHEAD: usize = 1024;

/// Most panels that a tile reads at once.
pub const STREAMS: usize = 4;
/// Bytes that weights of several panels are prefetched ahead. Between 256 and 1,024 decoding of
/// SmolLM2-135M in Q8_0 on a Zen 2 differs by 3 %, 512 is best.
pub const STREAM_AHEAD: usize = 512;

/// Where a tile's sums are added: `y[r · ldy + c]`, c < `cols` ≤ 16; to zero if it is `fresh`,
/// whatever is there.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    pub y: *mut f32,
    pub ldy: usize,
    pub cols: usize,
    pub fresh: bool,
}

/// A panel that a tile multiplies beside its own, a few lines of each in turn. The tile asks for
/// what stands [`STREAM_AHEAD`] behind each.
#[derive(Debug, Clone, Copy)]
pub struct Beside<'a> {
    /// As the tile's own.
    pub weights: &'a [u8],
    pub out: Out,
}

/// `y[r, c] += Σ_k a[r, k] · w[k, c]` in f32, k ascending.
#[derive(Debug)]
pub struct FloatTile<'a> {
    /// 1 to [`Kernels::float_rows`].
    pub rows: usize,
    /// Row r begins at `r · lda`.
    pub a: &'a [f32],
    pub lda: usize,
    /// `[k][16]` numbers of a plain type.
    pub weights: &'a [u8],
    pub dtype: Dtype,
    pub k: usize,
    pub ahead: Ahead,
    /// Weights that come after these, to be brought near meanwhile.
    pub soon: &'a [u8],
    /// Fewer than [`STREAMS`].
    pub beside: &'a [Beside<'a>],
    /// The weights are more than caches hold until they are read again.
    pub once: bool,
    pub out: Out,
}

/// What a float tile asks for, line by line, while it computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    Nothing,
    /// These weights come from memory: those [`AHEAD`].
    Weights,
    /// The rows of the next tile, which stand behind this one's, in the second-level cache.
    Rows,
}

impl FloatTile<'_> {
    /// What to ask for in every `steps` steps of k: from where at first, how many bytes further
    /// each time, and how many lines of 64 bytes.
    pub fn asks(&self, steps: usize) -> (*const u8, usize, usize) {
        let (from, bytes) = match self.ahead {
            Ahead::Nothing => (std::ptr::null(), 0),
            Ahead::Weights => {
                let step = PANEL * if self.dtype == Dtype::F32 { 4 } else { 2 };
                (self.weights.as_ptr().wrapping_add(AHEAD), steps * step)
            }
            Ahead::Rows => {
                let next = self.a.as_ptr().wrapping_add(self.rows * self.lda);
                (next.cast(), steps * self.rows * size_of::<f32>())
            }
        };
        (from, bytes, bytes.div_ceil(64))
    }
}

/// Weights of an integer tile.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// Whole units: for few rows, where unpacking to memory would cost more than the product.
    Packed(&'a [u8]),
    Unpacked(&'a Codes),
}

/// `y[r, c] += Σ_blocks d_w · d_a · Σ q_w q_a + m_w · (d_a Σ q_a)`, blocks ascending.
#[derive(Debug)]
pub struct IntTile<'a, A> {
    /// 1 to [`INT_ROWS`], or [`TALL_ROWS`].
    pub rows: usize,
    pub a: Rows<'a, A>,
    pub weights: Source<'a>,
    pub dtype: Dtype,
    /// Blocks of 32 columns, at most [`INT_CHUNK`] columns.
    pub blocks: usize,
    /// Packed weights to ask for meanwhile, as many as these were; null: none.
    pub ahead: *const u8,
    /// The next tile's rows, behind this one's, are asked for.
    pub next_rows: bool,
    /// With packed weights and at most [`INT_ROWS`] rows; fewer than [`STREAMS`].
    pub beside: &'a [Beside<'a>],
    /// As [`FloatTile::once`].
    pub once: bool,
    pub out: Out,
}

impl<A> IntTile<'_, A> {
    /// Where the sums of the tile's panel and of those beside it go.
    pub fn outs(&self) -> impl Iterator<Item = &Out> {
        [&self.out].into_iter().chain(self.beside.iter().map(|panel| &panel.out))
    }
}

/// A chunk of a quantised panel, unpacked.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Codes {
    /// `[block][octet][8 steps][2][8 rows][2]`: of a step's 4 columns the even, then the odd ones.
    /// Not used by NEON.
    pub q: [i16; INT_CHUNK * PANEL],
    /// The same codes as `[block][octet][8 steps][8 rows][4]`, 8-bit ones with NEON only: one of
    /// the two is in use.
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
    /// Panels that a float tile, or an integer tile of packed weights, multiplies at once; at most
    /// [`STREAMS`].
    pub streams: usize,
    /// Most rows of a float tile: as many as there are registers for their sums.
    pub float_rows: usize,
    pub float_tile: unsafe fn(&FloatTile<'_>),
    pub wide: IntKernels<i16>,
    pub bytes: IntKernels<i8>,
    /// Plain 16-bit numbers to f32.
    pub widen: unsafe fn(Dtype, &[u8], &mut [f32]),
    /// `[32 · blocks][16]` f32 weights from codes unpacked for 16-bit activations.
    pub dequantise: unsafe fn(Dtype, &Codes, usize, &mut [f32]),
}

/// The kernels of one width of activations.
pub struct IntKernels<A: 'static> {
    /// The same to the bit for packed and for unpacked weights.
    pub tile: unsafe fn(&IntTile<'_, A>),
    /// The same for up to [`TALL_ROWS`] rows of packed weights with one scale a block, if that is
    /// faster for a few rows than to unpack weights to memory.
    pub tall: Option<unsafe fn(&IntTile<'_, A>)>,
    /// Unpacks whole units of a quantised panel.
    pub expand: unsafe fn(Dtype, &[u8], &mut Codes),
    /// Quantises at most [`INT_CHUNK`] columns of a row whose fine blocks are those with numbers
    /// above a limit.
    pub quantise: unsafe fn(&[f32], f32, RowMut<'_, A>),
}

/// Which kernels to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust, on every CPU.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 with its dot products of integers (VNNI).
    Avx512,
    /// NEON, on every 64-bit ARM CPU.
    Neon,
    /// NEON with its dot products of bytes.
    NeonDot,
    /// NEON with its matrix products of bytes too (i8mm).
    NeonMatrix,
}

impl Isa {
    /// All, the better ones of an architecture last.
    pub const ALL: [Isa; 6] =
        [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Neon, Isa::NeonDot, Isa::NeonMatrix];

    /// The best that this CPU has.
    pub fn detect() -> Isa {
        Isa::ALL.into_iter().rfind(|isa| isa.is_available()).unwrap_or(Isa::Scalar)
    }

    pub fn is_available(self) -> bool {
        self.table().is_some()
    }

    /// The kernel table; scalar where the CPU lacks the instruction set.
    pub(super) fn kernels(self) -> &'static Kernels {
        self.table().unwrap_or(&scalar::KERNELS)
    }

    /// The kernel table, if the CPU has the instruction set.
    fn table(self) -> Option<&'static Kernels> {
        match self {
            Isa::Scalar => Some(&scalar::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => has_avx2().then_some(&super::avx2::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => has_avx512().then_some(&super::avx512::KERNELS),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(&super::neon::KERNELS),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod")
                .then_some(&super::neon::DOT_KERNELS),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonMatrix => (std::arch::is_aarch64_feature_detected!("dotprod")
                && std::arch::is_aarch64_feature_detected!("i8mm"))
            .then_some(&super::neon::MATRIX_KERNELS),
            _ => None,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

/// With AVX2, whose kernels the table shares.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}
