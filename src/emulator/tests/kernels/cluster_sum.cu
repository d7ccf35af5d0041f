// Row sums over a cluster of two blocks that exchange partial sums in distributed shared memory.
//
// Formula  y[r] = Σ_i x[r][i].
// Shapes   x [rows, n] f32, y [rows] f32.
// Launch   grid (2·rows), block 128, cluster 2: block rank c of row r takes every second chunk of
//          128 elements. Rank 1 sends its sum to rank 0; neither leaves before both are done.
#include "ptx.cuh"

__device__ inline uint32_t cluster_rank() {
  uint32_t r;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}

__device__ inline void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                   : "memory");
}

__device__ inline void store_to_rank(const void* local, uint32_t rank, float value) {
  uint32_t remote;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(remote)
               : "r"(smem_addr(local)), "r"(rank));
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(remote), "f"(value) : "memory");
}

extern "C" __global__ void __launch_bounds__(128) __cluster_dims__(2, 1, 1)
cluster_sum(const float* __restrict__ x, float* y, int n) {
  __shared__ float partial[4];
  __shared__ float received;
  const uint32_t rank = cluster_rank();
  const int row = blockIdx.x / 2;
  float sum = 0;
  const float* from = x + static_cast<size_t>(row) * n;
  for (int i = rank * 128 + threadIdx.x; i < n; i += 256) sum += from[i];
  for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(~0u, sum, o);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = partial[0] + partial[1] + partial[2] + partial[3];
  // The peer must have started before its shared memory may be written.
  cluster_sync();
  if (rank == 1 && threadIdx.x == 0) store_to_rank(&received, 0, sum);
  cluster_sync();
  if (rank == 0 && threadIdx.x == 0) y[row] = sum + received;
}
