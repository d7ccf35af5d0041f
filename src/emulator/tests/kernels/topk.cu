// The k largest numbers of each row, by radix selection on the ordered bits of f32.
//
// Formula  out = the k largest x[r][i] with their indices, in no particular order; among equal
//          numbers at the threshold any may be taken. No NaN.
// Shapes   x [rows, n] f32, values [rows, k] f32, indices [rows, k] i32; 1 ≤ k ≤ n.
// Launch   grid (rows), block 256. Four passes of 8 bits: histogram in shared memory, then warp 0
//          finds the digit in which the k-th largest falls; last, a pass that collects.
#include "ptx.cuh"

// Bits whose unsigned order is the order of the floats.
__device__ inline uint32_t ordered(float f) {
  const uint32_t u = __float_as_uint(f);
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}

// The digit in which the `rank`-th largest falls, and how many lie in larger digits. Lane l owns
// digits 255-8l … 248-8l.
__device__ inline void find_digit(const uint32_t* histogram, int rank, int* digit, int* above) {
  const int lane = threadIdx.x;
  int mine = 0;
  for (int j = 0; j < 8; ++j) mine += histogram[255 - (lane * 8 + j)];
  int upto = mine;
  for (int o = 1; o < 32; o *= 2) {
    const int other = __shfl_up_sync(~0u, upto, o);
    if (lane >= o) upto += other;
  }
  const unsigned reached = __ballot_sync(~0u, upto >= rank);
  if (lane != __ffs(reached) - 1) return;
  int count = upto - mine;
  for (int j = 0; j < 8; ++j) {
    const int d = 255 - (lane * 8 + j), here = histogram[d];
    if (count + here >= rank) {
      *digit = d;
      *above = count;
      return;
    }
    count += here;
  }
}

extern "C" __global__ void __launch_bounds__(256)
topk(const float* __restrict__ x, float* values, int* indices, int n, int k) {
  __shared__ uint32_t histogram[256];
  __shared__ int digit, above, taken, tied;
  const float* row = x + static_cast<size_t>(blockIdx.x) * n;
  uint32_t prefix = 0;
  int rank = k;
  for (int shift = 24; shift >= 0; shift -= 8) {
    histogram[threadIdx.x] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += 256) {
      const uint32_t u = ordered(row[i]);
      if (shift == 24 || u >> (shift + 8) == prefix) atomicAdd(&histogram[(u >> shift) & 255], 1u);
    }
    __syncthreads();
    if (threadIdx.x < 32) find_digit(histogram, rank, &digit, &above);
    __syncthreads();
    prefix = prefix << 8 | static_cast<uint32_t>(digit);
    rank -= above;
  }
  if (threadIdx.x == 0) {
    taken = 0;
    tied = 0;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += 256) {
    const uint32_t u = ordered(row[i]);
    int slot = -1;
    if (u > prefix) slot = atomicAdd(&taken, 1);
    if (u == prefix) {
      const int t = atomicAdd(&tied, 1);
      if (t < rank) slot = k - 1 - t;
    }
    if (slot >= 0) {
      values[static_cast<size_t>(blockIdx.x) * k + slot] = row[i];
      indices[static_cast<size_t>(blockIdx.x) * k + slot] = i;
    }
  }
}
