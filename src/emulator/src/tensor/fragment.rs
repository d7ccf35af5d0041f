//! Which matrix element each lane's register holds, for `mma.sync` and `wgmma`.
//!
//! The ISA draws one picture per shape and type; all of them are instances of one rule. With `p`
//! elements packed in a 32-bit register (1 for tf32, 2 for 16-bit, 4 for 8-bit types), lane
//! `4·g + t` of a warp holds
//!
//! * of A (16×k): in register `r`, slot `e`: row `g + 8·(r mod 2)`,
//!   column `t·p + e + 4p·(r div 2)`;
//! * of B (k×8): in register `r`, slot `e`: row `t·p + e + 4p·r`, column `g`;
//! * of C and D (16×8): as value `i`: row `g + 8·(i div 2)`, column `2t + i mod 2`.
//!
//! The tests spell out the ISA's formulas shape by shape and compare.

/// Lanes in a warp.
pub const LANES: usize = 32;

/// One 32-bit register of a whole warp, indexed by lane.
pub type LaneRegister = [u32; LANES];

/// Position in a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct At {
    /// Row.
    pub row: usize,
    /// Column.
    pub col: usize,
}

/// Position in a fragment: lane, register of the operand's list, slot in that register counted
/// from its low bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Lane of the warp.
    pub lane: usize,
    /// Register in the operand's list.
    pub register: usize,
    /// Element within the register.
    pub slot: usize,
}

fn group(lane: usize) -> usize {
    lane / 4
}

fn thread(lane: usize) -> usize {
    lane % 4
}

/// Element of A (16 rows) at a slot, `packed` elements to a register.
pub fn a_at(s: Slot, packed: usize) -> At {
    At {
        row: group(s.lane) + 8 * (s.register % 2),
        col: thread(s.lane) * packed + s.slot + 4 * packed * (s.register / 2),
    }
}

/// Slot that holds element `at` of A; the inverse of [`a_at`].
pub fn a_slot(at: At, packed: usize) -> Slot {
    let within = at.col % (4 * packed);
    Slot {
        lane: 4 * (at.row % 8) + within / packed,
        register: at.row / 8 + 2 * (at.col / (4 * packed)),
        slot: within % packed,
    }
}

/// Element of B (8 columns) at a slot, `packed` elements to a register.
pub fn b_at(s: Slot, packed: usize) -> At {
    At { row: thread(s.lane) * packed + s.slot + 4 * packed * s.register, col: group(s.lane) }
}

/// Slot that holds element `at` of B; the inverse of [`b_at`].
pub fn b_slot(at: At, packed: usize) -> Slot {
    let within = at.row % (4 * packed);
    Slot {
        lane: 4 * at.col + within / packed,
        register: at.row / (4 * packed),
        slot: within % packed,
    }
}

/// Element of C or D (16×8) that a lane holds as its `value`-th number. With 32-bit accumulators
/// the register is `value`; with f16 it is `value / 2`, the low half first.
pub fn c_at(lane: usize, value: usize) -> At {
    At { row: group(lane) + 8 * (value / 2), col: 2 * thread(lane) + value % 2 }
}

/// Lane and value index that hold element `at` of C or D; the inverse of [`c_at`].
pub fn c_slot(at: At) -> (usize, usize) {
    (4 * (at.row % 8) + at.col / 2, 2 * (at.row / 8) + at.col % 2)
}

/// Element of a wgmma accumulator (64×n) that lane `lane` of warp `warp` (0 to 3) of the warpgroup
/// holds as its `value`-th number, `value < n/2`.
pub fn wgmma_d_at(warp: usize, lane: usize, value: usize) -> At {
    let inner = c_at(lane, value % 4);
    At { row: 16 * warp + inner.row, col: 8 * (value / 4) + inner.col }
}

/// Warp, lane and value index that hold element `at` of a wgmma accumulator.
pub fn wgmma_d_slot(at: At) -> (usize, usize, usize) {
    let (lane, value) = c_slot(At { row: at.row % 16, col: at.col % 8 });
    (at.row / 16, lane, 4 * (at.col / 8) + value)
}

/// Element of a wgmma A operand kept in registers (64 rows): rows `16·warp` and on hold the
/// `mma.sync` layout of A.
pub fn wgmma_a_at(warp: usize, s: Slot, packed: usize) -> At {
    let inner = a_at(s, packed);
    At { row: 16 * warp + inner.row, col: inner.col }
}

/// Rows of an 8×8 matrix of 16-bit elements that `ldmatrix` gives a lane: register value slot 0
/// and 1. With `.trans` the lane gets a column pair turned into its row.
pub fn ldmatrix_at(lane: usize, slot: usize, transposed: bool) -> At {
    let at = At { row: group(lane), col: 2 * thread(lane) + slot };
    if transposed { At { row: at.col, col: at.row } } else { at }
}

/// Lane whose address operand names row `row` of matrix `matrix` in `ldmatrix` and `stmatrix`.
pub fn ldmatrix_address_lane(matrix: usize, row: usize) -> usize {
    8 * matrix + row
}

/// What `ldmatrix` puts in one destination register of every lane: `rows[r]` are the 16 bytes
/// that row `r`'s address lane points at.
pub fn ldmatrix(rows: &[[u8; 16]; 8], transposed: bool) -> LaneRegister {
    std::array::from_fn(|lane| {
        let element = |slot| {
            let at = ldmatrix_at(lane, slot, transposed);
            let row = &rows[at.row];
            u32::from(u16::from_le_bytes([row[2 * at.col], row[2 * at.col + 1]]))
        };
        element(0) | element(1) << 16
    })
}

/// The eight rows that `stmatrix` writes for one source register; the inverse of [`ldmatrix`].
pub fn stmatrix(register: &LaneRegister, transposed: bool) -> [[u8; 16]; 8] {
    let mut rows = [[0; 16]; 8];
    for (lane, word) in register.iter().enumerate() {
        for slot in 0..2 {
            let at = ldmatrix_at(lane, slot, transposed);
            let half = (word >> (16 * slot)) as u16;
            rows[at.row][2 * at.col..2 * at.col + 2].copy_from_slice(&half.to_le_bytes());
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ISA's text for A: `a<i>` of a lane, i counted over all elements of all registers.
    /// Gives (row, col) for 16-bit m16n8k16, tf32 m16n8k8 and 8-bit m16n8k32.
    fn isa_a(packed: usize, lane: usize, i: usize) -> At {
        let (g, t) = (lane >> 2, lane % 4);
        match packed {
            2 => At {
                row: if i < 2 || (4..6).contains(&i) { g } else { g + 8 },
                col: if i < 4 { t * 2 + (i & 1) } else { t * 2 + (i & 1) + 8 },
            },
            1 => At {
                row: if i == 0 || i == 2 { g } else { g + 8 },
                col: if i == 0 || i == 1 { t } else { t + 4 },
            },
            _ => At {
                row: if i < 4 || (8..12).contains(&i) { g } else { g + 8 },
                col: if i < 8 { t * 4 + (i & 3) } else { t * 4 + (i & 3) + 16 },
            },
        }
    }

    fn isa_b(packed: usize, lane: usize, i: usize) -> At {
        let (g, t) = (lane >> 2, lane % 4);
        let row = match packed {
            2 => t * 2 + (i & 1) + if i < 2 { 0 } else { 8 },
            1 => t + if i == 0 { 0 } else { 4 },
            _ => t * 4 + (i & 3) + if i < 4 { 0 } else { 16 },
        };
        At { row, col: g }
    }

    fn isa_c(lane: usize, i: usize) -> At {
        let (g, t) = (lane >> 2, lane % 4);
        At { row: if i < 2 { g } else { g + 8 }, col: t * 2 + (i & 1) }
    }

    #[test]
    fn a_and_b_agree_with_the_isa_formulas() {
        for packed in [1, 2, 4] {
            for lane in 0..LANES {
                for i in 0..4 * packed {
                    let s = Slot { lane, register: i / packed, slot: i % packed };
                    assert_eq!(a_at(s, packed), isa_a(packed, lane, i));
                }
                for i in 0..2 * packed {
                    let s = Slot { lane, register: i / packed, slot: i % packed };
                    assert_eq!(b_at(s, packed), isa_b(packed, lane, i));
                }
            }
        }
    }

    #[test]
    fn accumulators_agree_with_the_isa_formulas() {
        for lane in 0..LANES {
            for i in 0..4 {
                assert_eq!(c_at(lane, i), isa_c(lane, i));
                assert_eq!(c_slot(isa_c(lane, i)), (lane, i));
            }
        }
    }

    #[test]
    fn every_element_is_held_exactly_once() {
        for packed in [1, 2, 4] {
            let k = 8 * packed;
            for row in 0..16 {
                for col in 0..k {
                    let at = At { row, col };
                    assert_eq!(a_at(a_slot(at, packed), packed), at);
                }
            }
            for row in 0..k {
                for col in 0..8 {
                    let at = At { row, col };
                    assert_eq!(b_at(b_slot(at, packed), packed), at);
                }
            }
        }
        let mut seen = std::collections::HashSet::new();
        for (warp, lane, value) in (0..4 * 32 * 64).map(|i| (i / 2048, i / 64 % 32, i % 64)) {
            let at = wgmma_d_at(warp, lane, value);
            assert!(at.row < 64 && at.col < 128 && seen.insert(at));
            assert_eq!(wgmma_d_slot(at), (warp, lane, value));
        }
        assert_eq!(seen.len(), 64 * 128);
    }

    /// The ISA's wgmma picture: d0,d1 in row lane/4, d2,d3 eight rows below, d4 on in the next
    /// eight columns; warps stacked by 16 rows.
    #[test]
    fn wgmma_accumulator_matches_the_picture() {
        assert_eq!(wgmma_d_at(0, 0, 0), At { row: 0, col: 0 });
        assert_eq!(wgmma_d_at(0, 5, 1), At { row: 1, col: 3 });
        assert_eq!(wgmma_d_at(1, 31, 3), At { row: 31, col: 7 });
        assert_eq!(wgmma_d_at(2, 4, 6), At { row: 32 + 1 + 8, col: 8 });
        assert_eq!(wgmma_d_at(3, 0, 63), At { row: 56, col: 121 });
    }

    fn numbered_rows() -> [[u8; 16]; 8] {
        std::array::from_fn(|r| {
            let mut row = [0; 16];
            for c in 0..8 {
                row[2 * c..2 * c + 2].copy_from_slice(&((100 * r + c) as u16).to_le_bytes());
            }
            row
        })
    }

    #[test]
    fn ldmatrix_moves_rows_and_its_transpose_columns() {
        let plain = ldmatrix(&numbered_rows(), false);
        let trans = ldmatrix(&numbered_rows(), true);
        for lane in 0..32u32 {
            let (g, t) = (lane / 4, lane % 4);
            let low = 100 * g + 2 * t;
            assert_eq!(plain[lane as usize], low | (low + 1) << 16);
            let low = 100 * (2 * t) + g;
            assert_eq!(trans[lane as usize], low | (low + 100) << 16);
        }
        assert_eq!(ldmatrix_address_lane(3, 7), 31);
    }

    #[test]
    fn stmatrix_undoes_ldmatrix() {
        for transposed in [false, true] {
            let register = ldmatrix(&numbered_rows(), transposed);
            assert_eq!(stmatrix(&register, transposed), numbered_rows());
        }
    }
}
