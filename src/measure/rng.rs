//! Counter-based pseudo-random numbers: number `i` of stream `seed` is a pure function of both,
//! so inputs do not depend on the order in which they are drawn, on threads or on the machine.
//!
//! The function is SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number
//! Generators", OOPSLA 2014) with its state computed from the counter instead of stepped.

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Number `counter` of stream `seed`.
pub fn number(seed: u64, counter: u64) -> u64 {
    let z = seed.wrapping_add(counter.wrapping_add(1).wrapping_mul(GOLDEN));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Number `counter` of stream `seed`, in `0 .. bound` (0 for a bound of 0). No value is more
/// likely than another by more than `bound / 2^64`.
pub fn below(seed: u64, counter: u64, bound: u64) -> u64 {
    let wide = u128::from(number(seed, counter)) * u128::from(bound);
    (wide >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of the published generator seeded with 1234567.
    #[test]
    fn matches_the_published_sequence() {
        let expected = [6457827717110365317, 3203168211198807973, 9817491932198370423];
        for (i, want) in expected.into_iter().enumerate() {
            assert_eq!(number(1234567, i as u64), want);
        }
    }

    #[test]
    fn below_stays_inside_and_reaches_everything() {
        let mut seen = [0u32; 7];
        for i in 0..7000 {
            seen[below(3, i, 7) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
        assert_eq!(below(3, 0, 0), 0);
        assert_eq!(below(3, 0, 1), 0);
    }
}
