// Rotary position embedding in place, halves rotated (the NeoX pairing), cos and sin from a table.
//
// Formula  with h = D/2, c = cos[pos[t]][i], s = sin[pos[t]][i]:
//          x[t][head][i] ← x_i·c − x_{i+h}·s;  x[t][head][i+h] ← x_{i+h}·c + x_i·s.
// Shapes   x [T, heads, D] bf16, pos [T] i32, cos and sin [max_pos, D/2] f32; D even.
// Launch   grid (⌈T·heads·D/2 / 128⌉), block 128: one thread per rotated pair.
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(128)
rope(bf16* x, const int* __restrict__ pos, const float* __restrict__ cos_table,
     const float* __restrict__ sin_table, int T, int heads, int D) {
  const int half = D / 2;
  const long long pair = static_cast<long long>(blockIdx.x) * 128 + threadIdx.x;
  if (pair >= static_cast<long long>(T) * heads * half) return;
  const int i = pair % half;
  const long long vector = pair / half;
  const int t = vector / heads;
  const float c = cos_table[static_cast<size_t>(pos[t]) * half + i];
  const float s = sin_table[static_cast<size_t>(pos[t]) * half + i];
  bf16* v = x + vector * D;
  const float lo = __bfloat162float(v[i]), hi = __bfloat162float(v[i + half]);
  v[i] = __float2bfloat16(lo * c - hi * s);
  v[i + half] = __float2bfloat16(hi * c + lo * s);
}
