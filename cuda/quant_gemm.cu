// quant_gemm.cu: y = x * W^T with W in blocks of 32 numbers that share a scale (GGUF Q8_0, Q4_0, Q4_1)
//
// formula   as gemm.cu with w[n][k] = d * q (Q8_0, Q4_0), or d * q + min (Q4_1), d and min of block k / 32
// shapes    as gemm.cu, but w is [ceil(rows / 8)][ceil(k / 64)] groups of kGroup bytes, in
//           the order of a warp's fragments, as src/device/gpu/quant.rs packs them: 16 (Q8_0) or 8 bytes
//           of q a lane, then 2 x 8 f16 scales, then (Q4_1) as many minima. rows = n, or 2n gated and
//           then n % 8 = 0. k % 32 = 0
// launch    as gemm.cu; dynamic shared memory kShared (in the registry)
// tiles     BM x BN products a block, 64 deep, ring of kStages; the packed weights go through the ring and
//           are widened in registers, between two 16-byte reads and the products
// traffic   unique: x, y as gemm.cu; w 8.5, 4.5 or 5 bits a number. issued: as gemm.cu
// bound     memory for few rows; for many rows tensor cores, with a multiply-add per 32 products beside
// numerics  q is exact in T. A block's 32 products are summed by two k16 products, then scaled and added
//           in f32, blocks in order: exact weights, and a row's bits do not depend on other rows
// needs     sm_80
// why       scaling sums instead of numbers keeps all bits of d and costs 1 / 16 of the scalings; weights
//           in fragment order need no shuffles and no second pass through shared memory.
#include "gemm.cuh"

namespace quant {

enum Kind { kQ8, kQ4, kQ4Min };

template <int BM_, int BN_, int WM_, int WN_, int STAGES, bool GATED, int KIND>
struct Config : gemm::Config<BM_, BN_, WM_, WN_, STAGES, GATED> {
  static constexpr int kLaneBytes = KIND == kQ8 ? 16 : 8;
  static constexpr int kQuants = 32 * kLaneBytes, kScales = 32;
  static constexpr int kGroup = kQuants + kScales * (KIND == kQ4Min ? 2 : 1);
  static constexpr int kPieces = kGroup / 16;
  static constexpr int kX = BM_ * tile::kRow;
  static constexpr int kStageBytes = (kX + BN_ / 8 * kGroup + 127) / 128 * 128;
  static constexpr int kWarps = Config::kThreads / 32;
  static constexpr int kRing = STAGES * kStageBytes;
  static constexpr int kShared = kRing > Config::kResult ? kRing : Config::kResult;
};

// A value at an address of shared memory.
template <class V>
__device__ inline V at(u32 address) {
  return *static_cast<const V*>(__cvta_shared_to_generic(address));
}

// Two biased numbers of a fragment, q + 128, in the low bytes of a word's halves as T.
template <class T>
__device__ inline u32 widen8(u32 word, u32 low, u32 high) {
  // 2^23 + byte, as the bits of an f32.
  const f32 a = __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7540 + low));
  const f32 b = __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7540 + high));
  Pack<T, 2> p;
  p.set(0, a - 8388736.0f), p.set(1, b - 8388736.0f);
  return *reinterpret_cast<u32*>(&p);
}

// Nibbles 0 and 4 of a word, less `bias`.
template <class T>
__device__ inline u32 widen4(u32 word, f32 bias);

template <>
__device__ inline u32 widen4<bf16>(u32 word, f32 bias) {
  u32 bits = (word & 0x000f000fu) | 0x43004300u;  // 128 + q
  const __nv_bfloat162 x = *reinterpret_cast<__nv_bfloat162*>(&bits);
  const __nv_bfloat162 y = __hsub2(x, __float2bfloat162_rn(128.0f + bias));
  return *reinterpret_cast<const u32*>(&y);
}

template <>
__device__ inline u32 widen4<f16>(u32 word, f32 bias) {
  u32 bits = (word & 0x000f000fu) | 0x64006400u;  // 1024 + q
  const __half2 x = *reinterpret_cast<__half2*>(&bits);
  const __half2 y = __hsub2(x, __float2half2_rn(1024.0f + bias));
  return *reinterpret_cast<const u32*>(&y);
}

// A lane's fragments of 64 numbers of a row: b[step][register].
template <class T, int KIND>
__device__ inline void fragments(u32 (&b)[4][2], u32 group) {
  if constexpr (KIND == kQ8) {
    const uint4 raw = at<uint4>(group + lane_id() * 16);
    const u32 words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int s = 0; s < 4; s++)
      b[s][0] = widen8<T>(words[s], 0, 1), b[s][1] = widen8<T>(words[s], 2, 3);
  } else {
    const uint2 raw = at<uint2>(group + lane_id() * 8);
    const u32 words[2] = {raw.x, raw.y};
    const f32 bias = KIND == kQ4 ? 8.0f : 0.0f;
#pragma unroll
    for (int s = 0; s < 4; s++)
#pragma unroll
      for (int r = 0; r < 2; r++) b[s][r] = widen4<T>(words[s / 2] >> (s % 2 * 8 + r * 4), bias);
  }
}

template <class T, class C, int KIND>
struct Gemm {
  const GemmParams& p;
  gemm::Loader<T, C> from;
  u32 n0, groups;  // groups: along k

  __device__ Gemm(const GemmParams& q, u32 m0, u32 n0)
      : p(q), from(q, m0, n0, nullptr), n0(n0), groups((q.k + 63) / 64) {}

  // First byte of the weights of the tile's n8 tile `i`; 0 beyond the matrix.
  __device__ u64 group_row(u32 i) const {
    const u32 n = n0 + (C::kGated ? i / 2 : i) * 8;
    if (n >= p.n) return 0;
    const u32 row = C::kGated && i % 2 ? p.n + n : n;
    return p.w + static_cast<u64>(row / 8) * groups * C::kGroup;
  }

  __device__ void load_w(u32 stage, u32 step) const {
#pragma unroll
    for (u32 i = warp_id(); i < C::BN / 8; i += C::kWarps) {
      const u64 row = group_row(i);
      const u32 to = stage + C::kX + i * C::kGroup;
#pragma unroll
      for (u32 c = 0; c < C::kPieces; c += 32) {
        const u32 piece = c + lane_id();
        const u64 at = row + static_cast<u64>(step) * C::kGroup + piece * 16;
        if (piece < C::kPieces)
          cp_async16(to + piece * 16, pointer<const void>(row ? at : p.w), row != 0);
      }
    }
  }

  // acc += one stage.
  template <int MI, int NI>
  __device__ void multiply(f32 (&acc)[MI][NI][4], u32 stage, u32 wm, u32 wn) const {
    const u32 t = lane_id() % 4;
#pragma unroll
    for (u32 block = 0; block < 2; block++) {
      u32 a[2][MI][4];
      f32 ones[MI][4];
#pragma unroll
      for (int i = 0; i < MI; i++) {
#pragma unroll
        for (u32 s = 0; s < 2; s++) tile::load_a(a[s][i], stage, wm + i * 16, block * 4 + s * 2);
        if constexpr (KIND == kQ4Min) {  // the sum of x over the block, in every column
          const u32 one = gemm_one();
          ones[i][0] = ones[i][1] = ones[i][2] = ones[i][3] = 0.0f;
          mma_16816<T>(ones[i], a[0][i], one, one);
          mma_16816<T>(ones[i], a[1][i], one, one);
        }
      }
#pragma unroll
      for (int j = 0; j < NI; j++) {
        const u32 group = stage + C::kX + (wn / 8 + j) * C::kGroup;
        u32 b[4][2];
        fragments<T, KIND>(b, group);
        const u32 scales = group + C::kQuants + block * 16 + t * 4;
        const float2 d = halves(at<u32>(scales));
        float2 least = {0, 0};
        if constexpr (KIND == kQ4Min) least = halves(at<u32>(scales + C::kScales));
#pragma unroll
        for (int i = 0; i < MI; i++) {
          f32 sum[4] = {};
          mma_16816<T>(sum, a[0][i], b[block * 2][0], b[block * 2][1]);
          mma_16816<T>(sum, a[1][i], b[block * 2 + 1][0], b[block * 2 + 1][1]);
#pragma unroll
          for (int v = 0; v < 4; v++) {
            acc[i][j][v] = fmaf(v % 2 ? d.y : d.x, sum[v], acc[i][j][v]);
            if constexpr (KIND == kQ4Min)
              acc[i][j][v] = fmaf(v % 2 ? least.y : least.x, ones[i][v], acc[i][j][v]);
          }
        }
      }
    }
  }

  static __device__ u32 gemm_one() {
    Pack<T, 2> one;
    one.set(0, 1.0f), one.set(1, 1.0f);
    return *reinterpret_cast<u32*>(&one);
  }

  static __device__ float2 halves(u32 bits) {
    return __half22float2(*reinterpret_cast<const __half2*>(&bits));
  }
};

}  // namespace quant

template <class T, int BM, int BN, int WM, int WN, int STAGES, bool GATED, int KIND>
__device__ void quant_gemm(const GemmParams& p) {
  using C = quant::Config<BM, BN, WM, WN, STAGES, GATED, KIND>;
  extern __shared__ __align__(1024) unsigned char shared[];
  const u32 base = smem_addr(shared);
  const gemm::Place place(blockIdx.x, (p.m + BM - 1) / BM, (p.n + C::kOut - 1) / C::kOut);
  const u32 m0 = place.m * BM, n0 = place.n * C::kOut;
  const u32 wm = warp_id() / C::kWarpsN * WM, wn = warp_id() % C::kWarpsN * WN;
  const quant::Gemm<T, C, KIND> work(p, m0, n0);
  const u32 steps = work.groups;

  grid_dependency_wait();
  for (u32 s = 0; s < C::kStages - 1; s++) {
    const u32 at = base + s * C::kStageBytes;
    if (s < steps) work.load_w(at, s), work.from.load_x(at, s * tile::kWidth);
    cp_async_commit();
  }
  f32 acc[WM / 16][WN / 8][4] = {};
  u32 read = base, write = base + (C::kStages - 1) * C::kStageBytes;
  for (u32 step = 0; step < steps; step++) {
    cp_async_wait<C::kStages - 2>();
    __syncthreads();
    const u32 next = step + C::kStages - 1;
    if (next < steps) work.load_w(write, next), work.from.load_x(write, next * tile::kWidth);
    cp_async_commit();
    work.multiply(acc, read, wm, wn);
    write = read;
    read = read + C::kStageBytes == base + C::kRing ? base : read + C::kStageBytes;
  }
  cp_async_wait<0>();
  __syncthreads();
  f32* result = reinterpret_cast<f32*>(shared);
  gemm::stage<T, C>(p, acc, result, n0, wm, wn);
  __syncthreads();
  gemm::write_rows<T, C::BM, C::kOut, C::kStride, C::kThreads>(p, result, m0, n0, threadIdx.x);
}
