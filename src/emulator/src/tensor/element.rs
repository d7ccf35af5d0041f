//! Element types of matrix operands and how a register or a memory word unpacks into numbers.

use super::number;

/// Element type of an A or B operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// TF32 in 32 bits; the low 13 are ignored.
    Tf32,
    /// 8-bit float with 4 exponent bits.
    E4m3,
    /// 8-bit float with 5 exponent bits.
    E5m2,
    /// Signed byte.
    S8,
    /// Unsigned byte.
    U8,
}

impl Element {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Element::Tf32 => 4,
            Element::F16 | Element::Bf16 => 2,
            Element::E4m3 | Element::E5m2 | Element::S8 | Element::U8 => 1,
        }
    }

    /// Elements packed in a 32-bit register.
    pub fn per_register(self) -> usize {
        4 / self.bytes()
    }

    /// True for the integer types.
    pub fn is_integer(self) -> bool {
        matches!(self, Element::S8 | Element::U8)
    }

    /// Value of one element from its bits (low `bytes()` bytes of `bits`); exact in f32.
    pub fn value(self, bits: u32) -> f32 {
        match self {
            Element::F16 => number::f16_to_f32(bits as u16),
            Element::Bf16 => number::bf16_to_f32(bits as u16),
            Element::Tf32 => number::tf32_to_f32(bits),
            Element::E4m3 => number::e4m3_to_f32(bits as u8),
            Element::E5m2 => number::e5m2_to_f32(bits as u8),
            Element::S8 => f32::from(bits as u8 as i8),
            Element::U8 => f32::from(bits as u8),
        }
    }

    /// Bits of the element in slot `slot` of a register.
    pub fn extract(self, register: u32, slot: usize) -> u32 {
        let width = 8 * self.bytes();
        if width == 32 {
            return register;
        }
        (register >> (width * slot)) & ((1 << width) - 1)
    }

    /// Values of 16 consecutive bytes, appended to `out`.
    pub fn unpack(self, bytes: &[u8; 16], out: &mut Vec<f32>) {
        for word in bytes.chunks_exact(4) {
            let register = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            for slot in 0..self.per_register() {
                out.push(self.value(self.extract(register, slot)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_unpack_in_memory_order() {
        let bytes: [u8; 16] = std::array::from_fn(|i| (i as u8).wrapping_add(0xf8));
        let mut signed = Vec::new();
        Element::S8.unpack(&bytes, &mut signed);
        assert_eq!(signed[..9], [-8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0]);
        let mut halves = Vec::new();
        Element::F16.unpack(&[0, 0x3c, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], &mut halves);
        assert_eq!(halves[..2], [1.0, -2.0]);
        assert_eq!(halves[7], 2f32.powi(-24));
    }
}
