//! Asynchronous copies: cp.async, cp.async.bulk, cp.async.bulk.tensor and their groups.

use super::Lower;
use super::form::Form;
use super::memory::real_space;
use super::operand::arity;
use crate::error::LoadError;
use crate::isa::{Addr, AtomOp, Bulk, BulkKind, Op, Space, Src, Ty};
use crate::parse::ast::RawOperand;

type Ops<'a> = [RawOperand<'a>];
type Decoded = Result<Option<Op>, LoadError>;

const NOWHERE: Addr = Addr { base: Src::Imm(0), offset: 0 };

impl<'m, 'a> Lower<'m, 'a> {
    pub fn copies(&mut self, form: &mut Form<'a>, ops: &'m Ops<'a>) -> Decoded {
        let reduce = form.take("reduce");
        if !form.take("async") {
            return Ok(None);
        }
        if form.take("bulk") {
            self.kernel.uses_async_proxy = true;
            return self.bulk(form, ops, reduce);
        }
        if form.take("commit_group") {
            return Ok(Some(Op::CpCommit));
        }
        if form.take("wait_group") {
            arity(form, ops, 1, 1)?;
            let most = self.constant(form, &ops[0])?.min(u64::from(u32::MAX)) as u32;
            return Ok(Some(Op::CpWait { most: Some(most) }));
        }
        if form.take("wait_all") {
            return Ok(Some(Op::CpWait { most: None }));
        }
        if form.take("mbarrier") {
            form.take("arrive");
            let noinc = form.take("noinc");
            let space = form.space();
            form.ty()?;
            arity(form, ops, 1, 1)?;
            let (addr, var) = self.addr(form, &ops[0])?;
            return Ok(Some(Op::CpMbarArrive { space: real_space(space, var), addr, noinc }));
        }
        self.cp_async(form, ops)
    }

    fn cp_async(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let through_l1 = form.take("ca");
        let cg = form.take("cg");
        let policy = form.cache_hints();
        let spaces = (form.take("shared") || form.take("shared::cta")) && form.take("global");
        if through_l1 == cg || !spaces {
            return Ok(None);
        }
        arity(form, ops, 3, 4 + usize::from(policy))?;
        let (dst, _) = self.addr(form, &ops[0])?;
        let (src, _) = self.addr(form, &ops[1])?;
        let bytes = self.constant(form, &ops[2])?;
        if !matches!((bytes, cg), (4 | 8, false) | (16, _)) {
            return Err(form.unknown("the size must be 4, 8 or 16, and 16 with .cg"));
        }
        let last = if policy { ops.len() - 1 } else { ops.len() };
        let (mut src_bytes, mut ignore) = (None, None);
        if last == 4 {
            match &ops[3] {
                RawOperand::Not(_) => ignore = Some(self.psrc(form, &ops[3])?),
                RawOperand::Name(name, 0)
                    if self.reg_named(name, form.line)?.kind == crate::isa::RegKind::Pred =>
                {
                    ignore = Some(self.psrc(form, &ops[3])?);
                }
                op => src_bytes = Some(self.src(form, op, Ty::U32)?),
            }
        }
        Ok(Some(Op::CpAsync { dst, src, bytes: bytes as u32, src_bytes, ignore }))
    }

    fn bulk(&mut self, form: &mut Form<'a>, ops: &'m Ops<'a>, reduce: bool) -> Decoded {
        if form.take("commit_group") {
            return Ok(Some(Op::BulkCommit));
        }
        if form.take("wait_group") {
            let read = form.take("read");
            arity(form, ops, 1, 1)?;
            let most = self.constant(form, &ops[0])?.min(u64::from(u32::MAX)) as u32;
            return Ok(Some(Op::BulkWait { most, read }));
        }
        let mut bulk = Bulk {
            kind: BulkKind::Copy,
            dst: NOWHERE,
            src: NOWHERE,
            dst_space: Space::Global,
            src_space: Space::Global,
            bytes: Src::Imm(0),
            mbar: None,
            multicast: None,
            reduce: None,
            coords: Box::new([]),
            im2col: Box::new([]),
        };
        let prefetch = form.take("prefetch");
        let tensor = form.take("tensor");
        bulk_spaces(form, &mut bulk, prefetch)?;
        if reduce {
            let op = super::data::atom_op(form)?;
            let noftz = form.take("noftz");
            let ty = if tensor { Ty::B32 } else { form.ty()? };
            let _ = noftz;
            bulk.reduce = Some((op, ty));
            reduction_exists(form, op, ty, tensor)?;
        }
        let completes = form.take("mbarrier::complete_tx::bytes");
        let group = form.take("bulk_group");
        let multicast = form.take("multicast::cluster");
        let policy = form.cache_hints();
        if !prefetch && completes == group {
            return Err(form.unknown("a completion mechanism is missing"));
        }
        if tensor {
            self.tensor_copy(form, ops, &mut bulk, prefetch)?;
        } else {
            self.plain_copy(form, ops, &mut bulk, prefetch)?;
        }
        self.bulk_tail(form, ops, &mut bulk, (completes, multicast, policy, prefetch))?;
        Ok(Some(Op::Bulk(Box::new(bulk))))
    }

    fn plain_copy(
        &mut self,
        form: &mut Form<'a>,
        ops: &Ops<'a>,
        bulk: &mut Bulk,
        prefetch: bool,
    ) -> Result<(), LoadError> {
        arity(form, ops, 2, 7)?;
        if prefetch {
            bulk.kind = BulkKind::Prefetch;
            bulk.src = self.addr(form, &ops[0])?.0;
            bulk.bytes = self.src(form, &ops[1], Ty::U32)?;
            return Ok(());
        }
        arity(form, ops, 3, 7)?;
        bulk.dst = self.addr(form, &ops[0])?.0;
        bulk.src = self.addr(form, &ops[1])?.0;
        bulk.bytes = self.src(form, &ops[2], Ty::U32)?;
        Ok(())
    }

    fn tensor_copy(
        &mut self,
        form: &mut Form<'a>,
        ops: &Ops<'a>,
        bulk: &mut Bulk,
        prefetch: bool,
    ) -> Result<(), LoadError> {
        let dims = form.need(
            "a number of dimensions",
            &[("1d", 1), ("2d", 2), ("3d", 3), ("4d", 4), ("5d", 5)],
        )?;
        form.take("tile");
        if form.take("im2col") || form.take("im2col_no_offs") {
            return Err(form.unknown("im2col copies are not supported"));
        }
        let load = bulk.dst_space != Space::Global;
        let map_at = usize::from(load && !prefetch);
        arity(form, ops, map_at + 1, 7)?;
        let (map, coords) = self.map_operand(form, &ops[map_at])?;
        if coords.len() != dims {
            return Err(form.unknown("the number of coordinates differs from the dimensions"));
        }
        bulk.coords = coords;
        bulk.kind = match (prefetch, load) {
            (true, _) => BulkKind::Prefetch,
            (false, true) => BulkKind::TensorLoad,
            (false, false) => BulkKind::TensorStore,
        };
        if load {
            bulk.src = map;
            if !prefetch {
                bulk.dst = self.addr(form, &ops[0])?.0;
            }
        } else {
            bulk.dst = map;
            arity(form, ops, 2, 7)?;
            bulk.src = self.addr(form, &ops[1])?.0;
        }
        Ok(())
    }

    /// `[map, {c0, c1}]`.
    fn map_operand(
        &mut self,
        form: &Form<'a>,
        op: &RawOperand<'a>,
    ) -> Result<(Addr, Box<[Src]>), LoadError> {
        let RawOperand::Address { base, offset, rest } = op else {
            return Err(form.unknown("a tensor map with coordinates is missing"));
        };
        let (mut addr, var) = self.addr_parts(form, base, *offset)?;
        if var == Some(Space::Param)
            && let Src::Imm(at) = addr.base
        {
            // A map named by its parameter: the generic address of that parameter.
            addr.base = Src::Imm(at.wrapping_add(crate::memory::PARAM_WINDOW));
        }
        let coords = match rest.as_slice() {
            [RawOperand::List(items)] => {
                items.iter().map(|c| self.src(form, c, Ty::S32)).collect::<Result<_, _>>()?
            }
            [one] => Box::new([self.src(form, one, Ty::S32)?]) as Box<[Src]>,
            _ => return Err(form.unknown("a tensor map with coordinates is missing")),
        };
        Ok((addr, coords))
    }

    /// What follows the copied operands: mbarrier, multicast mask, cache policy.
    fn bulk_tail(
        &mut self,
        form: &mut Form<'a>,
        ops: &Ops<'a>,
        bulk: &mut Bulk,
        (completes, multicast, policy, prefetch): (bool, bool, bool, bool),
    ) -> Result<(), LoadError> {
        let mut at = match (bulk.kind, prefetch) {
            (BulkKind::Copy, _) => 3,
            (_, true) => ops.len().min(if bulk.coords.is_empty() { 2 } else { 1 }),
            _ => 2,
        };
        if completes {
            arity(form, ops, at + 1, 7)?;
            bulk.mbar = Some(self.addr(form, &ops[at])?.0);
            at += 1;
        }
        if multicast {
            arity(form, ops, at + 1, 7)?;
            bulk.multicast = Some(self.src(form, &ops[at], Ty::U16)?);
            at += 1;
        }
        if policy {
            at += 1;
        }
        arity(form, ops, at, at)
    }
}

fn bulk_spaces(form: &mut Form<'_>, bulk: &mut Bulk, prefetch: bool) -> Result<(), LoadError> {
    let spaces = [
        ("global", Space::Global),
        ("shared::cluster", Space::SharedCluster),
        ("shared::cta", Space::Shared),
    ];
    if prefetch {
        form.take("L2");
        form.take("global");
        bulk.dst_space = Space::Shared;
        return Ok(());
    }
    let first = form.first_of(&spaces);
    let second = form.first_of(&spaces);
    match (first, second) {
        (Some(dst), Some(src)) if dst != src => {
            bulk.dst_space = dst;
            bulk.src_space = src;
            Ok(())
        }
        _ => Err(form.unknown("source and destination spaces are missing")),
    }
}

fn reduction_exists(form: &Form<'_>, op: AtomOp, ty: Ty, tensor: bool) -> Result<(), LoadError> {
    let exists = match op {
        AtomOp::Exch | AtomOp::Cas => false,
        _ if tensor => true,
        AtomOp::And | AtomOp::Or | AtomOp::Xor => matches!(ty, Ty::B32 | Ty::B64),
        _ => true,
    };
    if exists { Ok(()) } else { Err(form.unknown("no such reducing copy")) }
}
