// add.cu: x += y, the residual stream where no norm follows to do it
// shapes    x, y [rows, width] T with strides
// launch    grid (rows, ceil(width / V / 256)), block 256, no shared memory
// tiles     V numbers a thread: 8 (16 bytes; width, strides % 8 == 0, 16-byte aligned), or 1
// traffic   reads rows * width * 4, writes rows * width * 2
// bound     memory
// numerics  f32 sum, rounded once
// needs     sm_80
// why       rmsnorm.cu does this on its way; this form serves what no norm reads next.
#include "number.cuh"

template <class T, int V>
__device__ void add_rows(const AddParams& p) {
  grid_dependency_wait();
  const u32 at = (blockIdx.y * blockDim.x + threadIdx.x) * V;
  if (at >= p.width) return;
  T* x = pointer<T>(p.x) + static_cast<u64>(blockIdx.x) * p.x_stride + at;
  const T* y = pointer<const T>(p.y) + static_cast<u64>(blockIdx.x) * p.y_stride + at;
  f32 a[V], b[V];
  unpack(load<T, V>(x), a);
  unpack(load<T, V>(y), b);
#pragma unroll
  for (int i = 0; i < V; i++) a[i] += b[i];
  store(x, packed<T>(a));
}
