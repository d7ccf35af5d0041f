// Inclusive prefix sums in one pass by decoupled look-back (Merrill and Garland, "Single-pass
// Parallel Prefix Scan with Decoupled Look-back", 2016).
//
// Formula  y[i] = Σ_{j ≤ i} x[j], in 32-bit integers.
// Shapes   x, y [n] i32; state of ⌈n/128⌉ tiles: sums, prefixes i32, flags i32 zeroed;
//          ticket [1] u32 zeroed.
// Launch   grid (⌈n/128⌉), block 128: a tile a block, in the order in which blocks begin.
#include "ptx.cuh"

__device__ inline void publish(int* flag, int value) {
  asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}

__device__ inline int look(const int* flag) {
  int value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}

extern "C" __global__ void __launch_bounds__(128)
scan(const int* __restrict__ x, int* y, int* sums, int* prefixes, int* flags, unsigned* ticket,
     int n) {
  __shared__ int partial[128];
  __shared__ int tile, before;
  const int t = threadIdx.x;
  if (t == 0) tile = atomicAdd(ticket, 1u);
  __syncthreads();
  const int i = tile * 128 + t;
  int sum = i < n ? x[i] : 0;
  partial[t] = sum;
  for (int o = 1; o < 128; o *= 2) {
    __syncthreads();
    const int other = t >= o ? partial[t - o] : 0;
    __syncthreads();
    sum += other;
    partial[t] = sum;
  }
  if (t == 127) {
    int found = 0;
    if (tile > 0) {
      sums[tile] = sum;
      publish(&flags[tile], 1);
      for (int p = tile - 1;; --p) {
        int flag;
        do flag = look(&flags[p]);
        while (flag == 0);
        if (flag == 2) {
          found += prefixes[p];
          break;
        }
        found += sums[p];
      }
    }
    prefixes[tile] = found + sum;
    publish(&flags[tile], 2);
    before = found;
  }
  __syncthreads();
  if (i < n) y[i] = before + sum;
}
