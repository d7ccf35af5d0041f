// C = A·Bᵀ the Hopper way: a producer warp feeds TMA tiles through an mbarrier ring to two
// consumer warpgroups that multiply with wgmma; persistent over output tiles.
//
// Formula  C[m][n] = Σ_k A[m][k] · B[n][k], f32 accumulation, bf16 result.
// Shapes   A [M, K], B [N, K], C [M, N] bf16, row-major, rows a multiple of 16 bytes apart.
//          Tensor maps: A box 64×128 (k × m), B box 64×64 (k × n), C box 64×64 (n × m), all with
//          128-byte swizzle. Out-of-bounds parts load as zero and are not stored.
// Launch   grid any (each block takes tiles blockIdx.x, + gridDim.x, …), block 384,
//          dynamic shared memory SHARED_BYTES (tiles start at the next multiple of 1024).
// Ring     stage s: full[s] counts 1 arrival + the bytes of both tiles; empty[s] counts one
//          arrival of each consumer warpgroup. The n-th pass over a stage waits for parity n & 1
//          on full, and for (n & 1) ^ 1 on empty, which passes at once the first time.
#include "ptx.cuh"

constexpr int BM = 128, BN = 64, BK = 64, STAGES = 3, CONSUMERS = 2;
constexpr int A_BYTES = BM * BK * 2, B_BYTES = BN * BK * 2, C_BYTES = 64 * BN * 2;
constexpr int STAGE_BYTES = A_BYTES + B_BYTES;

__device__ inline void produce(const TensorMap* map_a, const TensorMap* map_b, uint32_t tiles,
                               uint32_t full, uint32_t empty, int M, int N, int K) {
  const int n_tiles = (N + BN - 1) / BN, m_tiles = (M + BM - 1) / BM;
  const int steps = (K + BK - 1) / BK;
  int stage = 0;
  uint32_t parity = 0;
  for (int tile = blockIdx.x; tile < n_tiles * m_tiles; tile += gridDim.x) {
    const int m0 = tile / n_tiles * BM, n0 = tile % n_tiles * BN;
    for (int step = 0; step < steps; ++step) {
      mbarrier_wait(empty + stage * 8, parity ^ 1);
      const uint32_t bar = full + stage * 8, at = tiles + stage * STAGE_BYTES;
      mbarrier_expect_tx(bar, STAGE_BYTES);
      tma_load_2d(at, map_a, step * BK, m0, bar);
      tma_load_2d(at + A_BYTES, map_b, step * BK, n0, bar);
      if (++stage == STAGES) {
        stage = 0;
        parity ^= 1;
      }
    }
  }
}

// Writes the warpgroup's 64×64 accumulator as bf16 to its swizzled staging tile.
__device__ inline void stage_result(const float (&acc)[32], uint32_t tile, int thread) {
  const int warp = thread / 32, lane = thread % 32;
#pragma unroll
  for (int pair = 0; pair < BN / 16; ++pair) {
    uint32_t r[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      r[i] = pack_bf16(acc[pair * 8 + i * 2], acc[pair * 8 + i * 2 + 1]);
    // Matrices 0 and 1: rows 0-7 and 8-15 of the left eight columns; 2 and 3: the right eight.
    const int row = warp * 16 + lane % 16, chunk = pair * 2 + lane / 16;
    stmatrix_x4(tile + row * 128 + ((chunk ^ (row & 7)) << 4), r);
  }
}

__device__ inline void consume(const TensorMap* map_c, uint32_t tiles, uint32_t staging,
                               uint32_t full, uint32_t empty, int group, int M, int N, int K) {
  const int n_tiles = (N + BN - 1) / BN, m_tiles = (M + BM - 1) / BM;
  const int steps = (K + BK - 1) / BK, thread = threadIdx.x % 128;
  int stage = 0;
  uint32_t parity = 0;
  for (int tile = blockIdx.x; tile < n_tiles * m_tiles; tile += gridDim.x) {
    const int m0 = tile / n_tiles * BM + group * 64, n0 = tile % n_tiles * BN;
    float acc[32];
    int previous = -1;
    for (int step = 0; step < steps; ++step) {
      mbarrier_wait(full + stage * 8, parity);
      const uint32_t a = tiles + stage * STAGE_BYTES + group * 64 * 128;
      const uint32_t b = tiles + stage * STAGE_BYTES + A_BYTES;
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < BK / 16; ++k) {
        wgmma_m64n64k16<0>(acc, wgmma_desc(a + k * 32, 16, 1024, 1),
                           wgmma_desc(b + k * 32, 16, 1024, 1), step > 0 || k > 0);
      }
      wgmma_commit();
      // The products of the step before are done once only this step's are in flight.
      wgmma_wait<1>();
      if (previous >= 0 && thread == 0) mbarrier_arrive(empty + previous * 8);
      previous = stage;
      if (++stage == STAGES) {
        stage = 0;
        parity ^= 1;
      }
    }
    wgmma_wait<0>();
    if (thread == 0) {
      mbarrier_arrive(empty + previous * 8);
      tma_wait_read<0>();
    }
    named_barrier(1 + group, 128);
    stage_result(acc, staging + group * C_BYTES, thread);
    fence_proxy_async();
    named_barrier(1 + group, 128);
    if (thread == 0) {
      tma_store_2d(map_c, n0, m0, staging + group * C_BYTES);
      tma_commit();
    }
  }
  if (thread == 0) tma_wait<0>();
}

extern "C" __global__ void __launch_bounds__(384, 1)
gemm_sm90(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b,
          const __grid_constant__ TensorMap map_c, int M, int N, int K) {
  extern __shared__ unsigned char raw[];
  __shared__ alignas(8) uint64_t barriers[2 * STAGES];
  const uint32_t tiles = (smem_addr(raw) + 1023) & ~1023u;
  const uint32_t staging = tiles + STAGES * STAGE_BYTES;
  const uint32_t full = smem_addr(barriers), empty = full + STAGES * 8;
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; ++s) {
      mbarrier_init(full + s * 8, 1);
      mbarrier_init(empty + s * 8, CONSUMERS);
    }
    fence_barrier_init();
    fence_proxy_async();
  }
  __syncthreads();
  const int role = threadIdx.x / 128;
  if (role == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x == 0) produce(&map_a, &map_b, tiles, full, empty, M, N, K);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    consume(&map_c, tiles, staging, full, empty, role - 1, M, N, K);
  }
}
