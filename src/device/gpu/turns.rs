//! Rotary frequencies as exact fractions of a turn, as `cuda/rope.cu` takes them.

/// 1 / 2π · 2¹⁰³: its first 128 fractional bits, less 25.
const INVERSE_TAU: u128 = 0x28BE_60DB_9391_054A_7F09_D5F4_7D4D_3770 >> 25;

/// What one position adds to the angle, in turns times 2⁶⁴, modulo a turn: `inv_freq / 2π`,
/// rounded. Multiplied by a position in wrapping 64-bit arithmetic it is off by
/// `position · 2⁻⁶⁵` turns.
pub fn per_position(inv_freq: f32) -> u64 {
    let bits = inv_freq.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32;
    if exponent == 0 || exponent == 0xff {
        return 0; // fewer than 2⁻¹²⁶ radians, or not a number
    }
    // |inv_freq| = significand · 2^(exponent - 150), and the product is turns · 2^(253 - exponent).
    let significand = u128::from(bits & 0x7f_ffff | 0x80_0000);
    let product = significand * INVERSE_TAU;
    let down = 189 - exponent;
    let turns = match u32::try_from(down) {
        Ok(0) => product,
        Ok(down) => (product.checked_shr(down - 1).unwrap_or(0) + 1) >> 1,
        Err(_) => product << down.unsigned_abs(),
    };
    let turns = turns as u64;
    if bits >> 31 == 1 { turns.wrapping_neg() } else { turns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    #[test]
    fn turns_agree_with_floating_point_and_stay_exact_far_out() {
        for freq in [1.0f32, 0.749_894_2, 1e-4, 3.3e-7, 6.5, 1e-30] {
            let got = per_position(freq) as f64 / 2f64.powi(64);
            let want = (f64::from(freq) / TAU).fract();
            assert!((got - want).abs() < 1e-15, "{freq}: {got} {want}");
        }
        assert_eq!(per_position(-1.0), per_position(1.0).wrapping_neg());
        assert_eq!(per_position(0.0), 0);
        assert_eq!(per_position(f32::NAN), 0);
        // 2²³ positions of 1 radian are 2²³ / 2π turns.
        let angle = per_position(1.0).wrapping_mul(1 << 23) as f64 / 2f64.powi(64);
        assert!((angle - (f64::from(1u32 << 23) / TAU).fract()).abs() < 1e-9);
    }
}
