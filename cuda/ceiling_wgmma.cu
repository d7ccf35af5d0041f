// ceiling_wgmma.cu: what a card's wgmma reaches when nothing else is asked of it
//
// formula   out[thread] = sum of the thread's numbers of a * b^T, added to itself 4 * rounds times
// shapes    x: a as 64 rows of 64 numbers, all that is needed: b is a's 64 rows four times
// launch    any grid, block 256: two warpgroups, dynamic shared memory kShared (in the registry)
// tiles     m64n256k16 products of one panel of 64 columns in shared memory, four of them a round
// traffic   x once
// bound     tensor cores
// numerics  the results are there so that nothing can be left out; checks compare them
// needs     sm_90a
// why       as ceiling.cu
#include "number.cuh"
#include "ptx_sm90.cuh"
#include "tile.cuh"

namespace ceiling {

constexpr u32 kShared = 1024 + 256 * tile::kRow;

}  // namespace ceiling

template <class T>
__device__ void ceiling_wgmma(const CeilingParams& p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  const u32 panel = (smem_addr(shared) + 1023) / 1024 * 1024;
  const uint4* x = pointer<const uint4>(p.x);
  for (u32 n = threadIdx.x; n < 256 * 8; n += blockDim.x)
    st_shared(panel + tile::piece(n / 8, n % 8), x[n % (64 * 8)]);
  fence_proxy_async();
  __syncthreads();
  f32 d[32][4];
  for (u32 round = 0; round < p.rounds; round++) {
    wgmma_fence();
#pragma unroll
    for (u32 k = 0; k < 4; k++)
      wgmma<T, 256>(d, wgmma_panel(panel + k * 32), wgmma_panel(panel + k * 32), round + k);
    wgmma_commit();
    wgmma_wait<1>();
  }
  wgmma_wait<0>();
  f32 sum = 0.0f;
#pragma unroll
  for (u32 j = 0; j < 32; j++)
#pragma unroll
    for (u32 v = 0; v < 4; v++) sum += d[j][v];
  pointer<f32>(p.out)[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
