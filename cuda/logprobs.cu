// logprobs.cu: log-softmax of a row's `top` best tokens, and of one named token
// formula   logprob = logit - max - ln(sum exp(logit - max)); best first, ties: the lower id
// shapes    logits [rows, vocab] f32 with stride; targets u32 [rows] or none; outputs as abi.h says.
//           With settings each row gets what it wants, NaN and token 2^32 - 1 in other places
// launch    grid (rows), block 1024, 256 bytes of static shared memory
// tiles     a block a row; top passes, each for the best token after the one before
// traffic   unique: reads rows * vocab * 4, writes rows * (4 + top * 8); issued: the row 2 + top times
// bound     L2: (2 + top) * vocab * 4 bytes a row
// numerics  f32 exponentials; the sum in an order fixed by vocab. NaN logits are never among the best
// needs     sm_80
// why       log-probabilities are asked for rarely and for few tokens: passes over a row in L2 need no
//           sort and no scratch, and the order of ties is exact.
#include "reduce.cuh"

// The best token that stands after (value, id) in the order; `at` 0xffffffff if there is none.
__device__ inline void best_after(const f32* logits, u32 vocab, f32 value, u32 id, f32& best,
                                  u32& at, f32* bests, u32* ats) {
  best = -INFINITY;
  at = 0xffffffffu;
  for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) {
    const f32 x = logits[i];
    const bool after = x < value || (x == value && static_cast<i32>(i) > static_cast<i32>(id));
    if (after && (x > best || (x == best && i < at))) {
      best = x;
      at = i;
    }
  }
  warp_best(best, at);
  __syncthreads();
  if (lane_id() == 0) {
    bests[warp_id()] = best;
    ats[warp_id()] = at;
  }
  __syncthreads();
  best = bests[lane_id()];
  at = ats[lane_id()];
  warp_best(best, at);
}

// What a row that wants less than the others has in their places.
__device__ inline void fill(const LogprobsParams& p, u64 row, u32 from) {
  for (u32 j = from + threadIdx.x; j < p.top; j += blockDim.x) {
    pointer<u32>(p.top_tokens)[row * p.top + j] = 0xffffffffu;
    pointer<f32>(p.top_out)[row * p.top + j] = NAN;
  }
}

__device__ inline void logprobs(const LogprobsParams& p) {
  __shared__ f32 parts[32];
  __shared__ u32 ats[32];
  grid_dependency_wait();
  const u64 row = blockIdx.x;
  u32 top = p.top;
  if (p.settings) {
    const u32 scores = pointer<const SampleRow>(p.settings)[row].scores;
    if (scores == 0) {
      if (p.targets && threadIdx.x == 0) pointer<f32>(p.target_out)[row] = NAN;
      fill(p, row, 0);
      return;
    }
    top = min(top, scores - 1);
    fill(p, row, top);
  }
  const f32* logits = pointer<const f32>(p.logits) + row * p.stride;
  f32 most = -INFINITY;
  for (u32 i = threadIdx.x; i < p.vocab; i += blockDim.x) most = fmaxf(most, logits[i]);
  most = block_max(most, parts);
  __syncthreads();
  f32 sum = 0.0f;
  for (u32 i = threadIdx.x; i < p.vocab; i += blockDim.x) sum += expf(logits[i] - most);
  const f32 base = most + logf(block_sum(sum, parts));
  if (p.targets && threadIdx.x == 0) {
    const u32 target = pointer<const u32>(p.targets)[row];
    pointer<f32>(p.target_out)[row] = logits[target] - base;
  }
  f32 value = INFINITY;
  u32 id = 0xffffffffu;  // as a signed number before every id
  for (u32 j = 0; j < top; j++) {
    f32 best;
    u32 at;
    best_after(logits, p.vocab, value, id, best, at, parts, ats);
    if (threadIdx.x == 0) {
      pointer<u32>(p.top_tokens)[row * p.top + j] = at;
      pointer<f32>(p.top_out)[row * p.top + j] = best - base;
    }
    value = best;
    id = at;
  }
}
