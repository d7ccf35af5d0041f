// rope.cu: rotary embedding of q and k (optionally after their norm), and k, v into their pages
// formula   angle = position * inv_freq[i]; for i < half: (x[i], x[i + half]) becomes
//           (x[i] cos - x[i + half] sin, x[i + half] cos + x[i] sin) * scale; the rest passes.
//           norm: x is first x * rsqrt(mean(x^2) + eps) * (w + offset), per head
// shapes    q [rows, heads * head_dim], k, v [rows, kv_heads * head_dim] T with strides; pages as
//           abi.h says; angles: see angle_at
// launch    angles: grid (rows), block 128, one thread a pair. rope: grid (rows, ceil(items / 128)),
//           block 128; items = (heads + kv_heads) * half / V + kv_heads * (2 * head_dim - 2 * half) / V.
//           No shared memory
// tiles     one item a thread: V pairs (V = 8: two 16-byte accesses each way; half, head_dim, strides
//           % 8 == 0, 16-byte aligned; or V = 1), or V numbers of k's unrotated part or of v.
//           norm: head_dim = 2 * half, V = 8, half / 8 a power of two: a head's threads are
//           neighbours in one warp
// traffic   reads q, k, v once, 8 * half per row of angles, 4 per row of slots; writes q once where it
//           is rotated, and k, v once into pages. issued: angles once per head
// bound     memory
// numerics  the angle is a fraction of a turn in 64-bit fixed point, so it is exact at any position;
//           sine and cosine by polynomials on [-pi/4, pi/4], |error| < 2e-7; f32, rounded once
// needs     sm_80
// why       sincosf's slow path uses local memory and f32 angles lose a digit per decade of position.
//           Angles are made once per step and read by every layer from L2. One launch rotates q and
//           k, writes both pages and, where a model has it, normalises: a layer's decode has one
//           launch between its products instead of four.
#include "reduce.cuh"

// Sine and cosine of `phase` / 2^64 turns.
__device__ inline float2 turn(u64 phase) {
  const u32 t = static_cast<u32>(phase >> 32);
  const u32 quadrant = (t + (1u << 29)) >> 30;
  const i32 rest = static_cast<i32>(t - (quadrant << 30));
  const f32 x = static_cast<f32>(rest) * 1.4629180792671596e-9f;  // pi/2 / 2^30
  const f32 y = x * x;
  // Cephes' single-precision polynomials.
  f32 s = fmaf(fmaf(fmaf(-1.9515295891e-4f, y, 8.3321608736e-3f), y, -1.6666654611e-1f), y * x, x);
  f32 c = fmaf(fmaf(fmaf(2.443315711809948e-5f, y, -1.388731625493765e-3f), y,
                    4.166664568298827e-2f),
               y * y, fmaf(-0.5f, y, 1.0f));
  if (quadrant & 1) {
    const f32 swap = s;
    s = c;
    c = -swap;
  }
  if (quadrant & 2) {
    s = -s;
    c = -c;
  }
  return make_float2(c, s);
}

// Where a row's angles are: [rows][4][even(ceil(half / 8))] float4, so that threads which rotate
// neighbouring pieces of 8 pairs read neighbouring 16 bytes. Parts 0 and 1 hold 8 cosines, 2 and 3
// the sines.
__device__ inline u32 angle_pieces(u32 half) { return ((half + 7) / 8 + 1) & ~1u; }
__device__ inline u64 angle_at(u64 row, u32 half, u32 part, u32 piece) {
  const u32 pieces = angle_pieces(half);
  return ((row * 4 + part) * pieces + piece) * 4;
}

__device__ inline void rope_angles(const RopeAnglesParams& p) {
  grid_dependency_wait();
  const u64 position = pointer<const u32>(p.positions)[blockIdx.x];
  for (u32 i = threadIdx.x; i < p.half; i += blockDim.x) {
    const float2 a = turn(pointer<const u64>(p.turns)[i] * position);
    f32* out = pointer<f32>(p.angles);
    const u32 part = i % 8 / 4;
    out[angle_at(blockIdx.x, p.half, part, i / 8) + i % 4] = a.x * p.scale;
    out[angle_at(blockIdx.x, p.half, part + 2, i / 8) + i % 4] = a.y * p.scale;
  }
}

// Cosines and sines of the V pairs from `i`.
template <int V>
__device__ inline void load_angles(const RopeParams& p, u32 i, f32 (&c)[V], f32 (&s)[V]) {
  const f32* angles = pointer<const f32>(p.angles);
  if constexpr (V == 8) {
#pragma unroll
    for (int part = 0; part < 2; part++) {
      const float4 a = *reinterpret_cast<const float4*>(
          angles + angle_at(blockIdx.x, p.half, part, i / 8));
      const float4 b = *reinterpret_cast<const float4*>(
          angles + angle_at(blockIdx.x, p.half, part + 2, i / 8));
      c[part * 4] = a.x, c[part * 4 + 1] = a.y, c[part * 4 + 2] = a.z, c[part * 4 + 3] = a.w;
      s[part * 4] = b.x, s[part * 4 + 1] = b.y, s[part * 4 + 2] = b.z, s[part * 4 + 3] = b.w;
    }
  } else {
    c[0] = angles[angle_at(blockIdx.x, p.half, i % 8 / 4, i / 8) + i % 4];
    s[0] = angles[angle_at(blockIdx.x, p.half, i % 8 / 4 + 2, i / 8) + i % 4];
  }
}

// Normalises a head of which each of `half / 8` neighbouring threads holds a and b.
template <class T>
__device__ inline void norm_head(const RopeParams& p, u64 weight, u32 i, f32 (&a)[8], f32 (&b)[8]) {
  f32 sum = 0.0f;
#pragma unroll
  for (int j = 0; j < 8; j++) sum = fmaf(a[j], a[j], fmaf(b[j], b[j], sum));
  for (u32 step = p.half / 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  const f32 scale = rsqrtf(sum / static_cast<f32>(2 * p.half) + p.eps);
  const T* w = pointer<const T>(weight);
  f32 wa[8], wb[8];
  unpack(load<T, 8>(w + i), wa);
  unpack(load<T, 8>(w + i + p.half), wb);
#pragma unroll
  for (int j = 0; j < 8; j++) {
    a[j] *= scale * (wa[j] + p.offset);
    b[j] *= scale * (wb[j] + p.offset);
  }
}

// One thread's share of a row: item `n` of those that launch counts.
template <class T, int V, bool NORM>
struct RopeItem {
  const RopeParams& p;
  i32 slot;  // negative: the row is padding

  // Where head `h` of a page pool has this row's numbers; only if the row has a slot.
  __device__ T* paged(u64 pages, u32 h) const {
    const u32 page = static_cast<u32>(slot) / p.page_size;
    const u64 at = (static_cast<u64>(page) * p.kv_heads + h) * p.page_size +
                   (static_cast<u32>(slot) - page * p.page_size);
    return pointer<T>(pages) + at * p.head_dim;
  }

  // Pairs i .. i + V of head `h`, of q if `is_q`. Threads beyond the last item come along with
  // `active` false: the norm's shuffles need whole warps.
  __device__ void rotate(bool is_q, u32 h, u32 i, bool active) const {
    const u64 row = blockIdx.x;
    T* x = is_q ? pointer<T>(p.q) + row * p.q_stride : pointer<T>(p.k) + row * p.k_stride;
    x += h * p.head_dim;
    f32 a[V] = {}, b[V] = {};
    if (active) {
      unpack(load<T, V>(x + i), a);
      unpack(load<T, V>(x + i + p.half), b);
    }
    if constexpr (NORM) norm_head<T>(p, is_q ? p.q_weight : p.k_weight, i, a, b);
    if (!active || (!is_q && slot < 0)) return;
    f32 c[V], s[V];
    load_angles(p, i, c, s);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const f32 lower = a[j], upper = b[j];
      a[j] = lower * c[j] - upper * s[j];
      b[j] = upper * c[j] + lower * s[j];
    }
    T* out = is_q ? x : paged(p.k_pages, h);
    store(out + i, packed<T>(a));
    store(out + i + p.half, packed<T>(b));
  }

  // Copies V numbers at `i` of head `h` into the page.
  __device__ void copy(u64 from, u32 stride, u64 pages, u32 h, u32 i) const {
    if (slot < 0) return;
    const T* x = pointer<const T>(from) + static_cast<u64>(blockIdx.x) * stride;
    store(paged(pages, h) + i, load<T, V>(x + h * p.head_dim + i));
  }
};

template <class T, int V, bool NORM>
__device__ void rope(const RopeParams& p) {
  grid_dependency_wait();
  u32 n = blockIdx.y * blockDim.x + threadIdx.x;
  const RopeItem<T, V, NORM> item{p, pointer<const i32>(p.slots)[blockIdx.x]};
  const u32 turns = p.half / V;  // items of a head that rotate
  const u32 rotated = (p.heads + p.kv_heads) * turns;
  // Heads are whole numbers of items and warps start at multiples of 32, so that the threads of a
  // head are neighbours; the last warp's spare threads shuffle too.
  if (NORM ? (n & ~31u) < rotated : n < rotated) {
    const bool active = n < rotated;
    const u32 h = active ? n / turns : 0;
    const u32 i = n % turns * V;
    const bool is_q = h < p.heads;
    item.rotate(is_q, is_q ? h : h - p.heads, i, active);
    if (active) return;
  }
  n -= rotated;
  const u32 rest = (p.head_dim - 2 * p.half) / V;  // items of k's head that pass
  if (n < p.kv_heads * rest) {
    item.copy(p.k, p.k_stride, p.k_pages, n / rest, 2 * p.half + n % rest * V);
    return;
  }
  n -= p.kv_heads * rest;
  const u32 whole = p.head_dim / V;
  if (n < p.kv_heads * whole) item.copy(p.v, p.v_stride, p.v_pages, n / whole, n % whole * V);
}
