// softcap.cu: x = cap * tanh(x / cap) in place
// shapes    x [rows, width] f32, bf16 or f16, with stride
// launch    grid (rows, ceil(width / V / 256)), block 256, no shared memory
// tiles     V numbers a thread: 16 bytes (width, stride % V == 0, 16-byte aligned), or 1
// traffic   reads and writes rows * width * sizeof(T)
// bound     memory
// numerics  tanh by one exponential, |error| <= cap * 1e-6; f32 throughout
// needs     sm_80
// why       Gemma 2 caps its logits; the attention kernels cap scores on their own.
#include "activation.cuh"

template <class T, int V>
__device__ void softcap(const SoftcapParams& p) {
  grid_dependency_wait();
  const u32 at = (blockIdx.y * blockDim.x + threadIdx.x) * V;
  if (at >= p.width) return;
  T* x = pointer<T>(p.x) + static_cast<u64>(blockIdx.x) * p.stride + at;
  f32 v[V];
  unpack(load<T, V>(x), v);
#pragma unroll
  for (int i = 0; i < V; i++) v[i] = p.cap * tanh_fast(v[i] / p.cap);
  store(x, packed<T>(v));
}
