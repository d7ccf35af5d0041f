// gated.cu: out = act(gate) * up
// shapes    gate_up [rows, 2 * width] T, gate in the first half of a row, with stride; out [rows,
//           width] T with stride. act: 0 SiLU, 1 GELU by tanh, 2 GELU by erf
// launch    grid (rows, ceil(width / V / 256)), block 256, no shared memory
// tiles     V numbers a thread: 8 (16 bytes; width, strides % 8 == 0, 16-byte aligned), or 1
// traffic   reads rows * width * 4, writes rows * width * 2
// bound     memory; one exponential per 6 bytes
// numerics  f32 throughout, rounded once; the exponential's relative error is 2^-22
// needs     sm_80
// why       the GEMM's epilogue does this where gate and up come from one tile; this form serves the
//           rest (quantised weights, small tiles).
#include "activation.cuh"

template <class T, int V>
__device__ void gated(const GatedParams& p) {
  grid_dependency_wait();
  const u32 at = (blockIdx.y * blockDim.x + threadIdx.x) * V;
  if (at >= p.width) return;
  const u64 row = blockIdx.x;
  const T* gate = pointer<const T>(p.gate_up) + row * p.gate_up_stride + at;
  f32 g[V], u[V];
  unpack(load<T, V>(gate), g);
  unpack(load<T, V>(gate + p.width), u);
#pragma unroll
  for (int i = 0; i < V; i++) g[i] = activate(p.act, g[i]) * u[i];
  store(pointer<T>(p.out) + row * p.out_stride + at, packed<T>(g));
}
