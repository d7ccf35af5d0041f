// Samples one index per row from softmax(x / temperature) by the Gumbel-max trick, with random
// bits from Philox 4×32-10.
//
// Formula  argmax_i x[r][i]/temperature − ln(−ln u_i); u_i = (bits + 0.5) / 2^32 where bits is
//          word i mod 4 of philox(counter = (i div 4, r, step, 0), key = seed).
// Shapes   x [rows, n] f32, out [rows] i32; temperature > 0. Equal scores: the lower index wins.
// Launch   grid (rows), block 128. Each thread draws four numbers per Philox call.
#include "ptx.cuh"

__device__ inline uint4 philox(uint4 c, uint2 key) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t hi0 = __umulhi(0xD2511F53u, c.x), lo0 = 0xD2511F53u * c.x;
    const uint32_t hi1 = __umulhi(0xCD9E8D57u, c.z), lo1 = 0xCD9E8D57u * c.z;
    c = make_uint4(hi1 ^ c.y ^ key.x, lo1, hi0 ^ c.w ^ key.y, lo0);
    key.x += 0x9E3779B9u;
    key.y += 0xBB67AE85u;
  }
  return c;
}

__device__ inline float log2_approx(float x) {
  float y;
  asm("lg2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// −ln(−ln u) for u = (bits + 0.5) / 2^32.
__device__ inline float gumbel(uint32_t bits) {
  constexpr float LN2 = 0.6931471805599453f;
  // Near one, 1 − u is exact where u is not, and −ln u ≈ 1 − u.
  const float u = (bits + 0.5f) * 2.3283064365386963e-10f;
  const float rest = (~bits + 0.5f) * 2.3283064365386963e-10f;
  const float e = rest < 1e-3f ? rest * (1.0f + 0.5f * rest) : -LN2 * log2_approx(u);
  return -LN2 * log2_approx(e);
}

__device__ inline void better(float& score, int& index, float s, int i) {
  if (s > score || (s == score && i < index)) {
    score = s;
    index = i;
  }
}

extern "C" __global__ void __launch_bounds__(128)
sample(const float* __restrict__ x, int* out, int n, float temperature, unsigned long long seed,
       unsigned step) {
  __shared__ float scores[4];
  __shared__ int winners[4];
  const float* row = x + static_cast<size_t>(blockIdx.x) * n;
  const uint2 key = make_uint2(static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  const float inverse = 1.0f / temperature;
  float best = -INFINITY;
  int index = 0x7fffffff;
  for (int q = threadIdx.x; q * 4 < n; q += 128) {
    const uint4 r = philox(make_uint4(q, blockIdx.x, step, 0), key);
    const uint32_t bits[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int i = q * 4 + j;
      if (i < n) better(best, index, row[i] * inverse + gumbel(bits[j]), i);
    }
  }
  for (int o = 16; o > 0; o /= 2) {
    const float s = __shfl_down_sync(~0u, best, o);
    const int i = __shfl_down_sync(~0u, index, o);
    better(best, index, s, i);
  }
  if (threadIdx.x % 32 == 0) {
    scores[threadIdx.x / 32] = best;
    winners[threadIdx.x / 32] = index;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < 4; ++w) better(best, index, scores[w], winners[w]);
    out[blockIdx.x] = index;
  }
}
