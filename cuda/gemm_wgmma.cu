// gemm_wgmma.cu: gemm.cu the Hopper way, for many rows: TMA, mbarriers, wgmma, persistent blocks
//
// formula   as gemm.cu
// shapes    as gemm.cu. x_map: x as [m][k] numbers, rows x_stride apart, box 64 x 128; w_map: w as
//           [rows][k], dense, box 64 x 64; both with 128-byte swizzle and zeros out of bounds
// launch    grid CLUSTER * min(columns of CLUSTER tiles, clusters that the card holds at once), clusters
//           of CLUSTER (2 or 4), block 384, dynamic shared memory kShared (in the registry)
// tiles     128 x BN products a block, 64 deep, through a ring of kStages. One thread of the first
//           warpgroup copies; two warpgroups multiply 64 rows each. A cluster's tiles are one below
//           the other and share their tile of w: each block loads its part and multicasts it, so L2
//           gives 128 + BN / CLUSTER rows a step, not 128 + BN
// traffic   unique: as gemm.cu; issued: x once for every tile of columns, w once for every CLUSTER tiles
//           of rows
// bound     tensor cores
// numerics  one chain of k16 products per output from k = 0 up, as gemm.cu. Equal bits to gemm.cu's on
//           the PTX machine, which rounds once per k16 product; that a card's wgmma and mma.sync round
//           alike inside a product is to be measured on one before both serve one request
// needs     sm_90a
// why       128 x 256 needs 12 TB/s from L2 at the card's peak, more than there is; sharing w in pairs
//           takes a third off, among four half. A cluster lies within one GPC (16 or 18
//           multiprocessors), so of 132 four-block clusters hold 128: for many rows, where that is less
//           than what L2 costs.
#include "gemm.cuh"
#include "ptx_sm90.cuh"

namespace gemm {

template <class T, int BN_, int STAGES, bool GATED, u32 CLUSTER>
struct Wgmma {
  static constexpr u32 BM = 128, BN = BN_, kStages = STAGES, kOut = GATED ? BN / 2 : BN;
  static constexpr u32 kA = BM * tile::kRow, kStageBytes = kA + BN * tile::kRow;
  static constexpr u32 kPart = BN / CLUSTER;  // rows of w that one block of the cluster brings
  static constexpr unsigned short kAll = (1 << CLUSTER) - 1;
  // A warp's results pass through shared memory 32 columns at a time.
  static constexpr u32 kPassOut = 32, kStride = kPassOut + 8;
  static constexpr u32 kResult = 8 * 16 * kStride * 4, kBarriers = 2 * STAGES * 8;
  static constexpr u32 kShared = 1024 + STAGES * kStageBytes + kResult + kBarriers;
  static constexpr u32 kReaders = CLUSTER * 2 * 4;  // warps of all blocks that read a stage
  static constexpr int NI = BN / 8;
  static_assert(kShared <= 227 * 1024, "fits a block");
  static_assert(kPart % 64 == 0, "whole boxes of w");

  const WgmmaGemmParams& p;
  u32 ring, full, empty, rank, steps, m_groups, n_tiles;
  f32* result;
  u32 stage = 0, parity = 0;

  __device__ Wgmma(const WgmmaGemmParams& p, unsigned char* shared) : p(p) {
    const u32 skip = (1024 - smem_addr(shared) % 1024) % 1024;
    ring = smem_addr(shared) + skip;
    result = reinterpret_cast<f32*>(shared + skip + STAGES * kStageBytes);
    full = ring + STAGES * kStageBytes + kResult, empty = full + STAGES * 8;
    rank = cluster_rank();
    steps = (p.gemm.k + tile::kWidth - 1) / tile::kWidth;
    m_groups = (p.gemm.m + CLUSTER * BM - 1) / (CLUSTER * BM), n_tiles = (p.gemm.n + kOut - 1) / kOut;
  }

  __device__ void advance() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }

  // First row and column of the block's tile of the cluster's tiles number `group`.
  __device__ uint2 tile_at(u32 group) const {
    const Place place(group, m_groups, n_tiles);
    return {(place.m * CLUSTER + rank) * BM, place.n * kOut};
  }

  // Row of w for row i of the tile: gated tiles hold the gate's rows, then the up projection's.
  __device__ u32 w_row(u32 n0, u32 i) const {
    return GATED && i >= kOut ? p.gemm.n + n0 + i - kOut : n0 + i;
  }

  __device__ void produce() {
    tma_prefetch_map(&p.x_map), tma_prefetch_map(&p.w_map);
    grid_dependency_wait();
    for (u32 tiles = blockIdx.x / CLUSTER; tiles < m_groups * n_tiles;
         tiles += gridDim.x / CLUSTER) {
      const uint2 at = tile_at(tiles);
      for (u32 step = 0; step < steps; step++, advance()) {
        const u32 k0 = step * tile::kWidth, bar = full + stage * 8;
        const u32 a = ring + stage * kStageBytes, b = a + kA;
        mbarrier_wait(empty + stage * 8, parity ^ 1);
        mbarrier_expect_tx(bar, kStageBytes);
        tma_load(a, &p.x_map, k0, at.x, bar);
#pragma unroll
        for (u32 i = 0; i < kPart; i += 64) {
          const u32 row = rank * kPart + i;
          tma_load_multicast(b + row * tile::kRow, &p.w_map, k0, w_row(at.y, row), bar, kAll);
        }
      }
    }
  }

  // The producers of all blocks wait for every reader of a stage.
  __device__ void release(u32 which) const {
    if (lane_id() < CLUSTER) mbarrier_arrive_cluster(empty + which * 8, lane_id());
  }

  __device__ void consume(u32 group) {
    for (u32 tiles = blockIdx.x / CLUSTER; tiles < m_groups * n_tiles;
         tiles += gridDim.x / CLUSTER) {
      f32 acc[NI][4];
      u32 before = 0;
      for (u32 step = 0; step < steps; step++, advance()) {
        mbarrier_wait(full + stage * 8, parity);
        const u32 a = ring + stage * kStageBytes + group * 64 * tile::kRow;
        const u32 b = ring + stage * kStageBytes + kA;
        wgmma_fence();
#pragma unroll
        for (u32 k = 0; k < tile::kWidth / 16; k++)
          wgmma<T, BN>(acc, wgmma_panel(a + k * 32), wgmma_panel(b + k * 32), step + k);
        wgmma_commit();
        // The step before is done once only this one is under way.
        wgmma_wait<1>();
        if (step > 0) release(before);
        before = stage;
      }
      wgmma_wait<0>();
      release(before);
      const uint2 at = tile_at(tiles);
      write(acc, at.x + group * 64 + warp_id() % 4 * 16, at.y);
    }
  }

  // One number of y before the residual.
  __device__ f32 output(const f32 (&acc)[NI][4], u32 j, u32 v, u32 n) const {
    const T* bias = pointer<const T>(p.gemm.bias);
    const bool add = p.gemm.bias && n < p.gemm.n;
    const f32 y = acc[j][v] + (add ? to_f32(bias[n]) : 0.0f);
    if constexpr (!GATED) return y;
    const f32 up = acc[j + NI / 2][v] + (add ? to_f32(bias[p.gemm.n + n]) : 0.0f);
    return activate(p.gemm.act, y) * up;
  }

  // The warp's 16 rows from m0 on.
  __device__ void write(const f32 (&acc)[NI][4], u32 m0, u32 n0) const {
    const u32 g = lane_id() / 4, t = lane_id() % 4;
    f32* mine = result + (warp_id() - 4) * 16 * kStride;
    constexpr u32 kTiles = kPassOut / 8;
#pragma unroll
    for (u32 j = 0; j < kOut / 8; j += kTiles) {
#pragma unroll
      for (u32 i = 0; i < kTiles; i++)
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
          const u32 n = n0 + (j + i) * 8 + 2 * t;
          *reinterpret_cast<float2*>(mine + (g + 8 * h) * kStride + i * 8 + 2 * t) =
              make_float2(output(acc, j + i, 2 * h, n), output(acc, j + i, 2 * h + 1, n + 1));
        }
      __syncwarp();
      write_rows<T, 16, kPassOut, kStride, 32>(p.gemm, mine, m0, n0 + j * 8, lane_id());
      __syncwarp();
    }
  }

  __device__ void run() {
    if (threadIdx.x == 0) {
      for (u32 s = 0; s < STAGES; s++) {
        mbarrier_init(full + s * 8, 1);
        mbarrier_init(empty + s * 8, kReaders);
      }
      fence_mbarrier_init();
    }
    cluster_sync();
    if (warp_id() < 4) {
      setmaxnreg_dec<40>();
      if (threadIdx.x == 0) produce();
    } else {
      setmaxnreg_inc<232>();
      grid_dependency_wait();
      consume(warp_id() / 4 - 1);
    }
    // A block's memory and barriers serve its neighbour until both are done.
    cluster_sync();
  }
};

}  // namespace gemm

template <class T, int BN, int STAGES, bool GATED, u32 CLUSTER>
__device__ void gemm_wgmma(const WgmmaGemmParams& p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  gemm::Wgmma<T, BN, STAGES, GATED, CLUSTER>(p, shared).run();
}
