// Tiles handed from thread to thread through global memory: written by threads, read back by the
// asynchronous engine (the pattern of a fused kernel that loads by TMA what it wrote itself).
//
// Formula  y[128·t + i] = 2 · x[128·t + (i + 1) mod 128], zero where x ends.
// Shapes   x, y [n] f32, scratch [blocks, 128] f32; n ≥ 1.
// Launch   grid (any), block 128: one thread per element of a tile, tiles in turn.
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(128)
relay(const float* __restrict__ x, float* scratch, float* __restrict__ y, int n) {
  __shared__ alignas(128) float stage[128];
  __shared__ alignas(8) uint64_t full;
  const int i = threadIdx.x;
  const uint32_t bar = smem_addr(&full);
  if (i == 0) {
    mbarrier_init(bar, 1);
    fence_barrier_init();
  }
  __syncthreads();
  float* mine = scratch + blockIdx.x * 128;
  uint32_t parity = 0;
  for (int tile = blockIdx.x * 128; tile < n; tile += gridDim.x * 128, parity ^= 1) {
    mine[i] = tile + i < n ? 2 * x[tile + i] : 0;
    fence_proxy_async_global();
    __syncthreads();
    if (i == 0) {
      mbarrier_expect_tx(bar, 512);
      bulk_load(smem_addr(stage), mine, 512, bar);
    }
    mbarrier_wait(bar, parity);
    if (tile + i < n) y[tile + i] = stage[(i + 1) % 128];
  }
}
