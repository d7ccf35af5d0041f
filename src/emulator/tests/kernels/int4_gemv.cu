// Matrix-vector product with 4-bit weights in groups of 32 with an f16 scale each.
//
// Formula  y[r] = Σ_k (q[r][k] − 8) · s[r][k div 32] · x[k], f32 sums, bf16 result.
// Shapes   q [rows, n/8] u32, nibble j of word w holds k = 8w + j; s [rows, n/32] f16;
//          x [n] bf16, y [rows] bf16; n a multiple of 32; x 16-byte aligned.
// Launch   grid (⌈rows/4⌉), block 128: a warp per row, a lane per word of eight weights.
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(128)
int4_gemv(const uint32_t* __restrict__ q, const __half* __restrict__ s, const bf16* __restrict__ x,
          bf16* y, int rows, int n) {
  const int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  float sum = 0;
  for (int w = lane; w < n / 8; w += 32) {
    const uint32_t word = q[static_cast<size_t>(row) * (n / 8) + w];
    const float scale = __half2float(s[static_cast<size_t>(row) * (n / 32) + w / 4]);
    const uint4 v = reinterpret_cast<const uint4*>(x)[w];
    const uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
    float part = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 f = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pairs[j]));
      part += (static_cast<int>(word >> (8 * j) & 15) - 8) * f.x;
      part += (static_cast<int>(word >> (8 * j + 4) & 15) - 8) * f.y;
    }
    sum += part * scale;
  }
  for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(~0u, sum, o);
  if (lane == 0) y[row] = __float2bfloat16(sum);
}
