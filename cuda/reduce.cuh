// reduce.cuh: sums, maxima and best elements over warps and blocks, in an order that depends on the
// block's size alone.
#pragma once
#include "number.cuh"

// Butterfly: every lane gets the same bits.
__device__ inline f32 warp_sum(f32 x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

__device__ inline f32 warp_max(f32 x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

// Sum over the block's whole warps, the same bits in every thread. `parts` holds 32 numbers and may
// be reused after the next barrier. Every thread of the block takes part.
__device__ inline f32 block_sum(f32 x, f32* parts) {
  x = warp_sum(x);
  if (lane_id() == 0) parts[warp_id()] = x;
  __syncthreads();
  const u32 warps = blockDim.x / 32;
  return warp_sum(lane_id() < warps ? parts[lane_id()] : 0.0f);
}

__device__ inline f32 block_max(f32 x, f32* parts) {
  x = warp_max(x);
  if (lane_id() == 0) parts[warp_id()] = x;
  __syncthreads();
  const u32 warps = blockDim.x / 32;
  return warp_max(lane_id() < warps ? parts[lane_id()] : -INFINITY);
}

// The better of two (value, index) pairs over the warp: the larger value, of equals the lower index.
__device__ inline void warp_best(f32& value, u32& index) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const f32 other = __shfl_xor_sync(~0u, value, step);
    const u32 at = __shfl_xor_sync(~0u, index, step);
    if (other > value || (other == value && at < index)) {
      value = other;
      index = at;
    }
  }
}
