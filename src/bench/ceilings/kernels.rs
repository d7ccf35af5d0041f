//! The loops behind the ceilings: reading memory, and multiply-adds on registers, in float32 and
//! in 8-bit integers.

/// Places that [`sum`] reads at once where it is written for the processor: a core gets more from
/// memory so, and with more places than four no more still.
pub const STREAMS: usize = 4;
/// Words that are read from one place before the next, and how far ahead they are asked for.
#[cfg(target_arch = "x86_64")]
const TURN: usize = 32;
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 64;

/// The instructions that [`sum`] and [`multiply_add`] use on this machine.
pub fn isa() -> &'static str {
    if has_avx2() { "avx2+fma" } else { "portable" }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

/// Reads all of `words` once; the sum is there so that the reads must happen.
pub fn sum(words: &[u64]) -> u64 {
    let fold = |words: &[u64]| words.iter().fold(0u64, |a, &b| a.wrapping_add(b));
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        let part = words.len() / STREAMS / TURN * TURN;
        let (parts, rest) = words.split_at(STREAMS * part);
        // SAFETY: the processor has AVX2, checked above; the parts are whole turns.
        return fold(rest).wrapping_add(unsafe { sum_avx2(parts, part) });
    }
    fold(words)
}

/// Runs `rounds` rounds of independent single-precision multiply-adds that never leave registers.
/// Returns the operations done, a multiply-add counting two.
pub fn multiply_add(rounds: u64) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has AVX2 and FMA, checked in the line above.
        return unsafe { multiply_add_avx2(rounds) };
    }
    multiply_add_portable(rounds)
}

fn multiply_add_portable(rounds: u64) -> f64 {
    const LANES: usize = 64;
    let mut x = std::hint::black_box([1.5f32; LANES]);
    let (a, b) = (std::hint::black_box(0.999_f32), std::hint::black_box(0.001_f32));
    for _ in 0..rounds {
        for lane in &mut x {
            // On aarch64 a fused multiply-add is one instruction; elsewhere it may be a call.
            *lane = if cfg!(target_arch = "aarch64") { lane.mul_add(a, b) } else { *lane * a + b };
        }
    }
    std::hint::black_box(x);
    (rounds * LANES as u64 * 2) as f64
}

/// Runs `rounds` rounds of independent products of 8-bit integers, summed in 32 bits, that never
/// leave registers. Returns the operations done, a multiply-add counting two.
pub fn multiply_add_int8(rounds: u64) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has AVX2, checked in the line above.
        return unsafe { multiply_add_int8_avx2(rounds) };
    }
    multiply_add_int8_portable(rounds)
}

fn multiply_add_int8_portable(rounds: u64) -> f64 {
    const LANES: usize = 64;
    let mut sums = std::hint::black_box([0i32; LANES]);
    let (a, b) = std::hint::black_box(([3i8; LANES], [-5i8; LANES]));
    for _ in 0..rounds {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(&b)) {
            *sum = sum.wrapping_add(i32::from(*a) * i32::from(*b));
        }
        // Each round's sums matter, so that the compiler cannot multiply once for all rounds.
        std::hint::black_box(&mut sums);
    }
    (rounds * LANES as u64 * 2) as f64
}

/// Products of bytes, pairs of them summed in 16 bits and those in 32 (`maddubs`, `madd`, `add`),
/// as matrix products without dot-product instructions use them.
///
/// # Safety
/// The processor must have AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn multiply_add_int8_avx2(rounds: u64) -> f64 {
    use std::arch::x86_64::*;
    const CHAINS: usize = 8;
    let mut sums = std::hint::black_box([_mm256_setzero_si256(); CHAINS]);
    let (mut a, b) = std::hint::black_box((_mm256_set1_epi8(3), _mm256_set1_epi8(-5)));
    let ones = _mm256_set1_epi16(1);
    for _ in 0..rounds {
        for sum in &mut sums {
            // SAFETY: does nothing. As far as the compiler knows `a` has a new value: else it
            // would multiply once. It stays in its register, where `black_box` takes it to memory
            // and back, which takes as long as the round's products.
            unsafe {
                std::arch::asm!("/* {0} */", inout(ymm_reg) a,
                    options(nomem, nostack, preserves_flags));
            }
            let pairs = _mm256_maddubs_epi16(a, b);
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
        }
    }
    std::hint::black_box(sums);
    (rounds * CHAINS as u64 * 32 * 2) as f64
}

/// Reads all parts of `part` words at once, [`TURN`] words of each in turn, and past the caches:
/// what is read once need not be written on to the next one.
///
/// # Safety
/// The processor must have AVX2; there are [`STREAMS`] parts, and a part is whole turns.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn sum_avx2(words: &[u64], part: usize) -> u64 {
    use std::arch::x86_64::*;
    let mut sums = [_mm256_setzero_si256(); 4];
    for at in (0..part).step_by(TURN) {
        for stream in 0..STREAMS {
            let turn = &words[stream * part + at..][..TURN];
            for line in turn.chunks_exact(8) {
                let ahead = line.as_ptr().wrapping_add(AHEAD).cast();
                _mm_prefetch::<_MM_HINT_NTA>(ahead);
            }
            for block in turn.chunks_exact(16) {
                for (i, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: a block has 16 words, so four loads of four words from 0, 4, 8, 12
                    // fit.
                    let four = unsafe { _mm256_loadu_si256(block.as_ptr().add(4 * i).cast()) };
                    *sum = _mm256_add_epi64(*sum, four);
                }
            }
        }
    }
    let mut lanes = [0u64; 4];
    let all =
        _mm256_add_epi64(_mm256_add_epi64(sums[0], sums[1]), _mm256_add_epi64(sums[2], sums[3]));
    // SAFETY: `lanes` is 32 bytes, as many as the store writes, and unaligned stores are allowed.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), all) };
    lanes.iter().fold(0, |a, &b| a.wrapping_add(b))
}

/// Twelve accumulators hide a latency of four to six cycles on two ports, and leave four of the
/// sixteen registers for the operands.
///
/// # Safety
/// The processor must have AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply_add_avx2(rounds: u64) -> f64 {
    use std::arch::x86_64::*;
    const CHAINS: usize = 12;
    // Opaque values: of known ones the compiler would compute the result, and of equal ones it
    // would keep a single chain.
    let mut x = std::hint::black_box([_mm256_set1_ps(1.5); CHAINS]);
    let (a, b) = std::hint::black_box((_mm256_set1_ps(0.999), _mm256_set1_ps(0.001)));
    for _ in 0..rounds {
        for chain in &mut x {
            *chain = _mm256_fmadd_ps(*chain, a, b);
        }
    }
    std::hint::black_box(x);
    (rounds * CHAINS as u64 * 8 * 2) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        for n in [0usize, 1, 15, 127, 128, 1000, 4097] {
            let words: Vec<u64> = (0..n as u64).map(|i| i * 3 + 1).collect();
            assert_eq!(sum(&words), words.iter().sum::<u64>(), "{n} words");
        }
    }

    #[test]
    fn operations_are_counted() {
        assert_eq!(multiply_add_portable(10), 10.0 * 64.0 * 2.0);
        assert!(multiply_add(10) >= 10.0 * 12.0 * 8.0);
        assert_eq!(multiply_add_int8_portable(10), 10.0 * 64.0 * 2.0);
        assert!(multiply_add_int8(10) >= 10.0 * 64.0 * 2.0);
    }
}
