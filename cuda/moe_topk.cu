// moe_topk.cu: share = softmax(router's logits); the top_k best experts (ties: lower index)
// shapes    logits [rows, experts] f32 with stride, experts <= 512; chosen u32, shares f32 [rows,
//           top_k], top_k <= 32
// launch    grid (ceil(rows / 4)), block 128: a warp a row, no shared memory
// tiles     expert e belongs to lane e % 32; 16 logits a lane at most
// traffic   reads rows * experts * 4, writes rows * top_k * 8
// bound     latency: top_k reductions over a warp
// numerics  f32; the sum of exponentials and of the chosen shares in an order fixed by experts alone
// needs     sm_80
// why       a warp holds all logits of a row, so each of the top_k rounds is one butterfly, with no
//           sort and no memory between.
#include "reduce.cuh"

constexpr int kLogitsPerLane = 16;

__device__ inline void moe_topk(const MoeTopkParams& p) {
  grid_dependency_wait();
  const u64 row = blockIdx.x * 4 + warp_id();
  if (row >= p.rows) return;
  const f32* logits = pointer<const f32>(p.logits) + row * p.stride;
  f32 x[kLogitsPerLane];
  f32 most = -INFINITY;
#pragma unroll
  for (int i = 0; i < kLogitsPerLane; i++) {
    const u32 e = i * 32 + lane_id();
    x[i] = e < p.experts ? logits[e] : -INFINITY;
    most = fmaxf(most, x[i]);
  }
  most = warp_max(most);
  f32 sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kLogitsPerLane; i++) {
    x[i] = ex2((x[i] - most) * 1.442695040888963f);
    if (!(x[i] >= 0.0f)) x[i] = 0.0f;  // a NaN must not leave a choice without an expert
    sum += x[i];
  }
  sum = warp_sum(sum);
  f32 mine = 0.0f, chosen_sum = 0.0f;  // lane j keeps the j-th share
  u32 expert = 0;
  for (u32 j = 0; j < p.top_k; j++) {
    f32 best = -1.0f;
    u32 at = 0xffffffffu;
#pragma unroll
    for (int i = 0; i < kLogitsPerLane; i++) {
      const u32 e = i * 32 + lane_id();
      if (e < p.experts && x[i] > best) {
        best = x[i];
        at = e;
      }
    }
    warp_best(best, at);
#pragma unroll
    for (int i = 0; i < kLogitsPerLane; i++)
      if (at == i * 32 + lane_id()) x[i] = -1.0f;
    chosen_sum += best;
    if (lane_id() == j) {
      mine = best;
      expert = at;
    }
  }
  if (lane_id() < p.top_k) {
    pointer<u32>(p.chosen)[row * p.top_k + lane_id()] = expert;
    pointer<f32>(p.shares)[row * p.top_k + lane_id()] = mine / (p.renormalise ? chosen_sum : sum);
  }
}
