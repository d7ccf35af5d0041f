// activation.cuh: the gated activations' functions, f32 in and out.
#pragma once
#include "number.cuh"

// Values of GemmParams::act.
constexpr u32 kSilu = 0, kGeluTanh = 1, kGelu = 2;

// tanh by one exponential; |error| < 1e-6. Large |x| saturate without overflow.
__device__ inline f32 tanh_fast(f32 x) {
  const f32 e = ex2(x * 2.885390081777927f);  // e^2x
  return 1.0f - 2.0f * rcp_approx(e + 1.0f);
}

__device__ inline f32 silu(f32 x) { return x * rcp_approx(1.0f + ex2(x * -1.442695040888963f)); }

__device__ inline f32 activate(u32 act, f32 x) {
  if (act == kSilu) return silu(x);
  if (act == kGeluTanh) {
    const f32 inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    return 0.5f * x * (1.0f + tanh_fast(inner));
  }
  return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
}
