//! Bit and byte tricks on single values: funnel shifts, byte permutes, dot products.

use crate::isa::PrmtMode;

/// High word of (hi:lo) shifted left.
pub fn funnel_left(lo: u32, hi: u32, by: u32) -> u32 {
    (((u64::from(hi) << 32 | u64::from(lo)) << by) >> 32) as u32
}

/// Low word of (hi:lo) shifted right.
pub fn funnel_right(lo: u32, hi: u32, by: u32) -> u32 {
    ((u64::from(hi) << 32 | u64::from(lo)) >> by) as u32
}

/// Position of the n-th set bit from a start; n = 0 asks for the start bit itself.
pub fn fns(mask: u32, base: u32, offset: u32) -> u32 {
    let offset = offset as i32;
    let step: i32 = if offset < 0 { -1 } else { 1 };
    let mut left = if offset == 0 { 1 } else { offset.unsigned_abs() };
    let mut at = i64::from(base);
    while (0..32).contains(&at) {
        if mask >> at & 1 != 0 {
            left -= 1;
            if left == 0 {
                return at as u32;
            }
        }
        if offset == 0 {
            break;
        }
        at += i64::from(step);
    }
    u32::MAX
}

pub fn prmt(mode: PrmtMode, a: u32, b: u32, c: u32) -> u32 {
    let source = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    let n = (c & 3) as usize;
    let order: [usize; 4] = match mode {
        PrmtMode::Index => {
            let byte = |i: u32| {
                let pick = c >> (4 * i) & 0xf;
                let byte = source[(pick & 7) as usize];
                if pick & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 }
            };
            return u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]);
        }
        PrmtMode::F4e => [n, n + 1, n + 2, n + 3],
        PrmtMode::B4e => [n, (n + 7) % 8, (n + 6) % 8, (n + 5) % 8],
        PrmtMode::Rc8 => [n; 4],
        PrmtMode::Ecl => [0, n.max(1), n.max(2), 3],
        PrmtMode::Ecr => [0, n.min(1), n.min(2), n],
        PrmtMode::Rc16 => [n % 2 * 2, n % 2 * 2 + 1, n % 2 * 2, n % 2 * 2 + 1],
    };
    let order = if mode == PrmtMode::Ecl { [n, n.max(1), n.max(2), 3] } else { order };
    u32::from_le_bytes(order.map(|i| source[i]))
}

pub fn dot(ways: u32, high: bool, signs: (bool, bool), a: u32, b: u32, c: u32) -> u32 {
    let byte = |v: u32, i: u32, signed: bool| -> i64 {
        let raw = (v >> (8 * i)) as u8;
        if signed { i64::from(raw as i8) } else { i64::from(raw) }
    };
    let half = |v: u32, i: u32, signed: bool| -> i64 {
        let raw = (v >> (16 * i)) as u16;
        if signed { i64::from(raw as i16) } else { i64::from(raw) }
    };
    let first = if high { 2 } else { 0 };
    let sum: i64 = (0..ways)
        .map(|i| match ways {
            4 => byte(a, i, signs.0) * byte(b, i, signs.1),
            _ => half(a, i, signs.0) * byte(b, first + i, signs.1),
        })
        .sum();
    c.wrapping_add(sum as u32)
}
