// C = A·Bᵀ on tensor cores, the sm_80 way: cp.async ring, ldmatrix, mma.sync.
//
// Formula  C[m][n] = Σ_k A[m][k] · B[n][k], f32 accumulation, bf16 result.
// Shapes   A [M, K] bf16, B [N, K] bf16, C [M, N] bf16, all row-major; K a multiple of 8, M and N
//          any. A and B 16-byte aligned.
// Launch   grid (⌈N/64⌉, ⌈M/64⌉), block 128; 24 KiB of static shared memory.
// Tiling   64×64×32 per block, 3 stages; 4 warps as 2×2, each 32×32. A row of a tile is 64 bytes:
//          two rows share a 128-byte line, so 16-byte chunk c of row r lies at c ^ ((r >> 1) & 3).
#include "ptx.cuh"

constexpr int BM = 64, BN = 64, BK = 32, STAGES = 3, THREADS = 128;
constexpr int TILE_BYTES = BM * BK * 2;

__device__ inline uint32_t chunk_offset(int row, int chunk) {
  return row * (BK * 2) + ((chunk ^ ((row >> 1) & 3)) << 4);
}

// Copies rows [row0, row0+64) and columns [k0, k0+32) of a row-major matrix; zeros outside.
__device__ inline void load_tile(uint32_t dst, const bf16* src, int rows, int K, int row0, int k0) {
  for (int i = threadIdx.x; i < BM * BK / 8; i += THREADS) {
    int row = i / 4, chunk = i % 4;
    int k = k0 + chunk * 8;
    bool inside = row0 + row < rows && k < K;
    const bf16* from = inside ? src + static_cast<size_t>(row0 + row) * K + k : src;
    cp_async16(dst + chunk_offset(row, chunk), from, inside ? 16 : 0);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
gemm_sm80(const bf16* __restrict__ A, const bf16* __restrict__ B, bf16* __restrict__ C, int M,
          int N, int K) {
  __shared__ alignas(128) unsigned char shared[STAGES * 2 * TILE_BYTES];
  const uint32_t base = smem_addr(shared);
  const int m0 = blockIdx.y * BM, n0 = blockIdx.x * BN;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int wm = (warp / 2) * 32, wn = (warp % 2) * 32;
  const int steps = (K + BK - 1) / BK;
  auto tile_a = [&](int stage) { return base + stage * 2 * TILE_BYTES; };
  auto tile_b = [&](int stage) { return base + stage * 2 * TILE_BYTES + TILE_BYTES; };

  for (int s = 0; s < STAGES - 1; ++s) {
    if (s < steps) {
      load_tile(tile_a(s), A, M, K, m0, s * BK);
      load_tile(tile_b(s), B, N, K, n0, s * BK);
    }
    cp_async_commit();
  }

  float acc[2][4][4] = {};
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();
    const int next = step + STAGES - 1;
    if (next < steps) {
      load_tile(tile_a(next % STAGES), A, M, K, m0, next * BK);
      load_tile(tile_b(next % STAGES), B, N, K, n0, next * BK);
    }
    cp_async_commit();

    const uint32_t sa = tile_a(step % STAGES), sb = tile_b(step % STAGES);
#pragma unroll
    for (int kk = 0; kk < BK / 16; ++kk) {
      uint32_t a[2][4], b[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        int row = wm + i * 16 + lane % 16, chunk = kk * 2 + lane / 16;
        ldmatrix_x4(a[i], sa + chunk_offset(row, chunk));
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        int row = wn + j * 16 + lane % 8 + (lane / 16) * 8, chunk = kk * 2 + (lane / 8) % 2;
        ldmatrix_x4(b[j], sb + chunk_offset(row, chunk));
      }
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          mma_16816(acc[i][j], a[i], b[j / 2][(j % 2) * 2], b[j / 2][(j % 2) * 2 + 1]);
    }
  }

#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        int m = m0 + wm + i * 16 + lane / 4 + (v / 2) * 8;
        int n = n0 + wn + j * 8 + (lane % 4) * 2 + v % 2;
        if (m < M && n < N) C[static_cast<size_t>(m) * N + n] = __float2bfloat16(acc[i][j][v]);
      }
}
