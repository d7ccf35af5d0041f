//! Which registers an instruction reads and writes, for analyses of a whole kernel.

use super::{Addr, BarKind, Op, Reg, Src, WgmmaA};

impl Op {
    /// Calls `f` with every data register that the instruction reads (predicates left out).
    pub fn reads(&self, f: &mut dyn FnMut(Reg)) {
        let mut src = |s: &Src| {
            if let Src::Reg(reg) = s {
                f(*reg);
            }
        };
        match self {
            Op::Mov { a, .. }
            | Op::Unpack { a, .. }
            | Op::Int1 { a, .. }
            | Op::F1 { a, .. }
            | Op::TestP { a, .. }
            | Op::Cvta { a, .. }
            | Op::IsSpace { a, .. }
            | Op::GetCtaRank { a, .. }
            | Op::MovMatrix { a, .. } => src(a),
            Op::Pack { parts, .. } => parts.iter().for_each(src),
            Op::Int2 { a, b, .. }
            | Op::F2 { a, b, .. }
            | Op::SelP { a, b, .. }
            | Op::Cvt { a, b, .. }
            | Op::Mapa { a, rank: b, .. }
            | Op::Match { a, mask: b, .. }
            | Op::Redux { a, mask: b, .. } => [a, b].into_iter().for_each(src),
            Op::Int3 { a, b, c, .. }
            | Op::Fma { a, b, c, .. }
            | Op::F3 { a, b, c, .. }
            | Op::Slct { a, b, c, .. }
            | Op::Prmt { a, b, c, .. }
            | Op::Lop3 { a, b, c, .. }
            | Op::Carry { a, b, c, .. }
            | Op::Dot { a, b, c, .. } => [a, b, c].into_iter().for_each(src),
            Op::Bfi { a, b, pos, len, .. } => [a, b, pos, len].into_iter().for_each(src),
            Op::SetP { compare, .. } | Op::Set { compare, .. } => {
                [&compare.a, &compare.b].into_iter().for_each(src)
            }
            Op::Shfl { a, b, c, mask, .. } => [a, b, c, mask].into_iter().for_each(src),
            Op::Vote { mask: a, .. }
            | Op::Elect { mask: a, .. }
            | Op::WarpSync { mask: a }
            | Op::Brx { index: a, .. }
            | Op::Nanosleep { ns: a } => src(a),
            _ => self.memory_reads(&mut src),
        }
    }

    fn memory_reads(&self, src: &mut dyn FnMut(&Src)) {
        match self {
            Op::Ld { addr, .. }
            | Op::Prefetch { addr, .. }
            | Op::CpMbarArrive { addr, .. }
            | Op::LdMatrix { addr, .. } => src(&addr.base),
            Op::St { a, addr, .. } | Op::StMatrix { a, addr, .. } => {
                a.iter().for_each(&mut *src);
                src(&addr.base);
            }
            Op::Atom { a, addr, b, .. } => {
                a.iter().for_each(&mut *src);
                src(&addr.base);
                src(b);
            }
            Op::CpAsync { dst, src: from, src_bytes, .. } => {
                src(&dst.base);
                src(&from.base);
                src_bytes.iter().for_each(src);
            }
            Op::Bar(bar) => {
                src(&bar.id);
                bar.count.iter().for_each(src);
            }
            Op::Mma(m) => m.a.iter().chain(m.b.iter()).chain(m.c.iter()).for_each(src),
            Op::Mbar(m) => [&m.addr.base, &m.a, &m.b].into_iter().for_each(src),
            Op::Bulk(b) => {
                let ends = [Some(&b.dst), Some(&b.src), b.mbar.as_ref()];
                let ends = ends.into_iter().flatten().map(|a: &Addr| &a.base);
                ends.chain([&b.bytes]).chain(&b.multicast).chain(b.coords.iter()).for_each(src);
            }
            Op::Wgmma(w) => {
                match &w.a {
                    WgmmaA::Shared(d) => src(d),
                    WgmmaA::Regs(regs) => regs.iter().for_each(&mut *src),
                }
                src(&w.b);
                w.d.iter().for_each(|d| src(&Src::Reg(*d)));
            }
            _ => {}
        }
    }

    /// Calls `f` with every register that the instruction writes, the sink and predicates too.
    pub fn writes(&self, f: &mut dyn FnMut(Reg)) {
        match self {
            Op::Unpack { parts, .. } => parts.iter().copied().for_each(f),
            Op::Ld { d, .. } | Op::Atom { d, .. } | Op::LdMatrix { d, .. } => {
                d.iter().copied().for_each(f)
            }
            Op::Mma(m) => m.d.iter().copied().for_each(f),
            Op::Wgmma(w) => w.d.iter().copied().for_each(f),
            Op::Mbar(m) => f(m.d),
            Op::SetP { d, q: p, .. }
            | Op::Shfl { d, p, .. }
            | Op::Match { d, p, .. }
            | Op::Elect { d, p, .. } => {
                f(*d);
                f(*p);
            }
            Op::Bar(bar) => match bar.kind {
                BarKind::Popc { d, .. } | BarKind::And { d, .. } | BarKind::Or { d, .. } => f(d),
                BarKind::Sync | BarKind::Arrive => {}
            },
            Op::Mov { d, .. }
            | Op::MovPred { d, .. }
            | Op::Pack { d, .. }
            | Op::Int1 { d, .. }
            | Op::Int2 { d, .. }
            | Op::Int3 { d, .. }
            | Op::Bfi { d, .. }
            | Op::Lop3 { d, .. }
            | Op::Prmt { d, .. }
            | Op::Carry { d, .. }
            | Op::Dot { d, .. }
            | Op::Pred2 { d, .. }
            | Op::F1 { d, .. }
            | Op::F2 { d, .. }
            | Op::Fma { d, .. }
            | Op::F3 { d, .. }
            | Op::TestP { d, .. }
            | Op::Set { d, .. }
            | Op::SelP { d, .. }
            | Op::Slct { d, .. }
            | Op::Cvt { d, .. }
            | Op::Vote { d, .. }
            | Op::Redux { d, .. }
            | Op::ActiveMask { d }
            | Op::Cvta { d, .. }
            | Op::IsSpace { d, .. }
            | Op::Mapa { d, .. }
            | Op::GetCtaRank { d, .. }
            | Op::MovMatrix { d, .. } => f(*d),
            _ => {}
        }
    }
}
