// grouped_gemm.cu: gemm.cu for the rows of every expert of a mixture in one launch
//
// formula   for every expert e and row r of offsets[e] .. offsets[e + 1]:
//           y[r] = x[gather[r]] * w[e]^T, or gated as in gemm.cu
// shapes    x [rows, k] T; w [experts] addresses of [n, k] or [2n, k] T; y [m, n] T or f32
// launch    grid (ceil(n / OUT), slots) with slots >= the tiles of BM rows that the experts have; the
//           bound min(m, ceil(m / BM) + experts) always holds, blocks beyond the tiles end at once.
//           block and dynamic shared memory as gemm.cu
// tiles     as gemm.cu; a tile holds rows of one expert
// traffic   unique: weights of the experts that have rows, x, y; issued: x once for every tile of
//           columns, an expert's weights once for every tile of its rows
// bound     memory while an expert has fewer than 200 rows or so
// numerics  as gemm.cu: a row's bits do not depend on the other rows, nor on its place among them
// needs     sm_80
// why       offsets are found on the device, so the host never waits for the router; a search over
//           the offsets by one warp's scan costs less than a launch per expert.
#include "gemm.cuh"

namespace gemm {

// Which expert's tile slot `slot` is: false beyond the last.
struct Group {
  u32 expert, first, rows, tile;

  template <u32 BM>
  __device__ bool find(const u32* offsets, u32 experts, u32 slot) {
    u32 before = 0;  // tiles of the experts before this round of 32
    for (u32 base = 0; base < experts; base += 32) {
      const u32 e = base + lane_id();
      const u32 begin = e < experts ? offsets[e] : 0, end = e < experts ? offsets[e + 1] : 0;
      const u32 tiles = (end - begin + BM - 1) / BM;
      u32 sum = tiles;
#pragma unroll
      for (u32 step = 1; step < 32; step *= 2) {
        const u32 other = __shfl_up_sync(~0u, sum, step);
        if (lane_id() >= step) sum += other;
      }
      const u32 hit = __ballot_sync(~0u, before + sum > slot);
      if (hit) {
        const u32 lane = __ffs(hit) - 1;
        expert = base + lane;
        first = __shfl_sync(~0u, begin, lane);
        rows = __shfl_sync(~0u, end, lane) - first;
        tile = slot - (before + __shfl_sync(~0u, sum - tiles, lane));
        return true;
      }
      before += __shfl_sync(~0u, sum, 31);
    }
    return false;
  }
};

}  // namespace gemm

template <class T, int BM, int BN, int WM, int WN, int STAGES, bool GATED>
__device__ void grouped_gemm_mma(const GroupedGemmParams& p) {
  using C = gemm::Config<BM, BN, WM, WN, STAGES, GATED>;
  grid_dependency_wait();
  gemm::Group group = {};
  if (!group.find<BM>(pointer<const u32>(p.offsets), p.experts, blockIdx.y)) return;
  GemmParams q = p.gemm;
  q.w = pointer<const u64>(q.w)[group.expert];
  q.m = group.rows;
  q.y += static_cast<u64>(group.first) * q.y_stride * (q.out_f32 ? 4 : sizeof(T));
  const u32* gather = nullptr;
  if (p.gather) gather = pointer<const u32>(p.gather) + group.first;
  else q.x += static_cast<u64>(group.first) * q.x_stride * sizeof(T);
  gemm::run<T, C, false>(q, group.tile * BM, blockIdx.x * C::kOut, gather);
}
