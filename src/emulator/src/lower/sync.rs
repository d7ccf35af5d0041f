//! Barriers, fences, mbarriers and the small instructions around them.

use super::Lower;
use super::form::Form;
use super::memory::real_space;
use super::operand::arity;
use crate::error::LoadError;
use crate::isa::{
    BarKind, Barrier, FenceKind, Mbar, MbarKind, Op, Order, Reg, RegKind, Scope, Space, Src, Ty,
};
use crate::parse::ast::RawOperand;

type Ops<'a> = [RawOperand<'a>];
type Decoded = Result<Option<Op>, LoadError>;

impl<'m, 'a> Lower<'m, 'a> {
    pub fn sync(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        match form.base {
            "bar" | "barrier" => self.barrier(form, ops),
            "membar" | "fence" => self.fence(form),
            "mbarrier" => self.mbarrier(form, ops),
            "griddepcontrol" => {
                let wait =
                    form.need("an action", &[("launch_dependents", false), ("wait", true)])?;
                Ok(Some(Op::GridDependency { wait }))
            }
            "setmaxnreg" => {
                let increase = form.need("inc or dec", &[("inc", true), ("dec", false)])?;
                form.need("sync", &[("sync", ())])?;
                form.need("aligned", &[("aligned", ())])?;
                form.ty()?;
                arity(form, ops, 1, 1)?;
                let count = self.constant(form, &ops[0])?;
                if !(24..=256).contains(&count) || count % 8 != 0 {
                    return Err(form.unknown("the count must be 24 to 256 in steps of 8"));
                }
                Ok(Some(Op::SetMaxNReg { increase, count: count as u32 }))
            }
            "createpolicy" => self.policy(form, ops),
            _ => Ok(Some(Op::Hint)),
        }
    }

    /// A cache policy is an opaque number that only hints carry.
    fn policy(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        while form.pick(|_| Some(())).is_some() {}
        let Some(d) = ops.first() else { return Ok(None) };
        Ok(Some(Op::Mov { d: self.data_reg(form, d)?, a: Src::Imm(0) }))
    }

    fn barrier(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        if form.take("warp") {
            form.need("sync", &[("sync", ())])?;
            arity(form, ops, 1, 1)?;
            return Ok(Some(Op::WarpSync { mask: self.src(form, &ops[0], Ty::B32)? }));
        }
        if form.take("cluster") {
            return self.cluster_barrier(form);
        }
        form.take("cta");
        let aligned = form.take("aligned") || form.base == "bar";
        let (id_at, kind) = if form.take("sync") {
            (0, BarKind::Sync)
        } else if form.take("arrive") {
            (0, BarKind::Arrive)
        } else if form.take("red") {
            (1, self.barrier_reduction(form, ops)?)
        } else {
            return Ok(None);
        };
        let extra = usize::from(id_at == 1) * 2;
        arity(form, ops, 1 + extra, 2 + extra)?;
        let id = self.src(form, &ops[id_at], Ty::U32)?;
        let count = match ops.len() - extra {
            2 => Some(self.src(form, &ops[id_at + 1], Ty::U32)?),
            _ => None,
        };
        if kind == BarKind::Arrive && count.is_none() {
            return Err(form.unknown("arrive needs a thread count"));
        }
        Ok(Some(Op::Bar(Barrier { id, count, aligned, kind })))
    }

    fn barrier_reduction(
        &mut self,
        form: &mut Form<'a>,
        ops: &Ops<'a>,
    ) -> Result<BarKind, LoadError> {
        let which = form.need("an operation", &[("popc", 0), ("and", 1), ("or", 2)])?;
        form.ty()?;
        arity(form, ops, 3, 4)?;
        let p = self.psrc(form, &ops[ops.len() - 1])?;
        let d = self.reg(form, &ops[0])?;
        Ok(match which {
            0 => BarKind::Popc { d, p },
            1 => BarKind::And { d, p },
            _ => BarKind::Or { d, p },
        })
    }

    fn cluster_barrier(&mut self, form: &mut Form<'a>) -> Decoded {
        let arrive = form.take("arrive");
        let wait = form.take("wait");
        if arrive == wait {
            return Ok(None);
        }
        let aligned = form.take("aligned");
        let relaxed = form.order() == Order::Relaxed;
        Ok(Some(Op::ClusterBar { arrive, wait, relaxed, aligned }))
    }

    fn fence(&mut self, form: &mut Form<'a>) -> Decoded {
        if form.take("mbarrier_init") {
            form.order();
            form.scope();
            return Ok(Some(Op::Fence { kind: FenceKind::MbarrierInit }));
        }
        if form.take("proxy") {
            return self.proxy_fence(form);
        }
        form.order();
        form.take("sc");
        for restriction in ["sync_restrict::shared::cta", "sync_restrict::shared::cluster"] {
            form.take(restriction);
        }
        let scope = form.scope().unwrap_or(Scope::Device);
        Ok(Some(Op::Fence { kind: FenceKind::Memory(scope) }))
    }

    fn proxy_fence(&mut self, form: &mut Form<'a>) -> Decoded {
        let kind = if form.take("async") {
            FenceKind::ProxyAsync { shared: true, global: true }
        } else if ["async::generic", "alias"].iter().any(|p| form.take(p)) {
            FenceKind::Other
        } else {
            form.need("a proxy", &[("tensormap::generic", FenceKind::TensorMap)])?
        };
        form.order();
        form.scope();
        let shared = ["shared::cta", "shared::cluster", "shared"].map(|s| form.take(s));
        let (shared, global) = (shared.contains(&true), form.take("global"));
        // Without a space the fence is for all of them.
        let kind = match kind {
            FenceKind::ProxyAsync { .. } if shared || global => {
                FenceKind::ProxyAsync { shared, global }
            }
            kind => kind,
        };
        for word in ["sync_restrict::shared::cta", "sync_restrict::shared::cluster"] {
            form.take(word);
        }
        Ok(Some(Op::Fence { kind }))
    }

    fn mbarrier(&mut self, form: &mut Form<'a>, ops: &Ops<'a>) -> Decoded {
        let kind = mbar_kind(form)?;
        let order = form.order();
        form.scope();
        let space = form.space();
        if kind != MbarKind::PendingCount && form.ty()? != Ty::B64 {
            if !matches!(kind, MbarKind::ExpectTx | MbarKind::CompleteTx) {
                return Ok(None);
            }
        } else if kind == MbarKind::PendingCount {
            form.ty()?;
        }
        let releases = order != Order::Relaxed;
        let mut mbar = Mbar {
            kind,
            space,
            addr: crate::isa::Addr { base: Src::Imm(0), offset: 0 },
            a: Src::Imm(1),
            b: Src::Imm(0),
            d: Reg::SINK,
            releases,
        };
        self.mbar_operands(form, ops, &mut mbar)?;
        Ok(Some(Op::Mbar(Box::new(mbar))))
    }

    fn mbar_operands(
        &mut self,
        form: &mut Form<'a>,
        ops: &Ops<'a>,
        mbar: &mut Mbar,
    ) -> Result<(), LoadError> {
        let (at, least, most) = match mbar.kind {
            MbarKind::Inval => (0, 1, 1),
            MbarKind::Init | MbarKind::ExpectTx | MbarKind::CompleteTx => (0, 2, 2),
            MbarKind::Arrive { expect_tx: true, .. } => (1, 3, 3),
            MbarKind::Arrive { .. } => (1, 2, 3),
            MbarKind::Test { .. } => (1, 3, 4),
            MbarKind::PendingCount => (1, 2, 2),
        };
        arity(form, ops, least, most)?;
        if at == 1 {
            mbar.d = self.reg(form, &ops[0])?;
            let truth = matches!(mbar.kind, MbarKind::Test { .. });
            let pred = matches!(mbar.d.kind, RegKind::Pred);
            if mbar.d.kind != RegKind::Sink && truth != pred {
                return Err(form.unknown("the result has another type"));
            }
        }
        if mbar.kind == MbarKind::PendingCount {
            mbar.a = self.src(form, &ops[1], Ty::B64)?;
            return Ok(());
        }
        let (addr, var) = self.addr(form, &ops[at])?;
        mbar.addr = addr;
        mbar.space = match real_space(mbar.space, var) {
            Space::Generic => Space::Generic,
            space => space,
        };
        if let Some(value) = ops.get(at + 1) {
            let token = matches!(mbar.kind, MbarKind::Test { parity: false, .. });
            mbar.a = self.src(form, value, if token { Ty::B64 } else { Ty::U32 })?;
        }
        Ok(())
    }
}

fn mbar_kind(form: &mut Form<'_>) -> Result<MbarKind, LoadError> {
    let simple = form.one_of(&[
        ("init", MbarKind::Init),
        ("inval", MbarKind::Inval),
        ("pending_count", MbarKind::PendingCount),
        ("complete_tx", MbarKind::CompleteTx),
    ]);
    if let Some(kind) = simple {
        return Ok(kind);
    }
    if form.take("test_wait") {
        return Ok(MbarKind::Test { parity: form.take("parity"), blocking: false });
    }
    if form.take("try_wait") {
        return Ok(MbarKind::Test { parity: form.take("parity"), blocking: true });
    }
    let drop = form.take("arrive_drop");
    if drop || form.take("arrive") {
        let expect_tx = form.take("expect_tx");
        return Ok(MbarKind::Arrive { expect_tx, drop, no_complete: form.take("noComplete") });
    }
    if form.take("expect_tx") {
        return Ok(MbarKind::ExpectTx);
    }
    Err(form.unknown("the mbarrier operation is not known"))
}
