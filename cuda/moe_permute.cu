// moe_permute.cu: assignments (row t, j-th expert) sorted by expert, rows in order within one
// formula   offsets[e] = assignments to experts below e; places[a] = the a-th assignment's sorted
//           place; gather[places[a]] = a / top_k
// shapes    chosen, gather, places [count] u32, count = rows * top_k; offsets [experts + 1] u32
// launch    grid (experts), block 256, 64 bytes of static shared memory
// tiles     a block an expert; 256 assignments a pass
// traffic   unique: reads count * 4, writes count * 8 + experts * 4; issued: chosen twice per expert
// bound     L2: experts * count * 8 bytes, 67 MB at 8,192 tokens of 128 experts and top-8
// numerics  integers
// needs     sm_80
// why       counting instead of atomics: the order is that of rows whatever the schedule, no counter
//           has to be cleared and no second launch scans the counts.
#include "number.cuh"

// This thread's rank among the block's threads with `flag`, and their number. `parts` holds 8.
__device__ inline u32 block_rank(bool flag, u32* parts, u32& total) {
  const u32 votes = __ballot_sync(~0u, flag);
  __syncthreads();
  if (lane_id() == 0) parts[warp_id()] = __popc(votes);
  __syncthreads();
  u32 rank = __popc(votes & ((1u << lane_id()) - 1));
  total = 0;
#pragma unroll
  for (u32 w = 0; w < 8; w++) {
    if (w < warp_id()) rank += parts[w];
    total += parts[w];
  }
  return rank;
}

__device__ inline void moe_permute(const MoePermuteParams& p) {
  __shared__ u32 parts[8];
  grid_dependency_wait();
  const u32* chosen = pointer<const u32>(p.chosen);
  const u32 expert = blockIdx.x;
  u32 base = 0;
  for (u32 first = 0; first < p.count; first += 256) {
    const u32 a = first + threadIdx.x;
    u32 below;
    block_rank(a < p.count && chosen[a] < expert, parts, below);
    base += below;
  }
  if (threadIdx.x == 0) {
    pointer<u32>(p.offsets)[expert] = base;
    if (expert == p.experts - 1) pointer<u32>(p.offsets)[p.experts] = p.count;
  }
  for (u32 first = 0; first < p.count; first += 256) {
    const u32 a = first + threadIdx.x;
    const bool mine = a < p.count && chosen[a] == expert;
    u32 found;
    const u32 place = base + block_rank(mine, parts, found);
    if (mine) {
      pointer<u32>(p.places)[a] = place;
      pointer<u32>(p.gather)[place] = a / p.top_k;
    }
    base += found;
  }
}
