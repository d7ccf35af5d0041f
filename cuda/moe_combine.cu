// moe_combine.cu: out[t] = sum over j of shares[t][j] * y[places[t][j]]
// shapes    y [rows * top_k, width] T with stride; places u32, shares f32 [rows, top_k]; out [rows,
//           width] T with stride
// launch    grid (rows, ceil(width / V / 256)), block 256, no shared memory
// tiles     V numbers a thread: 8 (16 bytes; width, strides % 8 == 0, 16-byte aligned), or 1
// traffic   reads rows * top_k * (width * 2 + 8), writes rows * width * 2
// bound     memory
// numerics  f32, j from 0 up, rounded once
// needs     sm_80
// why       a sum in a fixed order; scattering with atomics from the products would not have one.
#include "number.cuh"

template <class T, int V>
__device__ void moe_combine(const MoeCombineParams& p) {
  grid_dependency_wait();
  const u32 at = (blockIdx.y * blockDim.x + threadIdx.x) * V;
  if (at >= p.width) return;
  const u64 row = blockIdx.x;
  const u32* places = pointer<const u32>(p.places) + row * p.top_k;
  const f32* shares = pointer<const f32>(p.shares) + row * p.top_k;
  f32 sum[V] = {};
  for (u32 j = 0; j < p.top_k; j++) {
    f32 y[V];
    unpack(load<T, V>(pointer<const T>(p.y) + static_cast<u64>(places[j]) * p.y_stride + at), y);
#pragma unroll
    for (int i = 0; i < V; i++) sum[i] = fmaf(shares[j], y[i], sum[i]);
  }
  store(pointer<T>(p.out) + row * p.out_stride + at, packed<T>(sum));
}
