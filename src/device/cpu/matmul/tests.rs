//! Kernels of every instruction set against the scalar ones.

use half::f16;

use super::at_type::QUANTISED;
use super::integer::{Integer, RowMut, RowScale, Rows};
use super::kernels::{Codes, INT_CHUNK, IntTile, Isa, Kernels, Out, Source};
use super::layout::{self, BLOCK, PANEL};
use crate::types::Dtype;

/// All that this CPU has, but for the scalar one.
fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| *isa != Isa::Scalar && isa.is_available())
}

fn is_neon(isa: Isa) -> bool {
    matches!(isa, Isa::Neon | Isa::NeonDot | Isa::NeonMatrix)
}

/// A fixed sequence of bytes without pattern (a linear congruential generator's high byte).
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let next = |x: u64| x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    std::iter::successors(Some(next(seed)), move |x| Some(next(*x))).map(|x| (x >> 56) as u8)
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// Units of noise, their half-precision scales below 1.5: no byte pair is infinite or NaN.
fn noisy_units(seed: u64, dtype: Dtype, count: usize) -> Vec<u8> {
    noise(seed).take(count * layout::unit_bytes(dtype)).map(|b| b & 0xbd).collect()
}

/// Codes unpacked by the scalar kernels and by those of `isa`.
fn unpacked(isa: Isa, dtype: Dtype, bytes: &[u8]) -> [Box<Codes>; 2] {
    [Isa::Scalar, isa].map(|isa| {
        let (kernels, mut codes) = (isa.kernels(), Box::new(Codes::ZERO));
        // SAFETY: whole units of one chunk; the CPU has the instructions.
        unsafe {
            (kernels.wide.expand)(dtype, bytes, &mut codes);
            // NEON has bytes for both widths, of 8-bit codes too.
            if dtype != Dtype::Q8_0 || is_neon(isa) || cfg!(target_arch = "aarch64") {
                (kernels.bytes.expand)(dtype, bytes, &mut codes);
            }
        }
        codes
    })
}

#[test]
fn unpacking_is_that_of_the_scalar_kernels_to_the_bit() {
    for (isa, (seed, dtype)) in
        isas().flat_map(|isa| QUANTISED.into_iter().enumerate().map(move |q| (isa, q)))
    {
        let units = INT_CHUNK / layout::unit_len(dtype);
        let bytes = noisy_units(seed as u64, dtype, units);
        let [a, b] = unpacked(isa, dtype, &bytes);
        assert!(is_neon(isa) || a.q == b.q, "{isa:?} {dtype:?}: 16 bits");
        assert!(a.bytes == b.bytes, "{isa:?} {dtype:?}: bytes");
        assert_eq!(bits(&a.d), bits(&b.d), "{isa:?} {dtype:?}: scales");
        // Q8_0 has no minima; -0 and 0 are the same minimum.
        let plain = |m: &[f32]| bits(&m.iter().map(|x| x + 0.0).collect::<Vec<_>>());
        assert_eq!(plain(&a.m), plain(&b.m), "{isa:?} {dtype:?}: minima");
    }
}

/// A chunk quantised by a table's kernel.
struct Quantised<A> {
    q: Vec<A>,
    low: Vec<A>,
    fine: u32,
    scales: Vec<RowScale>,
}

fn quantised<A: Integer>(kernels: &Kernels, x: &[f32], limit: f32) -> Quantised<A> {
    let (q, low) = (vec![A::default(); INT_CHUNK], vec![A::default(); INT_CHUNK]);
    let scales = vec![RowScale::default(); INT_CHUNK / BLOCK];
    let mut all = Quantised { q, low, fine: 0, scales };
    let (q, low, fine) = (&mut all.q[..], &mut all.low[..], &mut all.fine);
    let out = RowMut { q, low, fine, scales: &mut all.scales };
    // SAFETY: one chunk; callers have asked whether the CPU has the instructions.
    unsafe { (A::kernels(kernels).quantise)(x, limit, out) };
    all
}

/// A width's numbers as the scalar kernels lay them out.
trait Plain: Integer + PartialEq + std::fmt::Debug {
    fn plain(isa: Isa, q: Vec<Self>) -> Vec<Self>;
}

impl Plain for i8 {
    fn plain(_: Isa, q: Vec<i8>) -> Vec<i8> {
        q
    }
}

impl Plain for i16 {
    fn plain(isa: Isa, q: Vec<i16>) -> Vec<i16> {
        if !is_neon(isa) {
            return q;
        }
        let mut plain = vec![0; q.len()];
        for (block, plain) in q.chunks(BLOCK).zip(plain.chunks_mut(BLOCK)) {
            let bytes: Vec<u8> = block.iter().flat_map(|q| q.to_le_bytes()).collect();
            for k in 0..BLOCK {
                let (high, low) = (i16::from(bytes[k] as i8), i16::from(bytes[BLOCK + k] as i8));
                plain[layout::paired(k)] = 256 * high + (low + 128);
            }
        }
        plain
    }
}

fn same<A: Plain>(isa: Isa, x: &[f32], limit: f32) -> u32 {
    let a = quantised::<A>(Isa::Scalar.kernels(), x, limit);
    let mut b = quantised::<A>(isa.kernels(), x, limit);
    b.q = A::plain(isa, b.q);
    assert_eq!(a.fine, b.fine);
    for (block, (p, q)) in a.scales.iter().zip(&b.scales).enumerate() {
        let columns = block * BLOCK..(block + 1) * BLOCK;
        // A block that holds no finite scale has a NaN scale; its integers mean nothing.
        if p.d.is_finite() {
            assert_eq!(p, q, "block {block}");
            assert_eq!(a.q[columns.clone()], b.q[columns.clone()], "block {block}");
            assert_eq!(a.low[columns.clone()], b.low[columns], "block {block}");
        } else {
            assert!(p.d.is_nan() && q.d.is_nan(), "block {block}");
        }
    }
    a.fine
}

#[test]
fn quantising_is_that_of_the_scalar_kernels_to_the_bit() {
    let mut x: Vec<f32> = noise(9).take(INT_CHUNK).map(|b| (f32::from(b) - 128.0) * 0.37).collect();
    x[..BLOCK].fill(0.0);
    x[BLOCK] = f32::NAN;
    x[2 * BLOCK] = f32::NEG_INFINITY;
    x[3 * BLOCK] = 1e-38;
    for i in 4 * BLOCK..INT_CHUNK {
        // Halves between two integers, which must go to the even one.
        x[i] = if i % BLOCK == 0 { 127.0 } else { f32::from(i as i8) / 2.0 };
    }
    x[7 * BLOCK + 5] = -1000.0;
    for isa in isas() {
        assert_eq!(same::<i16>(isa, &x, f32::INFINITY), 0);
        assert_eq!(same::<i8>(isa, &x, f32::INFINITY), 0);
        assert_eq!(same::<i8>(isa, &x, f32::NAN), 0);
        assert_eq!(same::<i8>(isa, &x, 200.0), 1 << 7 | 1 << 2, "an outlier, and infinity");
        assert_eq!(same::<i8>(isa, &x, 0.0).count_ones(), 22, "all but zeros and NaN");
    }
}

/// Units of noise with scales and minima that are powers of two: every product of a scale is then
/// exact, and fused or not a sum is the same.
fn exact_units(dtype: Dtype, count: usize) -> Vec<u8> {
    let size = layout::unit_bytes(dtype);
    let mut bytes: Vec<u8> = noise(77 + dtype as u64).take(count * size).collect();
    for unit in bytes.chunks_mut(size) {
        let subs = layout::head_bytes(dtype);
        let halfs = if subs == 0 { 2 * layout::octet_bytes(dtype)..size } else { 0..subs };
        for (i, half) in unit[halfs].chunks_mut(2).enumerate() {
            half.copy_from_slice(&f16::from_f32([0.5, 2.0, 0.25, 1.0, -1.0][i % 5]).to_le_bytes());
        }
        for block in 0..if subs == 0 { 0 } else { 8 } {
            let at = subs + block * layout::block_stride(dtype);
            for sub in &mut unit[at..at + layout::SUB_SCALES] {
                *sub = 1 << (*sub & 3);
            }
        }
    }
    bytes
}

/// Four rows of a chunk whose blocks have scale 1: `most` is a block's largest number, or `large`
/// every fifth block's.
fn exact_rows(most: i32, large: i32) -> Vec<f32> {
    let mut bytes = noise(5);
    let mut number = |most: i32| {
        let bits = bytes.by_ref().take(2).fold(0, |bits, byte| bits << 8 | i32::from(byte));
        bits % (2 * most + 1) - most
    };
    (0..4 * INT_CHUNK)
        .map(|i| {
            let most = if i / BLOCK % 5 == 3 { large } else { most };
            (if i % BLOCK == 7 { most } else { number(most) }) as f32
        })
        .collect()
}

/// The products of `rows` rows with a panel, `[rows][cols]`, from packed or unpacked codes.
fn products<A: Integer>(
    isa: Isa,
    (dtype, units): (Dtype, &[u8]),
    (x, rows): (&[f32], usize),
    cols: usize,
    packed: bool,
) -> Vec<f32> {
    let kernels = A::kernels(isa.kernels());
    let (mut q, mut low, mut fine, mut scales) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in x.chunks(INT_CHUNK) {
        let row = quantised::<A>(isa.kernels(), row, 200.0);
        q.extend(row.q);
        low.extend(row.low);
        fine.push(row.fine);
        scales.extend(row.scales);
    }
    let (mut codes, mut y) = (Box::new(Codes::ZERO), vec![0.5; rows * cols]);
    // SAFETY: whole units of one chunk, whole rows; callers have asked whether the CPU has the
    // instructions.
    unsafe {
        (kernels.expand)(dtype, units, &mut codes);
        (kernels.tile)(&IntTile {
            rows,
            a: Rows { q: &q, low: &low, fine: &fine, scales: &scales },
            weights: if packed { Source::Packed(units) } else { Source::Unpacked(&codes) },
            dtype,
            blocks: INT_CHUNK / BLOCK,
            ahead: units.as_ptr(),
            next_rows: true,
            beside: &[],
            once: false,
            out: Out { y: y.as_mut_ptr(), ldy: cols, cols, fresh: false },
        });
    }
    y
}

#[test]
fn products_are_those_of_the_scalar_kernels_to_the_bit() {
    let (wide, narrow) = (exact_rows(32767, 32767), exact_rows(127, 32639));
    for (isa, dtype) in isas().flat_map(|isa| QUANTISED.map(|dtype| (isa, dtype))) {
        let units = exact_units(dtype, INT_CHUNK / layout::unit_len(dtype));
        for (rows, packed) in (1..=4).flat_map(|rows| [(rows, true), (rows, false)]) {
            for cols in [PANEL, 11] {
                let of = |isa: Isa| {
                    let weights = (dtype, &units[..]);
                    let wide = products::<i16>(isa, weights, (&wide, rows), cols, packed);
                    if dtype == Dtype::Q8_0 {
                        return (wide, Vec::new());
                    }
                    (wide, products::<i8>(isa, weights, (&narrow, rows), cols, packed))
                };
                let what = format!("{isa:?} {dtype:?} {rows} rows, packed: {packed}");
                assert_eq!(of(Isa::Scalar), of(isa), "{what}");
            }
        }
    }
}

#[test]
fn fused_products_are_the_same_to_the_bit_with_every_instruction_set() {
    let x: Vec<f32> =
        noise(11).take(4 * INT_CHUNK).map(|b| (f32::from(b) - 128.0) * 0.37).collect();
    for dtype in QUANTISED.into_iter().filter(|dtype| *dtype != Dtype::Q8_0) {
        let units = noisy_units(3, dtype, INT_CHUNK / layout::unit_len(dtype));
        for (rows, packed) in (1..=4).flat_map(|rows| [(rows, true), (rows, false)]) {
            let (weights, x) = ((dtype, &units[..]), (&x[..], rows));
            let of = |isa: Isa| {
                let wide = products::<i16>(isa, weights, x, PANEL, packed);
                (bits(&wide), bits(&products::<i8>(isa, weights, x, PANEL, packed)))
            };
            let all: Vec<_> = isas().map(of).collect();
            assert!(all.windows(2).all(|two| two[0] == two[1]), "{dtype:?} {rows} {packed}");
        }
    }
}
