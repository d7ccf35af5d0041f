// Softmax of rows in one pass over memory for the statistics and one for the result.
//
// Formula  y[r][i] = 2^(l·(x[r][i] − m)) / Σ_j 2^(l·(x[r][j] − m)), l = log2 e, m = max_j x[r][j].
// Shapes   x, y [rows, n] f32 row-major, n ≥ 1.
// Launch   grid (rows), block 128 (4 warps). Each thread keeps a running maximum and sum; they
//          are merged within warps by shuffles and across warps in shared memory.
#include "ptx.cuh"

constexpr float LOG2E = 1.4426950408889634f;

// (m, s) stands for s·2^m; merging keeps the larger m. An empty side has m = -inf and s = 0.
__device__ inline void merge(float& m, float& s, float m2, float s2) {
  const float top = fmaxf(m, m2);
  if (top == -INFINITY) return;
  s = s * ex2(m - top) + s2 * ex2(m2 - top);
  m = top;
}

extern "C" __global__ void __launch_bounds__(128)
softmax(const float* __restrict__ x, float* __restrict__ y, int n) {
  __shared__ float maxima[4], sums[4];
  const float* row = x + static_cast<size_t>(blockIdx.x) * n;
  float m = -INFINITY, s = 0;
  for (int i = threadIdx.x; i < n; i += 128) merge(m, s, row[i] * LOG2E, 1.0f);
  for (int o = 16; o > 0; o /= 2) {
    const float m2 = __shfl_xor_sync(~0u, m, o), s2 = __shfl_xor_sync(~0u, s, o);
    merge(m, s, m2, s2);
  }
  if (threadIdx.x % 32 == 0) {
    maxima[threadIdx.x / 32] = m;
    sums[threadIdx.x / 32] = s;
  }
  __syncthreads();
  m = maxima[0];
  s = sums[0];
  for (int w = 1; w < 4; ++w) merge(m, s, maxima[w], sums[w]);
  const float inverse = 1.0f / s;
  float* out = y + static_cast<size_t>(blockIdx.x) * n;
  for (int i = threadIdx.x; i < n; i += 128) out[i] = ex2(row[i] * LOG2E - m) * inverse;
}
