//! In which form each matrix of a plan is kept on the card, from the stored types alone: GGUF
//! blocks that a kernel multiplies stay packed, everything else is widened to 16 bits.

use std::collections::BTreeMap;

use super::choose::gemm::packs;
use super::ops::fuse::{Group, groups};
use super::quant::Packing;
use crate::model::plan::{Matrix, Op, Plan};
use crate::types::Dtype;
use crate::weights::Weights;

/// How one matrix is kept. One that is both looked up in and multiplied may be kept both ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Form {
    /// In 16 bits a number.
    pub wide: bool,
    pub packed: Option<Packing>,
}

/// How all of a plan's matrices are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    pub forms: Vec<Form>,
}

impl Layout {
    /// `pack` false widens all.
    pub fn new(plan: &Plan, weights: &Weights, pack: bool) -> Layout {
        let mut forms = vec![Form::default(); plan.matrices.len()];
        for (first, group) in groups(plan) {
            match &plan.ops[first].op {
                Op::Embed { table, .. } => forms[*table].wide = true,
                Op::Linear { matrix, .. } => {
                    let gated = group == Group::LinearGated;
                    let packing =
                        if pack { packing(&plan.matrices[*matrix], weights, gated) } else { None };
                    match packing {
                        Some(packing) => forms[*matrix].packed = Some(packing),
                        None => forms[*matrix].wide = true,
                    }
                }
                Op::Moe { router, experts, .. } => {
                    let all = experts.iter().flat_map(|e| [e.gate_up, e.down]);
                    all.chain([*router]).for_each(|id| forms[id].wide = true);
                }
                _ => {}
            }
        }
        // What no op uses is kept as if it were.
        for form in forms.iter_mut().filter(|f| f.packed.is_none()) {
            form.wide = true;
        }
        Layout { forms }
    }

    /// Bytes that a product with matrix `id` reads.
    pub fn read(&self, id: usize, matrix: &Matrix) -> u64 {
        match self.forms[id].packed {
            Some(packing) => packing.bytes(matrix.rows, matrix.cols) as u64,
            None => wide_bytes(matrix),
        }
    }

    /// Bytes of matrix `id` on the card.
    pub fn kept(&self, id: usize, matrix: &Matrix) -> u64 {
        let both = self.forms[id].wide && self.forms[id].packed.is_some();
        self.read(id, matrix) + if both { wide_bytes(matrix) } else { 0 }
    }

    /// Bytes of all matrices and vectors on the card.
    pub fn bytes(&self, plan: &Plan) -> u64 {
        let matrices = plan.matrices.iter().enumerate().map(|(id, m)| self.kept(id, m));
        matrices.sum::<u64>() + plan.vectors.iter().map(|v| 2 * v.len as u64).sum::<u64>()
    }

    /// The type that most bytes of the matrices have.
    pub fn dtype(&self, plan: &Plan, wide: Dtype) -> Dtype {
        let mut bytes = BTreeMap::<&str, (u64, Dtype)>::new();
        for (id, matrix) in plan.matrices.iter().enumerate() {
            let dtype = self.forms[id].packed.map_or(wide, Packing::dtype);
            bytes.entry(dtype.name()).or_insert((0, dtype)).0 += self.read(id, matrix);
        }
        bytes.values().max_by_key(|(n, _)| *n).map_or(wide, |(_, dtype)| *dtype)
    }

    /// What a user should know: which types stayed packed, which quantised ones were widened.
    pub fn notes(&self, plan: &Plan, weights: &Weights, wide: Dtype) -> Vec<String> {
        let (mut packed, mut widened) = (BTreeMap::new(), BTreeMap::new());
        for (matrix, form) in plan.matrices.iter().zip(&self.forms) {
            if let Some(packing) = form.packed {
                *packed.entry(packing.dtype().name()).or_insert(0usize) += 1;
            }
            if form.wide {
                for dtype in stored(matrix, weights).filter(|d| d.block_len() > 1) {
                    *widened.entry(dtype.name()).or_insert(0usize) += 1;
                }
            }
        }
        let list = |of: &BTreeMap<&str, usize>| {
            of.iter().map(|(name, n)| format!("{n} {name}")).collect::<Vec<_>>().join(", ")
        };
        let mut notes = Vec::new();
        if !packed.is_empty() {
            notes.push(format!("matrices multiplied in packed blocks: {}", list(&packed)));
        }
        if !widened.is_empty() {
            notes.push(format!("tensors widened to {}: {}", wide.name(), list(&widened)));
        }
        notes
    }
}

fn wide_bytes(matrix: &Matrix) -> u64 {
    (matrix.rows * matrix.cols * 2) as u64
}

/// Stored types of a matrix' parts.
fn stored<'a>(matrix: &'a Matrix, weights: &'a Weights) -> impl Iterator<Item = Dtype> + 'a {
    matrix.parts.iter().filter_map(|p| weights.describe(&p.tensor)).map(|t| t.dtype)
}

/// The packing that all parts of a matrix have and a kernel multiplies.
fn packing(matrix: &Matrix, weights: &Weights, gated: bool) -> Option<Packing> {
    let mut types = stored(matrix, weights);
    let first = types.next()?;
    let whole = stored(matrix, weights).count() == matrix.parts.len();
    let columns = if gated { matrix.rows / 2 } else { matrix.rows };
    let fits = whole && types.all(|t| t == first) && packs(columns, matrix.cols, gated);
    Packing::of(first).filter(|_| fits)
}
