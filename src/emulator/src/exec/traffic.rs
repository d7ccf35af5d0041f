//! What a bulk copy moves: for the counters, and for the claim on its destination.

use super::bulk::{End, Piece};
use super::cluster::Ctx;

impl Ctx<'_> {
    /// Counts a copy: whole sectors of its global side, and passes of 128 bytes of its shared one.
    pub fn count_bulk(&mut self, pieces: &[Piece]) {
        for write in [false, true] {
            let side = |p: &Piece| if write { p.dst } else { p.src };
            let (mut global, mut shared) = (0u64, 0u64);
            let mut sectors: Vec<u64> = Vec::new();
            for p in pieces {
                match side(p) {
                    End::Global(a) => {
                        global += u64::from(p.bytes);
                        sectors.extend(a / 32..=(a + u64::from(p.bytes) - 1) / 32);
                    }
                    End::Shared(..) => shared += u64::from(p.bytes),
                    End::Nothing | End::Nan(_) => {}
                }
            }
            sectors.sort_unstable();
            sectors.dedup();
            let by = (sectors.len() as u64, global.div_ceil(32));
            if global > 0 {
                self.cl.counters.global_traffic(self.pc, write, global, by);
                self.env.touched.mark(&sectors, write);
            }
            let passes = shared.div_ceil(128);
            if shared > 0 {
                self.cl.counters.shared_traffic(self.pc, write, shared, (passes, passes));
            }
        }
    }
}

/// Shared ranges that a copy writes. Pieces that follow each other are one range, so that a word
/// of two pieces is claimed once.
pub fn destinations(pieces: &[Piece]) -> Vec<(usize, u32, u32)> {
    let mut list: Vec<(usize, u32, u32)> = Vec::new();
    for p in pieces {
        let End::Shared(rank, at) = p.dst else { continue };
        match list.last_mut() {
            Some((r, start, bytes)) if *r == rank && *start + *bytes == at => *bytes += p.bytes,
            _ => list.push((rank, at, p.bytes)),
        }
    }
    list
}
