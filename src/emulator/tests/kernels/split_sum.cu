// Sums of rows of vectors, each row by several blocks; the last block to finish merges the parts
// (the pattern of split-KV attention in one launch).
//
// Formula  y[r][d] = Σ_t x[r][t][d].
// Shapes   x [rows, n, 64] f32, parts [rows, splits, 64] f32, tickets [rows] u32 zeroed,
//          y [rows, 64] f32; n ≥ 1.
// Launch   grid (splits, rows), block 64: one thread per element of the vector.
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(64)
split_sum(const float* __restrict__ x, float* parts, unsigned* tickets, float* y, int n) {
  __shared__ int last;
  const int d = threadIdx.x, split = blockIdx.x, splits = gridDim.x, row = blockIdx.y;
  const int first = static_cast<long long>(n) * split / splits;
  const int end = static_cast<long long>(n) * (split + 1) / splits;
  float sum = 0;
  for (int t = first; t < end; ++t) sum += x[(static_cast<size_t>(row) * n + t) * 64 + d];
  float* mine = parts + static_cast<size_t>(row) * splits * 64;
  mine[split * 64 + d] = sum;
  __syncthreads();
  if (d == 0) {
    __threadfence();
    last = atomicAdd(&tickets[row], 1u) == splits - 1;
    __threadfence();
  }
  __syncthreads();
  if (!last) return;
  sum = 0;
  for (int s = 0; s < splits; ++s) sum += mine[s * 64 + d];
  y[row * 64 + d] = sum;
}
