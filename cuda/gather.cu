// gather.cu: out[r] = x[index[r]], the rows whose logits are wanted
// shapes    x [any, width] T with stride; index [rows] u32; out [rows, width] T with stride
// launch    grid (rows, ceil(width / V / 256)), block 256, no shared memory
// tiles     V numbers a thread: 8 (16 bytes; width, strides % 8 == 0, 16-byte aligned), or 1
// traffic   reads rows * width * 2 + rows * 4, writes rows * width * 2
// bound     memory
// numerics  a copy, bit for bit
// needs     sm_80
// why       the vocabulary's product runs over the last token of each sequence alone.
#include "number.cuh"

template <class T, int V>
__device__ void gather(const GatherParams& p) {
  grid_dependency_wait();
  const u32 at = (blockIdx.y * blockDim.x + threadIdx.x) * V;
  if (at >= p.width) return;
  const u64 row = pointer<const u32>(p.index)[blockIdx.x];
  const Pack<T, V> x = load<T, V>(pointer<const T>(p.x) + row * p.x_stride + at);
  store(pointer<T>(p.out) + static_cast<u64>(blockIdx.x) * p.out_stride + at, x);
}
