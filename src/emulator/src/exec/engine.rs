//! Bulk copies as parties of races in global memory. A copy acts when it is performed, which is as
//! late as its thread's waits allow, but knows only what its thread knew when it started it.

use std::sync::Arc;

use super::access::Target;
use super::bulk::{AsyncOp, End, Piece};
use super::cluster::Ctx;
use super::fault::Run;
use crate::isa::Space;
use crate::memory::shadow::{Access, Clock};
use crate::tensor::tensormap::MAP_BYTES;

impl Ctx<'_> {
    /// What a lane knows as it starts a copy from or to global memory. What it does from now on
    /// is not ordered before the copy.
    pub fn issue(&mut self, pieces: &[Piece], lane: u32) -> Option<Arc<Clock>> {
        let global = |p: &Piece| [p.src, p.dst].iter().any(|e| matches!(e, End::Global(_)));
        if !self.env.global_races || !pieces.iter().any(global) {
            return None;
        }
        let known = self.warp.knowledge(1 << lane);
        if pieces.iter().any(|p| matches!(p.dst, End::Global(_))) {
            self.warp.advance(1 << lane);
        }
        Some(Arc::new(known))
    }

    /// A piece of a copy is read from global memory. Whoever learns of the copy's end learns of
    /// this.
    pub fn engine_reads(&self, op: &AsyncOp, piece: &Piece) -> Run<()> {
        let End::Global(at) = piece.src else { return Ok(()) };
        let rank = match piece.dst {
            End::Shared(rank, _) => rank,
            _ => self.warp.rank,
        };
        self.engine_access(op, rank, (at, piece.bytes), false)
    }

    /// A piece of a copy is written to global memory.
    pub fn engine_writes(&self, op: &AsyncOp, range: (u64, u32)) -> Run<()> {
        self.engine_access(op, self.warp.rank, range, true)
    }

    fn engine_access(
        &self,
        op: &AsyncOp,
        rank: usize,
        (address, bytes): (u64, u32),
        write: bool,
    ) -> Run<()> {
        let Some(clock) = &op.issued else { return Ok(()) };
        let (a, at) = self.global(address, bytes, op.lane, "asynchronous copy")?;
        if a.read_only {
            return Ok(());
        }
        let actor = self.engine(rank);
        // Reads come before the copy's end, which begins the next epoch.
        let epoch = self.cl.engine_epoch + u32::from(!write);
        let atomic = op.reduce.is_some();
        let who = Access { atomic, ..Access::engine(actor, epoch, op.pc) };
        let from = self.origin();
        match a.shadow.pass(from, write).access(at, bytes, &who, clock) {
            Ok(()) => Ok(()),
            Err(rival) => self.global_race(rival, op.lane, address, write),
        }
    }

    /// Finds races of a lane that reads a tensor map, and writes of it that no fence has made
    /// visible to such readers.
    pub fn map_order(&self, address: u64, lane: u32) -> Run<()> {
        let Ok(Target::Global(address)) = self.resolve(Space::Generic, address, lane) else {
            return Ok(());
        };
        let bytes = MAP_BYTES as u32;
        let (a, at) = self.global(address, bytes, lane, "tensor map")?;
        if !self.env.global_races || a.read_only {
            return Ok(());
        }
        let (who, clock) = (self.access(lane, false), self.warp.clock(lane));
        match a.shadow.pass(self.origin(), false).map(at, bytes, &who, clock) {
            Ok(()) => Ok(()),
            Err(rival) => self.global_race(rival, lane, address, false),
        }
    }
}
