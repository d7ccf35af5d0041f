//! Loads a plan: packs matrices, reads vectors.

use std::collections::HashMap;
use std::sync::Arc;

use super::CpuOptions;
use super::attention::Attention;
use super::decode::{find, vector};
use super::kv_cache::KvType;
use super::matmul::{self, Mode, PackPart, PackedMatrix, Scratch};
use super::pool::Pool;
use super::simd::Isa;
use crate::device::Limits;
use crate::device::validate::validate;
use crate::error::Result;
use crate::model::plan::{Matrix, MatrixId, Op, Part, Plan, PlannedOp};
use crate::types::Dtype;
use crate::weights::Weights;

/// Bytes of the next matrix that a waiting thread asks for: what arrives in about 5 µs, and an
/// eighth of a usual second-level cache.
const AHEAD: usize = 64 << 10;

/// What does not change from step to step.
pub struct Model {
    pub plan: Plan,
    pub limits: Limits,
    pub pool: Arc<Pool>,
    pub isa: Isa,
    pub mode: Mode,
    pub kv: KvType,
    /// Ops as they run: some at once with their neighbour.
    pub steps: Vec<Step>,
    pub vectors: Vec<Vec<f32>>,
    packed: Vec<PackedMatrix>,
    /// Index into `packed` of each of the plan's matrices: tied weights are packed once.
    packed_of: Vec<usize>,
    /// By matrix of a product: the matrix of the plan's next product, after the last the first.
    after: HashMap<MatrixId, MatrixId>,
}

/// One or two ops of the plan, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    One(usize),
    /// `Add` and, right after it, the `RmsNorm` of the sum.
    AddNorm(usize),
}

impl Model {
    /// Loads everything that `plan` names.
    ///
    /// # Errors
    /// If the plan is inconsistent, a tensor is missing or misshapen, or memory runs out.
    pub fn new(
        plan: &Plan,
        weights: &Weights,
        limits: &Limits,
        pool: Arc<Pool>,
        options: &CpuOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        validate(plan)?;
        let mut model = Model {
            plan: plan.clone(),
            limits: *limits,
            isa: options.isa,
            mode: options.mode,
            kv: options.kv_type(plan, weights),
            steps: fuse(plan),
            vectors: Vec::new(),
            packed: Vec::new(),
            packed_of: Vec::new(),
            after: successors(plan),
            pool,
        };
        model.pack_matrices(weights, options.weights, progress)?;
        for v in &plan.vectors {
            model.vectors.push(vector(weights, &v.parts)?);
        }
        weights.check()?;
        Ok(model)
    }

    pub fn matrix(&self, id: MatrixId) -> &PackedMatrix {
        &self.packed[self.packed_of[id]]
    }

    fn pack_matrices(
        &mut self,
        weights: &Weights,
        target: Option<Dtype>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let stored = |m: &Matrix| -> u64 {
            let tensors = m.parts.iter().filter_map(|p| weights.describe(&p.tensor));
            tensors.map(|t| t.bytes as u64).sum()
        };
        let mut seen: HashMap<&[Part], usize> = HashMap::new();
        let unique = self.plan.matrices.iter().filter(|m| seen.insert(&m.parts, 0).is_none());
        let (mut done, total) = (0, unique.map(stored).sum());
        seen.clear();
        for matrix in &self.plan.matrices {
            let index = match seen.get(matrix.parts.as_slice()) {
                Some(index) => *index,
                None => {
                    self.packed.push(pack(matrix, weights, &self.pool, target)?);
                    // The packed copy is what steps read.
                    matrix.parts.iter().for_each(|part| weights.release(&part.tensor));
                    done += stored(matrix);
                    progress(done, total);
                    self.packed.len() - 1
                }
            };
            seen.insert(&matrix.parts, index);
            self.packed_of.push(index);
        }
        Ok(())
    }

    /// Tells the threads, before the product of `rows` rows with matrix `id`, what they will read
    /// for the next.
    pub fn expect_after(&self, scratch: &Scratch, id: MatrixId, rows: usize) {
        let Some(next) = self.after.get(&id) else { return };
        let (matrix, threads) = (self.matrix(*next), self.pool.threads());
        let streams = matmul::streams(scratch, self.mode, matrix, rows);
        for thread in 0..threads {
            self.pool.expect(thread, matrix.begins(thread, threads, streams, AHEAD));
        }
    }

    /// `y[r] = x[r] · matrixᵀ + bias` for `rows` rows; x and y are given with their row strides.
    pub fn product(
        &self,
        scratch: &mut Scratch,
        (x, ldx): (&[f32], usize),
        rows: usize,
        matrix: &PackedMatrix,
        bias: Option<&[f32]>,
        (y, ldy): (&mut [f32], usize),
    ) {
        matmul::matmul(&self.pool, scratch, self.mode, x, ldx, rows, matrix, bias, y, ldy);
    }

    /// Scratch for the largest product of the plan.
    pub fn scratch(&self) -> Scratch {
        let most = self.limits.step_tokens.max(self.limits.logit_rows);
        let widest = self.packed.iter().map(PackedMatrix::cols).max().unwrap_or(1);
        Scratch::new(most, widest, self.pool.threads()).for_weights(self.weight_bytes())
    }

    /// Stored bytes of each of the plan's matrices.
    pub fn matrix_bytes(&self) -> Vec<u64> {
        self.packed_of.iter().map(|i| self.packed[*i].bytes() as u64).collect()
    }

    /// Bytes of everything here.
    pub fn bytes(&self) -> u64 {
        let vectors: usize = self.vectors.iter().map(|v| v.len() * 4).sum();
        self.weight_bytes() + vectors as u64
    }

    fn weight_bytes(&self) -> u64 {
        self.packed.iter().map(|m| m.bytes() as u64).sum()
    }

    /// The stored type with most bytes.
    pub fn weight_dtype(&self) -> Dtype {
        let mut bytes: HashMap<Dtype, usize> = HashMap::new();
        for matrix in &self.packed {
            *bytes.entry(matrix.dtype()).or_default() += matrix.bytes();
        }
        let most = bytes.into_iter().max_by_key(|(dtype, bytes)| (*bytes, *dtype));
        most.map_or(Dtype::F32, |(dtype, _)| dtype)
    }
}

fn pack(
    matrix: &Matrix,
    weights: &Weights,
    pool: &Pool,
    target: Option<Dtype>,
) -> Result<PackedMatrix> {
    let tensors: Result<Vec<_>> = matrix
        .parts
        .iter()
        .map(|part| find(weights, &part.tensor, &[part.rows, matrix.cols]))
        .collect();
    let tensors = tensors?;
    let parts: Vec<PackPart> =
        tensors.iter().map(|tensor| PackPart { tensor, rows: tensor.shape[0] }).collect();
    PackedMatrix::pack(&parts, matrix.cols, pool, target).map_err(|e| e.context(&matrix.name))
}

/// The matrix that follows each in the plan's products.
fn successors(plan: &Plan) -> HashMap<MatrixId, MatrixId> {
    let product = |op: &PlannedOp| match op.op {
        Op::Linear { matrix, .. } => Some(matrix),
        _ => None,
    };
    let order: Vec<MatrixId> = plan.ops.iter().filter_map(product).collect();
    let next = order.iter().cycle().skip(1);
    order.iter().zip(next).map(|(id, next)| (*id, *next)).collect()
}

/// Pairs each residual addition with the norm that follows it.
fn fuse(plan: &Plan) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut index = 0;
    while index < plan.ops.len() {
        let after = plan.ops.get(index + 1).map(|next| &next.op);
        let fused = match (&plan.ops[index].op, after) {
            (Op::Add { x, y }, Some(Op::RmsNorm { x: sum, out, groups: 1, .. })) => {
                x == sum && out.buffer != x.buffer && out.buffer != y.buffer
            }
            _ => false,
        };
        steps.push(if fused { Step::AddNorm(index) } else { Step::One(index) });
        index += if fused { 2 } else { 1 };
    }
    steps
}

/// The plan's attention ops.
pub fn attentions(plan: &Plan) -> Vec<Attention> {
    plan.ops.iter().filter_map(|planned| Attention::of(&planned.op)).collect()
}
