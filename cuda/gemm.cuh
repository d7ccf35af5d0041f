// gemm.cuh: one tile of y = x * W^T, for gemm.cu and grouped_gemm.cu. Shapes and numerics: see there.
#pragma once
#include "activation.cuh"
#include "tile.cuh"

namespace gemm {

template <int BM_, int BN_, int WM_, int WN_, int STAGES, bool GATED>
struct Config {
  static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_, kStages = STAGES;
  static constexpr bool kGated = GATED;
  static constexpr int kOut = GATED ? BN / 2 : BN;
  static constexpr int kWarpsN = BN / WN;
  static constexpr int kThreads = 32 * (BM / WM) * kWarpsN;
  static constexpr int kPass = kThreads / tile::kPieces;  // rows that one pass copies
  static constexpr int kStageBytes = (BM + BN) * tile::kRow;
  static constexpr int kRing = kStages * kStageBytes;
  static constexpr int kStride = kOut + 8;  // floats between rows of the result: no bank conflicts
  static constexpr int kResult = BM * kStride * 4;
  static constexpr int kShared = kRing > kResult ? kRing : kResult;
  static_assert(BM % WM == 0 && BN % WN == 0 && WM % 16 == 0 && WN % 8 == 0, "whole warp tiles");
  static_assert(!GATED || WN % 16 == 0, "gate and up of a column belong to one thread");
  static_assert(kPass % 8 == 0, "a thread's pieces share one swizzle");
  static_assert(BN % kPass == 0 && (BM % kPass == 0 || BM < kPass), "whole passes");
  static_assert(kShared <= 227 * 1024, "fits a block");
};

// Copies of one block: which piece of which rows this thread brings.
template <class T, class C>
struct Loader {
  static constexpr u32 kRows = (C::BM + C::kPass - 1) / C::kPass;

  const T *x[kRows], *w;
  u32 m_left, n_left;  // rows from the tile's first to the matrix' end
  u32 k, up;           // up: rows from a gate row to its up row
  u32 row, col;

  __device__ Loader(const GemmParams& p, u32 m0, u32 n0, const u32* gather)
      : w(pointer<const T>(p.w) + static_cast<u64>(n0) * p.k),
        m_left(p.m - m0),
        n_left(p.n - n0),
        k(p.k),
        up(p.n),
        row(threadIdx.x / tile::kPieces),
        col(threadIdx.x % tile::kPieces) {
#pragma unroll
    for (u32 r = 0; r < kRows; r++) {
      const u32 i = r * C::kPass + row, m = i < m_left ? m0 + i : 0;
      x[r] = pointer<const T>(p.x) + static_cast<u64>(gather ? gather[m] : m) * p.x_stride;
    }
  }

  __device__ void load_x(u32 stage, u32 k0) const {
    const u32 at = k0 + col * 8;
#pragma unroll
    for (u32 r = 0; r < kRows; r++) {
      const u32 i = r * C::kPass + row;
      if (C::BM < C::kPass && i >= C::BM) break;
      const bool in = i < m_left && at < k;
      cp_async16(stage + tile::piece(i, col), in ? x[r] + at : x[r], in);
    }
  }

  // As load_x, but done when it returns: for stages whose copies of w are already under way.
  __device__ void store_x(u32 stage, u32 k0) const {
    const u32 at = k0 + col * 8;
#pragma unroll
    for (u32 r = 0; r < kRows; r++) {
      const u32 i = r * C::kPass + row;
      if (C::BM < C::kPass && i >= C::BM) break;
      uint4 v = {0, 0, 0, 0};
      if (i < m_left && at < k) v = *reinterpret_cast<const uint4*>(x[r] + at);
      st_shared(stage + tile::piece(i, col), v);
    }
  }

  __device__ void load_w(u32 stage, u32 k0) const {
    const u32 at = k0 + col * 8, panel = stage + C::BM * tile::kRow;
#pragma unroll
    for (u32 r = 0; r < C::BN; r += C::kPass) {
      const u32 i = r + row;
      // Gated: eight gate rows and their eight up rows take turns.
      const u32 n = C::kGated ? i / 16 * 8 + i % 8 : i;
      const u32 from = C::kGated && (i & 8) ? n + up : n;
      const bool in = n < n_left && at < k;
      cp_async16(panel + tile::piece(i, col), in ? w + static_cast<u64>(from) * k + at : w, in);
    }
  }
};

// acc += one stage, k ascending.
template <class T, class C, int MI, int NI>
__device__ inline void multiply(f32 (&acc)[MI][NI][4], u32 stage, u32 wm, u32 wn) {
  const u32 panel_w = stage + C::BM * tile::kRow;
#pragma unroll
  for (u32 c = 0; c < tile::kPieces; c += 2) {
    u32 a[MI][4], b[NI][2];
#pragma unroll
    for (int i = 0; i < MI; i++) tile::load_a(a[i], stage, wm + i * 16, c);
    if constexpr (NI == 1) {
      u32 two[4];
      tile::load_b_deep(two, panel_w, wn, c & ~3u);
      b[0][0] = two[c & 2], b[0][1] = two[(c & 2) + 1];
    } else {
#pragma unroll
      for (int j = 0; j < NI; j += 2) {
        u32 two[4];
        tile::load_b(two, panel_w, wn + j * 8, c);
        b[j][0] = two[0], b[j][1] = two[1], b[j + 1][0] = two[2], b[j + 1][1] = two[3];
      }
    }
#pragma unroll
    for (int i = 0; i < MI; i++)
#pragma unroll
      for (int j = 0; j < NI; j++) mma_16816<T>(acc[i][j], a[i], b[j][0], b[j][1]);
  }
}

// The warp's sums to the block's result in shared memory, gated where that is asked.
template <class T, class C, int MI, int NI>
__device__ inline void stage(const GemmParams& p, const f32 (&acc)[MI][NI][4], f32* result, u32 n0,
                             u32 wm, u32 wn) {
  const u32 g = lane_id() / 4, t = lane_id() % 4;
  const T* bias = pointer<const T>(p.bias);
  constexpr int kStep = C::kGated ? 2 : 1;
#pragma unroll
  for (int j = 0; j < NI; j += kStep) {
    const u32 column = (wn + j * 8) / kStep + 2 * t;
    f32 add[2][2] = {};
#pragma unroll
    for (u32 v = 0; v < 2; v++)
      if (p.bias && n0 + column + v < p.n) {
        add[0][v] = to_f32(bias[n0 + column + v]);
        if (C::kGated) add[1][v] = to_f32(bias[p.n + n0 + column + v]);
      }
#pragma unroll
    for (int i = 0; i < MI; i++)
#pragma unroll
      for (u32 half = 0; half < 2; half++) {
        f32 y[2];
#pragma unroll
        for (u32 v = 0; v < 2; v++) {
          y[v] = acc[i][j][half * 2 + v] + add[0][v];
          if constexpr (C::kGated)
            y[v] = activate(p.act, y[v]) * (acc[i][j + 1][half * 2 + v] + add[1][v]);
        }
        *reinterpret_cast<float2*>(result + (wm + i * 16 + half * 8 + g) * C::kStride + column) =
            make_float2(y[0], y[1]);
      }
  }
}

// N numbers of the result, with the residual, to y.
template <class T, int N>
__device__ inline void write(const GemmParams& p, u32 m, u32 n, const f32* y) {
  f32 sum[N];
  Pack<T, N> add;
  if (p.residual) {
    const T* from = pointer<const T>(p.residual) + static_cast<u64>(m) * p.residual_stride + n;
    add = load<T, N>(from);
  }
#pragma unroll
  for (int i = 0; i < N; i++) sum[i] = p.residual ? y[i] + add.get(i) : y[i];
  const u64 at = static_cast<u64>(m) * p.y_stride + n;
  if (p.out_f32) {
    Pack<f32, N> out;
#pragma unroll
    for (int i = 0; i < N; i++) out.set(i, sum[i]);
    store(pointer<f32>(p.y) + at, out);
  } else {
    Pack<T, N> out;
#pragma unroll
    for (int i = 0; i < N; i++) out.set(i, sum[i]);
    store(pointer<T>(p.y) + at, out);
  }
}

// ROWS x COLUMNS results from shared memory to y at (m0, n0), four columns a thread where rows allow.
template <class T, u32 ROWS, u32 COLUMNS, u32 STRIDE, u32 THREADS>
__device__ inline void write_rows(const GemmParams& p, const f32* result, u32 m0, u32 n0,
                                  u32 thread) {
  const bool four = p.n % 4 == 0 && p.y_stride % 4 == 0 && p.residual_stride % 4 == 0;
  for (u32 i = thread; i < ROWS * COLUMNS / 4; i += THREADS) {
    const u32 row = i / (COLUMNS / 4), column = i % (COLUMNS / 4) * 4;
    const u32 m = m0 + row, n = n0 + column;
    if (m >= p.m) break;
    const float4 v = *reinterpret_cast<const float4*>(result + row * STRIDE + column);
    const f32 y[4] = {v.x, v.y, v.z, v.w};
    if (four && n < p.n) write<T, 4>(p, m, n, y);
    if (!four)
#pragma unroll
      for (u32 c = 0; c < 4; c++)
        if (n + c < p.n) write<T, 1>(p, m, n + c, y + c);
  }
}

// Number of a tile to its place: stripes of eight tiles of rows, so that blocks that run together
// share w in L2.
struct Place {
  u32 m, n;
  __device__ Place(u32 number, u32 m_tiles, u32 n_tiles) {
    const u32 stripe = number / (8 * n_tiles), rows = min(m_tiles - stripe * 8, 8u);
    const u32 within = number - stripe * 8 * n_tiles;
    m = stripe * 8 + within % rows, n = within / rows;
  }
};

// The tile of y whose first row and column are m0 and n0. WEIGHTS_FIRST: what decides on the tile
// does not depend on the kernel before this one, and neither do weights: they are asked for before
// it is waited for.
template <class T, class C, bool WEIGHTS_FIRST>
__device__ inline void run(const GemmParams& p, u32 m0, u32 n0, const u32* gather) {
  extern __shared__ __align__(1024) unsigned char shared[];
  const u32 base = smem_addr(shared);
  const u32 wm = warp_id() / C::kWarpsN * C::WM, wn = warp_id() % C::kWarpsN * C::WN;
  const u32 steps = (p.k + tile::kWidth - 1) / tile::kWidth;
  const Loader<T, C> from(p, m0, n0, gather);
  for (u32 s = 0; WEIGHTS_FIRST && s < C::kStages - 1; s++) {
    if (s < steps) from.load_w(base + s * C::kStageBytes, s * tile::kWidth);
    cp_async_commit();
  }
  grid_dependency_wait();
  for (u32 s = 0; s < C::kStages - 1; s++) {
    const u32 at = base + s * C::kStageBytes;
    if (WEIGHTS_FIRST) {
      if (s < steps) from.store_x(at, s * tile::kWidth);
    } else {
      if (s < steps) from.load_x(at, s * tile::kWidth), from.load_w(at, s * tile::kWidth);
      cp_async_commit();
    }
  }

  f32 acc[C::WM / 16][C::WN / 8][4] = {};
  u32 read = base, write = base + (C::kStages - 1) * C::kStageBytes;
  for (u32 step = 0; step < steps; step++) {
    cp_async_wait<C::kStages - 2>();
    __syncthreads();
    const u32 next = step + C::kStages - 1;
    if (next < steps) {
      from.load_w(write, next * tile::kWidth);
      from.load_x(write, next * tile::kWidth);
    }
    cp_async_commit();
    multiply<T, C>(acc, read, wm, wn);
    write = read;
    read = read + C::kStageBytes == base + C::kRing ? base : read + C::kStageBytes;
  }
  grid_launch_dependents();
  cp_async_wait<0>();
  __syncthreads();
  f32* result = reinterpret_cast<f32*>(shared);
  stage<T, C>(p, acc, result, n0, wm, wn);
  __syncthreads();
  write_rows<T, C::BM, C::kOut, C::kStride, C::kThreads>(p, result, m0, n0, threadIdx.x);
}

}  // namespace gemm
