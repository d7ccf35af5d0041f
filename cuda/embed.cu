// embed.cu: out[t] = scale * table[token[t]]
// shapes    table [vocab, width] T, dense; token [rows] u32; out [rows, width] T with stride
// launch    grid (rows, ceil(width / V / 256)), block 256, no shared memory
// tiles     V numbers a thread: 8 (16 bytes; width, out_stride % 8 == 0, 16-byte aligned), or 1
// traffic   unique: reads rows * width * 2 (rows named twice once) + rows * 4, writes rows * width * 2
// bound     memory; 1 FLOP per 4 bytes
// numerics  one f32 product, rounded once
// needs     sm_80. Tokens are below vocab: who makes them sees to that
// why       a copy with a product in flight; a block per row and chunk keeps batch 1 on several SMs.
#include "number.cuh"

template <class T, int V>
__device__ void embed(const EmbedParams& p) {
  grid_dependency_wait();
  const u32 at = (blockIdx.y * blockDim.x + threadIdx.x) * V;
  if (at >= p.width) return;
  const u64 token = pointer<const u32>(p.tokens)[blockIdx.x];
  Pack<T, V> x = load<T, V>(pointer<const T>(p.table) + token * p.width + at);
  f32 v[V];
  unpack(x, v);
#pragma unroll
  for (int i = 0; i < V; i++) v[i] *= p.scale;
  store(pointer<T>(p.out) + static_cast<u64>(blockIdx.x) * p.out_stride + at, packed<T>(v));
}
