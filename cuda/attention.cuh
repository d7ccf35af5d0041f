// attention.cuh: what prefill and decode attention share, so that both give the same bits.
//
// Keys are cut by absolute position into chunks of 64 and splits of 256 tokens. Within a split a row
// keeps a running maximum m, sum l and output o over the chunks in order; splits are then merged in
// order into M, L, T. Every step is the same sequence of f32 operations in both kernels, and a chunk
// that a row does not see changes nothing. So a row's bits depend on its query and the keys it sees,
// never on the kernel, the chunk of the prompt, the other rows or the pages.
//
// Rows are (token, head of a kv head's group) pairs, token-major: a group's heads share K and V.
#pragma once
#include "tile.cuh"

namespace attention {

constexpr u32 kChunk = 64, kSplit = 256, kSplitChunks = kSplit / kChunk;
constexpr u32 kPanel = kChunk * tile::kRow;  // bytes of 64 columns of a chunk
constexpr u32 kGroups = kChunk / 8;          // page sizes are multiples of 8 slots
constexpr u32 kTables = 4;                   // chunks whose page addresses are kept
constexpr f32 kLog2e = 1.4426950408889634f;

template <int D>
constexpr u32 kPanels = (D + 63) / 64;
template <int D>
constexpr u32 kSlot = kPanels<D> * kPanel;  // bytes of a chunk of K or V
// Pieces of 8 numbers of a row in shared memory: products are 16 deep, and zeros fill the last.
template <int D>
constexpr u32 kPieces = (D + 15) / 16 * 2;

// Row and piece of the n-th copy of a panelled tile. Eight threads write 128 bytes: in whole panels
// the pieces of one row, in a last panel of P pieces those of rows P apart, whose swizzles do not meet
// (P = 4: rows 0 4, 1 5, 2 6, 3 7).
template <int D>
__device__ inline uint2 copied(u32 n, u32 rows) {
  constexpr u32 kWhole = D / 64 * 8, P = kPieces<D> - kWhole;
  if constexpr (P == 0) {
    return {n / kWhole, n % kWhole};
  } else {
    static_assert(8 % P == 0, "whole rows of eight threads");
    if constexpr (kWhole != 0)
      if (n < rows * kWhole) return {n / kWhole, n % kWhole};
    const u32 m = n - rows * kWhole, i = m / P;
    return {i / 8 * 8 + i % (8 / P) * P + i % 8 / (8 / P), kWhole + m % P};
  }
}

// Streams chunks of K and V of one kv head of one sequence through a ring of slots: step 2i is K of
// chunk first + i, step 2i + 1 its V.
template <class T, int D, int SLOTS, int THREADS>
struct Stream {
  static_assert(SLOTS % 2 == 0 && SLOTS / 2 < kTables, "addresses are made half a ring ahead");
  const T *k, *v;
  const u32* pages;
  u32 ring, first, count, end;  // end: tokens of the sequence
  u32 kv_heads, head, page_size;
  u32* table;  // [kTables][kGroups] row of the cache where each eight tokens begin

  __device__ void address(u32 i) const {
    if (threadIdx.x >= kGroups) return;
    const u32 token = (first + i) * kChunk + threadIdx.x * 8;
    u32 row = 0;
    if (i < count && token < end) {
      const u32 page = token / page_size;
      row = (pages[page] * kv_heads + head) * page_size + (token - page * page_size);
    }
    table[i % kTables * kGroups + threadIdx.x] = row;
  }

  __device__ void load(u32 step) const {
    if (step < 2 * count) {
      const T* from = step % 2 ? v : k;
      const u32 i = step / 2, slot = ring + step % SLOTS * kSlot<D>;
      const u32* rows = table + i % kTables * kGroups;
#pragma unroll
      for (u32 n = threadIdx.x; n < kChunk * kPieces<D>; n += THREADS) {
        const uint2 at = copied<D>(n, kChunk);
        const u32 row = at.x, c = at.y;
        const bool in = (first + i) * kChunk + row < end && c < D / 8;
        const T* src = from + (static_cast<u64>(rows[row / 8]) + row % 8) * D + c * 8;
        cp_async16(slot + c / 8 * kPanel + tile::piece(row, c % 8), in ? src : from, in);
      }
    }
    cp_async_commit();
  }

  // Fills the ring but one slot. Ends with every thread past a barrier.
  __device__ void start() const {
    for (u32 i = 0; i < SLOTS / 2; i++) address(i);
    __syncthreads();
    for (u32 step = 0; step + 1 < SLOTS; step++) load(step);
  }

  // Waits for a step's slot, starts the next copy, and gives the slot.
  __device__ u32 next(u32 step) const {
    cp_async_wait<SLOTS - 2>();
    __syncthreads();
    load(step + SLOTS - 1);
    if (step % 2 == 0) address(step / 2 + SLOTS / 2);
    return ring + step % SLOTS * kSlot<D>;
  }
};

// Two numbers as one register of a fragment.
template <class T>
__device__ inline u32 pack2(f32 lo, f32 hi) {
  Pack<T, 2> p;
  p.set(0, lo), p.set(1, hi);
  return *reinterpret_cast<u32*>(&p);
}

// A maximum as a subtrahend: rows that have seen nothing subtract 0, and get weights of 0.
__device__ inline f32 finite(f32 m) { return m == -INFINITY ? 0.0f : m; }

// Which columns of a chunk the two rows of a lane see: low <= column < high.
struct Sight {
  i32 low[2], high[2];
};

// The columns of the chunk at `start` that row `row` of a span sees.
__device__ inline void see(const AttentionParams& p, const AttentionSpan& span, u32 row, u32 start,
                           i32& low, i32& high) {
  const i32 position = static_cast<i32>(span.past + row / p.group);
  high = position + 1 - static_cast<i32>(start);
  low = p.window ? high - static_cast<i32>(p.window) : 0;
}

// A lane's part of the running softmax of rows g and g + 8.
struct Rows {
  f32 m[2], l[2];

  __device__ void reset() { m[0] = m[1] = -INFINITY, l[0] = l[1] = 0.0f; }

  // Scores of a chunk (base-2 logits, -inf where not seen) to weights; returns by how much to
  // scale what has been summed so far.
  __device__ void step(f32 (&s)[8][4], f32 (&keep)[2]) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      f32 top = m[h];
#pragma unroll
      for (int j = 0; j < 8; j++) top = fmaxf(top, fmaxf(s[j][2 * h], s[j][2 * h + 1]));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      const f32 base = finite(top);
      keep[h] = ex2(m[h] - base);
      f32 sum = 0.0f;
#pragma unroll
      for (int j = 0; j < 8; j++)
#pragma unroll
        for (int v = 0; v < 2; v++) {
          s[j][2 * h + v] = ex2(s[j][2 * h + v] - base);
          sum = __fadd_rn(sum, s[j][2 * h + v]);
        }
      sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 1));
      sum = __fadd_rn(sum, __shfl_xor_sync(~0u, sum, 2));
      l[h] = __fmaf_rn(l[h], keep[h], sum);
      m[h] = top;
    }
  }
};

// Products to base-2 logits: scaled, capped, and -inf where not seen.
__device__ inline void logits(const AttentionParams& p, f32 (&s)[8][4], const Sight& sight,
                              bool all_seen) {
  const f32 scale = p.scale * kLog2e;
  if (p.softcap != 0.0f) {
    const f32 inner = p.scale / p.softcap * 2.0f * kLog2e, cap = p.softcap * kLog2e;
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
      for (int v = 0; v < 4; v++) {  // cap * tanh(x / cap)
        const f32 e = ex2(s[j][v] * inner);
        s[j][v] = cap * __fmaf_rn(-2.0f, rcp_approx(e + 1.0f), 1.0f);
      }
  } else {
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
      for (int v = 0; v < 4; v++) s[j][v] *= scale;
  }
  if (all_seen) return;
#pragma unroll
  for (int j = 0; j < 8; j++)
#pragma unroll
    for (int v = 0; v < 4; v++) {
      const i32 column = j * 8 + static_cast<i32>(lane_id() % 4) * 2 + v % 2;
      if (column < sight.low[v / 2] || column >= sight.high[v / 2]) s[j][v] = -INFINITY;
    }
}

// o += weights * 16 columns of V from piece c of a panel, 64 tokens deep.
template <class T>
__device__ inline void weigh(f32 (&o)[2][4], const f32 (&s)[8][4], u32 panel, u32 c) {
#pragma unroll
  for (int kk = 0; kk < 4; kk++) {
    const u32 a[4] = {pack2<T>(s[2 * kk][0], s[2 * kk][1]), pack2<T>(s[2 * kk][2], s[2 * kk][3]),
                      pack2<T>(s[2 * kk + 1][0], s[2 * kk + 1][1]),
                      pack2<T>(s[2 * kk + 1][2], s[2 * kk + 1][3])};
    u32 b[4];
    tile::load_b_trans(b, panel, kk * 16, c);
    mma_16816<T>(o[0], a, b[0], b[1]);
    mma_16816<T>(o[1], a, b[2], b[3]);
  }
}

// One split into the total of those before it: weights of the old total and of the split.
struct Merge {
  f32 old, add;
  __device__ Merge(f32& m_total, f32& l_total, f32 m, f32 l) {
    const f32 top = fmaxf(m_total, m), base = finite(top);
    old = ex2(m_total - base), add = ex2(m - base);
    l_total = __fmaf_rn(l_total, old, __fmul_rn(l, add));
    m_total = top;
  }
  __device__ f32 operator()(f32 total, f32 o) const {
    return __fmaf_rn(total, old, __fmul_rn(o, add));
  }
};

// Copies ROWS rows of q from row `first` of the span into panels; zeros beyond `rows`.
template <class T, int D, int ROWS, int THREADS>
__device__ inline void load_q(const AttentionParams& p, const AttentionSpan& span, u32 kv_head,
                              u32 first, u32 rows, u32 panels) {
#pragma unroll
  for (u32 n = threadIdx.x; n < ROWS * kPieces<D>; n += THREADS) {
    const uint2 at = copied<D>(n, ROWS);
    const u32 r = at.x, c = at.y, row = first + r, token = row / p.group;
    const bool in = r < rows && c < D / 8;
    const T* q = pointer<const T>(p.q);
    const T* src = q + static_cast<u64>(span.start + token) * p.q_stride +
                   (kv_head * p.group + row - token * p.group) * D + c * 8;
    cp_async16(panels + c / 8 * ROWS * tile::kRow + tile::piece(r, c % 8), in ? src : q, in);
  }
}

// Where row `row` of the span goes in out.
template <class T, int D>
__device__ inline T* out_row(const AttentionParams& p, const AttentionSpan& span, u32 kv_head,
                             u32 row) {
  const u32 token = row / p.group;
  return pointer<T>(p.out) + static_cast<u64>(span.start + token) * p.out_stride +
         (kv_head * p.group + row - token * p.group) * D;
}

}  // namespace attention
