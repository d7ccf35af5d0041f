// Root-mean-square normalisation of rows.
//
// Formula  y[r][i] = x[r][i] · w[i] / sqrt(mean_j x[r][j]² + eps), sums in f32.
// Shapes   x, y [rows, n] bf16 row-major; w [n] bf16; n a multiple of 8; all 16-byte aligned.
// Launch   grid (rows), block 256 (8 warps).
#include "ptx.cuh"

union Vector {
  uint4 bits;
  __nv_bfloat162 pair[4];
};

extern "C" __global__ void __launch_bounds__(256)
rmsnorm(const bf16* __restrict__ x, const bf16* __restrict__ w, bf16* __restrict__ y, int n,
        float eps) {
  __shared__ float partial[8];
  __shared__ float inverse;
  const size_t row = static_cast<size_t>(blockIdx.x) * n;
  const uint4* in = reinterpret_cast<const uint4*>(x + row);
  float sum = 0;
  for (int i = threadIdx.x; i < n / 8; i += 256) {
    Vector v;
    v.bits = in[i];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float2 f = __bfloat1622float2(v.pair[j]);
      sum += f.x * f.x + f.y * f.y;
    }
  }
  for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(~0u, sum, o);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x < 32) {
    float s = threadIdx.x < 8 ? partial[threadIdx.x] : 0.0f;
    for (int o = 4; o > 0; o /= 2) s += __shfl_xor_sync(~0u, s, o);
    if (threadIdx.x == 0) inverse = rsqrtf(s / n + eps);
  }
  __syncthreads();
  const float scale = inverse;
  for (int i = threadIdx.x; i < n / 8; i += 256) {
    Vector v, g;
    v.bits = in[i];
    g.bits = reinterpret_cast<const uint4*>(w)[i];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float2 f = __bfloat1622float2(v.pair[j]), h = __bfloat1622float2(g.pair[j]);
      v.pair[j] = __floats2bfloat162_rn(f.x * scale * h.x, f.y * scale * h.y);
    }
    reinterpret_cast<uint4*>(y + row)[i] = v.bits;
  }
}
