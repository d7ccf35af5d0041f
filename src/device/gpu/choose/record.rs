//! What was chosen, for a person to read: each kind of product and of attention in a plan, and the
//! kernel that serves it at each number of rows.

use std::fmt;

use super::attention::Heads;
use super::gemm::{Family, Product, pick, variants};
use super::{Card, Half};
use crate::device::gpu::layout::Layout;
use crate::device::gpu::ops::fuse::{Group, groups};
use crate::error::Result;
use crate::model::plan::{Op, Plan};

/// The kernels that one op, alike in all layers, is served by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The first op of its kind.
    pub scope: String,
    /// Columns and inner size of a product, heads of attention.
    pub size: String,
    /// Fewest rows (powers of two are tried) from which each kernel serves, fewest first.
    pub kernels: Vec<(usize, String)>,
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:", self.scope, self.size)?;
        for (rows, kernel) in &self.kernels {
            let comma = if *rows == self.kernels[0].0 { "" } else { "," };
            write!(f, "{comma} from {rows} {kernel}")?;
        }
        Ok(())
    }
}

/// The choices for a plan, in steps of up to `rows` rows; ops of one shape once.
///
/// # Errors
/// Names the op for which no kernel fits.
pub fn record(
    plan: &Plan,
    layout: &Layout,
    card: &Card,
    half: Half,
    rows: usize,
) -> Result<Vec<Chosen>> {
    let mut all: Vec<Chosen> = Vec::new();
    for (first, group) in groups(plan) {
        let planned = &plan.ops[first];
        let found = match &planned.op {
            Op::Linear { matrix, .. } => {
                let m = &plan.matrices[*matrix];
                let gated = group == Group::LinearGated;
                let n = if gated { m.rows / 2 } else { m.rows };
                let packing = layout.forms[*matrix].packed;
                let family = packing.map_or(Family::Plain, Family::Packed);
                let product = Product { half, m: 1, n, k: m.cols, gated };
                vec![product_of(&planned.scope, family, product, card, rows)]
            }
            Op::Moe { router, experts, intermediate, top_k, .. } => {
                let m = &plan.matrices[*router];
                let p = |n, k, gated| Product { half, m: 1, n, k, gated };
                let named = |part: &str| format!("{}.{part}", planned.scope);
                let family = Family::Grouped(experts.len());
                let (inner, hidden) = (*intermediate, m.cols);
                vec![
                    product_of(&named("gate"), Family::Plain, p(m.rows, hidden, false), card, rows),
                    product_of(&named("up"), family, p(inner, hidden, true), card, rows * top_k),
                    product_of(&named("down"), family, p(hidden, inner, false), card, rows * top_k),
                ]
            }
            Op::Attention { heads, kv_heads, head_dim, .. } => {
                let heads = Heads { half, heads: *heads, kv_heads: *kv_heads, head_dim: *head_dim };
                vec![attention_of(&planned.scope, heads)]
            }
            _ => Vec::new(),
        };
        for chosen in found {
            let chosen = chosen.map_err(|e| e.context(&planned.scope))?;
            if !all.iter().any(|c| (&c.size, &c.kernels) == (&chosen.size, &chosen.kernels)) {
                all.push(chosen);
            }
        }
    }
    Ok(all)
}

fn product_of(
    scope: &str,
    family: Family,
    product: Product,
    card: &Card,
    rows: usize,
) -> Result<Chosen> {
    let all = variants(family, product.half, product.gated, card)?;
    let mut kernels: Vec<(usize, String)> = Vec::new();
    let tried =
        std::iter::successors(Some(1usize), |m| m.checked_mul(2)).take_while(|m| *m <= rows);
    for m in tried {
        let symbol = all[pick(family, &all, &Product { m, ..product }, card)].kernel.symbol;
        if kernels.last().is_none_or(|(_, last)| last != symbol) {
            kernels.push((m, symbol.to_owned()));
        }
    }
    let gated = if product.gated { " gated" } else { "" };
    let size = format!("{} × {}{gated}", product.n, product.k);
    Ok(Chosen { scope: scope.to_owned(), size, kernels })
}

fn attention_of(scope: &str, heads: Heads) -> Result<Chosen> {
    heads.check()?;
    let most = (1..).take_while(|len| heads.decodes(*len)).last().unwrap_or(1);
    let kernels = vec![(1, heads.symbol("decode")), (most + 1, heads.symbol("prefill"))];
    let Heads { heads, kv_heads, head_dim, .. } = heads;
    let size = format!("{heads} over {kv_heads} heads of {head_dim}");
    Ok(Chosen { scope: scope.to_owned(), size, kernels })
}
