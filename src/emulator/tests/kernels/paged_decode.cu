// Decode attention over a paged KV cache, split along the sequence, then combined.
//
// Formula  o[b][h] = Σ_t p_t · V_t / Σ_t p_t, p_t = exp(q[b][h]·K_t · scale − max), t < len[b];
//          token t of sequence b lies in page table[b][t / 16], slot t % 16.
// Shapes   q, o [B, kv_heads·GROUP, 64] bf16; k, v [pages, 16, kv_heads, 64] bf16;
//          table [B, max_pages] i32; lens [B] i32 ≥ 1;
//          part_o [B, heads, splits, 64] f32 (not yet divided), part_ml [B, heads, splits, 2] f32.
// Launch   paged_decode: grid (kv_heads, splits, B), block 128: warp w serves query head
//          kv_head·4 + w. Split s takes pages s, s + splits, … Pages stream through two shared
//          buffers by cp.async. paged_combine: grid (heads, B), block 64: one thread a dimension.
#include "ptx.cuh"

constexpr int D = 64, PAGE = 16, GROUP = 4;
constexpr float LOG2E = 1.4426950408889634f;

// Starts the copy of one page of K and V of one head: 16 rows of 128 bytes each.
__device__ inline void load_page(uint32_t dst, const bf16* k, const bf16* v, int page, int kv_heads,
                                 int kv_head) {
  const int row = threadIdx.x / 8, chunk = threadIdx.x % 8;
  const size_t at = ((static_cast<size_t>(page) * PAGE + row) * kv_heads + kv_head) * D + chunk * 8;
  cp_async16(dst + row * 128 + chunk * 16, k + at, 16);
  cp_async16(dst + 2048 + row * 128 + chunk * 16, v + at, 16);
}

extern "C" __global__ void __launch_bounds__(128)
paged_decode(const bf16* __restrict__ q, const bf16* __restrict__ k, const bf16* __restrict__ v,
             const int* __restrict__ table, const int* __restrict__ lens, float* part_o,
             float* part_ml, int max_pages, float scale) {
  __shared__ alignas(128) bf16 pages[2][2][PAGE][D];
  const int kv_head = blockIdx.x, kv_heads = gridDim.x, split = blockIdx.y, splits = gridDim.y;
  const int b = blockIdx.z, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int head = kv_head * GROUP + warp, heads = kv_heads * GROUP;
  const int len = lens[b], n_pages = (len + PAGE - 1) / PAGE;
  const int* my_pages = table + static_cast<size_t>(b) * max_pages;
  const __nv_bfloat162* query =
      reinterpret_cast<const __nv_bfloat162*>(q + (static_cast<size_t>(b) * heads + head) * D);
  const float2 qv = __bfloat1622float2(query[lane]);

  float m = -INFINITY, l = 0;
  float2 o = {0, 0};
  const uint32_t base = smem_addr(pages);
  if (split < n_pages) load_page(base, k, v, my_pages[split], kv_heads, kv_head);
  cp_async_commit();
  int buffer = 0;
  for (int p = split; p < n_pages; p += splits, buffer ^= 1) {
    if (p + splits < n_pages)
      load_page(base + (buffer ^ 1) * 4096, k, v, my_pages[p + splits], kv_heads, kv_head);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    const int tokens = min(PAGE, len - p * PAGE);
    for (int t = 0; t < tokens; ++t) {
      const float2 kv = __bfloat1622float2(
          reinterpret_cast<const __nv_bfloat162*>(pages[buffer][0][t])[lane]);
      float s = qv.x * kv.x + qv.y * kv.y;
      for (int x = 16; x > 0; x /= 2) s += __shfl_xor_sync(~0u, s, x);
      s *= scale * LOG2E;
      const float top = fmaxf(m, s), keep = ex2(m - top), weight = ex2(s - top);
      const float2 vv = __bfloat1622float2(
          reinterpret_cast<const __nv_bfloat162*>(pages[buffer][1][t])[lane]);
      l = l * keep + weight;
      o.x = o.x * keep + weight * vv.x;
      o.y = o.y * keep + weight * vv.y;
      m = top;
    }
    __syncthreads();
  }
  const size_t part = (static_cast<size_t>(b) * heads + head) * splits + split;
  reinterpret_cast<float2*>(part_o)[part * (D / 2) + lane] = o;
  if (lane == 0) {
    part_ml[part * 2] = m;
    part_ml[part * 2 + 1] = l;
  }
}

extern "C" __global__ void __launch_bounds__(64)
paged_combine(const float* __restrict__ part_o, const float* __restrict__ part_ml, bf16* o,
              int splits) {
  const int head = blockIdx.x, heads = gridDim.x, b = blockIdx.y, d = threadIdx.x;
  const size_t first = (static_cast<size_t>(b) * heads + head) * splits;
  float m = -INFINITY, l = 0, sum = 0;
  for (int s = 0; s < splits; ++s) m = fmaxf(m, part_ml[(first + s) * 2]);
  for (int s = 0; s < splits; ++s) {
    const float w = ex2(part_ml[(first + s) * 2] - m);
    l += w * part_ml[(first + s) * 2 + 1];
    sum += w * part_o[(first + s) * D + d];
  }
  o[(static_cast<size_t>(b) * heads + head) * D + d] = __float2bfloat16(sum / l);
}
