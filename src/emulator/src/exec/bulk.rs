//! Bulk and tensor copies. An operation waits in the cluster's list until somebody could not go
//! on without it; only then are its bytes read and written.

use std::sync::Arc;

use super::access::Target;
use super::atomic::reduce_bytes;
use super::cluster::Ctx;
use super::fault::{Other, Run, Stop, refused, stop_lane};
use super::traffic::destinations;
use super::warp::{LANES, lanes};
use crate::error::Rule;
use crate::isa::{AtomOp, Bulk, BulkKind, Order, Space, Ty};
use crate::memory::shadow::{Access, Clock};
use crate::memory::shared::Refusal;
use crate::tensor::tensormap::{MAP_BYTES, MAX_RANK, MapType, TensorMap};
use crate::tensor::tile::{self, Source};

/// One end of a piece of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Global(u64),
    Shared(usize, u32),
    /// Outside the tensor: reads as zero, written nowhere.
    Nothing,
    /// Outside a tensor whose map asks for NaN, with elements of so many bytes.
    Nan(u32),
}

#[derive(Debug, Clone, Copy)]
pub struct Piece {
    pub src: End,
    pub dst: End,
    pub bytes: u32,
}

/// A bulk operation that has been started.
#[derive(Debug, Clone)]
pub struct AsyncOp {
    pub id: u64,
    pub pc: u32,
    pub lane: u32,
    /// Slot of the warp in the cluster.
    pub warp: usize,
    pub pieces: Vec<Piece>,
    /// Source bytes, once read (`.read` waits).
    pub data: Option<Vec<u8>>,
    pub reduce: Option<(AtomOp, Ty)>,
    /// Barriers to tell, with bytes: rank, address, bytes.
    pub mbars: Vec<(usize, u32, u32)>,
    /// An arrival instead of transaction bytes (cp.async.mbarrier.arrive).
    pub arrives: bool,
    /// Belongs to a bulk group, so its thread waits for it by group.
    pub group: bool,
    /// What its thread knew when it started an operation on global memory.
    pub issued: Option<Arc<Clock>>,
}

impl Ctx<'_> {
    pub fn warp_slot(&self) -> usize {
        let per_block = self.cl.blocks[0].threads.div_ceil(32) as usize;
        self.warp.rank * per_block + self.warp.index
    }

    pub fn bulk(&mut self, b: &Bulk) -> Run<()> {
        let (dst, src) = (self.addresses(&b.dst), self.addresses(&b.src));
        let bytes = self.src32(&b.bytes);
        let coords: Vec<[u32; LANES]> = b.coords.iter().map(|c| self.src32(c)).collect();
        let mbar = b.mbar.as_ref().map(|m| self.addresses(m));
        let multicast = b.multicast.as_ref().map(|m| self.src32(m));
        if self.warp.bad != 0 || b.kind == BulkKind::Prefetch {
            return Ok(());
        }
        for lane in lanes(self.warp.mask) {
            let i = lane as usize;
            let at = (dst[i], src[i]);
            let mut reduce = b.reduce;
            let mut pieces = if b.kind == BulkKind::Copy {
                self.plain_pieces(b, at, bytes[i], lane)?
            } else {
                let mut c = [0i32; MAX_RANK];
                for (n, column) in coords.iter().enumerate() {
                    c[n] = column[i] as i32;
                }
                let (pieces, ty) = self.tensor_pieces(b, at, c, lane)?;
                reduce = reduce.map(|(op, _)| (op, ty));
                pieces
            };
            let total: u32 = pieces.iter().map(|p| p.bytes).sum();
            let mut mbars = Vec::new();
            if let Some(m) = &mbar {
                let space =
                    if b.dst_space == Space::Shared { Space::Shared } else { Space::SharedCluster };
                let (rank, bar) = self.mbar_at(space, m[i], lane)?;
                self.mbar_mut(rank, bar, lane)?;
                mbars.push((rank, bar, total));
            }
            self.count_bulk(&pieces);
            if let Some(masks) = &multicast {
                (pieces, mbars) = self.multicast(&pieces, &mbars, masks[i], lane)?;
            }
            self.start(pieces, mbars, reduce, lane)?;
        }
        self.changed();
        Ok(())
    }

    fn plain_pieces(&self, b: &Bulk, at: (u64, u64), bytes: u32, lane: u32) -> Run<Vec<Piece>> {
        if bytes == 0 || !bytes.is_multiple_of(16) {
            let message = format!("bulk copy of {bytes} bytes; it must be a multiple of 16");
            return stop_lane(Rule::BadOperand, lane, message);
        }
        self.aligned(at.0, 16, lane)?;
        self.aligned(at.1, 16, lane)?;
        let end = |space, address| -> Run<End> {
            match self.resolve(space, address, lane)? {
                Target::Global(a) => {
                    self.global(a, bytes, lane, "bulk copy")?;
                    Ok(End::Global(a))
                }
                Target::Shared(rank, a) => Ok(End::Shared(rank, a)),
                _ => stop_lane(Rule::BadOperand, lane, "bulk copy of local memory"),
            }
        };
        let (dst, src) = (end(b.dst_space, at.0)?, end(b.src_space, at.1)?);
        Ok(vec![Piece { src, dst, bytes }])
    }

    fn tensor_pieces(
        &mut self,
        b: &Bulk,
        at: (u64, u64),
        coords: [i32; MAX_RANK],
        lane: u32,
    ) -> Run<(Vec<Piece>, Ty)> {
        let load = b.kind == BulkKind::TensorLoad;
        let (map_at, shared_at) = if load { (at.1, at.0) } else { (at.0, at.1) };
        let map = self.tensor_map(map_at, lane)?;
        if map.rank != b.coords.len() {
            let message = format!("{} coordinates for a map of rank {}", b.coords.len(), map.rank);
            return stop_lane(Rule::BadOperand, lane, message);
        }
        self.aligned(shared_at, 128, lane)?;
        let space = if load { b.dst_space } else { b.src_space };
        let Target::Shared(rank, address) = self.resolve(space, shared_at, lane)? else {
            return stop_lane(Rule::BadOperand, lane, "the tile of a tensor copy is not shared");
        };
        if let Err(r) = self.cl.blocks[rank].shared.offset(address, map.tile_bytes()) {
            return refused(r, lane, "tile of a tensor copy", address);
        }
        let pieces = tile::pieces(&map, coords, address).into_iter().map(|p| {
            let near = End::Shared(rank, p.shared);
            let far = match p.source {
                Source::Global(a) => End::Global(a),
                Source::OutOfBounds if map.fill_nan => End::Nan(map.element.bytes()),
                Source::OutOfBounds => End::Nothing,
            };
            let (src, dst) = if load { (far, near) } else { (near, far) };
            Piece { src, dst, bytes: p.bytes }
        });
        let ty = match map.element {
            MapType::F16 => Ty::F16,
            MapType::Bf16 => Ty::Bf16,
            MapType::F64 => Ty::F64,
            MapType::F32 | MapType::F32Ftz | MapType::Tf32 | MapType::Tf32Ftz => Ty::F32,
            MapType::S32 => Ty::S32,
            MapType::S64 => Ty::S64,
            MapType::U64 => Ty::U64,
            _ => Ty::U32,
        };
        Ok((pieces.collect(), ty))
    }

    fn tensor_map(&mut self, address: u64, lane: u32) -> Run<TensorMap> {
        self.aligned(address, 64, lane)?;
        let mut bytes = [0u8; MAP_BYTES];
        self.map_order(address, lane)?;
        for (n, part) in bytes.chunks_mut(8).enumerate() {
            let target = self.resolve(Space::Generic, address + 8 * n as u64, lane)?;
            self.read(target, part, lane, Order::Weak)?;
        }
        match TensorMap::decode(&bytes) {
            Ok(map) => Ok(map),
            Err(e) => stop_lane(Rule::BadOperand, lane, format!("map at {address:#x}: {e}")),
        }
    }

    #[allow(clippy::type_complexity)]
    fn multicast(
        &self,
        pieces: &[Piece],
        mbars: &[(usize, u32, u32)],
        mask: u32,
        lane: u32,
    ) -> Run<(Vec<Piece>, Vec<(usize, u32, u32)>)> {
        let blocks = self.cl.blocks.len() as u32;
        if mask == 0 || mask >> blocks != 0 {
            let message = format!("multicast mask {mask:#x} in a cluster of {blocks}");
            return stop_lane(Rule::BadOperand, lane, message);
        }
        let (mut all, mut bars) = (Vec::new(), Vec::new());
        for rank in lanes(mask) {
            for p in pieces {
                let dst = match p.dst {
                    End::Shared(_, at) => End::Shared(rank as usize, at),
                    other => other,
                };
                all.push(Piece { dst, ..*p });
            }
            bars.extend(mbars.iter().map(|(_, at, bytes)| (rank as usize, *at, *bytes)));
        }
        Ok((all, bars))
    }

    /// Claims destinations, checks sources, and puts the operation on the list.
    fn start(
        &mut self,
        pieces: Vec<Piece>,
        mbars: Vec<(usize, u32, u32)>,
        reduce: Option<(AtomOp, Ty)>,
        lane: u32,
    ) -> Run<()> {
        for (rank, at, bytes) in destinations(&pieces) {
            self.claim(rank, at, bytes, lane)?;
        }
        for p in &pieces {
            if let End::Shared(rank, at) = p.src {
                self.lend(rank, at, p.bytes, lane)?;
            }
        }
        self.cl.next_op += 1;
        let id = self.cl.next_op;
        let group = mbars.is_empty();
        if group {
            self.warp.lane_bulk(lane).open.push(id);
        }
        let (pc, warp) = (self.pc, self.warp_slot());
        let issued = self.issue(&pieces, lane);
        let op = AsyncOp {
            id,
            pc,
            lane,
            warp,
            pieces,
            data: None,
            reduce,
            mbars,
            arrives: false,
            group,
            issued,
        };
        self.cl.async_ops.push(op);
        Ok(())
    }

    /// Marks shared memory as read by an asynchronous operation that a lane starts.
    pub fn lend(&mut self, rank: usize, address: u32, bytes: u32, lane: u32) -> Run<()> {
        let (who, clock) = (self.access(lane, false), self.warp.clock(lane));
        let checks = self.env.checks;
        let shared = &mut self.cl.blocks[rank].shared;
        let at = match shared.offset(address, bytes) {
            Ok(at) => at,
            Err(r) => return refused(r, lane, "asynchronous read", address),
        };
        if checks.uninitialised && !shared.is_written(at, bytes as usize) {
            // In flight is the better name where a copy is still to come.
            let pending = shared.expected(at, bytes);
            let refusal = pending.err().map_or(Refusal::Unwritten, Refusal::Conflict);
            return refused(refusal, lane, "asynchronous read", address);
        }
        match shared.lend(at, bytes, &who, clock, checks.races) {
            Ok(()) => Ok(()),
            Err(c) => refused(Refusal::Conflict(c), lane, "read", address),
        }
    }

    /// Ends the loan: the read happened before the lane's present.
    pub fn give_back(&mut self, rank: usize, address: u32, bytes: u32, lane: u32, pc: u32) {
        let who = Access { pc, ..self.access(lane, false) };
        let clock = self.warp.clock(lane);
        let shared = &mut self.cl.blocks[rank].shared;
        if let Ok(at) = shared.offset(address, bytes) {
            shared.give_back(at, bytes, &who, clock);
        }
    }

    /// The executing lanes learn what an asynchronous engine did up to an epoch.
    pub fn learn_engine(&mut self, engine: u32, epoch: u32) {
        let mut known = self.warp.clock(self.warp.mask.trailing_zeros() % 32).empty();
        known.learn(engine as usize, epoch);
        self.warp.acquire(self.warp.mask, &known);
    }

    pub fn bulk_commit(&mut self) {
        for lane in lanes(self.warp.mask) {
            let bulk = self.warp.lane_bulk(lane);
            let open = std::mem::take(&mut bulk.open);
            bulk.groups.push_back(open);
        }
    }

    pub fn bulk_wait(&mut self, most: u32, read: bool) -> Run<()> {
        for lane in lanes(self.warp.mask) {
            let groups = &self.warp.lane_bulk(lane).groups;
            let due = groups.len().saturating_sub(most as usize);
            let ids: Vec<u64> = groups.iter().take(due).flatten().copied().collect();
            for id in ids {
                let Some(n) = self.cl.async_ops.iter().position(|op| op.id == id) else { continue };
                let mut op = self.cl.async_ops[n].clone();
                self.take_data(&mut op)?;
                if read {
                    self.cl.async_ops[n] = op;
                } else {
                    self.cl.async_ops.remove(n);
                    self.deliver(&op)?;
                    self.learn_engine(self.engine(self.warp.rank), self.cl.engine_epoch);
                }
            }
            if !read {
                self.warp.lane_bulk(lane).groups.drain(..due);
            }
        }
        Ok(())
    }

    /// Reads the source bytes of an operation.
    pub fn take_data(&mut self, op: &mut AsyncOp) -> Run<()> {
        if op.data.is_some() {
            return Ok(());
        }
        let mut data = Vec::new();
        for p in &op.pieces {
            self.engine_reads(op, p)?;
            let start = data.len();
            data.resize(start + p.bytes as usize, 0);
            match p.src {
                End::Nothing => {}
                End::Nan(width) => {
                    // The canonical NaN of each format: all ones but the sign.
                    for element in data[start..].chunks_mut(width as usize) {
                        element.fill(0xff);
                        if let Some(top) = element.last_mut() {
                            *top = 0x7f;
                        }
                    }
                }
                End::Global(a) => {
                    let (allocation, at) = self.global(a, p.bytes, op.lane, "asynchronous read")?;
                    allocation.load_bytes(at, &mut data[start..]);
                    let written = allocation.range_written(at, p.bytes.into());
                    if self.env.checks.uninitialised && !written {
                        let message =
                            format!("asynchronous read at {a:#x}, which nothing has written");
                        return Err(late(Rule::Uninitialised, message, op, self));
                    }
                }
                End::Shared(rank, a) => {
                    let shared = &self.cl.blocks[rank].shared;
                    if let Ok(at) = shared.offset(a, p.bytes) {
                        data[start..].copy_from_slice(shared.slice(at, p.bytes as usize));
                    }
                    self.give_back(rank, a, p.bytes, op.lane, op.pc);
                }
            }
        }
        op.data = Some(data);
        Ok(())
    }

    /// Writes the bytes of an operation and tells its barriers.
    pub fn deliver(&mut self, op: &AsyncOp) -> Run<()> {
        self.cl.engine_epoch += 1;
        let epoch = self.cl.engine_epoch;
        let data = op.data.as_deref().unwrap_or(&[]);
        let mut from = 0;
        for p in &op.pieces {
            let part = &data[from..from + p.bytes as usize];
            from += p.bytes as usize;
            match p.dst {
                End::Nothing | End::Nan(_) => {}
                End::Global(a) => self.deliver_global(op, a, part)?,
                End::Shared(rank, a) => self.deliver_shared(op, rank, a, part, epoch),
            }
        }
        for (rank, at, bytes) in &op.mbars {
            let engine = self.engine(*rank) as usize;
            let Some(bar) = self.cl.blocks[*rank].shared.mbars.get_mut(at) else {
                let message = format!("the mbarrier at {at:#x} is gone before a copy completed");
                return Err(late(Rule::BarrierMisuse, message, op, self));
            };
            bar.gathering.learn(engine, epoch);
            bar.tx -= i64::from(*bytes);
            bar.settle();
        }
        self.cl.version += 1;
        Ok(())
    }

    fn deliver_global(&mut self, op: &AsyncOp, a: u64, part: &[u8]) -> Run<()> {
        self.engine_writes(op, (a, part.len() as u32))?;
        let (allocation, at) = self.global(a, part.len() as u32, op.lane, "asynchronous write")?;
        let Some((reduce, ty)) = op.reduce else {
            allocation.store_bytes(at, part);
            return Ok(());
        };
        let mut merged = vec![0; part.len()];
        allocation.load_bytes(at, &mut merged);
        reduce_bytes(reduce, ty, &mut merged, part);
        allocation.store_bytes(at, &merged);
        Ok(())
    }

    fn deliver_shared(&mut self, op: &AsyncOp, rank: usize, a: u32, part: &[u8], epoch: u32) {
        let actor = self.engine(rank);
        let (who, clock) = (Access::engine(actor, epoch, op.pc), self.warp.clock(op.lane).clone());
        let shared = &mut self.cl.blocks[rank].shared;
        let Ok(at) = shared.offset(a, part.len() as u32) else { return };
        shared.put(at, part);
        shared.land(at, part.len() as u32, &who, &clock);
    }
}

/// A fault of an operation at the time when it is performed.
fn late(rule: Rule, message: String, op: &AsyncOp, c: &Ctx<'_>) -> Box<Stop> {
    let actor = c.warp.base + op.lane;
    let others = vec![Other::near(actor, op.pc)];
    Box::new(Stop { rule, message, lane: Some(op.lane), others })
}
